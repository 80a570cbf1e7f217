"""For a training script: log a Booster to MLflow with everything that a pipeline needs to score with it."""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pip_dagster.registry.mlflow_registry import LoggedClaims
from pip_dagster.registry.mlflow_source import CLAIMS_FILE, DIGEST_TAG, FOLDER, SAMPLE_FILE

if TYPE_CHECKING:
    import pandas as pd
    import xgboost as xgb


def log_model(booster: xgb.Booster, sample: pd.DataFrame, *, registered_model_name: str, **options: Any) -> int:
    """Log and register a Booster inside the active MLflow run; the version's number.

    `sample` holds training rows with at least the model's features. The options `categories`, `classes`,
    `feature_names`, `calibration`, `training_window`, `missing`, `offset`, `training_scores` (columns of the sample),
    `outcome` and `held_out` are those of `models register`; the others go to `mlflow.xgboost.log_model`. The sha256 of
    the model's bytes becomes a tag of the version, so that a change of the artifact is noticed even before the first
    use.
    """
    import mlflow
    import mlflow.xgboost

    claims = {name: options.pop(name) for name in LoggedClaims.model_fields if name in options}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / SAMPLE_FILE
        sample.to_parquet(path)
        mlflow.log_artifact(str(path), FOLDER)
    mlflow.log_dict(LoggedClaims(**claims).model_dump(mode="json", exclude_none=True), f"{FOLDER}/{CLAIMS_FILE}")
    logged = mlflow.xgboost.log_model(
        booster, name="model", model_format="ubj", registered_model_name=registered_model_name, **options
    )
    digest = hashlib.sha256(bytes(booster.save_raw("ubj"))).hexdigest()
    version = logged.registered_model_version
    mlflow.MlflowClient().set_model_version_tag(registered_model_name, str(version), DIGEST_TAG, digest)
    return int(version)
