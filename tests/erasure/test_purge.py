"""A purge from the clock to the byte scan: contents of old partitions are nowhere, what they were is evidence."""

from __future__ import annotations

import json
import signal
from datetime import UTC, datetime

import dagster as dg
import pytest
from byte_scan import needles, scan

from pip_dagster.erasure.purge import due
from pip_dagster.errors import BackfillError
from pip_dagster.evidence.contents import content_faults
from pip_dagster.flow.plan import make_plan
from pip_dagster.ledger.verify import verify
from pip_dagster.orchestration.definitions import build_definitions
from pip_dagster.warehouse.access import reading
from pip_dagster.warehouse.connect import workspace

OLD, NEW = ("2024-03-01", "2024-03-02"), ("2024-03-03", "2024-03-04")
BIG = 7700000000000
DECLARED = {
    "deliver": {"out": {"parquet": "delivered"}},
    "explanations": {"where": "score > 0.2", "top": 2},
    "monitoring": {},
}


def keeping(until: str = "2024-03-03") -> dict[str, object]:
    """A clock by which partitions that ended by this day are past it."""
    days = (datetime.now(UTC) - datetime.fromisoformat(until).replace(tzinfo=UTC)).days
    return {"subject": "order_id", "retention": {"content": f"{days} days", "evidence": "9 years"}}


@pytest.fixture
def shop(tiny):
    """Two versions, two revisions, quarantine, reasons and delivered copies; keys that can be found as bytes."""
    tiny.declare(privacy={"subject": "order_id"}, **DECLARED)
    tiny.source(f"UPDATE raw.orders SET order_id = order_id + {BIG}")
    tiny.run()
    tiny.source(f"UPDATE raw.orders SET quantity = 8 WHERE day = '{OLD[0]}'")
    tiny.run(OLD[0])
    tiny.run(OLD[1], version=2)
    tiny.shell("deliver", "orders")
    return tiny.declare(privacy=keeping(), **DECLARED)


def contents(tiny, keys):
    tables = tiny.warehouse("SELECT table_name FROM duckdb_tables() WHERE schema_name = 'orders' ORDER BY 1")
    among = ", ".join(f"'{key}'" for key in keys)
    of = {table: f"FROM orders.{table} WHERE partition_key IN ({among}) ORDER BY ALL" for (table,) in tables}
    return {table: tiny.warehouse(select) for table, select in of.items()}


def faults(tiny):
    with workspace(threads=1) as con, reading(con, tiny.project, purpose="test"):
        return [verify(con)] + [*content_faults(con)]


def subjects(tiny, keys):
    among = ", ".join(f"'{key}'" for key in keys)
    return [key for (key,) in tiny.source_rows(f"SELECT order_id FROM raw.orders WHERE day IN ({among})")]


def left(tiny, keys):
    wanted = needles(*subjects(tiny, keys))
    return {found.place for found in scan(tiny.root, wanted) if "sources.duckdb" not in found.place}


@pytest.mark.slice
def test_contents_of_old_partitions_are_nowhere_and_the_rest_is_as_before(shop):
    assert due(shop.project, [shop.pipeline()]).partitions == {"orders": [*OLD]}
    before, counts = (
        contents(shop, NEW),
        shop.warehouse("SELECT scoring_id, rows_scored FROM ledger.scorings ORDER BY 1"),
    )
    published = shop.scores(where=f"partition_key >= '{NEW[0]}'")
    assert left(shop, OLD)
    done = json.loads(shop.shell("purge", "--json"))
    assert done["partitions"]["orders"].keys() == {*OLD}
    assert contents(shop, NEW) == before and not any(contents(shop, OLD).values())
    assert shop.scores() == published
    assert shop.warehouse("SELECT scoring_id, rows_scored FROM ledger.scorings ORDER BY 1") == counts
    assert faults(shop) == [None] and "chain is intact" in shop.shell("audit", "verify", code=4)
    assert not left(shop, OLD) and left(shop, NEW)

    found = make_plan(shop.pipeline(), shop.partitions())
    assert not found.stale and not found.on_hold and found.current == len(NEW)
    assert [each.keys for each in found.purged] == [OLD] and found.purged[0].purge_id == done["purge"]
    assert done["purge"] in shop.shell("plan", "orders") and done["purge"] in shop.shell(
        "replay", "orders", OLD[0], code=2
    )
    states = {row["partition_key"]: row["purged_by"] for row in json.loads(shop.shell("status", "orders", "--json"))}
    lineage = json.loads(shop.shell("lineage", "orders", OLD[0], "--json"))
    assert {row["purged_by"] for row in lineage} == {done["purge"]}
    assert json.loads(shop.shell("certificate", done["purge"], "--json"))["kind"] == "purge"
    assert states == dict.fromkeys(OLD, done["purge"]) | dict.fromkeys(NEW)
    assert f"purged, by {done['purge']}" in " ".join(shop.shell("status", "orders").split())

    says_what_was_purged(shop, done["purge"])

    assert json.loads(shop.shell("purge", "--json"))["purge"] is None
    [table] = [name for name in contents(shop, NEW) if name.startswith("features__")]
    revision = lineage[0]["feature_revision"]
    shop.tamper(f"INSERT INTO orders.{table} SELECT * REPLACE ('{revision}' AS revision) FROM orders.{table} LIMIT 1")
    assert "purged" in str(faults(shop)[1])
    shop.tamper(f"DELETE FROM orders.{table} WHERE revision = '{revision}'")
    assert "retention" in shop.run(OLD[0])[OLD[0]].error
    with pytest.raises(BackfillError, match="content"):
        from pip_dagster.flow.backfill import BackfillRequest, begin

        begin(shop.pipeline(), BackfillRequest(*OLD, "ada"))
    planned = json.loads(shop.shell("backfill", "orders", "--from", OLD[0], "--to", NEW[0], "--dry-run", "--json"))
    assert planned["chunks"] == [[NEW[0]]] and planned["expired"] == len(OLD)
    shop.shell("models", "rollback", "orders", "--to", "v1", "--why", "a test", "--keep-alias")
    assert faults(shop) == [None]

    shop.declare(privacy=keeping("2024-02-01"), **DECLARED)  # a longer clock: built again only by request
    assert not make_plan(shop.pipeline(), shop.partitions()).stale
    assert shop.run(OLD[0])[OLD[0]].error is None
    assert contents(shop, OLD[:1]) and faults(shop) == [None]
    assert not make_plan(shop.pipeline(), shop.partitions(*OLD)).stale


def says_what_was_purged(tiny, purge_id):
    """Whoever asks for a purged partition is told by which purge it is empty; who asks for others is not."""
    both = "2024-03-01 to 2024-03-02: the contents of 2 partitions were purged at 20"
    exported, new = tiny.root.parent / "exported", ("--from", NEW[0], "--to", NEW[-1])
    assert f"{both}" in (said := tiny.shell("export", "orders", "-o", str(exported / "all"))) and purge_id in said
    assert purge_id not in tiny.shell("export", "orders", *new, "-o", str(exported / "new"))
    select = "SELECT count(*) FROM orders.predictions WHERE partition_key = '{}'"
    assert f"orders, {OLD[0]}: the contents of 1 partition were" in tiny.shell("query", select.format(OLD[0]))
    assert "purged" not in tiny.shell("query", select.format(NEW[0]))
    page = tiny.root.parent / "page.html"
    for words, says in ((("report", "orders"), True), (("report", "orders", *new), False)):
        tiny.shell(*words, "-o", str(page))
        assert (both in page.read_text()) == says, words
    tiny.shell("subject", "report", str(subjects(tiny, NEW)[0]), "-o", str(page))
    assert both in page.read_text() and "nor whether the person was in them" in page.read_text()
    said = tiny.shell("subject", "report", str(subjects(tiny, OLD)[0]), "-o", str(page), code=1)
    assert both in said


KILLED = """
import os, signal, sys
from pip_dagster.declaration.find import find_pipeline
from pip_dagster.declaration.project import Project
from pip_dagster.erasure.purge import purge

def progress(text):
    if text == f"purging: {sys.argv[1]}":
        os.kill(os.getpid(), signal.SIGKILL)

project = Project.find()
purge(project, [find_pipeline(project, "orders")], actor="ada", progress=progress)
"""


@pytest.mark.soak
def test_a_purge_that_is_killed_before_any_place_is_completed_by_the_next(shop):
    for place in ("warehouse", "published", "delivered copies of orders", "warehouse file"):
        process = shop.python(KILLED, place)
        assert process.communicate()[0] == "" and process.returncode == -signal.SIGKILL
    done = json.loads(shop.shell("purge", "--json"))
    assert done["resumed"] and done["partitions"]["orders"].keys() == {*OLD}
    assert shop.warehouse("SELECT count(DISTINCT erasure_id) FROM ledger.erasures") == [(1,)]
    assert faults(shop) == [None] and not left(shop, OLD) and left(shop, NEW)


@pytest.mark.soak
def test_the_asset_purges_and_a_target_that_is_away_fails_its_run(shop, tmp_path, monkeypatch):
    home = tmp_path / "home"
    home.mkdir()
    (home / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    monkeypatch.setenv("DAGSTER_HOME", str(home))
    definitions = build_definitions(shop.pipeline())
    assert definitions.get_schedule_def("orders_purge_schedule").cron_schedule == "0 3 * * *"
    delivered = shop.root / "delivered"
    delivered.rename(shop.root / "away")
    delivered.write_text("no folder")
    asset = [definitions.get_assets_def(["orders", "purged"])]
    with dg.DagsterInstance.get() as instance:
        failed = dg.materialize(asset, instance=instance, raise_on_error=False)
        assert not failed.success and "delivered" in str(failed.get_step_failure_events())
        delivered.unlink()
        (shop.root / "away").rename(delivered)
        assert dg.materialize(asset, instance=instance).success
        made = instance.get_latest_materialization_event(dg.AssetKey(["orders", "purged"]))
        assert made.asset_materialization.metadata["partitions"].value == len(OLD)
        assert dg.materialize(asset, instance=instance).success
    assert not left(shop, OLD) and faults(shop) == [None]


@pytest.mark.slice
def test_an_interrupted_purge_of_more_pipelines_is_not_forgotten(tiny):
    tiny.declare(privacy={"subject": "order_id"}).run(OLD[0])
    tiny.declare(privacy=keeping())
    tiny.tamper(
        "INSERT INTO ledger.erasures (erasure_id, kind, pipelines, state, made_at) "
        "VALUES ('p1', 'purge', ['orders', 'refunds'], 'running', now())"
    )
    assert "`pip-dagster purge orders refunds` completes it" in tiny.shell("purge", "--dry-run")
    for _ in "once", "again":
        assert "The purge p1 of orders, refunds was interrupted" in tiny.shell("purge", "orders", code=1)
        assert not due(tiny.project, [tiny.pipeline()]).partitions
