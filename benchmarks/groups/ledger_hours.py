"""What commands, ticks and runs cost with years of hourly partitions in the ledger."""

from __future__ import annotations

import os
import shutil
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks import data, hours
from benchmarks.measure import Timed, case, in_turns, least_cpu, pip_dagster
from benchmarks.suite import Figure, Options, benchmark, note

if TYPE_CHECKING:
    import dagster as dg

FEW, MANY, SOURCES = 10, 43_800, 5
COMMANDS = {
    "status": ["status", hours.NAME],
    "lineage": ["lineage", hours.NAME, hours.key_of(5)],
    "plan": ["plan", hours.NAME],
    "metrics": ["metrics"],
}
# Of these, only what they cost is reported.
OTHERS = {
    "plan --json": ["plan", hours.NAME, "--json"],
    "query": ["query", f"SELECT avg(score) FROM hours.predictions WHERE partition_key = '{hours.key_of(5)}'"],
    "lineage --key": ["lineage", hours.NAME, "--key", "101"],
    "replay": ["replay", hours.NAME, hours.key_of(5)],
    "report": ["report", hours.NAME, "--output", "report.html"],
    "audit verify": ["audit", "verify"],
}
ADDED = 10


def project(count: int) -> Path:
    """The folder of a project with so many partitions, built if it is not there."""
    from pip_dagster.warehouse.schema import VERSION

    folder = data.FOLDER / f"ledger_{VERSION}_{count}"
    if not folder.is_dir():
        note(f"a project with {count:,} hourly partitions and {SOURCES} sources")
        building = folder.with_name(f".{folder.name}.{os.getpid()}")
        hours.build(building, count, sources=SOURCES)
        building.rename(folder)
        pip_dagster(folder, "publish")  # the views name their folder
    return folder


@benchmark("commands_hours")
def commands_hours(_: Options) -> list[Figure]:
    """CPU seconds of commands, imports included, with 43,800 hourly partitions and five sources."""
    few, many = project(FEW), project(MANY)
    figures = []
    for name, words in (COMMANDS | OTHERS).items():
        note(f"{name} with {FEW} and {MANY:,} partitions")
        turns = 3 if name in COMMANDS else 1
        runs = in_turns(turns, lambda: pip_dagster(few, *words), lambda: pip_dagster(many, *words))  # noqa: B023
        before, now = (least_cpu(each) for each in runs)
        bound = 1.5 if name in COMMANDS else None
        detail = f"{FEW}: {before:.2f} s, {MANY:,}: {now:.2f} s"
        figures.append(Figure(f"`{name}` with 43,800 hourly partitions", now, bound, "s of CPU", detail))
    return figures


@benchmark("tick_hours")
def tick_hours(_: Options) -> list[Figure]:
    """CPU seconds of a sensor's tick with 43,800 hourly partitions and five sources."""
    folder = project(MANY)
    runs = [case("benchmarks.groups.ledger_hours:tick", folder) for _ in range(2)]
    first, second = (min(run.reported[name] for run in runs) for name in ("first", "second"))
    return [
        Figure("a tick with 43,800 hourly partitions", first, 2, "s of CPU", f"{SOURCES} sources, after the imports"),
        Figure("… after which nothing changed", second, 0.5, "s of CPU", "the next one"),
    ]


def tick(root: str) -> None:
    """Two ticks of the sensor that requests reruns."""
    import dagster as dg

    from pip_dagster.orchestration.definitions import build_definitions

    definitions = build_definitions(hours.pipeline_of(Path(root)))
    with dg.DagsterInstance.ephemeral() as instance:
        _tick(definitions, instance, None)  # its imports
        with Timed() as first:
            cursor = _tick(definitions, instance, None)
        with Timed() as second:
            _tick(definitions, instance, cursor)
    first.report(first=first.cpu_seconds, second=second.cpu_seconds)


def _tick(definitions: dg.Definitions, instance: dg.DagsterInstance, cursor: str | None) -> str | None:
    import dagster as dg

    repository = definitions.get_repository_def()
    context = dg.build_sensor_context(instance=instance, repository_def=repository, cursor=cursor)
    found = definitions.resolve_sensor_def(f"{hours.NAME}_source_changes").evaluate_tick(context)
    assert found.skip_message and found.skip_message.startswith("Nothing is stale"), found
    return found.cursor


@benchmark("growth_hours")
def growth_hours(_: Options) -> list[Figure]:
    """The cost of a partition with 10 and with 43,800 hourly partitions in the ledger."""
    few, many = (str(project(count)) for count in (FEW, MANY))
    process = "benchmarks.groups.ledger_hours:added"
    runs = in_turns(3, lambda: case(process, few, FEW), lambda: case(process, many, MANY))
    before, now = (least_cpu(each) / ADDED for each in runs)
    detail = f"{FEW}: {before * 1000:.0f} ms, {MANY:,}: {now * 1000:.0f} ms of CPU"
    return [Figure("a partition with 43,800 hourly ones in the ledger, against 10", now / before, 1.1, "×", detail)]


def added(root: str, known: str) -> None:
    """Ten more partitions of a copy of the project, each by a run of its own."""
    import yaml

    from benchmarks.cases import materialize

    with data.scratch() as folder:
        copy = folder / "project"
        shutil.copytree(root, copy)
        declaration = copy / "shop" / "defs" / hours.NAME / "defs.yaml"
        document = yaml.safe_load(declaration.read_text())
        attributes, count = document["attributes"], int(known)
        attributes["partitions"]["end"] = hours.START + timedelta(hours=count + ADDED)
        attributes["sources"] = {"s0": attributes["sources"]["s0"]}
        declaration.write_text(yaml.safe_dump(document))
        _extend(copy, hours.START + timedelta(hours=count))
        pipeline = hours.pipeline_of(copy)
        keys = [hours.key_of(count + hour) for hour in range(ADDED)]
        os.sync()  # so that pending writes of the copy are not measured
        with Timed() as timed:
            for key in keys:
                materialize(pipeline, [key])
    timed.report(partitions=ADDED)


def _extend(copy: Path, start: datetime) -> None:
    """More rows, and a feature SQL that reads no others: what DuckDB skips costs the same whatever the history."""
    import duckdb

    with duckdb.connect(str(copy / "sources.duckdb")) as con:
        con.execute(
            f"INSERT INTO raw.s0 SELECT order_no + 100000000, TIMESTAMP '{start.isoformat()}' + to_minutes(i * 3), "
            f"price, items, earlier FROM (SELECT *, row_number() OVER () - 1 AS i FROM (FROM raw.s0 LIMIT "
            f"{ADDED * hours.ROWS}))"
        )
    (copy / "shop" / "defs" / hours.NAME / "features.sql").write_text(
        "SELECT order_no, ordered_at, price, items, earlier FROM raw.s0 "
        "WHERE ordered_at >= $start::TIMESTAMP AND ordered_at < $end::TIMESTAMP\n"
    )
