"""The demo's year of flights: with and without Dagster, by bare scripts, by the alternatives; and one date of it."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import data
from benchmarks.measure import Measured, Timed, best, case, command, in_turns, pip_dagster
from benchmarks.suite import Figure, Options, benchmark, note

if TYPE_CHECKING:
    import numpy as np

YEAR = (date(2013, 1, 1), date(2014, 1, 1))
ROWS = 336_776
ASSETS = ("features", "predictions")


@benchmark("year")
def year(options: Options) -> list[Figure]:
    """A year of flights in one Dagster run and without Dagster, against bare scripts and the alternatives."""
    prepare()
    note("a year of flights in one Dagster run")
    one_run = dagster("2013-01-01", "2013-12-31")
    note("a year of flights without Dagster")
    alone = backfill()
    note("a year of flights by bare scripts")
    daily, whole = (case("benchmarks.groups.year:bare", how) for how in ("daily", "year"))
    note("a year of assets without a body")
    nothing = empty("2013-01-01", "2013-12-31")
    note("a run per day")
    a_day = best([dagster(day, day) for day in ("2013-06-01", "2013-06-02", "2013-06-03")])

    def against(name: str, other: float, ours: Measured, bound: float | None) -> Figure:
        return Figure(name, ours.seconds / other, bound, "×", f"{other:.0f} s → {ours.seconds:.0f} s")

    return [
        against("a year in one run, against a bare script, day by day", daily.seconds, one_run, 1.15),
        against("… a year of two assets without a body, against the same", daily.seconds, nothing, None),
        against("a year by `pip-dagster backfill`, against the same", daily.seconds, alone, 2.0),
        against("a year in one run, against a script that scores it as one table", whole.seconds, one_run, None),
        against("a year in one run, against a run a day (three measured)", 365 * a_day.seconds, one_run, 1.0),
        *_alternatives(one_run, alone, options.days),
    ]


def _alternatives(one_run: Measured, alone: Measured, days: int) -> list[Figure]:
    """Rows per second and peak memory of the alternatives, against ours on the year, with and without Dagster."""
    figures = []
    for name, title, count, with_dagster in (
        ("io_manager", "dagster-duckdb's pandas IO manager, scikit-learn interface", days, True),
        ("mlflow_pyfunc", "MLflow pyfunc on pandas", 365, False),
        ("ray_data", "Ray Data map_batches", days, False),
    ):
        note(title)
        run = case(f"benchmarks.alternatives:{name}", count, tree=True)
        ours, theirs = ROWS / (one_run if with_dagster else alone).seconds, run.reported["rows"] / run.seconds
        detail = (
            f"{theirs:,.0f} → {ours:,.0f} rows/s; {run.peak_mb:.0f} → "
            f"{(one_run if with_dagster else alone).peak_mb:.0f} MB; "
            f"{count} days, {'both in' if with_dagster else 'neither in'} Dagster"
        )
        figures.append(Figure(f"ahead of {title}", ours / theirs, 1.0, "× faster", detail, at_least=True))
    return figures


@benchmark("daily")
def daily(_: Options) -> list[Figure]:
    """The whole process for one date, against that of an asset that does nothing."""
    prepare()
    day, libraries = "2013-06-01", ("duckdb", "pandas", "pyarrow.dataset", "xgboost")
    found = in_turns(3, lambda: empty(day, day), lambda: empty(day, day, *libraries), lambda: dagster(day, day))
    nothing, imports, ours = map(best, found)

    def against(name: str, run: Measured, bound: float | None) -> Figure:
        detail = f"{nothing.cpu_seconds:.1f} s → {run.cpu_seconds:.1f} s"
        return Figure(name, run.cpu_seconds / nothing.cpu_seconds, bound, "×", detail)

    return [
        against("a daily run, against an empty asset, in CPU seconds", ours, 1.25),
        against("… an asset that only imports DuckDB, pandas, PyArrow and XGBoost, against the same", imports, None),
    ]


def prepare() -> None:
    """Make what the runs read."""
    data.sources()
    data.registry()


def dagster(first: str, last: str, *, monitored: bool = True, storage: str = "") -> Measured:
    """`dagster asset materialize` of the demo's pipeline for a range of dates; the whole process.

    On SQLite, as the scaffolded project is, or with other lines for Dagster's storage. Reports `shown` of the run.
    """
    with data.scratch() as folder:
        root = data.year_project(folder)
        _write_instance(root / "home", storage)
        if not monitored:
            data.declare(root, "monitoring: {}", "")
        keys = ["--partition", first] if first == last else ["--partition-range", f"{first}...{last}"]
        selected = ["--select", "flight_delay/features,flight_delay/predictions", *keys]
        run = _asset(root, "bench_year.definitions", selected)
        return replace(run, reported=shown(root / "home"))


def backfill() -> Measured:
    """`pip-dagster backfill` of the demo's year, which works without Dagster; the whole process."""
    with data.scratch() as folder:
        root = data.year_project(folder)
        days = ["--from", "2013-01-01", "--to", "2013-12-31", "--chunk", "365"]
        _hide_sklearn(root)
        return pip_dagster(root, "backfill", "flight_delay", *days)


def shown(home: Path) -> dict[str, int]:
    """What an instance shows of its only run: its events, and for how many partitions both assets are materialized."""
    import dagster as dg

    os.environ["DAGSTER_HOME"] = str(home)
    with dg.DagsterInstance.get() as instance:
        (run,) = instance.get_runs()
        both = (instance.get_materialized_partitions(dg.AssetKey(["flight_delay", name])) for name in ASSETS)
        return {"partitions": len(set.intersection(*both)), "events": len(instance.all_logs(run.run_id))}


def _write_instance(home: Path, storage: str) -> None:
    text = data.INSTANCE.read_text(encoding="utf-8")
    if storage:
        before, _, after = text.partition("event_log_storage:")
        text = before + storage + after[after.index("\nconcurrency:") :]
    (home / "dagster.yaml").write_text(text, encoding="utf-8")


def empty(first: str, last: str, *libraries: str, storage: str = "") -> Measured:
    """The same command for two assets that do nothing, or only import libraries."""
    with data.scratch() as folder:
        (folder / "home").mkdir()
        _write_instance(folder / "home", storage)
        body = "".join(f"    import {name}\n" for name in libraries)
        (folder / "nothing.py").write_text(
            "import dagster as dg\n"
            "days = dg.DailyPartitionsDefinition('2013-01-01')\n"
            "specs = [dg.AssetSpec(name, partitions_def=days) for name in ('features', 'predictions')]\n"
            "@dg.multi_asset(specs=specs, backfill_policy=dg.BackfillPolicy.single_run())\n"
            f"def nothing():\n{body}"
            "    for spec in specs: yield dg.MaterializeResult(asset_key=spec.key)\n"
            "defs = dg.Definitions(assets=[nothing], executor=dg.in_process_executor)\n"
        )
        keys = ["--partition", first] if first == last else ["--partition-range", f"{first}...{last}"]
        return _asset(folder, "nothing", ["--select", "features,predictions", *keys])


def _asset(root: Path, module: str, arguments: list[str]) -> Measured:
    _hide_sklearn(root)
    paths = f"{root}{os.pathsep}{data.REPOSITORY}"
    environment = {"PYTHONPATH": paths, "PIP_DAGSTER_PROJECT": str(root), "DAGSTER_HOME": str(root / "home")}
    words = [sys.executable, "-m", "dagster", "asset", "materialize", "-m", module, *arguments]
    return command(words, cwd=root, environment=environment)


def _hide_sklearn(root: Path) -> None:
    """The alternatives install scikit-learn, which XGBoost imports if it is there; this package does not install it."""
    (root / "sklearn.py").write_text("raise ImportError('not installed by pip_dagster')\n")


def bare(how: str) -> None:
    """A bare script: the feature SQL, predict, insert; for the year in one query, or `daily` in a loop."""
    import duckdb
    import numpy as np
    import xgboost as xgb

    from pip_dagster.flow.engine import available_threads
    from pip_dagster.registry.store import Registry

    with data.scratch() as folder:
        days = [YEAR[0] + timedelta(days=i) for i in range((YEAR[1] - YEAR[0]).days)]
        spans = [(day, day + timedelta(days=1)) for day in days] if how == "daily" else [YEAR]
        version = Registry(data.registry()).get("flight_delay", 2)
        sql = (data.DEMO / "features.sql").read_text(encoding="utf-8")
        with Timed() as timed:
            con = duckdb.connect(str(folder / "out.duckdb"), config={"threads": available_threads()})
            con.execute("SET TimeZone = 'UTC'")
            con.execute(f"ATTACH '{data.sources()}' AS sources (READ_ONLY)")
            con.execute("CREATE TABLE predictions (flight_key VARCHAR, flight_date DATE, score FLOAT)")
            booster = xgb.Booster()
            booster.load_model(bytearray(version.model_bytes()))
            booster.set_param({"nthread": available_threads()})
            rows = 0
            for first, end in spans:
                con.execute("USE sources")
                frame = con.execute(sql, {"start_date": first, "end_date": end}).df()
                con.execute("USE out")
                X = np.column_stack([_column(frame[f.name], f) for f in version.manifest.features])
                frame["score"] = booster.inplace_predict(X)
                con.execute("INSERT INTO predictions SELECT flight_key, flight_date, score FROM frame")
                rows += len(frame)
            con.close()
    timed.report(rows=rows)


def _column(values: Any, feature: Any) -> np.ndarray:
    import numpy as np

    if feature.categories is None:
        return values.to_numpy(dtype=np.float32, na_value=np.nan)
    codes = values.map({name: i for i, name in enumerate(feature.categories)})
    return codes.to_numpy(dtype=np.float32, na_value=np.nan)
