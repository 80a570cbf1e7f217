"""What a million values cost by the number of features: 10 to 2,000, the same number of values each.

The last is run again with what DuckDB may have in a container of 1 GB.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from benchmarks import data
from benchmarks.cases import materialize
from benchmarks.measure import Timed, case
from benchmarks.suite import Figure, Options, benchmark, note

VALUES = 20_000_000


@benchmark("scaling", long=True)
def scaling(_: Options) -> list[Figure]:
    """CPU seconds a million values and peak memory of a whole run, by the number of features."""
    figures = []
    for features, limit in ((10, ""), (100, ""), (500, ""), (1_000, ""), (2_000, ""), (2_000, "600MB")):
        within = f" in {limit}" if limit else ""
        note(f"{features} features{within}")
        _prepare(features)
        run = case("benchmarks.groups.scaling:whole", features, environment={"PIP_DAGSTER_MEMORY_LIMIT": limit})
        detail = f"{VALUES // features:,} rows, {run.cpu_seconds:.1f} CPU s, peak {run.peak_mb:.0f} MB"
        cost = run.cpu_seconds / (VALUES / 1e6)
        figures.append(Figure(f"{features:,} features{within}", cost, None, "CPU s per million values", detail))
    return figures


def whole(features: str) -> None:
    """Extract, score, commit and publish one partition."""
    from pip_dagster.declaration.pipeline import Pipeline
    from pip_dagster.declaration.project import Project
    from pip_dagster.declaration.spec import PipelineSpec

    names = ", ".join(f"f{i}" for i in range(int(features)))
    spec = PipelineSpec.model_validate(
        {
            "name": "wide",
            "partitions": {"every": "day", "start": "2014-01-01"},
            "source_database": str(_source(int(features))),
            "sources": {"wide": {"table": "raw.wide", "partition_column": "day"}},
            "features": {"sql": "features.sql", "key": ["id"], "partition_column": "day"},
            "scoring": {"model_name": f"wide_{features}", "device": "cpu"},
        }
    )
    sql = f"SELECT id, day, {names} FROM raw.wide WHERE day >= $start_date AND day < $end_date"
    with data.scratch() as folder:
        project = Project(folder, folder / "warehouse.duckdb", data.FOLDER / "registry", folder / "published")
        with Timed() as timed:
            rows = materialize(Pipeline(spec, sql, project), ["2014-01-01"])
    timed.report(rows=rows)


def _source(features: int) -> Path:
    return data.FOLDER / f"wide_{features}.duckdb"


def _prepare(features: int) -> None:
    """The source, and a model of 100 trees on all of its features."""
    import numpy as np
    import pandas as pd
    import xgboost as xgb

    from pip_dagster.registry.store import Registry

    names = [f"f{i}" for i in range(features)]
    if not _source(features).is_file():
        values = ", ".join(f"((i * {2 * k + 7919} + {k}) % 100003)::DOUBLE / 7 AS {n}" for k, n in enumerate(names))
        with data.building(_source(features)) as con:
            con.execute("CREATE SCHEMA raw")
            con.execute(
                f"CREATE TABLE raw.wide AS SELECT i AS id, DATE '2014-01-01' AS day, {values} "
                f"FROM range({VALUES // features}) t(i)"
            )
    known, name = Registry(data.registry()), f"wide_{features}"
    if name in known.models():
        return
    frame = pd.DataFrame(np.random.default_rng(1).uniform(0, 14_286, (2_000, features)), columns=names)
    label = (frame["f0"] + frame[names[-1]] > 14_286).astype(int)
    matrix = xgb.DMatrix(frame, label)
    booster = xgb.train({"objective": "binary:logistic", "max_depth": 6, "nthread": 2, "seed": 7}, matrix, 100)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.ubj"
        booster.save_model(file)
        known.register(name, model=file, sample=frame, by="benchmark")
    known.set_alias(name, "champion", 1, by="benchmark", why="the only one")
