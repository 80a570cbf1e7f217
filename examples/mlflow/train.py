"""Train a small model and log it to MLflow, so that a pipeline can score with it: `train.py TRACKING_URI`."""

import sys
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd

from pip_dagster.registry.mlflow_log import log_model  # before xgboost: it stops OpenMP's threads from spinning

import xgboost as xgb  # isort: skip

CARRIERS = ["AA", "B6", "UA"]


def main(uri: str) -> None:
    """Log one version of `late_flights`."""
    rng = np.random.default_rng(1)
    frame = pd.DataFrame({"distance": rng.gamma(2.0, 500.0, 2_000), "carrier": rng.choice(CARRIERS, 2_000)})
    late = frame["distance"] / 1_000 + (frame["carrier"] == "B6") + rng.normal(size=2_000) > 2
    X = frame.assign(carrier=pd.Categorical(frame["carrier"], categories=CARRIERS))
    data = xgb.DMatrix(X, label=late, enable_categorical=True)
    mlflow.set_tracking_uri(uri)
    if mlflow.get_experiment_by_name("late_flights") is None:
        mlflow.create_experiment("late_flights", artifact_location=Path("data/mlflow").absolute().as_uri())
    mlflow.set_experiment("late_flights")
    with mlflow.start_run():
        booster = xgb.train({"objective": "binary:logistic", "max_depth": 3, "seed": 1}, data, 10)
        mlflow.log_metric("logloss", float(booster.eval(data).rpartition(":")[2]))
        version = log_model(
            booster,
            frame,
            registered_model_name="late_flights",
            categories={"carrier": CARRIERS},
            pip_requirements=["xgboost"],  # otherwise MLflow imports everything to infer them
        )
    print(f"models:/late_flights/{version}")


if __name__ == "__main__":
    main(sys.argv[1])
