"""A project with years of hourly partitions of 20 rows: `python -m benchmarks.hours FOLDER COUNT [--sources 5] [--minutes 5]`.

The first 48 are built by a real backfill. Every other one has the rows of the same one of the first 24, with
keys and times of its own, and is written to the same tables in bulk: digests, the audit's chain and published files are
computed by the project's own functions. `tests/test_hours.py` compares the result with a real backfill.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.data import FOLDER, REPOSITORY

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from pip_dagster.declaration.partition import Partition
    from pip_dagster.declaration.pipeline import Pipeline

NAME = "hours"
ROWS = 20  # a partition
START = datetime(2020, 1, 1)
REAL, PERIOD = 48, 24  # partitions built by a real backfill; hours after which rows repeat
WINDOW = 2_000  # partitions written together
_COLUMNS = ("price", "items", "earlier")


def build(folder: Path, count: int, *, sources: int = 1, real: int = REAL, minutes: int = 60) -> Pipeline:
    """Write the project to a folder that does not exist yet, with `count` partitions of so many minutes.

    `real` of them are built by a backfill.
    """
    pipeline = _declare(folder, count, sources, minutes)
    _backfill(folder, pipeline, min(real, count))
    if count > real:
        _continue(pipeline, count)
    return pipeline


def kept(count: int, *, sources: int = 1) -> Path:
    """A project with this many partitions among the benchmarks' data, built once. A benchmark may score hours again."""
    folder = FOLDER / f"hours_{count}_{sources}"
    if not (folder / "complete").is_file():
        shutil.rmtree(folder, ignore_errors=True)
        build(folder, count, sources=sources)
        (folder / "complete").touch()
    return folder


def pipeline_of(folder: Path) -> Pipeline:
    """The pipeline of a project that `build` wrote."""
    import yaml

    from pip_dagster.declaration.pipeline import Pipeline
    from pip_dagster.declaration.project import Project
    from pip_dagster.declaration.spec import PipelineSpec

    place = folder / "shop" / "defs" / NAME
    attributes = yaml.safe_load((place / "defs.yaml").read_text())["attributes"]
    return Pipeline.load(PipelineSpec.model_validate(attributes), place, Project.at(folder))


def key_of(place: int, minutes: int = 60) -> str:
    """The key of the partition so many places after the first."""
    return f"{START + timedelta(minutes=place * minutes):%Y-%m-%d-%H:%M}"


def _declare(folder: Path, count: int, sources: int, minutes: int) -> Pipeline:
    """Sources, declaration and model."""
    import duckdb
    import yaml

    from pip_dagster.registry.store import Registry

    import xgboost as xgb  # isort: skip

    place = folder / "shop" / "defs" / NAME
    place.mkdir(parents=True)
    (folder / "shop" / "__init__.py").touch()
    (folder / "shop" / "definitions.py").write_text(
        "from pathlib import Path\n\nimport dagster as dg\n\n\n@dg.definitions\ndef defs() -> dg.Definitions:\n"
        "    loaded = dg.load_from_defs_folder(path_within_project=Path(__file__).parent)\n"
        "    return dg.Definitions.merge(loaded, dg.Definitions(executor=dg.in_process_executor))\n"
    )
    (folder / "pyproject.toml").write_text(
        '[tool.dg]\ndirectory_type = "project"\n[tool.dg.project]\nroot_module = "shop"\n'
        'code_location_name = "shop"\n[tool.pip_dagster]\n'
    )
    with duckdb.connect(str(folder / "sources.duckdb")) as con:
        con.execute("CREATE SCHEMA raw")
        for source in range(sources):
            con.execute(
                f"CREATE TABLE raw.s{source} AS SELECT i AS order_no, TIMESTAMP '{START:%Y-%m-%d}' + to_seconds(i * {minutes * 60 // ROWS}) "
                f"AS ordered_at, (n * 48271 % 20000 / 100)::DOUBLE AS price, (1 + n * 31 % 6)::INTEGER AS items, "
                f"(n * 7919 % 11)::INTEGER AS earlier "
                f"FROM (SELECT i, i % {PERIOD * ROWS} + {source} AS n FROM range({count * ROWS}) r(i))"
            )
        sample = con.execute(f"SELECT {', '.join(_COLUMNS)} FROM raw.s0 LIMIT 400").df()
    others = " ".join(f"LEFT JOIN raw.s{i} USING (order_no)" for i in range(1, sources))
    (place / "features.sql").write_text(
        f"SELECT order_no, s0.ordered_at, {', '.join(f's0.{name}' for name in _COLUMNS)} FROM raw.s0 {others} "
        "WHERE s0.ordered_at >= $start AND s0.ordered_at < $end\n"
    )
    listed = {f"s{i}": {"table": f"raw.s{i}", "partition_column": "ordered_at"} for i in range(sources)}
    every = "hour" if minutes == 60 else f"{minutes} minutes"
    attributes = {
        "name": NAME,
        "partitions": {"every": every, "start": START.date(), "end": START + timedelta(minutes=count * minutes)},
        "source_database": "sources.duckdb",
        "sources": listed,
        "features": {"sql": "features.sql", "key": ["order_no"], "partition_column": "ordered_at"},
        "scoring": {"model_name": NAME, "device": "cpu"},
    }
    document = {"type": "pip_dagster.components.InferencePipeline", "attributes": attributes}
    (place / "defs.yaml").write_text(yaml.safe_dump(document))
    pipeline = pipeline_of(folder)
    label = (sample["price"] * sample["items"] + sample["earlier"] > 300).astype(int)
    model = xgb.train({"objective": "binary:logistic", "max_depth": 4, "nthread": 1}, xgb.DMatrix(sample, label), 30)
    model.save_model(folder / "model.ubj")
    registry = Registry(pipeline.project.registry)
    registry.register(NAME, model=folder / "model.ubj", sample=sample, by="bench")
    registry.set_alias(NAME, "champion", 1, by="bench", why="first")
    return pipeline


def _backfill(folder: Path, pipeline: Pipeline, count: int) -> None:
    from pip_dagster.ledger.promotions import record_promotions

    step = pipeline.spec.partitions.step
    assert step
    last = key_of(count - 1, step // timedelta(minutes=1))
    words = ["backfill", NAME, "--from", key_of(0), "--to", last, "--no-dagster"]
    command = [sys.executable, "-m", "pip_dagster.cli.main", "--project", str(folder), *words]
    ended = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    if ended.returncode:
        raise SystemExit(ended.stdout[-2000:] + ended.stderr[-2000:])
    record_promotions(pipeline.project)


def _continue(pipeline: Pipeline, count: int) -> None:
    """Write what a backfill of the other partitions would have written, and publish it."""
    from pip_dagster.declaration.grid import closed_partitions
    from pip_dagster.flow.fingerprints import fingerprints
    from pip_dagster.flow.sources import open_sources
    from pip_dagster.ledger.audit import append_live
    from pip_dagster.ledger.observations import add_observations
    from pip_dagster.warehouse.access import writing
    from pip_dagster.warehouse.connect import workspace
    from pip_dagster.warehouse.transaction import transaction

    partitions = closed_partitions(pipeline.spec.partitions, datetime.now(UTC))
    assert len(partitions) == count
    with workspace(threads=2) as con:
        with open_sources(con, pipeline.spec, pipeline.project.root):
            found = fingerprints(con, pipeline, partitions)
        with writing(con, pipeline.project, purpose="benchmark"), transaction(con):
            add_observations(con, NAME, found.buckets, found.ranges, datetime.now(UTC))
            _hours(con, partitions, found.of)
        # In windows, since a backfill leaves row groups of about so many partitions.
        for first in range(0, count, WINDOW):
            with writing(con, pipeline.project, purpose="benchmark"), transaction(con):
                window = f"hour >= {first} AND hour < {first + WINDOW}"
                con.execute(f"CREATE OR REPLACE TEMP TABLE staged AS SELECT * FROM hours WHERE {window}")
                _copy_rows(con, pipeline)
                _digest(con, pipeline)
                _copy_ledger(con)
                changes = con.execute("SELECT change_id FROM staged ORDER BY 1").fetchall()
                append_live(con, [change for (change,) in changes])


def _hours(con: DuckDBPyConnection, partitions: Sequence[Partition], sources: Mapping[str, object]) -> None:
    """Stage a row for each partition that is not built yet, with its ids."""
    import pandas as pd

    from pip_dagster.declaration.canonical import canonical

    built = {key for (key,) in con.execute("SELECT partition_key FROM ledger.scorings").fetchall()}
    frame = pd.DataFrame(
        [
            (hour, each.key, partitions[hour % PERIOD].key, each.start, each.end, canonical(sources[each.key]))  # type: ignore[arg-type]
            for hour, each in enumerate(partitions)
            if each.key not in built
        ],
        columns=["hour", "key", "model", "start", "end", "sources"],
    )
    con.register("frame", frame)
    identified = ", ".join(
        f"strftime(moment + to_microseconds({i}), '%Y%m%dT%H%M%S%f') || '-' || left(md5(key || '{name}'), 8) AS {name}"
        for i, name in enumerate(("extraction_id", "revision", "scoring_id", "change_id"))
    )
    con.execute(
        f"CREATE TEMP TABLE hours AS SELECT *, {identified} FROM (SELECT *, (SELECT max(made_at) FROM ledger.audit) "
        "+ to_microseconds(10 * hour) AS moment FROM frame)"
    )


def _copy_rows(con: DuckDBPyConnection, pipeline: Pipeline) -> None:
    """Features and scores of each staged partition: those of its model, with keys and times of its own."""
    step = pipeline.spec.partitions.step
    assert step
    hours = f"(h.hour - h.hour % {PERIOD})"
    for table, scoring in con.execute(
        "SELECT table_name, starts_with(table_name, 'scores') FROM duckdb_tables() WHERE schema_name = $name "
        "AND database_name = current_database()",
        {"name": NAME},
    ).fetchall():
        own = "scoring_id" if scoring else "revision"
        con.execute(
            f"INSERT INTO {NAME}.{table} SELECT r.* REPLACE (h.key AS partition_key, h.{own} AS {own}, "
            f"r.order_no + {ROWS} * {hours} AS order_no, r.ordered_at + to_seconds({hours} * {step // timedelta(seconds=1)}) AS ordered_at) "
            f"FROM {NAME}.{table} r JOIN staged h ON h.model = r.partition_key ORDER BY h.hour"
        )


def _digest(con: DuckDBPyConnection, pipeline: Pipeline) -> None:
    """Stage the digests of what was copied, and of the inputs."""
    import pandas as pd

    from pip_dagster.ledger.record import inputs_digest
    from pip_dagster.registry.store import Registry
    from pip_dagster.warehouse.digest import RowSet, row_set_sql

    for view, beside in (("features", ("partition_key", "revision")), ("scores", ("scoring_id",))):
        described = con.execute(f"DESCRIBE {NAME}.{view}").fetchall()
        columns = {name: of for name, of, *_ in described if name not in beside}
        rows = con.execute(
            f"SELECT partition_key, {row_set_sql(columns)} FROM {NAME}.{view} "
            "SEMI JOIN staged h ON h.key = partition_key GROUP BY 1"
        ).fetchall()
        digests = [(key, RowSet(*of).digest(columns)) for key, *of in rows]
        con.register(f"of_{view}", pd.DataFrame(digests, columns=["key", "digest"]))
    manifest = Registry(pipeline.project.registry).get(NAME, "champion").manifest_digest
    inputs = [
        (key, inputs_digest(sources, pipeline.sql_digest, pipeline.scoring_digest, manifest))
        for key, sources in con.execute("SELECT key, sources FROM staged").fetchall()
    ]
    con.register("of_inputs", pd.DataFrame(inputs, columns=["key", "digest"]))
    con.execute(
        "CREATE OR REPLACE TEMP TABLE digested AS SELECT h.*, f.digest AS features, s.digest AS scores, i.digest AS inputs "
        "FROM staged h JOIN of_features f USING (key) JOIN of_scores s USING (key) JOIN of_inputs i USING (key)"
    )


def _copy_ledger(con: DuckDBPyConnection) -> None:
    """The ledger's rows of each staged partition: those of its model, with what is its own."""
    own = {
        "partition_key": "key",
        "partition_start": "start",
        "partition_end": '"end"',
        "source_digests": "sources",
        "feature_digest": "features",
        "score_digest": "scores",
        "inputs_digest": "inputs",
        "feature_revision": "revision",
        "made_at": "moment",
        **{name: name for name in ("extraction_id", "revision", "scoring_id", "change_id")},
    }
    for table in ("extractions", "scorings", "live_changes", "backfill_partitions"):
        columns = {name for name, *_ in con.execute(f"DESCRIBE ledger.{table}").fetchall()}
        replaced = ", ".join(f"h.{own[name]} AS {name}" for name in sorted(own.keys() & columns))
        con.execute(
            f"INSERT INTO ledger.{table} SELECT r.* REPLACE ({replaced}) FROM ledger.{table} r "
            "JOIN digested h ON h.model = r.partition_key ORDER BY h.hour"
        )
    con.execute(
        "UPDATE ledger.backfills SET partition_keys = "
        "(SELECT list(partition_key ORDER BY partition_key) FROM ledger.backfill_partitions)"
    )


def main() -> None:
    """Write the project to a folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("count", type=int)
    parser.add_argument("--sources", type=int, default=1)
    parser.add_argument("--minutes", type=int, default=60, help="of a partition")
    words = parser.parse_args()
    began = time.process_time()
    build(words.folder, words.count, sources=words.sources, minutes=words.minutes)
    print(f"{words.folder}: {words.count} partitions in {time.process_time() - began:.0f} CPU s and a backfill's")


if __name__ == "__main__":
    main()
