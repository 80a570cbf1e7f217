"""The measured cases of the project and the floors to compare with: `python -m benchmarks.cases NAME ARGUMENTS`."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import pip_dagster  # noqa: F401  # before xgboost: it stops OpenMP's threads from spinning

import duckdb  # isort: skip
import numpy as np  # isort: skip
import xgboost as xgb  # isort: skip

from benchmarks import data
from benchmarks.measure import Timed
from pip_dagster.declaration.pipeline import Pipeline
from pip_dagster.flow.guard_composite import encode_model
from pip_dagster.registry.store import Registry

YEAR = (date(2013, 1, 1), date(2014, 1, 1))


@contextmanager
def scratch() -> Iterator[Path]:
    """A temporary folder beside the benchmarks' data."""
    folder = Path(tempfile.mkdtemp(dir=data.FOLDER))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def threads() -> int:
    from pip_dagster.flow.engine import available_threads

    return available_threads()


def floor(size: str) -> None:
    """`Booster.inplace_predict` on a float32 array in memory."""
    version = Registry(data.registry()).get("scale", 1)
    con = duckdb.connect(str(data.scale(size)), read_only=True)
    columns = {row[0]: row[1] for row in con.execute("DESCRIBE raw.flights").fetchall()}
    encoded = encode_model(version.manifest, columns, where="benchmark")
    ((rows,),) = con.execute("SELECT count(*) FROM raw.flights").fetchall()
    X, at = np.empty((rows, len(encoded)), dtype=np.float32), 0
    for batch in con.sql(f"SELECT {', '.join(e.value for e in encoded)} FROM raw.flights").to_arrow_reader(100_000):
        for i in range(batch.num_columns):
            X[at : at + batch.num_rows, i] = batch.column(i).to_numpy(zero_copy_only=False)
        at += batch.num_rows
    con.close()
    booster = xgb.Booster()
    booster.load_model(bytearray(version.model_bytes()))
    booster.set_param({"nthread": threads()})
    booster.inplace_predict(X[:100_000])
    with Timed() as timed:
        booster.inplace_predict(X)
    timed.report(rows=rows)


def scale(size: str, part: str, batch_rows: str = "0") -> None:
    """One partition: `predictions` from stored features, or `whole`, with the feature SQL and the snapshot.

    Reports as `published` the seconds for publishing, which are part of its seconds.
    """
    from pip_dagster.warehouse import access

    spent = [0.0]
    publish = access.publish_pending  # type: ignore[attr-defined]

    def timed_publish(*arguments: object, **options: object) -> int:
        with Timed() as of_publish:
            written = publish(*arguments, **options)  # type: ignore[arg-type]
        spent[0] += of_publish.seconds
        return written

    access.publish_pending = timed_publish  # type: ignore[attr-defined]
    with scratch() as folder:
        scoring = {"batch_rows": int(batch_rows)} if int(batch_rows) else {}
        pipeline = data.scale_pipeline(size, folder, **scoring)
        if part == "predictions":
            _materialize(pipeline, ["2014-01-01"], predictions=False)
        spent[0] = 0.0
        with Timed() as timed:
            rows = _materialize(pipeline, ["2014-01-01"], features=part == "whole")
    timed.report(rows=rows, published=spent[0])


def growth(partitions: str) -> None:
    """Ten more small partitions when `partitions` are in the ledger already."""
    count = int(partitions)
    with scratch() as folder:
        con = duckdb.connect(str(folder / "sources.duckdb"))
        con.execute("CREATE SCHEMA raw")
        con.execute(f"ATTACH '{data.features()}' AS year (READ_ONLY)")
        con.execute(
            f"CREATE TABLE raw.flights AS SELECT row_number() OVER () AS flight_id, DATE '2000-01-01' + d::INT AS day, "
            f"{', '.join(data.FEATURES)} FROM (SELECT * FROM year.feat.flights LIMIT 10), range({count + 10}) t(d)"
        )
        con.close()
        pipeline = data.scale_pipeline("1M", folder)
        spec = pipeline.spec.model_copy(
            update={
                "source_database": str(folder / "sources.duckdb"),
                "partitions": pipeline.spec.partitions.model_copy(update={"start": date(2000, 1, 1)}),
            }
        )
        pipeline = replace(pipeline, spec=type(spec).model_validate(spec.model_dump()))
        days = [str(date(2000, 1, 1) + timedelta(days=i)) for i in range(count + 10)]
        _materialize(pipeline, days[:count])
        os.sync()  # so that pending writes of the first partitions are not measured
        with Timed() as timed:
            for day in days[count:]:
                _materialize(pipeline, [day])
    timed.report(rows=100, partitions=10)


def bare(how: str) -> None:
    """A bare script: the feature SQL, predict, insert; for the year in one query, or `daily` in a loop."""
    with scratch() as folder:
        days = [YEAR[0] + timedelta(days=i) for i in range((YEAR[1] - YEAR[0]).days)]
        spans = [(day, day + timedelta(days=1)) for day in days] if how == "daily" else [YEAR]
        version = Registry(data.registry()).get("flight_delay", 2)
        sql = (data.DEMO / "features.sql").read_text(encoding="utf-8")
        with Timed() as timed:
            con = duckdb.connect(str(folder / "out.duckdb"), config={"threads": threads()})
            con.execute("SET TimeZone = 'UTC'")
            con.execute(f"ATTACH '{data.sources()}' AS sources (READ_ONLY)")
            con.execute("CREATE TABLE predictions (flight_key VARCHAR, flight_date DATE, score FLOAT)")
            booster = xgb.Booster()
            booster.load_model(bytearray(version.model_bytes()))
            booster.set_param({"nthread": threads()})
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


def _column(values, feature) -> np.ndarray:  # type: ignore[no-untyped-def]
    if feature.categories is None:
        return values.to_numpy(dtype=np.float32, na_value=np.nan)
    codes = values.map({name: i for i, name in enumerate(feature.categories)})
    return codes.to_numpy(dtype=np.float32, na_value=np.nan)


def dagster(first: str, last: str) -> None:
    """`dagster asset materialize` of the demo's pipeline for a range of dates, on SQLite; the whole process."""
    with scratch() as folder:
        root = data.year_project(folder)
        selected = ["--select", "flight_delay/features,flight_delay/predictions"]
        keys = ["--partition", first] if first == last else ["--partition-range", f"{first}...{last}"]
        _cli(root, "bench_year.definitions", [*selected, *keys])


def backfill() -> None:
    """`pip-dagster backfill` of the demo's year, which works without Dagster; the whole process."""
    with scratch() as folder:
        root = data.year_project(folder)
        days = ["--from", "2013-01-01", "--to", "2013-12-31", "--chunk", "365"]
        _process(root, ["pip_dagster.cli.main", "backfill", "flight_delay", *days], {})


def empty(first: str, last: str, *libraries: str) -> None:
    """The same command for two assets that do nothing, or only import libraries."""
    with scratch() as folder:
        (folder / "home").mkdir()
        shutil.copy(data.REPOSITORY / "dagster.yaml", folder / "home" / "dagster.yaml")
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
        _cli(folder, "nothing", ["--select", "features,predictions", *keys])


def _cli(root: Path, module: str, arguments: list[str]) -> None:
    _process(root, ["dagster", "asset", "materialize", "-m", module, *arguments], {"DAGSTER_HOME": str(root / "home")})


def _process(root: Path, words: list[str], environment: dict[str, str]) -> None:
    import json
    import resource
    import subprocess
    import time

    # The alternatives install scikit-learn, which XGBoost imports if it is there; this package does not install it.
    (root / "sklearn.py").write_text("raise ImportError('not installed by pip_dagster')\n")
    inherited = {name: value for name, value in os.environ.items() if name != "DAGSTER_HOME"}
    paths = os.pathsep.join([str(root), str(data.REPOSITORY)])
    env = inherited | {"PYTHONPATH": paths, "PIP_DAGSTER_PROJECT": str(root)} | environment
    began = time.monotonic()
    command = [sys.executable, "-m", *words]
    ended = subprocess.run(command, cwd=root, env=env, capture_output=True, text=True, check=False)
    seconds = time.monotonic() - began
    if ended.returncode:
        raise SystemExit(ended.stderr[-3000:])
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    measured = {"seconds": seconds, "cpu_seconds": used.ru_utime + used.ru_stime, "peak_mb": used.ru_maxrss / 1024}
    print(json.dumps(measured))


def _materialize(pipeline: Pipeline, keys: list[str], *, features: bool = True, predictions: bool = True) -> int:
    from pip_dagster.flow.materialize import materialize
    from pip_dagster.ledger.record import RunInfo
    from pip_dagster.orchestration.partitions import partitions_definition, partitions_of

    partitions = partitions_of(partitions_definition(pipeline.spec.partitions), keys)
    run = RunInfo("benchmark", "benchmark")
    results = list(materialize(pipeline, partitions, run, features=features, predictions=predictions))
    wrong = [result.error for result in results if result.error]
    assert not wrong, wrong[0]
    return sum(result.features.rows_extracted for result in results if result.features)


CASES: dict[str, Callable[..., None]] = {
    each.__name__: each for each in (floor, scale, growth, bare, dagster, backfill, empty)
}

if __name__ == "__main__":
    CASES[sys.argv[1]](*sys.argv[2:])
