"""Labels are not features: a source that only labels read makes no partition stale, whatever becomes of it."""

from datetime import UTC, datetime, timedelta

import pytest

from pip_dagster.flow.plan import make_plan

DAY, NEXT = "2024-03-02", "2024-03-03"
OUTCOMES = {"table": "raw.outcomes", "partition_column": "day"}
GATES = {"labels": {"sql": "labels.sql", "outcome": "returned"}}
LATE = f"INSERT INTO raw.outcomes SELECT order_id, day, 1 FROM raw.orders WHERE day = '{DAY}'"
COLUMNS = "SELECT o.order_id, o.day, gift, shop, quantity, amount"
WITHIN = "WHERE o.day >= $start_date AND o.day < $end_date"
# Feature SQL that reads the outcomes of earlier days.
READING = [
    f"{COLUMNS} FROM raw.orders o {WITHIN} AND EXISTS (FROM raw.outcomes)",
    f'{COLUMNS} FROM raw.orders o LEFT JOIN "raw"."OUTCOMES" l ON l.day < o.day AND l.order_id = o.order_id {WITHIN}',
    f"WITH past AS (FROM raw.outcomes) {COLUMNS}, (SELECT count(*) FROM past) AS n FROM raw.orders o {WITHIN}",
    f"{COLUMNS} FROM raw.orders o, (SELECT count(*) AS n FROM memory.raw.Outcomes) {WITHIN}",
]


@pytest.fixture
def labelled(tiny):
    """Scored partitions with a source of outcomes that only the labels read, empty so far."""
    tiny.source("CREATE TABLE raw.outcomes (order_id BIGINT, day DATE, returned INT)")
    (tiny.folder / "labels.sql").write_text("FROM raw.outcomes WHERE day >= $start_date AND day < $end_date")
    return tiny


def declare(tiny, sql=None, gates=GATES, **outcomes):
    orders = {"table": "raw.orders", "partition_column": "day"}
    sources = {"orders": orders} | ({"outcomes": OUTCOMES | outcomes} if gates else {})
    return tiny.declare(sql, sources=sources, gates=gates)


def reasons(tiny, now=None):
    """Partition → why it is stale or on hold."""
    found = make_plan(tiny.pipeline(), tiny.partitions(DAY, NEXT), now=now)
    return {each.partition.key: [reason.text for reason in each.reasons] for each in (*found.stale, *found.on_hold)}


@pytest.mark.parametrize("late_data", ["rerun", "report", {"ignore_after": "1 day"}])
def test_late_labels_after_a_promotion_move_nothing(labelled, late_data):
    results = declare(labelled, late_data=late_data).run()
    assert "outcomes" not in results[DAY].features.source_digests
    labelled.registry.set_alias("returns", "champion", 2, by="ada", why="better")
    labelled.source(LATE)
    kept = "model promoted v1→v2; not rescored, by reruns.promotion"
    assert reasons(labelled) == {DAY: [kept], NEXT: [kept]}


def test_a_labels_source_makes_no_partition_provisional(labelled):
    wait = f"{(datetime.now(UTC) - datetime(2024, 3, 3, tzinfo=UTC)).days + 30} days"
    results = declare(labelled, complete_after=wait).run(DAY, NEXT)
    assert not any(result.features.provisional for result in results.values())
    assert reasons(labelled, datetime.now(UTC) + timedelta(days=90)) == {}


def test_declaring_changing_and_dropping_labels_moves_nothing(labelled):
    declare(labelled, gates=None).run(DAY, NEXT)
    for change in ({}, {"lookback": "3 days"}, {"available_at": "day"}, {"partition_column": None}, {"gates": None}):
        declare(labelled, **change)
        assert reasons(labelled) == {}, change


@pytest.mark.parametrize("sql", READING)
def test_a_source_that_features_read_too_is_a_feature(labelled, sql):
    declare(labelled, sql).run(DAY, NEXT)
    labelled.source(LATE)
    text = f"source changed: outcomes {DAY} (+50 rows)"
    assert reasons(labelled) == {DAY: [text]}


def test_a_table_expression_of_the_same_name_is_no_source(labelled):
    sql = f"WITH outcomes AS (FROM raw.orders) {COLUMNS} FROM outcomes o {WITHIN}"
    declare(labelled, sql).run(DAY, NEXT)
    labelled.source(LATE)
    assert reasons(labelled) == {}


def test_parquet_labels_are_no_features(labelled):
    labelled.source(LATE, f"COPY raw.outcomes TO '{labelled.root}/outcomes.parquet'")
    declare(labelled, parquet="outcomes.parquet").run(DAY, NEXT)
    labelled.source(LATE, f"COPY raw.outcomes TO '{labelled.root}/outcomes.parquet'")
    assert reasons(labelled) == {}


@pytest.mark.parametrize("parts", [True, False])
def test_what_was_stored_while_labels_were_features_stays_current(labelled, monkeypatch, parts):
    """`parts`: whether the ledger records what the digests covered."""
    declare(labelled)
    with monkeypatch.context() as patch:
        every = frozenset({"orders", "outcomes"})
        patch.setattr("pip_dagster.declaration.pipeline.sources_read", lambda *_: every)
        assert "outcomes" in labelled.run(DAY, NEXT)[DAY].features.source_digests
    if not parts:
        labelled.tamper("UPDATE ledger.extractions SET declared_parts = NULL")
    labelled.source(LATE)
    assert reasons(labelled) == {}
    if parts:
        declare(labelled, lookback="3 days")
        assert reasons(labelled) == {}
    declare(labelled, f"{COLUMNS} FROM raw.orders o {WITHIN} AND amount > 0")
    text = "features changed: features.sql" if parts else "features changed"
    assert reasons(labelled) == {DAY: [text], NEXT: [text]}
