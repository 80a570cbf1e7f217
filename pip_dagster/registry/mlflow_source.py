"""Reads an MLflow registry: which version an alias names, and its files. Nothing of them is ever executed.

MLflow is imported at the first request, so that other projects do not pay for it. Models are downloaded as files:
MLflow's own loaders run pickles and code that came with a model.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from pip_dagster.errors import RegistryError
from pip_dagster.registry.errors import InvalidModel, InvalidSample, ModelNotFound, RegistryUnreachable, UnsafeModelFile

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import FileInfo
    from mlflow.entities.model_registry import ModelVersion as MlflowVersion

# The folder in a run or a model for files that MLflow has no place for.
FOLDER = "pip_dagster"
SAMPLE_FILE = "sample.parquet"
CLAIMS_FILE = "claims.json"
DIGEST_TAG = "pip_dagster.model_sha256"
_MISSING = ("RESOURCE_DOES_NOT_EXIST", "NOT_FOUND")


@dataclass(frozen=True)
class MlflowSource:
    """One MLflow registry, by its URI: `sqlite:///path`, `http://…` or any other that MLflow accepts."""

    uri: str

    @property
    def name(self) -> str:
        """The URI without a password."""
        return _without_password(self.uri)

    def aliased(self, model: str, alias: str) -> MlflowVersion | None:
        """The version that an alias names, None if MLflow has no such alias.

        Raises:
            ModelNotFound: there is no such model.
            RegistryUnreachable: MLflow does not answer, as in every method here.
        """
        with self._asking(f"which version {model}@{alias} is") as missing:
            return self.client.get_model_version_by_alias(model, alias)
        assert missing
        with self._asking(f"the model {model}") as missing:
            self.client.get_registered_model(model)
            return None
        raise ModelNotFound(f"MLflow at {self.name} has no registered model {model!r}: {missing[0]}")

    def version(self, model: str, number: int) -> MlflowVersion:
        """A version by its number.

        Raises:
            ModelNotFound: there is no such version.
        """
        with self._asking(f"{model} version {number}") as missing:
            return self.client.get_model_version(model, str(number))
        raise ModelNotFound(f"MLflow at {self.name} has no models:/{model}/{number}: {missing[0]}")

    def metrics(self, version: MlflowVersion) -> dict[str, float]:
        """The metrics of the run that logged a version; none if it has no run, or the run was deleted."""
        if not version.run_id:
            return {}
        with self._asking(f"run {version.run_id}"):
            return dict(self.client.get_run(version.run_id).data.metrics)
        return {}

    def set_alias(self, model: str, alias: str, number: int, record: str) -> None:
        """Point MLflow's alias at a version; `record` (who and why) is stored first, as the version's tag."""
        with self._asking(f"to point {model}@{alias} at version {number}") as missing:
            self.client.set_model_version_tag(model, str(number), alias_tag(alias), record)
            self.client.set_registered_model_alias(model, alias, str(number))
            return
        raise ModelNotFound(f"MLflow at {self.name} has no models:/{model}/{number}: {missing[0]}")

    def fetch_model(self, version: MlflowVersion, folder: Path) -> Path:
        """The model's own file, downloaded into `folder`.

        Raises:
            InvalidModel: MLflow's folder is not a complete model.
            UnsafeModelFile: the model is of another flavor than XGBoost's.
        """
        import yaml

        uri = f"models:/{version.name}/{version.version}"
        described = self._download(place := self._place(version), PurePosixPath("MLmodel"), folder)
        if described is None:
            raise InvalidModel(f"{uri}: MLflow holds no MLmodel file of it; log it with mlflow.xgboost.log_model")
        try:
            found = yaml.safe_load(described.read_bytes())
            flavors = dict(found["flavors"])
            flavor = flavors.get("xgboost")
            file = flavor and PurePosixPath(flavor.get("data") or "model.xgb")
        except (yaml.YAMLError, KeyError, TypeError, ValueError, AttributeError) as error:
            raise InvalidModel(f"{uri}: its MLmodel file cannot be parsed ({error}); log the model again") from error
        if file is None:
            raise UnsafeModelFile(
                f"{uri} has flavor {', '.join(sorted(flavors))}, expected xgboost: such a model is a pickle or "
                "code, which is never loaded. Log the Booster itself: "
                'mlflow.xgboost.log_model(booster, name="model", model_format="ubj", registered_model_name='
                f'"{version.name}")'
            )
        if file.is_absolute() or ".." in file.parts:
            raise InvalidModel(f"{uri}: its MLmodel names the file {str(file)!r}, which is not inside the model")
        model = self._download(place, file, folder)
        if model is None or not model.is_file():
            raise InvalidModel(
                f"{uri}: MLflow holds no file {str(file)!r}, which its MLmodel names; log the model again"
            )
        return model

    def fetch_extra(self, version: MlflowVersion, file: str, folder: Path) -> Path | None:
        """A file of `pip_dagster/` in the model's folder or in its run's artifacts; None if there is none."""
        places = [self._place(version)]
        if version.run_id:
            places.append(f"runs:/{version.run_id}")
        path = PurePosixPath(FOLDER, file)
        found = (self._download(place, path, folder / str(i)) for i, place in enumerate(places))
        return next((path for path in found if path is not None), None)

    def sample(self, version: MlflowVersion, folder: Path) -> Path:
        """The training sample that was logged with a version.

        Raises:
            InvalidSample: none was.
        """
        if path := self.fetch_extra(version, SAMPLE_FILE, folder):
            return path
        run = repr(version.run_id) if version.run_id else "RUN_ID"
        raise InvalidSample(
            f"models:/{version.name}/{version.version}: MLflow holds no training sample of it, and its own signature "
            "has neither category lists nor distributions. Log some hundred to some ten thousand "
            f"training rows as Parquet: MlflowClient().log_artifact({run}, '{SAMPLE_FILE}', '{FOLDER}'); categories, "
            f"classes or a calibration that the sample lacks go into {FOLDER}/{CLAIMS_FILE}"
        )

    @cached_property
    def client(self) -> MlflowClient:
        """MLflow's own client.

        Raises:
            RegistryUnreachable: MLflow is not installed, or its SQLite file does not exist.
        """
        for name, value in {
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
            "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3",
        }.items():
            os.environ.setdefault(name, value)
        try:
            from mlflow import MlflowClient
        except ImportError as error:
            raise RegistryUnreachable(
                "a pipeline names its model in MLflow, which is not installed: pip install 'pip-dagster[mlflow]'"
            ) from error
        file = self.uri.removeprefix("sqlite:///")
        if file != self.uri and not Path(file).is_file():  # MLflow would create an empty one
            raise RegistryUnreachable(f"MLflow's registry {self.name} does not exist: expected SQLite at {file}")
        return MlflowClient(tracking_uri=self.uri, registry_uri=self.uri)

    def _place(self, version: MlflowVersion) -> str:
        """The URI of a version's files.

        MLflow would look `models:/` URIs up in whatever registry the process is configured for, or create an empty one.
        """
        with self._asking(f"the place of models:/{version.name}/{version.version}") as missing:
            place = self.client.get_model_version_download_uri(version.name, version.version)
            if not place.startswith("models:/"):
                return place.rstrip("/")
            logged = self.client.get_logged_model(place.removeprefix("models:/"))
            return str(logged.artifact_location).rstrip("/")
        raise InvalidModel(f"models:/{version.name}/{version.version}: its model was deleted from MLflow: {missing[0]}")

    def _download(self, root: str, path: PurePosixPath, folder: Path) -> Path | None:
        """A file of a model or run; None if MLflow does not list it, since stores raise different errors then."""
        folder.mkdir(parents=True, exist_ok=True)
        with self._asking(f"{root}/{path}") as missing:
            from mlflow.artifacts import download_artifacts, list_artifacts

            def list_of(parent: str) -> list[FileInfo]:
                if root.startswith("runs:/"):
                    return list(self.client.list_artifacts(root.removeprefix("runs:/"), parent or None))
                return list_artifacts(f"{root}/{parent}".rstrip("/"), tracking_uri=self.uri) or []

            for part in (path, *path.parents)[-2::-1]:
                parent = "" if part.parent == PurePosixPath() else str(part.parent)
                if part.name not in {PurePosixPath(each.path).name for each in list_of(parent)}:
                    return None
            found = download_artifacts(
                f"{root}/{path}", dst_path=str(folder), tracking_uri=self.uri, registry_uri=self.uri
            )
            return Path(found)
        assert missing
        return None

    @contextmanager
    def _asking(self, what: str) -> Iterator[list[str]]:
        """Collect MLflow's "not found" messages in the list; turn every other error into RegistryUnreachable."""
        missing: list[str] = []
        client = self.client
        from mlflow.exceptions import MlflowException

        del client
        try:
            yield missing
        except MlflowException as error:
            code, message = str(error.error_code), str(error).splitlines()[0][:300]
            if code in _MISSING or (code == "INVALID_PARAMETER_VALUE" and "not found" in message):
                missing.append(message)
                return
            raise self._unreachable(what, message) from (None if self.name != self.uri else error)
        except RegistryError:
            raise
        except Exception as error:  # noqa: BLE001 - drivers and stores raise any exception
            raise self._unreachable(what, f"{type(error).__name__}: {error}"[:300]) from None

    def _unreachable(self, what: str, error: str) -> RegistryUnreachable:
        return RegistryUnreachable(
            f"MLflow at {self.name} did not answer ({what}): {_without_password(error)}. Check that its "
            "server is running, and that this account may read it and its artifacts."
        )


def _without_password(text: str) -> str:
    return re.sub(r"//[^/@\s]*@", "//", text)


def alias_tag(alias: str) -> str:
    """The tag of a version that records who pointed an alias at it, and why."""
    return f"pip_dagster.alias.{alias}"
