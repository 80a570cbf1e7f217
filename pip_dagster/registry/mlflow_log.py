"""For a training script: log a Booster to MLflow with everything that a pipeline needs to score with it."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pip_dagster.registry.mlflow_source import CLAIMS_FILE, DIGEST_TAG, FOLDER, SAMPLE_FILE

if TYPE_CHECKING:
    import pandas as pd
    import xgboost as xgb


def log_model(
    booster: xgb.Booster,
    sample: pd.DataFrame,
    *,
    registered_model_name: str,
    categories: Mapping[str, Sequence[str]] | None = None,
    classes: Sequence[str] | None = None,
    calibration: Mapping[str, object] | None = None,
    training_window: tuple[str, str] | None = None,
    **options: Any,
) -> int:
    """Log and register a Booster inside the active MLflow run; the version's number.

    `sample` holds training rows with at least the model's features. `categories` to `training_window` are the options
    of `models register`; `options` go to `mlflow.xgboost.log_model`. The sha256 of the model's bytes becomes a tag of
    the version, so that a change of the artifact is noticed even before the first use.
    """
    import mlflow
    import mlflow.xgboost

    claims = {
        "categories": {name: list(values) for name, values in (categories or {}).items()},
        "classes": None if classes is None else list(classes),
        "calibration": calibration,
        "training_window": training_window,
    }
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / SAMPLE_FILE
        sample.to_parquet(path)
        mlflow.log_artifact(str(path), FOLDER)
    mlflow.log_dict({key: value for key, value in claims.items() if value is not None}, f"{FOLDER}/{CLAIMS_FILE}")
    logged = mlflow.xgboost.log_model(
        booster, name="model", model_format="ubj", registered_model_name=registered_model_name, **options
    )
    digest = hashlib.sha256(bytes(booster.save_raw("ubj"))).hexdigest()
    version = logged.registered_model_version
    mlflow.MlflowClient().set_model_version_tag(registered_model_name, str(version), DIGEST_TAG, digest)
    return int(version)
