"""An MLflow registry behind the folder's interface: MLflow decides which version an alias names, the folder keeps it.

A version is mirrored when it is first requested: its bytes are downloaded, examined in the probe like any foreign file,
and stored as an immutable version with MLflow's own number. From then on replay, lineage and rollback need the folder
alone. Each later request compares MLflow's bytes with the mirror's.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import FiniteFloat, ValidationError

from pip_dagster import clock
from pip_dagster.declaration.model_names import check_alias, check_model_name, parse_ref
from pip_dagster.errors import RegistryError
from pip_dagster.registry.aliases import ANYWHERE, AliasChange, Anywhere, moved_meanwhile, rollback_of
from pip_dagster.registry.booster_signature import Record
from pip_dagster.registry.calibration import Calibration
from pip_dagster.registry.errors import AliasConflict, DigestMismatch, MixedRegistry, ModelNotFound
from pip_dagster.registry.files import sha256
from pip_dagster.registry.manifest import Origin
from pip_dagster.registry.mlflow_source import CLAIMS_FILE, DIGEST_TAG, FOLDER, MlflowSource, alias_tag
from pip_dagster.registry.publish import publish, read_version, staging, version_numbers
from pip_dagster.registry.store import Registry
from pip_dagster.registry.version import ModelVersion

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion as MlflowVersion

TIME_LIMIT = 300.0


class LoggedClaims(Record):
    """`pip_dagster/claims.json`: the options of `models register`, logged by the training script.

    `training_scores`: the columns of the logged sample that hold them; `outcome`: its column of held-out outcomes.
    """

    categories: dict[str, list[str]] = {}
    classes: list[str] | None = None
    feature_names: list[str] | None = None
    calibration: Calibration | None = None
    training_window: tuple[str, str] | None = None
    missing: FiniteFloat | None = None
    offset: str | None = None
    training_scores: str | list[str] | None = None
    outcome: str | None = None
    held_out: bool = False


class MlflowRegistry:
    """The models of an MLflow registry; those that were used are mirrored under `root`."""

    def __init__(self, root: Path, source: MlflowSource) -> None:
        self._mirror = Registry(root)
        self._source = source

    @property
    def root(self) -> Path:
        """The folder of the mirror."""
        return self._mirror.root

    def models(self) -> list[str]:
        """The models in the folder."""
        return self._mirror.models()

    def versions(self, name: str) -> list[ModelVersion]:
        """The versions that were mirrored, oldest first."""
        return self._mirror.versions(name)

    def get(self, name: str, ref: int | str) -> ModelVersion:
        """The version that `ref` names in MLflow, mirrored if it was not yet.

        Raises:
            DigestMismatch: MLflow's bytes are no longer those that were registered.
            InvalidSample: no sample was logged.
            MixedRegistry: the folder's versions of this model were not mirrored from MLflow.
            ModelNotFound: MLflow has no such model, version or alias.
            RegistryError: as `Registry.register`.
            RegistryUnreachable: MLflow does not answer.
            UnsafeModelFile: the model is of another flavor.
        """
        wanted = parse_ref(ref)
        if isinstance(wanted, int):
            return self._mirrored(self._source.version(check_model_name(name), wanted))
        version = self._source.aliased(check_model_name(name), wanted)
        if version is None:
            raise ModelNotFound(
                f"MLflow at {self._source.name} has no alias {wanted!r} of {name}; set it with `pip-dagster models "
                f"promote models:/{name} VERSION --alias {wanted}`, or in MLflow"
            )
        mirrored = self._mirrored(version)
        self._note(name, wanted, version)
        return mirrored

    def alias(self, name: str, alias: str) -> int | None:
        """The version that MLflow's alias names now, None when it is not set."""
        version = self._source.aliased(check_model_name(name), check_alias(alias))
        return None if version is None else int(version.version)

    def aliases(self, name: str) -> dict[str, int]:
        """Every alias, as the mirror last saw it."""
        return self._mirror.aliases(name)

    def alias_history(self, name: str, alias: str | None = None) -> list[AliasChange]:
        """The moves made or seen from here, oldest first; a named alias is looked up in MLflow first."""
        if alias is not None and self.alias(name, alias) is not None:
            self.get(name, alias)
        return self._mirror.alias_history(name, alias)

    def set_alias(
        self,
        name: str,
        alias: str,
        version: int,
        *,
        by: str,
        why: str,
        expect: int | None | Anywhere = ANYWHERE,
        rollback_id: str | None = None,
    ) -> AliasChange:
        """Point MLflow's alias at a version, and add the move to the mirror's history.

        MLflow has no compare-and-swap: a move there in the same instant can be overwritten; an earlier one is noticed.

        Raises:
            AliasConflict: the alias does not point at `expect`.
            RegistryBusy: another process holds the model's lock.
            RegistryError: as `get`.
        """
        self.get(name, version)
        current = self.alias(name, alias)
        if current is not None and current != version:
            self.get(name, alias)  # a move in MLflow precedes this one in the history
        if not isinstance(expect, Anywhere) and current != expect:
            raise AliasConflict(moved_meanwhile(f"{name}: MLflow's alias {alias!r}", current, expect, version))
        if current != version:
            record = {"by": by, "why": why, "rollback_id": rollback_id, "at": clock.now().isoformat()}
            self._source.set_alias(name, alias, version, json.dumps(record, ensure_ascii=False))
        return self._mirror.set_alias(name, alias, version, by=by, why=why, rollback_id=rollback_id)

    def _note(self, name: str, alias: str, version: MlflowVersion) -> None:
        """Record a move that the mirror's history lacks: made in MLflow, or by a promotion that was killed."""
        history, number = self._mirror.alias_history(name, alias), int(version.version)
        if history and history[-1].version == number:
            return
        by, why = "MLflow", f"found at v{number} in MLflow; no gate was run"
        rollback_id = None
        try:
            recorded = json.loads(version.tags[alias_tag(alias)])
            # An older record is about an earlier time at which the alias pointed here.
            if not history or datetime.fromisoformat(recorded["at"]) > history[-1].at:
                by, why = str(recorded["by"]), str(recorded["why"])
                rollback_id = recorded["rollback_id"] if "rollback_id" in recorded else rollback_of(why)
        except (KeyError, ValueError, TypeError):
            pass
        self._mirror.set_alias(name, alias, number, by=by, why=why, rollback_id=rollback_id)

    def _mirrored(self, version: MlflowVersion) -> ModelVersion:
        name, number = check_model_name(version.name), int(version.version)
        uri, folder = f"models:/{name}/{number}", self.root / name
        known = read_version(folder, number) if number in version_numbers(folder) else None
        if known is not None and known.manifest.origin is None:
            raise MixedRegistry(
                f"{uri}: {known.path} was registered here, not mirrored from MLflow; give the model another name in "
                "MLflow"
            )
        with tempfile.TemporaryDirectory(prefix="pip-dagster-") as work:
            model = self._source.fetch_model(version, Path(work) / "model")
            digest = sha256(model.read_bytes())
            registered = version.tags.get(DIGEST_TAG)
            if known is not None and known.manifest.origin is not None:
                registered = known.manifest.origin.model_sha256
            if registered not in (None, digest):
                raise DigestMismatch(uri, f"{model.name} in MLflow's artifacts", registered, digest)
            if known is not None:
                return known
            return self._mirror_new(version, model, Origin(uri=uri, run_id=version.run_id or None, model_sha256=digest))

    def _mirror_new(self, version: MlflowVersion, model: Path, origin: Origin) -> ModelVersion:
        from pip_dagster.registry.registration import Claims, prepare

        work = model.parent.with_name("extra")
        logged = self._claims(version, work)
        name, number = version.name, int(version.version)
        claims = Claims(
            name,
            categories=logged.categories,
            classes=logged.classes,
            feature_names=logged.feature_names,
            missing=logged.missing,
            offset=logged.offset,
            training_scores=logged.training_scores,
            outcome=logged.outcome,
            held_out=logged.held_out,
            by=version.user_id or "MLflow",
            description=version.description or "",
            metrics=self._source.metrics(version),
            training_window=logged.training_window,
            tags={key: str(value) for key, value in version.tags.items() if not key.startswith("pip_dagster.")},
            calibration=logged.calibration,
            registered_at=datetime.fromtimestamp(version.creation_timestamp / 1000, UTC),
            origin=origin,
        )
        sample = self._source.sample(version, work)
        with staging(self.root / name) as staged:
            try:
                manifest = prepare(staged, model, sample, claims, TIME_LIMIT)
            except RegistryError as error:
                raise type(error)(
                    f"{origin.uri}: {error}\nWhat the model file does not say, such as categories and offset, is in "
                    f"{FOLDER}/{CLAIMS_FILE} among the run's artifacts."
                ) from error
            return publish(self.root / name, staged, manifest, mirrored_as=number)

    def _claims(self, version: MlflowVersion, work: Path) -> LoggedClaims:
        path = self._source.fetch_extra(version, CLAIMS_FILE, work)
        if path is None:
            return LoggedClaims()
        try:
            return LoggedClaims.model_validate_json(path.read_bytes())
        except ValidationError as error:
            first: Mapping[str, Any] = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            raise RegistryError(
                f"models:/{version.name}/{version.version}: {FOLDER}/{CLAIMS_FILE}: {where}: {first['msg']}; expected "
                f"an object with any of {', '.join(LoggedClaims.model_fields)}"
            ) from error
