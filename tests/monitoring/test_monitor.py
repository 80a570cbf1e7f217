"""`pip-dagster monitor` over real runs: a planted shift is in alarm, the rest is not, a backfill gives the same."""

import json

import dagster as dg
import pytest
from click.testing import CliRunner

from pip_dagster.cli.main import cli
from pip_dagster.flow.model import ScoringModel
from pip_dagster.monitoring import backfill
from pip_dagster.warehouse.connect import workspace

DAYS = [f"2024-03-{day:02}" for day in range(1, 25)]
# Each day its own three quarters of all 200 orders.
MORE = """
CREATE OR REPLACE TABLE raw.orders AS
SELECT (row_number() OVER ())::INTEGER AS order_id, d::DATE AS day, * EXCLUDE (order_id, day)
FROM raw.orders, generate_series(DATE '2024-03-01', DATE '2024-03-24', INTERVAL 1 DAY) g(d)
WHERE hash(order_id, d) % 4 < 3"""
SHIFT = "UPDATE raw.orders SET amount = amount * 4, shop = 'plain' WHERE day >= '2024-03-21'"


def monitor(tiny, *arguments):
    found = CliRunner().invoke(cli, ["--project", str(tiny.root), "monitor", "orders", *arguments])
    assert found.exit_code == 0, found.exception
    return found


def columns(tiny, *arguments):
    (found,) = json.loads(monitor(tiny, "--json", *arguments).stdout)
    return {each["name"]: each for each in found["columns"]}


@pytest.fixture
def shifted(tiny):
    tiny.declare(monitoring={"history": 14})
    tiny.source(MORE, SHIFT)
    tiny.run(*DAYS)
    return tiny


def test_a_shift_is_in_alarm(shifted):
    found = columns(shifted)
    assert found["shop"]["state"] == "alarm" and found["shop"]["rule"] == "sudden"
    assert found["shop"]["bin"] == "'plain'" and found["shop"]["share_now"] == 1.0
    assert found["amount"]["state"] == "alarm" and found["amount"]["mean"] > 2 * found["amount"]["training_mean"]
    assert found["quantity"]["state"] == "ok" and found["gift"]["state"] == "ok"
    assert columns(shifted, "--partition", DAYS[19])["shop"]["state"] == "ok", "before it"
    text = monitor(shifted).stdout
    assert "In alarm: " in text and "about 1.0%" in text
    listed = json.loads(monitor(shifted, "--last", "24", "--json").stdout)
    alarms = [each["partition_key"] for each in listed if any(c["state"] == "alarm" for c in each["columns"])]
    assert alarms == DAYS[20:]


def drift_checks(tiny, first, last):
    from pip_dagster.orchestration.definitions import build_definitions

    tags = {"dagster/asset_partition_range_start": first, "dagster/asset_partition_range_end": last}
    job = build_definitions(tiny.pipeline()).resolve_job_def("orders_job")
    result = job.execute_in_process(instance=dg.DagsterInstance.ephemeral(), tags=tags)
    assert result.success
    checks = (each for each in result.all_events if each.event_type_value == "ASSET_CHECK_EVALUATION")
    events = (each.asset_check_evaluation_data for each in checks)
    return {each.partition: each for each in events if each.check_name == "drift" and each.partition}


@pytest.mark.slice
def test_a_run_judges_its_partitions(shifted):
    found = drift_checks(shifted, DAYS[19], DAYS[21])
    assert {key: each.passed for key, each in found.items()} == {DAYS[19]: True, DAYS[20]: False, DAYS[21]: False}
    assert "In alarm: " in found[DAYS[21]].description and "'plain'" in found[DAYS[21]].description
    assert found[DAYS[21]].severity == dg.AssetCheckSeverity.WARN
    assert {"alarm"} <= {each.data["state"] for each in found[DAYS[21]].metadata["columns"].records}
    shifted.tamper(
        "ALTER TABLE ledger.profiles DROP COLUMN gain", "ALTER TABLE ledger.profiles ADD COLUMN gain VARCHAR"
    )
    shifted.tamper("UPDATE ledger.profiles SET gain = 'x'", "UPDATE ledger.profiles SET counts = [1]")
    (broken,) = drift_checks(shifted, DAYS[2], DAYS[2]).values()
    assert not broken.passed and "Not judged" in broken.description


def test_execute_on_the_check_judges_the_newest_profiled_partition(shifted):
    from pip_dagster.orchestration.definitions import build_definitions

    check = dg.AssetCheckKey(dg.AssetKey(["orders", "predictions"]), "drift")

    def execute():
        job = build_definitions(shifted.pipeline()).get_repository_def().get_job("__ASSET_JOB")
        alone = job.get_subset(asset_selection=set(), asset_check_selection={check})
        run = alone.execute_in_process(instance=dg.DagsterInstance.ephemeral())
        (found,) = run.get_asset_check_evaluations()
        return found

    found = execute()
    assert not found.passed and found.description.startswith(f"{DAYS[-1]}: In alarm: ")
    assert "columns" in found.metadata and found.severity == dg.AssetCheckSeverity.WARN
    shifted.tamper("DELETE FROM ledger.profiles")
    assert "Nothing was judged" in execute().description and "--backfill" in execute().description


def test_a_backfill_gives_the_same_profiles(shifted):
    query = (
        "SELECT partition_key, name, column_kind, rows, counts, missing, unseen, round(mean, 6), round(sd, 6), gain "
        "FROM ledger.profiles ORDER BY ALL"
    )
    before = shifted.warehouse(query)
    shifted.tamper("DELETE FROM ledger.profiles")
    nothing = CliRunner().invoke(cli, ["--project", str(shifted.root), "monitor", "orders"]).exception
    assert "no live partition is profiled" in str(nothing) and "--backfill" in str(nothing)
    assert "profiled 24 of 24 partitions" in monitor(shifted, "--backfill").stderr
    assert shifted.warehouse(query) == before
    assert "0 partitions profiled" in monitor(shifted, "--backfill").stderr, "again: there is nothing left"


def test_two_backfills_at_once_profile_each_partition_once(shifted, monkeypatch):
    monkeypatch.setattr(backfill, "_CHUNK", 12)
    shifted.tamper("DELETE FROM ledger.profiles")
    pipeline = shifted.pipeline()
    model = ScoringModel.resolve(pipeline, 1)

    def another(_):
        with workspace(threads=1) as con:
            backfill.profile_stored(con, pipeline, model)

    with workspace(threads=1) as con:
        backfill.profile_stored(con, pipeline, model, progress=another)
    assert shifted.warehouse(
        "SELECT DISTINCT n FROM (SELECT count(*) n FROM ledger.profiles GROUP BY scoring_id, column_kind, name)"
    ) == [(1,)]


def test_a_backfill_reads_no_more_entries_than_a_chunk_at_a_time(shifted, monkeypatch):
    monkeypatch.setattr(backfill, "_CHUNK", 5)
    read = []

    def counted(*arguments):
        read.append(backfill_unprofiled(*arguments))
        return read[-1]

    backfill_unprofiled = backfill.unprofiled
    monkeypatch.setattr(backfill, "unprofiled", counted)
    shifted.tamper("DELETE FROM ledger.profiles")
    monitor(shifted, "--backfill")
    assert [len(each) for each in read] == [24, 5, 5, 5, 5, 4]


@pytest.mark.slice
def test_partitions_whose_features_are_not_those_of_the_version_keep_no_other_from_being_profiled(gated, helpers):
    """A version with a renamed feature scores one day; the day before and the one after have its features as well."""
    days = ("2024-03-01", "2024-03-02", "2024-03-03", "2024-03-04")
    version = gated.register(helpers.returned, names={"amount": "price"})
    sql = (gated.folder / "features.sql").read_text()
    (gated.folder / "features.sql").write_text(sql.replace("amount,", "amount AS price,"))
    gated.registry.set_alias("returns", "champion", version, by="ada", why="other features")
    gated.declare(reruns={"promotion": "none"})
    for day in (days[1], days[3]):
        gated.run(day)
    gated.declare(reruns={"promotion": "none"}, monitoring={})
    text = gated.shell("monitor", "orders", "--backfill")
    assert "orders: 2 partitions profiled." in text and "the drift of 2 partitions judged" in text
    assert "2 partitions, 2024-03-01 to 2024-03-03, cannot be profiled: " in text and "'price' is missing" in text
    profiled = gated.warehouse("SELECT DISTINCT partition_key FROM ledger.profiles ORDER BY 1")
    assert [key for (key,) in profiled] == [days[1], days[3]]
