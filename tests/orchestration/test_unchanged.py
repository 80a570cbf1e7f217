"""A tick after which nothing has changed reads neither the sources nor the ledger; any change makes it read them."""

import shutil

import dagster as dg
import duckdb
import pytest

from pip_dagster.flow import plan as plans
from pip_dagster.flow import unchanged
from pip_dagster.orchestration.definitions import build_definitions

FIRST, SECOND = "2024-03-01", "2024-03-02"
GRID = {"end": "2024-03-05"}
SOURCES = {"orders": {"table": "raw.orders", "partition_column": "day"}}


@pytest.fixture(autouse=True)
def settled(monkeypatch):
    """Files count however recently they were written: no test writes one twice within the resolution of its times."""
    monkeypatch.setattr(unchanged, "_SETTLED_SECONDS", -60.0)


@pytest.fixture
def tick(monkeypatch):
    """One tick of a sensor; whether it made a plan."""
    planned = []
    real = plans.lay_source_digests
    monkeypatch.setattr(plans, "lay_source_digests", lambda *arguments: (planned.append(1), real(*arguments))[1])

    def one(tiny, cursor=None, name="source_changes"):
        planned.clear()
        definitions = build_definitions(tiny.pipeline())
        with dg.DagsterInstance.ephemeral() as instance:
            repository = definitions.get_repository_def()
            context = dg.build_sensor_context(instance=instance, repository_def=repository, cursor=cursor)
            found = definitions.resolve_sensor_def(f"orders_{name}").evaluate_tick(context)
        return found, bool(planned)

    return one


@pytest.mark.parametrize("name", ["source_changes", "model_promoted"])
def test_the_second_tick_reads_nothing_and_says_the_same(scored, tick, name):
    scored.declare(partitions=GRID)
    first, planned = tick(scored, name=name)
    assert planned and first.cursor
    second, planned = tick(scored, first.cursor, name)
    assert not planned and second.skip_message == first.skip_message == "Nothing is stale; current: 4 partitions."
    assert second.cursor in (None, first.cursor)


def of_source(scored):
    scored.source("UPDATE raw.orders SET quantity = quantity + 1 WHERE order_id = 1")


def of_copied_source(scored):
    path = scored.root / "sources.duckdb"
    shutil.copy2(path, path.with_suffix(".copy"))  # with the same times
    path.with_suffix(".copy").replace(path)


def of_ledger(scored):
    scored.tamper(f"DELETE FROM ledger.live_changes WHERE partition_key = '{FIRST}'")


def of_declaration(scored):
    scored.declare(partitions=GRID, decisions={"keep": "score < 0.1"})


def of_alias(scored):
    scored.registry.set_alias("returns", "champion", 2, by="ada", why="better")


def of_grid(scored):
    scored.declare(partitions={"end": "2024-03-04"})


def of_published(scored):
    shutil.rmtree(scored.project.published)


@pytest.mark.parametrize(
    "change", [of_source, of_copied_source, of_ledger, of_declaration, of_alias, of_grid, of_published]
)
def test_any_change_makes_a_plan(scored, tick, change):
    scored.declare(partitions=GRID)
    first, _ = tick(scored)
    change(scored)
    assert tick(scored, first.cursor)[1]


def test_a_tick_that_requests_runs_is_not_remembered(scored, tick):
    scored.declare(partitions=GRID).source("DELETE FROM raw.orders WHERE order_id = 1")
    first, _ = tick(scored)
    assert first.run_requests and not first.cursor
    assert tick(scored, first.cursor)[0].run_requests, "the first run may have been killed"


def test_time_alone_makes_a_provisional_partition_stale(tiny, tick, monkeypatch):
    from datetime import UTC, datetime, timedelta

    from pip_dagster.orchestration.sensors import reruns

    began = datetime.now(UTC)
    waits = began - datetime(2024, 3, 2, tzinfo=UTC) + timedelta(hours=1)
    sources = {"orders": SOURCES["orders"] | {"complete_after": f"{int(waits.total_seconds() // 60)} minutes"}}
    tiny.declare(partitions={"end": "2024-03-02"}, sources=sources)
    assert tiny.run(FIRST)[FIRST].scoring.provisional
    first, _ = tick(tiny)
    assert not first.run_requests and first.cursor
    assert not tick(tiny, first.cursor)[1]

    class Later(datetime):
        @classmethod
        def now(cls, tz=None):
            return began.astimezone(tz) + timedelta(hours=2)

    monkeypatch.setattr(reruns, "datetime", Later)
    assert tick(tiny, first.cursor)[0].run_requests, "its sources are complete now"


@pytest.mark.parametrize("kind", ["view", "Parquet", "moment"])
def test_what_files_cannot_show_is_read_each_time(scored, tick, kind, monkeypatch):
    source = dict(SOURCES["orders"])
    if kind == "view":  # its rows may come from anywhere
        scored.source("ALTER TABLE raw.orders RENAME TO stored", "CREATE VIEW raw.orders AS FROM raw.stored")
    elif kind == "Parquet":  # which files show
        with duckdb.connect(str(scored.root / "sources.duckdb")) as con:
            con.execute(f"COPY raw.orders TO '{scored.root}/orders.parquet'")
        source["parquet"] = "orders*.parquet"
    else:
        monkeypatch.setattr(unchanged, "_SETTLED_SECONDS", 3600.0)
    scored.declare(partitions=GRID, sources={"orders": source})
    first, _ = tick(scored)
    assert not first.run_requests
    assert bool(first.cursor) is (kind == "Parquet")
    assert tick(scored, first.cursor)[1] is (kind != "Parquet")
    if kind == "Parquet":
        shutil.copy(scored.root / "orders.parquet", scored.root / "orders2.parquet")
        assert tick(scored, first.cursor)[1], "there is another file"


def test_labels_are_read_again_after_a_change_only(tiny, tick, monkeypatch):
    from pip_dagster.flow import labels

    read = []
    real = labels.label_sets
    monkeypatch.setattr(labels, "label_sets", lambda *arguments: (read.append(1), real(*arguments))[1])

    def labels_tick(sql, cursor=None):
        (tiny.folder / "labels.sql").write_text(sql)
        tiny.declare(partitions=GRID, sources=SOURCES, labels={"sql": "labels.sql", "outcome": "y"})
        read.clear()
        return tick(tiny, cursor, "labels_arrived")[0], bool(read)

    sql = "SELECT order_id, 1 AS y FROM raw.orders WHERE day >= $start_date AND day < $end_date"
    first, _ = labels_tick(sql)
    second, was_read = labels_tick(sql, first.cursor)
    assert was_read
    third, was_read = labels_tick(sql, second.cursor)
    assert not was_read and third.skip_message.startswith("No label arrived")
    tiny.source("DELETE FROM raw.orders WHERE order_id = 1")
    assert labels_tick(sql, second.cursor)[1]
    steady = labels_tick(f"{sql} AND day < now()", second.cursor)[0].cursor
    assert labels_tick(f"{sql} AND day < now()", steady)[1], "time alone may show more labels"
