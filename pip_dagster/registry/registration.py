"""From a foreign model file and a sample to everything a version holds."""

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from pydantic import ValidationError

from pip_dagster.errors import RegistryError
from pip_dagster.registry import model_file, sandbox
from pip_dagster.registry import sample as samples
from pip_dagster.registry.calibration import Calibration
from pip_dagster.registry.composition import Resolved
from pip_dagster.registry.errors import InvalidModel, ModelNotFound, SignatureMismatch
from pip_dagster.registry.files import sha256, write_synced
from pip_dagster.registry.manifest import Description, Manifest, Origin
from pip_dagster.registry.version import GOLDEN_FILE, MODEL_FILE


@dataclass(frozen=True)
class Claims:
    """What the person who registers says about the model; lists and labels are checked against the Booster."""

    categories: Mapping[str, Sequence[object]]
    classes: Sequence[str] | None
    feature_names: Sequence[str] | None
    by: str
    description: str
    metrics: Mapping[str, float]
    training_window: tuple[str, str] | None
    tags: Mapping[str, str]
    calibration: Calibration | Mapping[str, object] | None = None
    registered_at: datetime | None = None
    origin: Origin | None = None


def prepare(
    name: str, staged: Path, model: Path, sample: samples.Sample, claims: Claims, seconds: float
) -> Callable[[int, dict[str, str]], Manifest]:
    """Fill ``staged`` with model.ubj and golden.parquet; return what builds the manifest.

    XGBoost is not loaded here, only in the probe. Raises RegistryError, see ``Registry.register``.
    """
    description = _description(name, claims)
    data = _read(model)
    kind = model_file.detect(data, model)
    work = staged / "work"
    work.mkdir()
    target = staged / MODEL_FILE
    source = target if kind == "ubj" else work / "model.json"
    write_synced(source, data if kind == "ubj" else data.lstrip())
    report = sandbox.run(
        sandbox.ProbeRequest(
            name=name,
            model=source,
            convert_to=None if source == target else target,
            sample=samples.stage(sample, work / "sample.arrow"),
            golden=staged / GOLDEN_FILE,
            feature_names=None if claims.feature_names is None else tuple(claims.feature_names),
            categories={feature: tuple(map(str, values)) for feature, values in claims.categories.items()},
            classes=None if claims.classes is None else tuple(map(str, claims.classes)),
            cpu_seconds=int(seconds) + 1,
        ),
        work,
        seconds,
    )
    if sha256(target.read_bytes()) != report.model_sha256:
        raise InvalidModel(f"{name}: the file changed while it was examined; try again once nothing writes to {model}")
    shutil.rmtree(work)
    return _manifest(name, description, report)


def _manifest(
    name: str, description: Description, report: sandbox.ProbeReport
) -> Callable[[int, dict[str, str]], Manifest]:
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
        )

    return manifest


def prepare_composite(
    name: str, staged: Path, resolved: Resolved, sample: samples.Sample, claims: Claims, seconds: float
) -> Callable[[int, dict[str, str]], Manifest]:
    """Fill ``staged`` with the members' model files and golden.parquet; return what builds the manifest.

    Raises RegistryError, see ``Registry.compose``.
    """
    description = _description(name, claims)
    work = staged / "work"
    work.mkdir()
    for member, origin in zip(resolved.composite.members, resolved.origins, strict=True):
        write_synced(staged / member.file, origin.model_bytes())
    report = sandbox.run(
        sandbox.ProbeRequest(
            name=name,
            model=staged,
            convert_to=None,
            sample=samples.stage(sample, work / "sample.arrow"),
            golden=staged / GOLDEN_FILE,
            feature_names=None,
            categories={},
            classes=None,
            composite=resolved.composite,
            cpu_seconds=int(seconds) + 1,
        ),
        work,
        seconds,
    )
    for member, origin in zip(resolved.composite.members, resolved.origins, strict=True):
        if sha256((staged / member.file).read_bytes()) != origin.digest:
            raise InvalidModel(f"{name}: {member.file} changed while it was examined; try again")
    shutil.rmtree(work)
    return _manifest(name, description, report)


def _read(model: Path) -> bytes:
    try:
        return model.read_bytes()
    except OSError as error:
        raise ModelNotFound(f"cannot read the model file {model} ({error.strerror}); check the path") from error


def _description(name: str, claims: Claims) -> Description:
    try:
        return Description(
            registered_at=claims.registered_at or datetime.now(UTC),
            registered_by=claims.by,
            description=claims.description,
            metrics=dict(claims.metrics),
            training_window=claims.training_window,
            tags=dict(claims.tags),
            calibration=claims.calibration,
            origin=claims.origin,
        )
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise RegistryError(f"{name}: {where}: {first['msg']}; got {first['input']!r}") from error
