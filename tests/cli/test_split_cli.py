"""What the command line and the UI say of a partition that is split."""

import json

import dagster as dg
import pytest
from click.testing import CliRunner

from pip_dagster.cli.main import cli
from pip_dagster.ledger.promotions import record_promotions
from pip_dagster.warehouse.connect import open_warehouse, workspace
from pip_dagster.warehouse.published import publish_pending
from pip_dagster.warehouse.tables import refresh_views

FIRST = "2024-03-01"


@pytest.fixture
def parted(tiny):
    tiny.registry.set_alias("returns", "challenger", 2, by="ada", why="to compare")
    tiny.declare(scoring={"split": {"arms": {"challenger": "40%"}, "salt": "spring"}})
    tiny.run(FIRST)
    record_promotions(tiny.project)
    return tiny


def invoke(tiny, *arguments, code=0):
    result = CliRunner().invoke(cli, ["--project", str(tiny.root), *arguments])
    assert result.exit_code == code, (result.output, result.exception)
    return result.stdout


@pytest.mark.slice
def test_status_shows_the_arms_and_what_is_amiss(parted):
    assert "challenger v2 40.00%, champion v1 60.00%" in invoke(parted, "status", "orders")
    (row,) = json.loads(invoke(parted, "status", "orders", "--json"))
    assert row["arms"]["challenger"]["share"] == pytest.approx(0.4) and "split" not in row["findings"]
    parted.registry.set_alias("returns", "challenger", 1, by="ada", why="to spoil")
    parted.run(FIRST)
    assert "the champion's own version" in invoke(parted, "status", "orders")
    assert invoke(parted, "status")


@pytest.mark.slice
def test_lineage_says_who_decides(parted):
    assert "challenger v2 40.00%, champion v1 60.00%" in invoke(parted, "lineage", "orders", FIRST)
    assert "40.00% of the units, buckets 0 to 3999" in invoke(
        parted, "lineage", "orders", FIRST, "--as-of", "2999-01-01"
    )
    live = dict(parted.published("SELECT order_id, arm FROM orders.predictions"))
    for key in (0, 1, 2, 3):
        found = json.loads(invoke(parted, "lineage", "orders", "--key", str(key), "--json"))
        assert {each["role"]: each["arm"] for each in found if each["is_live"]} == {
            "arm" if live[key] == "challenger" else "champion": live[key]
        }
        assert len(found) == 2
        assert f"yes, by {live[key]}" in invoke(parted, "lineage", "orders", "--key", str(key))


@pytest.mark.slice
def test_replay_is_bit_equal_for_each_arm_and_tells_which_decides_about_a_key(parted):
    found = json.loads(invoke(parted, "replay", "orders", FIRST, "--key", "3", "--json"))
    assert found["verdicts"] == {"identical": 2}
    assert {each["model"] for each in found["partitions"]} == {"returns v1", "returns v2"}
    rows = {each["model"]: each["keys"][0] for each in found["partitions"]}
    ((version, arm),) = parted.published("SELECT model_version, arm FROM orders.predictions WHERE order_id = 3")
    assert {row["arm"] for row in rows.values()} == {arm}
    assert {model for model, row in rows.items() if row["live"]} == {f"returns v{version}"}
    assert "decides about it, by these scores" in invoke(parted, "replay", "orders", FIRST, "--key", "3")
    parted.declare()  # whatever is declared now
    assert json.loads(invoke(parted, "replay", "orders", "--all", "--json"))["verdicts"] == {"identical": 2}


@pytest.mark.slice
def test_replay_knows_which_rows_were_left_out_of_both(parted):
    broken = [{"type": "expect_column_values_to_be_between", "kwargs": {"column": "quantity", "max_value": 7}}]
    text = json.dumps({"features": [each | {"severity": "critical"} for each in broken]})
    (parted.folder / "expectations.yaml").write_text(text)
    split = {"arms": {"challenger": "40%"}, "salt": "spring"}
    quality = {"expectations": "expectations.yaml", "max_quarantined": 1}
    parted.declare(scoring={"split": split, "on_unseen_category": "quarantine"}, quality=quality)
    parted.source("UPDATE raw.orders SET shop = 'new' WHERE order_id IN (3, 5)")
    parted.run(FIRST)
    ((apart, kept),) = parted.published(
        "SELECT rows_quarantined, rows_scored FROM ledger.partitions WHERE is_live AND role = 'champion'"
    )
    assert apart > 2 and apart + kept == 50
    assert parted.published("SELECT count(*) FROM orders.predictions") == [(kept,)]
    found = json.loads(invoke(parted, "replay", "orders", FIRST, "--key", "3", "--json", code=0))
    assert found["verdicts"] == {"identical": 2}, found
    assert all(each["keys"][0]["quarantined"] for each in found["partitions"])


def test_the_audit_log_names_the_arms(parted):
    assert "v1 live, v2 for challenger" in invoke(parted, "audit", "log")
    assert "the chain is intact" in invoke(parted, "audit", "verify")


def test_compare_shows_the_arm_beside_the_champion_on_all_rows(parted):
    (row,) = json.loads(invoke(parted, "models", "compare", "orders", "--json"))
    assert (row["champion_version"], row["challenger_version"], row["rows"]) == (1, 2, 50)


def test_gates_of_a_promotion_still_replay_the_whole_partition(parted):
    output = CliRunner().invoke(cli, ["--project", str(parted.root), "models", "gate", "orders", "v2"]).stdout
    assert "50 of 50 live rows scored" in output


def test_what_was_stored_by_the_version_before_is_published_with_its_arm(scored, helpers):
    """A warehouse of schema 3, as it was before there were arms."""
    with workspace(threads=1) as con, open_warehouse(con, scored.project.warehouse, purpose="test"):
        con.execute("; ".join(helpers.untyped_live_changes()))
        con.execute("DROP VIEW orders.predictions")
        con.execute("DROP VIEW ledger.live_arms; DROP TABLE ledger.arms; DROP TABLE ledger.canaries")
        con.execute("ALTER TABLE ledger.extractions DROP provisional; ALTER TABLE ledger.scorings DROP provisional")
        con.execute("ALTER TABLE ledger.scorings DROP inputs_digest; DROP TABLE ledger.source_buckets")
        con.execute("DROP TABLE ledger.backfills; DROP TABLE ledger.backfill_partitions")
        con.execute("ALTER TABLE ledger.extractions DROP declared_parts")
        con.execute("ALTER TABLE ledger.scorings DROP declared_parts")
        con.execute("ALTER TABLE ledger.scorings DROP declared_row")
        con.execute("UPDATE ledger.meta SET value = '3' WHERE key = 'schema_version'")
    with workspace(threads=1) as con, open_warehouse(con, scored.project.warehouse, purpose="test"):
        assert con.execute("SELECT DISTINCT arm FROM orders.predictions").fetchall() == [("champion",)]
        assert publish_pending(con, scored.project) == 4
    assert scored.published("SELECT arm, count(*) FROM orders.predictions GROUP BY 1") == [("champion", 200)]


def test_a_split_that_the_views_do_not_know_is_an_error_and_not_no_rows(parted):
    with workspace(threads=1) as con, open_warehouse(con, parted.project.warehouse, purpose="test"):
        con.execute("UPDATE ledger.arms SET salt = 'by hand'")
        with pytest.raises(Exception, match="was not made by pip_dagster"):
            con.execute("SELECT count(*) FROM orders.predictions WHERE score > 0").fetchall()
        refresh_views(con, "orders")
        assert con.execute("SELECT count(*) FROM orders.predictions").fetchall() == [(50,)]


@pytest.mark.slice
@pytest.mark.slow
def test_a_dagster_run_shows_the_arms_and_judges_them(parted):
    from pip_dagster.orchestration.definitions import build_definitions

    parted.declare(scoring={"split": {"arms": {"challenger": "40%", "nobody": "10%"}, "salt": "spring"}})
    tags = {"dagster/asset_partition_range_start": FIRST, "dagster/asset_partition_range_end": "2024-03-02"}
    job = build_definitions(parted.pipeline()).resolve_job_def("orders_job")
    result = job.execute_in_process(instance=dg.DagsterInstance.ephemeral(), tags=tags)
    assert result.success
    made = {(m.asset_key.path[-1], m.partition): m.metadata for m in result.asset_materializations_for_node("orders")}
    predictions = made["predictions", FIRST]
    assert predictions["arm challenger (v2)"].value == "40.00%" and predictions["arm champion (v1)"].value == "60.00%"
    assert predictions["rows of challenger"].value + predictions["rows of champion"].value == 50
    assert ("challengers", "2024-03-02") in made
    judged = [e for e in result.get_asset_check_evaluations() if e.check_name == "split" and e.partition]
    assert {(e.partition, e.passed, e.severity.value) for e in judged} == {
        (FIRST, False, "WARN"),
        ("2024-03-02", False, "WARN"),
    }
    assert "nobody" in judged[0].description
