"""A model of risk, trained as you like; here, the risk is a formula."""

from pathlib import Path

import numpy as np
import pandas as pd

import pip_dagster  # noqa: F401  before xgboost: it stops OpenMP's threads from spinning

import xgboost as xgb  # isort: skip

DATA = Path(__file__).parent / "data"


def main() -> None:
    """Write data/model.ubj and data/sample.parquet."""
    rng = np.random.default_rng(1)
    amount, items = rng.gamma(2.0, 40.0, 2000), rng.integers(1, 9, 2000).astype("int32")
    X = pd.DataFrame({"amount": amount, "items": items, "is_new_customer": rng.random(2000) > 0.5})
    risky = X["amount"] / 40 + X["is_new_customer"] * 2 - X["items"] / 4 + rng.normal(0, 1, 2000) > 2
    booster = xgb.train({"objective": "binary:logistic", "max_depth": 3, "seed": 1}, xgb.DMatrix(X, risky), 20)
    DATA.mkdir(exist_ok=True)
    booster.save_model(DATA / "model.ubj")
    X.to_parquet(DATA / "sample.parquet")


if __name__ == "__main__":
    main()
