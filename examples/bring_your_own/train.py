"""Step 3: train with the pipeline's own feature SQL, and save the files for `pip-dagster models register`."""

from pathlib import Path

import pandas as pd

import pip_dagster  # before xgboost: it stops OpenMP's threads from spinning

import xgboost as xgb  # isort: skip

HERE = Path(__file__).parent
FEATURES = ["price", "items", "payment", "is_gift", "customer_days", "earlier_returns"]


def main() -> None:
    """Write data/model.ubj and data/sample.parquet."""
    # The weeks before the pipeline's first partition: its SQL builds them as well.
    orders = pip_dagster.open(HERE)["returns"].features("2024-03-01", "2024-03-24").df()
    frame = orders.merge(pd.read_parquet(HERE / "data" / "history.parquet"), on=["shop", "order_no"])
    X = frame[FEATURES].astype({"payment": "category"})
    data = xgb.DMatrix(X, label=frame["returned"], enable_categorical=True)
    booster = xgb.train({"objective": "binary:logistic", "max_depth": 4, "seed": 1}, data, 30)
    booster.save_model(HERE / "data" / "model.ubj")
    X.to_parquet(HERE / "data" / "sample.parquet")


if __name__ == "__main__":
    main()
