"""Replay uses what was recorded: nothing of today's declaration takes part."""

import pytest
import yaml

from pip_dagster.cli.main import cli
from pip_dagster.replay import recall
from pip_dagster.replay.replay import replay
from pip_dagster.warehouse.connect import workspace

pytestmark = pytest.mark.lake

FIRST, SECOND = DAYS = ("2024-03-01", "2024-03-02")
RULE = {"type": "expect_column_values_to_be_between", "kwargs": {"column": "quantity", "max_value": 7}, "name": "few"}
DECLARED = {
    "decisions": {"flagged": "score > 0.5 AND quantity > 2", "band": "CASE WHEN flagged THEN 'a' ELSE 'b' END"},
    "explanations": {"top": 1, "at_most": 5},
    "quality": {"expectations": "expectations.yaml", "max_quarantined": 0.5},
}
PARQUET = {"orders": {"table": "raw.orders", "partition_column": "day", "parquet": "nowhere.parquet"}}
SQL = """
SELECT order_id, day, shop, 7 AS quantity, gift, amount FROM raw.others WHERE day >= $start_date AND day < $end_date
"""

# What differs from DECLARED when it is replayed.
CHANGES = {
    "a decision more": {"decisions": DECLARED["decisions"] | {"far": "score > 0.9"}},
    "a decision that reads another feature": {"decisions": DECLARED["decisions"] | {"free": "amount < 1 OR gift"}},
    "another text of a decision": {"decisions": {"flagged": "score < 0.5", "band": "'c'"}},
    "a decision of another type": {"decisions": {"flagged": "quantity"}},
    "decisions in another order": {"decisions": dict(reversed({"band": "score", "flagged": "true"}.items()))},
    "no decisions": {"decisions": {}},
    "a decision that cannot be evaluated": {"decisions": {"flagged": "nothing > 1"}},
    "other explanations": {"explanations": {"top": 3, "where": "flagged"}},
    "no explanations": {"explanations": None},
    "no expectations": {"quality": None},
    "another limit of quarantined rows": {"quality": DECLARED["quality"] | {"max_quarantined": 0.0}},
    "another key": {"features": {"key": ["shop", "order_id"]}},
    "a key that was not stored": {"features": {"key": ["amount"]}},
    "another partition column": {"features": {"partition_column": "loaded_at"}},
    "another grid": {"partitions": {"every": "week", "start": "2024-03-04"}},
    "another time zone": {"partitions": {"time_zone": "Asia/Kolkata"}},
    "another start": {"partitions": {"start": "2024-03-20"}},
    "a split": {"scoring": {"split": {"salt": "spring", "unit": ["shop"], "arms": {"challenger": "50%"}}}},
    "a challenger": {"scoring": {"challengers": ["challenger"]}},
    "another model": {"scoring": {"model_name": "unknown", "alias": "best"}},
    "another policy and batch": {"scoring": {"on_unseen_category": "error", "batch_rows": 2048}},
    "another source": {"source_database": None, "sources": PARQUET},
    "another name of a source": {"sources": {"others": {"table": "raw.others", "partition_column": "day"}}},
    "another schedule": {"schedule": "5 5 * * 1"},
    "other gates": {"gates": {"segments": ["nothing"], "partitions": 9}},
    "other feature SQL": {},
}
FEATURES = {"another name of a source": SQL, "other feature SQL": SQL.replace("raw.others", "raw.orders")}


def replayed(tiny, keys=()):
    pipeline = tiny.pipeline()
    with workspace(threads=1) as con:
        entries = recall.find(con, pipeline)
    return list(replay(pipeline, entries, keys=keys))


@pytest.fixture
def decided(tiny):
    (tiny.folder / "expectations.yaml").write_text(yaml.safe_dump({"features": [RULE]}))
    tiny.declare(**DECLARED)
    results = tiny.run(*DAYS)
    assert all(each.error is None and each.scoring.rows_quarantined for each in results.values())
    return tiny


@pytest.mark.slice
def test_whatever_is_declared_today(decided):
    own = (decided.folder / "features.sql").read_text()
    for name, change in CHANGES.items():
        decided.declare(FEATURES.get(name, own), **(DECLARED | change))
        found = replayed(decided)
        assert [(each.verdict, each.reasons) for each in found] == [("identical", ())] * 2, name
        for each in found:
            assert set(each.comparison.columns) == {"score", "flagged", "band"} and not each.not_evaluated, name


def test_a_row_is_shown_by_the_key_of_the_time(decided):
    decided.declare(**DECLARED | {"features": {"key": ["shop", "order_id"]}})
    row = replayed(decided, ["3"])[0].rows[0]
    assert row.stored == row.replayed and set(row.stored) == {"score", "flagged", "band"}


def test_scorings_with_and_without_a_decision_side_by_side(decided):
    decided.declare(**DECLARED | {"decisions": {"free": "amount < 1", "flagged": "score > 0.1"}})
    decided.run(SECOND)
    first, second = replayed(decided)
    assert (first.verdict, second.verdict) == ("identical", "identical")
    assert set(first.comparison.columns) == {"score", "flagged", "band"}
    assert set(second.comparison.columns) == {"score", "free", "flagged"}


def test_a_changed_decision_is_a_difference(decided):
    ((name,),) = decided.warehouse("SELECT table_name FROM duckdb_tables() WHERE starts_with(table_name, 'scores__')")
    decided.tamper(f"UPDATE orders.{name} SET band = 'c' WHERE order_id = 4")
    decided.declare(**DECLARED | {"decisions": {}})
    first, second = replayed(decided)
    assert (first.verdict, second.verdict) == ("differs", "identical")
    assert "band in 1" in first.reasons[1]


class TestOfScoringsBeforeItWasRecorded:
    @pytest.fixture
    def old(self, decided):
        decided.tamper("UPDATE ledger.scorings SET declared_row = NULL")
        return decided

    @pytest.mark.slice
    def test_the_same_decisions_are_evaluated_again(self, old):
        reordered = {"band": "CASE WHEN flagged THEN 'a' ELSE 'b' END", "flagged": DECLARED["decisions"]["flagged"]}
        for change in ({}, {"schedule": "5 5 * * 1"}, {"decisions": reordered}, {"quality": None}):
            old.declare(**DECLARED | change)
            found = replayed(old)
            assert [(each.verdict, each.not_evaluated) for each in found] == [("identical", ())] * 2

    @pytest.mark.slice
    def test_others_are_only_checked_by_digest_and_listed(self, old, monkeypatch, helpers):
        old.declare(**DECLARED | {"decisions": {"flagged": "score > 0.5 AND amount > 2"}})
        for each in replayed(old):
            assert (each.verdict, each.not_evaluated) == ("identical", ("flagged", "band"))
            assert set(each.comparison.columns) == {"score"}
        monkeypatch.setenv("PIP_DAGSTER_PROJECT", str(old.root))
        shown = helpers.invoke(cli, ["replay", "orders", FIRST])
        assert shown.exit_code == 0 and "flagged, band not evaluated again" in shown.output
        ((name,),) = old.warehouse("SELECT table_name FROM duckdb_tables() WHERE starts_with(table_name, 'scores__')")
        old.tamper(f"UPDATE orders.{name} SET band = 'c' WHERE order_id = 4")
        assert [each.verdict for each in replayed(old)] == ["differs", "identical"]
