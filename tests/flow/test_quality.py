"""The gate: which rows are scored, which are quarantined, which partitions are blocked, and what stays live."""

import json

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pip_dagster.errors import DeclarationError

pytestmark = pytest.mark.lake


FIRST, SECOND, THIRD, FOURTH = "2024-03-01", "2024-03-02", "2024-03-03", "2024-03-04"

BETWEEN = {
    "type": "expect_column_values_to_be_between",
    "kwargs": {"column": "quantity", "min_value": 1, "max_value": 8},
    "name": "quantity_is_possible",
}
ENOUGH = {
    "type": "expect_table_row_count_to_be_between",
    "kwargs": {"min_value": 40, "max_value": 60},
    "name": "enough_rows",
}


def expect(tiny, *, max_quarantined=0.5, **sections):
    (tiny.folder / "expectations.yaml").write_text(yaml.safe_dump(sections, allow_unicode=True), encoding="utf-8")
    return tiny.declare(quality={"expectations": "expectations.yaml", "max_quarantined": max_quarantined})


def spoil(tiny, rows, key=SECOND, value=99):
    tiny.source(f"UPDATE raw.orders SET quantity = {value} WHERE day = '{key}' AND order_id % 50 < {rows}")


def rows_of(result):
    entry = result.scoring
    return entry.status, entry.rows_in, entry.rows_scored, entry.rows_quarantined


class TestQuarantine:
    def test_rows_that_break_a_critical_expectation_are_kept_whole_and_the_others_scored(self, tiny):
        expect(
            tiny,
            features=[
                BETWEEN,
                {**BETWEEN, "name": "quantity_is_small", "kwargs": {"column": "quantity", "max_value": 50}},
            ],
        )
        spoil(tiny, 3)
        results = tiny.run()
        assert rows_of(results[SECOND]) == ("scored", 50, 47, 3)
        assert {key: result.error for key, result in results.items()} == dict.fromkeys(results)
        kept = tiny.published(
            "SELECT order_id, broken, quantity, feature_revision, resolved_at FROM orders.quarantine ORDER BY 1"
        )
        revision = results[SECOND].features.revision
        assert kept == [(50 + i, ["quantity_is_possible", "quantity_is_small"], 99, revision, None) for i in range(3)]
        assert tiny.scores() == tiny.expected("quantity <> 99")

    def test_a_warning_or_info_keeps_nothing_apart(self, tiny):
        expect(tiny, features=[{**BETWEEN, "severity": "warning"}, {**BETWEEN, "severity": "info", "name": "told"}])
        spoil(tiny, 3)
        result = tiny.run(SECOND)[SECOND]
        assert rows_of(result) == ("scored", 50, 50, 0)
        assert [(c.expectation_id, c.status, c.unexpected_count) for c in result.checks] == [
            ("quantity_is_possible", "failed", 3),
            ("told", "failed", 3),
        ]

    def test_mostly_speaks_of_the_partition_not_of_the_row(self, tiny):
        expect(tiny, features=[{**BETWEEN, "kwargs": BETWEEN["kwargs"] | {"mostly": 0.9}}])
        spoil(tiny, 5, SECOND)
        spoil(tiny, 6, THIRD)
        results = tiny.run()
        assert rows_of(results[SECOND]) == ("scored", 50, 50, 0)
        assert rows_of(results[THIRD])[0] == "blocked" and "6 of 50 rows" in results[THIRD].error

    def test_too_many_rows_in_quarantine_block_the_partition_and_are_kept_to_look_at(self, tiny):
        expect(tiny, features=[BETWEEN], max_quarantined=0.1)
        spoil(tiny, 5, SECOND)
        spoil(tiny, 6, THIRD)
        results = tiny.run()
        assert rows_of(results[SECOND]) == ("scored", 50, 45, 5)
        assert rows_of(results[THIRD]) == ("blocked", 50, 0, 6)
        assert "6 of 50 rows are in quarantine, 12.0%" in results[THIRD].error
        assert tiny.published(f"SELECT count(*) FROM orders.quarantine WHERE partition_key = '{THIRD}'") == [(6,)]
        assert tiny.published(f"SELECT count(*) FROM orders.predictions WHERE partition_key = '{THIRD}'") == [(0,)]

    def test_a_row_that_is_kept_apart_cannot_fail_its_partition(self, tiny):
        positive = {"type": "expect_column_values_to_be_between", "kwargs": {"column": "amount", "max_value": 1e6}}
        expect(tiny, features=[positive])
        tiny.source(f"UPDATE raw.orders SET amount = 'inf' WHERE day = '{SECOND}' AND order_id % 50 = 7")
        assert rows_of(tiny.run(SECOND)[SECOND]) == ("scored", 50, 49, 1)

    def test_unseen_categories_join_the_other_reasons(self, tiny):
        expect(tiny, features=[BETWEEN])
        tiny.declare(
            quality={"expectations": "expectations.yaml", "max_quarantined": 0.5},
            scoring={"on_unseen_category": "quarantine"},
        )
        spoil(tiny, 2)
        tiny.source(f"UPDATE raw.orders SET shop = 'new' WHERE day = '{SECOND}' AND order_id % 50 IN (1, 2)")
        result = tiny.run(SECOND)[SECOND]
        assert rows_of(result) == ("scored", 50, 47, 3)
        assert tiny.published("SELECT order_id, broken FROM orders.quarantine ORDER BY 1") == [
            (50, ["quantity_is_possible"]),
            (51, ["quantity_is_possible", "unseen_category"]),
            (52, ["unseen_category"]),
        ]
        assert json.loads(result.scoring.findings)["unseen_category"]["rows"] == {"shop": 2}


@pytest.mark.lake("never")
def test_names_of_columns_differ_in_capitals_as_in_sql(tiny):
    """As in SQL, also of pairs and lists of columns, in row conditions, of sources and of predictions."""
    positive = {"type": "expect_column_values_to_be_between", "kwargs": {"column": "SCORE", "min_value": 0}}
    shop = {"type": "nullity", "column": {"name": "SHOP"}, "is_null": False}
    expect(
        tiny,
        sources={"orders": [{**BETWEEN, "kwargs": {"column": "QUANTITY", "max_value": 100}, "name": "of_source"}]},
        features=[
            {**BETWEEN, "kwargs": BETWEEN["kwargs"] | {"column": "Quantity"}},
            {
                **BETWEEN,
                "kwargs": {"column": "Quantity", "max_value": 9, "row_condition": shop},
                "name": "if_shop",
            },
            {"type": "expect_compound_columns_to_be_unique", "kwargs": {"column_list": ["ORDER_ID", "Day"]}},
            {"type": "expect_column_mean_to_be_between", "kwargs": {"column": "Quantity", "max_value": 90}},
        ],
        predictions=[positive],
    )
    spoil(tiny, 3)
    results = tiny.run(SECOND)
    assert rows_of(results[SECOND]) == ("scored", 50, 47, 3)
    checks = tiny.warehouse("SELECT expectation_id, status, error FROM ledger.checks ORDER BY 1")
    assert len(checks) == 6 and {error for *_, error in checks} == {None}
    assert {of for of, status, _ in checks if status != "passed"} <= {"quantity_is_possible", "if_shop"}
    expect(tiny, features=[{**BETWEEN, "kwargs": {"column": "Quantiti", "min_value": 1}}])
    with pytest.raises(DeclarationError, match="did you mean 'quantity'"):
        tiny.run(SECOND)


class TestReadmission:
    @pytest.mark.slice
    def test_a_corrected_source_lets_the_rows_through_and_the_history_says_when(self, tiny):
        expect(tiny, features=[BETWEEN])
        spoil(tiny, 3)
        tiny.run()
        tiny.source("UPDATE raw.orders SET quantity = 4 WHERE quantity = 99 AND order_id % 50 < 2")
        again = tiny.run()
        assert rows_of(again[SECOND]) == ("scored", 50, 49, 1)
        history = tiny.published(
            "SELECT order_id, resolved_at IS NOT NULL FROM orders.quarantine ORDER BY scoring_id, order_id"
        )
        # The row that is in quarantine still is open once, by its newest attempt.
        assert history == [(50, True), (51, True), (52, True), (52, False)]
        tiny.source(f"UPDATE raw.orders SET amount = amount + 1 WHERE day = '{SECOND}'")
        tiny.run(SECOND)
        assert tiny.published("SELECT order_id FROM orders.quarantine WHERE resolved_at IS NULL") == [(52,)]
        assert tiny.scores() == tiny.expected("quantity <> 99")

    def test_a_corrected_expectation_does_too(self, tiny):
        expect(tiny, features=[BETWEEN])
        spoil(tiny, 3)
        tiny.run()
        expect(tiny, features=[{**BETWEEN, "kwargs": {"column": "quantity", "max_value": 100}}])
        assert rows_of(tiny.run()[SECOND]) == ("scored", 50, 50, 0)
        assert tiny.published("SELECT count(*) FROM orders.quarantine WHERE resolved_at IS NULL") == [(0,)]

    @pytest.mark.slice
    def test_a_source_that_returns_to_what_was_scored_before_resolves_them(self, tiny):
        expect(tiny, features=[BETWEEN])
        before = tiny.run(SECOND)[SECOND]
        tiny.source("CREATE TABLE raw.saved AS FROM raw.orders")
        spoil(tiny, 3)
        tiny.run(SECOND)
        tiny.source("CREATE OR REPLACE TABLE raw.orders AS FROM raw.saved")
        after = tiny.run(SECOND)[SECOND]
        assert after.reused and after.scoring.scoring_id == before.scoring.scoring_id
        assert tiny.published("SELECT count(*) FROM orders.quarantine WHERE resolved_at IS NULL") == [(0,)]
        assert tiny.scores() == tiny.expected(f"day = '{SECOND}'")


class TestBlocking:
    @pytest.mark.slice
    @pytest.mark.parametrize("section", ["sources", "features"])
    def test_too_few_or_too_many_rows_block_that_partition_alone(self, tiny, section):
        expect(tiny, **{section: {"orders": [ENOUGH]} if section == "sources" else [ENOUGH]})
        before = tiny.run()
        assert {result.error for result in before.values()} == {None}
        live = tiny.scores()
        tiny.source(
            f"DELETE FROM raw.orders WHERE day = '{SECOND}' AND order_id % 50 > 20",
            f"INSERT INTO raw.orders SELECT o.* REPLACE (order_id + 1000 * n AS order_id) "
            f"FROM raw.orders o, range(1, 10) t(n) WHERE day = '{THIRD}'",
        )
        after = tiny.run()
        assert {key: result.scoring.status for key, result in after.items()} == {
            FIRST: "scored",
            SECOND: "blocked",
            THIRD: "blocked",
            FOURTH: "scored",
        }
        assert "enough_rows is not met (observed 21)" in after[SECOND].error
        assert "enough_rows is not met (observed 500)" in after[THIRD].error
        assert tiny.scores() == live
        reason = tiny.published(
            f"SELECT reason FROM ledger.partitions WHERE partition_key = '{SECOND}' AND status = 'blocked'"
        )
        assert reason == [(after[SECOND].scoring.reason,)]

    @pytest.mark.slice
    def test_what_cannot_be_evaluated_is_no_pass(self, tiny):
        # A text column is no number: Great Expectations raises, which must not look like success.
        expect(
            tiny, features=[{"type": "expect_column_mean_to_be_between", "kwargs": {"column": "shop", "min_value": 0}}]
        )
        result = tiny.run(SECOND)[SECOND]
        assert result.scoring.status == "blocked"
        assert "could not be evaluated" in result.error

    def test_predictions_that_are_not_met_leave_the_live_scores_live(self, tiny):
        mean = {
            "type": "expect_column_mean_to_be_between",
            "kwargs": {"column": "score", "min_value": {"$PARAMETER": "score_mean - 0.3"}},
        }
        expect(tiny, predictions=[mean])
        before = tiny.run()
        assert {result.error for result in before.values()} == {None}
        live = tiny.scores()
        mean["kwargs"]["min_value"]["$PARAMETER"] = "score_mean + 0.3"
        expect(tiny, predictions=[mean])
        after = tiny.run()
        assert {result.scoring.status for result in after.values()} == {"blocked"}
        assert tiny.scores() == live
        # The new scores are there to look at.
        scored = tiny.warehouse(
            f"SELECT count(*) FROM orders.scores WHERE scoring_id = '{after[FIRST].scoring.scoring_id}'"
        )
        assert scored == [(50,)]

    def test_a_source_without_a_partition_column_is_judged_whole_for_every_partition(self, tiny):
        tiny.declare(sources={"orders": {"table": "raw.orders"}})
        (tiny.folder / "expectations.yaml").write_text(yaml.safe_dump({"sources": {"orders": [ENOUGH]}}))
        tiny.declare(sources={"orders": {"table": "raw.orders"}}, quality="expectations.yaml")
        results = tiny.run()
        assert all("observed 200" in result.error for result in results.values())

    def test_an_empty_partition_is_judged_too(self, tiny):
        expect(tiny, features=[ENOUGH, BETWEEN])
        assert "observed 0" in tiny.run("2024-03-20")["2024-03-20"].error


class TestTheLedgerOfChecks:
    def test_every_verdict_is_kept_and_a_rerun_that_reuses_the_scoring_shows_it_again(self, tiny):
        expect(tiny, sources={"orders": [ENOUGH]}, features=[{**BETWEEN, "severity": "warning"}])
        spoil(tiny, 1)
        first, again = tiny.run(), tiny.run()
        assert again[SECOND].reused
        assert [c.text for c in again[SECOND].checks] == [c.text for c in first[SECOND].checks]
        rows = tiny.published(
            f"SELECT section, status, examples FROM ledger.checks WHERE partition_key = '{SECOND}' ORDER BY ALL"
        )
        assert [row[:2] for row in rows] == [("features", "failed"), ("sources.orders", "passed")]
        assert json.loads(rows[0][2]) == [{"quantity": 99}], "not the key"

    def test_features_alone_are_judged_without_scoring(self, tiny):
        expect(tiny, features=[ENOUGH])
        result = tiny.run(FIRST, predictions=False)[FIRST]
        assert [c.status for c in result.checks] == ["passed"] and result.scoring is None


class TestRefusedBeforeAnythingIsStored:
    @pytest.mark.parametrize(
        ("sections", "says"),
        [
            (
                {"features": [{**BETWEEN, "type": "expect_column_values_to_be_betwen"}]},
                "expect_column_values_to_be_between",
            ),
            ({"features": [{**BETWEEN, "severity": "fatal"}]}, "critical, warning, info"),
            ({"features": [{**BETWEEN, "kwargs": {"column": "quantitty"}}]}, "'quantity'"),
            ({"sources": {"order": [ENOUGH]}}, "'orders'"),
            (
                {"predictions": [{**BETWEEN, "kwargs": {"column": "score", "min_value": {"$PARAMETER": "1 + 1"}}}]},
                "$PARAMETER",
            ),
        ],
        ids=["type", "severity", "column", "source", "parameter"],
    )
    def test_when_the_pipeline_loads(self, tiny, sections, says):
        expect(tiny, **sections)
        with pytest.raises(DeclarationError, match="expectations.yaml") as refused:
            tiny.pipeline()
        assert says in str(refused.value)

    @pytest.mark.parametrize(
        "sections",
        [
            {"sources": {"orders": [{**BETWEEN, "kwargs": {"column": "quantitty", "min_value": 0}}]}},
            {"predictions": [{**BETWEEN, "kwargs": {"column": "scores", "min_value": 0}}]},
            {"predictions": [{**BETWEEN, "kwargs": {"column": "score", "min_value": {"$PARAMETER": "score_median"}}}]},
        ],
        ids=["source column", "prediction column", "unknown parameter"],
    )
    def test_when_a_run_begins(self, tiny, sections):
        expect(tiny, **sections)
        with pytest.raises(DeclarationError, match="expectations.yaml"):
            tiny.run()
        assert not tiny.project.published_database.exists()


@pytest.mark.slice
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_rows_in_are_scored_or_quarantined_and_no_quarantined_key_is_a_prediction(tiny, data):
    bad = data.draw(st.sets(st.integers(0, 199), max_size=60))
    most = data.draw(st.sampled_from([0.0, 0.1, 0.5]))
    tiny.source(
        "UPDATE raw.orders SET quantity = 4",
        f"UPDATE raw.orders SET quantity = 99 WHERE list_contains({sorted(bad)}::BIGINT[], order_id)",
    )
    expect(tiny, features=[BETWEEN], max_quarantined=most)
    for key, result in tiny.run().items():
        entry = result.scoring
        apart = len([order for order in bad if order // 50 == int(key[-2:]) - 1])
        assert entry.rows_quarantined == apart
        assert entry.status == ("scored" if apart <= most * 50 else "blocked")
        if entry.status == "scored":
            assert entry.rows_in == entry.rows_scored + entry.rows_quarantined == 50
    both = (
        tiny.warehouse(
            "SELECT count(*) FROM orders.predictions p JOIN orders.quarantine q "
            "ON q.scoring_id = p.scoring_id AND q.order_id = p.order_id"
        )
        if bad
        else [(0,)]
    )
    assert both == [(0,)]
