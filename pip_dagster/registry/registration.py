"""From a foreign model file and a sample to everything a version holds."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypedDict

from pydantic import ValidationError

from pip_dagster.errors import RegistryError
from pip_dagster.registry import engines, sandbox
from pip_dagster.registry import sample as samples
from pip_dagster.registry.calibration import Calibration
from pip_dagster.registry.engines.protocol import SignatureClaims
from pip_dagster.registry.errors import InvalidModel, ModelNotFound, SignatureMismatch
from pip_dagster.registry.files import sha256, write_synced
from pip_dagster.registry.manifest import Description, Manifest, Origin
from pip_dagster.registry.members import Resolved
from pip_dagster.registry.training_scores import TrainingScores, training_source
from pip_dagster.registry.version import GOLDEN_FILE

ManifestOf = Callable[[int, dict[str, str]], Manifest]


class Statements(TypedDict, total=False):
    """What `Registry.register` and `Registry.compose` take beside the model.

    `by`: who registers, else the user of this process. `training_window`: the first and the last instant of the
    training rows. `calibration`: how the score becomes a probability. `outcome`: the column of the sample that holds
    what came of its rows, to measure the version by; only with `held_out`, which states that the model was not trained,
    tuned or calibrated on these rows: True for the rows of the sample, or other rows in the form of a sample.
    """

    by: str
    description: str
    metrics: Mapping[str, float] | None
    training_window: tuple[str, str] | None
    tags: Mapping[str, str] | None
    calibration: Calibration | Mapping[str, object] | None
    outcome: str | None
    held_out: bool | samples.Sample


class ModelStatements(Statements, total=False):
    """The statements about one model, as the training program knows them.

    `categories`: of each category feature, the list in the order of the codes. `classes`: a classifier's labels, in
    order. `feature_names`: those of a Booster that was trained without. `missing`: a number that training counted as a
    missing value (`DMatrix(missing=-999)`). `offset`: the column of the base margin, in its units; the sample and the
    features of a pipeline must have it. `training_scores`: what `predict` gave in training for the rows of the sample,
    in their order: a column of the sample, one for each class, a Parquet file, or an array. The version is refused if
    its own scores differ.
    """

    categories: Mapping[str, Sequence[object]] | None
    classes: Sequence[str] | None
    feature_names: Sequence[str] | None
    missing: float | None
    offset: str | None
    training_scores: TrainingScores | None


@dataclass(frozen=True)
class Claims:
    """What the person who registers states about a model; lists and labels are checked against the model file."""

    name: str
    by: str
    description: str = ""
    metrics: Mapping[str, float] | None = None
    training_window: tuple[str, str] | None = None
    tags: Mapping[str, str] | None = None
    calibration: Calibration | Mapping[str, object] | None = None
    outcome: str | None = None
    held_out: bool | samples.Sample = False
    categories: Mapping[str, Sequence[object]] | None = None
    classes: Sequence[str] | None = None
    feature_names: Sequence[str] | None = None
    missing: float | None = None
    offset: str | None = None
    training_scores: TrainingScores | None = None
    registered_at: datetime | None = None
    origin: Origin | None = None

    @property
    def signature(self) -> SignatureClaims:
        """The claims that the engine checks."""
        lists = self.categories or {}
        if self.missing is not None and not math.isfinite(self.missing):
            # NaN is missing to every model; infinite values are never scored.
            raise SignatureMismatch(f"{self.name}: missing is {self.missing}; give a finite number, or omit it")
        return SignatureClaims(
            missing=self.missing,
            offset=self.offset,
            feature_names=None if self.feature_names is None else tuple(self.feature_names),
            categories={feature: tuple(map(str, values)) for feature, values in lists.items()},
            classes=None if self.classes is None else tuple(map(str, self.classes)),
        )

    @property
    def outcomes(self) -> str | None:
        """The column of the held-out outcomes.

        Raises:
            RegistryError: outcomes of rows that may be training's, or held-out rows without outcomes.
        """
        if self.outcome is not None and self.held_out is False:
            raise RegistryError(
                f"{self.name}: the outcome {self.outcome!r} is given without the statement that the sample's rows are "
                "held out. On rows of its training a model is better than on others. Give held-out rows "
                "(--held-out-sample, held_out=...), or state that training, tuning and calibration never saw those of "
                "the sample (--held-out, held_out=True); otherwise omit the outcome"
            )
        if self.outcome is None and self.held_out is not False:
            raise RegistryError(
                f"{self.name}: held-out rows are given, and no outcome; name their column that holds it (--outcome, "
                "outcome=...), or omit them"
            )
        return self.outcome

    def described(self) -> Description:
        """The claims that only go into the manifest."""
        try:
            return Description(
                registered_at=self.registered_at or datetime.now(UTC),
                registered_by=self.by,
                description=self.description,
                metrics=dict(self.metrics or {}),
                training_window=self.training_window,
                tags=dict(self.tags or {}),
                calibration=self.calibration,
                origin=self.origin,
            )
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            raise RegistryError(f"{self.name}: {where}: {first['msg']}; got {first['input']!r}") from error


def prepare(staged: Path, model: Path, sample: samples.Sample, claims: Claims, seconds: float) -> ManifestOf:
    """Fill `staged` with the model file and golden.parquet; return a function that builds the manifest.

    The model is loaded in the probe's process only.

    Raises:
        RegistryError: see `Registry.register`.
    """
    description, outcome = claims.described(), claims.outcomes
    data = _model_bytes(model)
    engine, kind = engines.detect(data, model)
    work = staged / "work"
    work.mkdir()
    target = staged / f"model{engine.suffix}"
    source = target if f".{kind}" == engine.suffix else work / f"model.{kind}"
    write_synced(source, data)
    request = {
        "engine": engine.name,
        "model": source,
        "convert_to": None if source == target else target,
        "claims": claims.signature,
        "calibration": description.calibration,
        "training": training_source(claims.training_scores, work),
        "outcome": outcome,
    }
    report = _examined(staged, sample, claims, seconds, request)
    if sha256(target.read_bytes()) != report.model_sha256:
        raise InvalidModel(
            f"{claims.name}: the file changed while it was examined; try again once nothing writes to {model}"
        )
    shutil.rmtree(staged / "work")
    return _manifest(claims.name, description, report)


def prepare_composite(
    staged: Path, resolved: Resolved, sample: samples.Sample, claims: Claims, seconds: float
) -> ManifestOf:
    """Fill `staged` with the members' model files and golden.parquet; return a function that builds the manifest.

    Raises:
        RegistryError: see `Registry.compose`.
    """
    description, outcome = claims.described(), claims.outcomes
    (staged / "work").mkdir()
    for member, origin in zip(resolved.composite.members, resolved.origins, strict=True):
        write_synced(staged / member.file, origin.model_bytes())
    request = {"model": staged, "composite": resolved.composite, "calibration": description.calibration}
    request |= {"outcome": outcome}
    report = _examined(staged, sample, claims, seconds, request)
    for member, origin in zip(resolved.composite.members, resolved.origins, strict=True):
        if sha256((staged / member.file).read_bytes()) != origin.digest:
            raise InvalidModel(f"{claims.name}: {member.file} changed while it was examined; try again")
    shutil.rmtree(staged / "work")
    return _manifest(claims.name, description, report)


def _examined(
    staged: Path, sample: samples.Sample, claims: Claims, seconds: float, request: Mapping[str, Any]
) -> sandbox.ProbeReport:
    work = staged / "work"
    table = samples.stage(sample, work / "sample.arrow")
    common: dict[str, Any] = {"name": claims.name, "sample": table, "golden": staged / GOLDEN_FILE}
    common["cpu_seconds"] = int(seconds) + 1
    common["nonce"] = claims.origin is None  # every mirror of MLflow's version has one manifest
    if not isinstance(claims.held_out, bool):
        common["held_out"] = samples.stage(claims.held_out, work / "held_out.arrow")
    return sandbox.run(sandbox.ProbeRequest(**common, **request), work, seconds)


def _manifest(name: str, description: Description, report: sandbox.ProbeReport) -> ManifestOf:
    if description.calibration and len(report.signature.outputs) > 1:
        raise SignatureMismatch(
            f"{name}: a calibration is for a model of one output; this one has {', '.join(report.signature.outputs)}"
        )

    def manifest(version: int, files: dict[str, str]) -> Manifest:
        return Manifest(
            **dict(report.signature),
            **dict(description),
            model_name=name,
            version=version,
            files=files,
            feature_reference=report.feature_reference,
            score_reference=report.score_reference,
            training_check=report.training_check,
            held_out=report.held_out,
        )

    return manifest


def _model_bytes(model: Path) -> bytes:
    try:
        if model.exists() and not model.is_file():  # a pipe would block for ever
            raise ModelNotFound(f"the model file {model} is not a file; check the path")
        return model.read_bytes()
    except OSError as error:
        raise ModelNotFound(f"cannot read the model file {model} ({error.strerror}); check the path") from error
