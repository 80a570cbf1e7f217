"""The cost of a plan of ten years of days over five sources of a million rows.

`python benchmarks/plan_cost.py` creates the sources and a ledger in which every day is built, and prints the CPU seconds
of one `make_plan` with half of the rows and days, with all of them, and with 1% of the days changed.
"""

import shutil
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import yaml

from pip_dagster.declaration.canonical import canonical
from pip_dagster.declaration.grid import closed_partitions
from pip_dagster.declaration.pipeline import Pipeline
from pip_dagster.declaration.project import Project
from pip_dagster.declaration.spec import PipelineSpec
from pip_dagster.flow.fingerprints import fingerprints
from pip_dagster.flow.plan import make_plan
from pip_dagster.flow.sources import open_sources
from pip_dagster.ledger.observations import add_observations
from pip_dagster.ledger.record import inputs_digest
from pip_dagster.registry.store import Registry
from pip_dagster.warehouse.connect import open_warehouse, workspace
from pip_dagster.warehouse.transaction import transaction

import xgboost as xgb  # isort: skip

BOUND = 2.0
SOURCES, COLUMNS = 5, 20
START = datetime(2014, 1, 1)


def build(root: Path, days: int, rows: int) -> Pipeline:
    """A project with this many days and rows per source, and a model."""
    root.mkdir()
    (root / "pyproject.toml").write_text("[tool.pip_dagster]\n")
    with duckdb.connect(str(root / "sources.duckdb")) as con:
        values = ", ".join(f"hash(i, {c})::DOUBLE / 1e19 AS c{c}" for c in range(COLUMNS))
        for source in range(SOURCES):
            con.execute(
                f"CREATE SCHEMA IF NOT EXISTS raw; CREATE TABLE raw.s{source} AS SELECT i AS key, "
                f"DATE '{START:%Y-%m-%d}' + (i * {days} // {rows})::INT AS day, {values} FROM range({rows}) r(i)"
            )
    attributes = {
        "name": "bench",
        "partitions": {"every": "day", "start": START.date(), "end": (START + timedelta(days=days)).date()},
        "source_database": "sources.duckdb",
        "sources": {
            f"s{i}": {"table": f"raw.s{i}", "partition_column": "day", "lookback": f"{7 * i} days"}
            for i in range(SOURCES)
        },
        "features": {"sql": "features.sql", "key": ["key"], "partition_column": "day"},
        "scoring": {"model_name": "m"},
    }
    others = " ".join(
        f"LEFT JOIN raw.s{i} USING (key)" for i in range(1, SOURCES)
    )  # what is not read is not planned for
    (root / "features.sql").write_text(
        f"SELECT key, s0.day, s0.c1 FROM raw.s0 {others} WHERE s0.day >= $start_date AND s0.day < $end_date"
    )
    (root / "defs.yaml").write_text(yaml.safe_dump(attributes))
    pipeline = Pipeline.load(PipelineSpec.model_validate(attributes), root, Project.at(root))
    frame = pd.DataFrame({"c1": np.random.default_rng(0).random(200)})
    xgb.train({"nthread": 1}, xgb.DMatrix(frame, frame["c1"]), 2).save_model(root / "m.ubj")
    registry = Registry(pipeline.project.registry)
    registry.register("m", model=root / "m.ubj", sample=frame, by="bench")
    registry.set_alias("m", "champion", 1, by="bench", why="first")
    return pipeline


def record_all_as_built(pipeline: Pipeline) -> None:
    """Fill the ledger as if each partition had been built from the current sources."""
    spec = pipeline.spec
    partitions = closed_partitions(spec.partitions, datetime.now(UTC))
    version = Registry(pipeline.project.registry).get("m", "champion")
    with workspace(threads=2) as con:
        with open_sources(con, spec, pipeline.project.root):
            found = fingerprints(con, pipeline, partitions)
        sources = [canonical(found.of[p.key]) for p in partitions]
        of = pd.DataFrame(
            {
                "key": [p.key for p in partitions],
                "start": [p.start for p in partitions],
                "end": [p.end for p in partitions],
                "sources": sources,
            }
        )
        of["inputs"] = [
            inputs_digest(s, pipeline.sql_digest, pipeline.scoring_digest, version.manifest_digest) for s in sources
        ]
        con.register("of", of)
        with open_warehouse(con, pipeline.project.warehouse, purpose="benchmark"), transaction(con):
            con.execute(
                "INSERT INTO ledger.extractions BY NAME SELECT 'e' || key AS extraction_id, 'bench' AS pipeline, "
                'key AS partition_key, start AS partition_start, "end" AS partition_end, key AS revision, '
                f"'f' AS feature_digest, sources AS source_digests, '{pipeline.sql_digest}' AS sql_digest, "
                f"'{pipeline.feature_parts}' AS declared_parts, now() AS made_at FROM of"
            )
            con.execute(
                "INSERT INTO ledger.scorings BY NAME SELECT 's' || key AS scoring_id, 'bench' AS pipeline, "
                "key AS partition_key, start AS partition_start, \"end\" AS partition_end, 'scored' AS status, "
                f"'champion' AS role, 1 AS model_version, '{version.manifest_digest}' AS manifest_digest, "
                f"'f' AS feature_digest, sources AS source_digests, '{pipeline.scoring_digest}' AS code_digest, "
                f"inputs AS inputs_digest, '{pipeline.scoring_parts}' AS declared_parts, now() AS made_at FROM of"
            )
            con.execute(
                "INSERT INTO ledger.live_changes BY NAME SELECT 'c' || key AS change_id, 'bench' AS pipeline, "
                "key AS partition_key, 's' || key AS scoring_id, 'scored' AS why, now() AS made_at FROM of"
            )
            add_observations(con, "bench", found.buckets, found.ranges, datetime.now(UTC))


def cost(pipeline: Pipeline) -> tuple[float, int]:
    """CPU seconds of a plan, the best of three, and the number of stale partitions."""
    best, stale = 1e9, 0
    for _ in range(3):
        began = time.process_time()
        plan = make_plan(pipeline, closed_partitions(pipeline.spec.partitions, datetime.now(UTC)))
        best, stale = min(best, time.process_time() - began), len(plan.stale)
    return best, stale


def main() -> None:
    """Measure half of the data, all of it, and a change."""
    days, rows = (int(each) for each in sys.argv[1:3]) if len(sys.argv) > 2 else (3650, 1_000_000)
    folder = Path(tempfile.mkdtemp())
    try:
        spent = {}
        for part in (2, 1):
            pipeline = build(folder / str(part), days // part, rows // part)
            record_all_as_built(pipeline)
            spent[part], stale = cost(pipeline)
            assert stale == 0, stale
            print(f"{days // part} partitions, {SOURCES} sources of {rows // part:,} rows: {spent[part]:.2f} s of CPU")
        with duckdb.connect(str(folder / "1" / "sources.duckdb")) as con:
            con.execute("UPDATE raw.s4 SET c1 = c1 + 1 WHERE (day - DATE '2014-01-01') % 100 = 50")
        changed, stale = cost(pipeline)
        print(
            f"1% of the days of the source with the longest lookback changed: {changed:.2f} s, {stale} stale partitions"
        )
        print(
            f"bound {BOUND} s; holds: {max(spent[1], changed) <= BOUND}; twice the data cost {spent[1] / spent[2]:.1f}x"
        )
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
