"""A model over the columns of dbt's model, trained as you like; here, which orders come back is a formula."""

from pathlib import Path

import pandas as pd

import pip_dagster  # noqa: F401  before xgboost: it stops OpenMP's threads from spinning

import xgboost as xgb  # isort: skip

DATA = Path(__file__).parent / "data"


def main() -> None:
    """Write data/model.ubj and data/sample.parquet."""
    orders = pd.read_parquet(DATA / "orders.parquet")
    returned = orders["amount"] / 40 + orders["items"] + orders["is_gift"] * 2 > 6
    X = orders[["amount", "items", "is_gift"]]
    booster = xgb.train({"objective": "binary:logistic", "max_depth": 3, "seed": 1}, xgb.DMatrix(X, returned), 10)
    booster.save_model(DATA / "model.ubj")
    X.to_parquet(DATA / "sample.parquet")


if __name__ == "__main__":
    main()
