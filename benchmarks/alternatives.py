"""The alternatives, each used as its documentation shows, on the demo's year and model.

Each is a measured process for the first DAYS days of 2013, day by day, as a scheduled pipeline runs. All use the same
feature SQL. dagster-duckdb's IO manager: docs.dagster.io, "DuckDB pandas"; MLflow: "pyfunc" of `mlflow.xgboost`; Ray
Data: "offline batch inference", `map_batches` with a class.
"""

from datetime import date, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd

from benchmarks import data
from benchmarks.measure import Timed
from pip_dagster.flow.engine import available_threads
from pip_dagster.registry.store import Registry

SQL = (data.DEMO / "features.sql").read_text(encoding="utf-8")


def _model() -> tuple[Path, dict[str, list[str] | None]]:
    """The registered model's file, and its features with their categories."""
    version = Registry(data.registry()).get("flight_delay", 2)
    lists = {f.name: list(f.categories) if f.categories else None for f in version.manifest.features}
    return version.path / "model.ubj", lists


def _prepared(frame: pd.DataFrame, lists: dict[str, list[str] | None]) -> pd.DataFrame:
    """The model's features as XGBoost's pandas interface takes them."""
    X = frame[list(lists)].copy()
    for name, categories in lists.items():
        if categories:
            X[name] = pd.Categorical(X[name].where(X[name].isin(categories)), categories=categories)
    return X


def _features(con: duckdb.DuckDBPyConnection, first: date, end: date) -> pd.DataFrame:
    return con.execute(SQL, {"start_date": first, "end_date": end}).df()


def _sources() -> duckdb.DuckDBPyConnection:
    con = duckdb.connect(str(data.sources()), read_only=True, config={"threads": available_threads()})
    con.execute("SET TimeZone = 'UTC'")
    return con


def io_manager(count: str) -> None:
    """Two partitioned assets, `DuckDBPandasIOManager`, `XGBClassifier`; one run per partition, as in a backfill."""
    days = int(count)
    import dagster as dg
    import xgboost as xgb
    from dagster_duckdb_pandas import DuckDBPandasIOManager

    daily = dg.DailyPartitionsDefinition("2013-01-01", end_date="2014-01-01")
    file, lists = _model()

    @dg.asset(partitions_def=daily, metadata={"partition_expr": "flight_date"})
    def features(context: dg.AssetExecutionContext) -> pd.DataFrame:
        first = date.fromisoformat(context.partition_key)
        with _sources() as con:
            return _features(con, first, first + timedelta(days=1))

    @dg.asset(partitions_def=daily, metadata={"partition_expr": "flight_date"})
    def predictions(features: pd.DataFrame) -> pd.DataFrame:
        model = xgb.XGBClassifier(n_jobs=available_threads())
        model.load_model(file)
        scored = features[["flight_key", "flight_date"]].copy()
        scored["score"] = model.predict_proba(_prepared(features, lists))[:, 1]
        return scored

    with data.scratch() as folder, dg.DagsterInstance.local_temp(str(folder)) as instance:
        resources = {"io_manager": DuckDBPandasIOManager(database=str(folder / "out.duckdb"), schema="main")}
        with Timed() as timed:
            for i in range(days):
                key = str(date(2013, 1, 1) + timedelta(days=i))
                assert dg.materialize(
                    [features, predictions], instance=instance, resources=resources, partition_key=key
                ).success
        with duckdb.connect(str(folder / "out.duckdb")) as con:
            ((rows,),) = con.execute("SELECT count(*) FROM main.predictions").fetchall()
    timed.report(rows=rows)


def mlflow_pyfunc(count: str) -> None:
    """`mlflow.pyfunc.load_model(...).predict(frame)`, day by day, into DuckDB."""
    days = int(count)
    import os

    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    import mlflow
    import xgboost as xgb

    file, lists = _model()
    with data.scratch() as folder:
        # The scikit-learn interface: with a plain Booster, pyfunc refuses category columns.
        classifier = xgb.XGBClassifier(n_jobs=available_threads(), enable_categorical=True)
        classifier.load_model(file)
        mlflow.xgboost.save_model(classifier, str(folder / "model"), model_format="ubj")
        model = mlflow.pyfunc.load_model(str(folder / "model"))
        rows = 0
        with Timed() as timed, duckdb.connect(str(folder / "out.duckdb")) as out, _sources() as con:
            out.execute("CREATE TABLE predictions (flight_key VARCHAR, flight_date DATE, score FLOAT)")
            for i in range(days):
                first = date(2013, 1, 1) + timedelta(days=i)
                frame = _features(con, first, first + timedelta(days=1))
                frame["score"] = model.predict(_prepared(frame, lists))
                out.execute("INSERT INTO predictions SELECT flight_key, flight_date, score FROM frame")
                rows += len(frame)
    timed.report(rows=rows)


class Score:
    """A Ray Data worker: loads the model once and scores batches."""

    def __init__(self, file: str, lists: dict[str, list[str] | None]) -> None:
        import xgboost as xgb

        self.booster, self.lists = xgb.Booster(model_file=file), lists
        self.booster.set_param({"nthread": 1})

    def __call__(self, batch: pd.DataFrame) -> pd.DataFrame:
        import xgboost as xgb

        scored = batch[["flight_key", "flight_date"]].copy()
        matrix = xgb.DMatrix(_prepared(batch, self.lists), enable_categorical=True)
        scored["score"] = self.booster.predict(matrix)
        return scored


def ray_data(count: str) -> None:
    """`ray.data…map_batches(Score)` over the features of one day after the other, written as Parquet; Ray starts once."""
    days = int(count)
    import ray

    file, lists = _model()
    options: dict[str, Any] = {"include_dashboard": False, "log_to_driver": False, "logging_level": "error"}
    with data.scratch() as folder:
        rows = 0
        with Timed() as timed, _sources() as con:
            ray.init(num_cpus=available_threads(), **options)
            ray.data.DataContext.get_current().enable_progress_bars = False
            for i in range(days):
                first = date(2013, 1, 1) + timedelta(days=i)
                frame = _features(con, first, first + timedelta(days=1))
                scored = ray.data.from_pandas(frame).map_batches(
                    Score,
                    fn_constructor_args=(str(file), lists),
                    batch_format="pandas",
                    compute=ray.data.ActorPoolStrategy(size=1),
                )
                scored.write_parquet(str(folder / "out" / str(first)))
                rows += len(frame)
            ray.shutdown()
    timed.report(rows=rows)
