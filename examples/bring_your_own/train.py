"""Step 3: train with the pipeline's own feature SQL, and save the files for `pip-dagster models register`."""

from datetime import UTC, datetime
from pathlib import Path

import duckdb
import xgboost as xgb

HERE = Path(__file__).parent
FEATURES = ["price", "items", "payment", "is_gift", "customer_days", "earlier_returns"]


def main() -> None:
    """Write data/model.ubj and data/sample.parquet."""
    con = duckdb.connect()
    con.execute("SET TimeZone = 'UTC'")
    con.execute("CREATE SCHEMA shop")
    con.execute(f"CREATE VIEW shop.orders AS FROM '{HERE / 'data' / 'orders' / '*.parquet'}'")
    con.execute(f"CREATE VIEW shop.customers AS FROM '{HERE / 'data' / 'customers.parquet'}'")
    sql = (HERE / "shop" / "defs" / "returns" / "features.sql").read_text(encoding="utf-8")
    bounds = {"start": datetime(2024, 3, 1, tzinfo=UTC), "end": datetime(2024, 3, 25, tzinfo=UTC)}
    con.execute(f"CREATE TABLE features AS {sql}", bounds)
    frame = con.execute(
        f"SELECT f.*, returned FROM features f JOIN '{HERE / 'data' / 'history.parquet'}' USING (shop, order_no) "
        "ORDER BY shop, order_no"
    ).df()
    X = frame[FEATURES].astype({"price": float, "payment": "category"})
    data = xgb.DMatrix(X, label=frame["returned"], enable_categorical=True)
    booster = xgb.train({"objective": "binary:logistic", "max_depth": 4, "seed": 1}, data, 30)
    booster.save_model(HERE / "data" / "model.ubj")
    X.to_parquet(HERE / "data" / "sample.parquet")


if __name__ == "__main__":
    main()
