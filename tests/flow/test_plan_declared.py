"""Which part of a declaration changed: a plan names it, expectations apart from the rest."""

import duckdb
import pytest

from pip_dagster.flow.plan import make_plan

FIRST, SECOND = "2024-03-01", "2024-03-02"
FEATURES = "features:\n- type: expect_column_values_to_be_between\n  kwargs: {column: quantity, max_value: %s}\n"
PREDICTIONS = "predictions:\n- type: expect_column_values_to_be_between\n  kwargs: {column: score, max_value: %s}\n"
SOURCES = "sources:\n  orders:\n  - type: expect_column_values_to_not_be_null\n    kwargs: {column: %s}\n"


def declare(shop, expectations=FEATURES % 9 + PREDICTIONS % 1 + SOURCES % "order_id", sql=None, **changes):
    (shop.folder / "expectations.yaml").write_text(expectations)
    return shop.declare(sql, quality="expectations.yaml", **changes)


@pytest.fixture
def shop(tiny):
    declare(tiny).run(FIRST, SECOND)
    assert said(tiny) == set()
    return tiny


def said(shop, what="stale"):
    """The reasons that each of the two days has, which must be the same."""
    plan = make_plan(shop.pipeline(), shop.partitions(FIRST, SECOND))
    of = [{(reason.kind, reason.text) for reason in each.reasons} for each in getattr(plan, what)]
    assert all(each == of[0] for each in of) and len(of) in (0, 2)
    return of[0] if of else set()


@pytest.mark.parametrize(
    ("changes", "reasons"),
    [
        (
            {"expectations": FEATURES % 8 + PREDICTIONS % 1 + SOURCES % "order_id"},
            {("expectations_changed", "expectations changed: features")},
        ),
        (
            {"expectations": FEATURES % 9 + SOURCES % "order_id"},
            {("expectations_changed", "expectations changed: predictions")},
        ),
        (
            {"expectations": FEATURES % 9 + PREDICTIONS % 1 + SOURCES % "day"},
            {("expectations_changed", "expectations changed: sources.orders")},
        ),
        ({"decisions": {"keep": "score < 0.5"}}, {("declaration_changed", "declaration changed: decisions")}),
        (
            {"decisions": {"keep": "score < 0.5"}, "expectations": FEATURES % 8 + PREDICTIONS % 0.9},
            {
                ("declaration_changed", "declaration changed: decisions"),
                ("expectations_changed", "expectations changed: features, predictions"),
                ("expectations_changed", "expectations changed: sources.orders"),
            },
        ),
        (
            {"partitions": {"time_zone": "Etc/UTC"}},
            {("features_changed", "features changed: partitions.time_zone")},
        ),
    ],
    ids=["features", "predictions", "sources", "declaration", "all at once", "the time zone"],
)
def test_the_part_that_changed_is_named(shop, changes, reasons):
    declare(shop, **changes)
    assert said(shop) == reasons


def test_a_changed_sql_is_features_changed_alone_and_gone_when_made_again(shop, helpers):
    declare(shop, sql=f"{helpers.SQL}-- a remark")
    assert said(shop) == {("features_changed", "features changed: features.sql")}
    shop.run(FIRST, SECOND)
    assert said(shop) == set()


def test_what_is_put_back_is_as_it_was(shop):
    declare(shop, expectations=FEATURES % 8)
    declare(shop)
    assert said(shop) == set()


def test_reruns_declaration_holds_for_expectations(shop):
    declare(shop, expectations=FEATURES % 8, reruns={"declaration": "none"})
    assert said(shop) == set()
    assert ("expectations_changed", "expectations changed: features, predictions") in said(shop, "on_hold")


@pytest.mark.parametrize(
    ("changes", "reasons"),
    [
        (
            {"expectations": FEATURES % 8 + SOURCES % "order_id"},
            {("declaration_changed", "declaration or expectations changed")},
        ),
        ({"expectations": FEATURES % 9 + PREDICTIONS % 1}, {("features_changed", "features changed")}),
    ],
)
def test_of_what_an_older_version_made_the_parts_are_not_known(shop, changes, reasons):
    """And nothing is due for that alone."""
    with duckdb.connect(str(shop.project.warehouse)) as con:
        con.execute("UPDATE ledger.scorings SET declared_parts = NULL")
        con.execute("UPDATE ledger.extractions SET declared_parts = NULL")
    assert said(shop) == set()
    declare(shop, **changes)
    assert said(shop) == reasons
    shop.run(FIRST, SECOND)
    declare(shop)
    assert all(kind == "expectations_changed" for kind, _ in said(shop)) and said(shop)


def kinds(shop):
    """The kinds of reasons of each stale day."""
    plan = make_plan(shop.pipeline(), shop.partitions(FIRST, SECOND))
    return [{reason.kind for reason in each.reasons} for each in plan.stale]


SOURCE = {"table": "raw.orders", "partition_column": "day"}
# What an ordinary run does not read: nothing is stale when it changes.
UNREAD = {
    "available_at": {"sources": {"orders": SOURCE | {"available_at": "day"}}},
    "complete_after": {"sources": {"orders": SOURCE | {"complete_after": "1 hour"}}},
    "late_data": {"sources": {"orders": SOURCE | {"late_data": "report"}}},
    "a source's description": {"sources": {"orders": SOURCE | {"description": "One row per order."}}},
    "asset_key": {"sources": {"orders": SOURCE | {"asset_key": "dbt/orders"}}},
    "the file of a source": {"sources": {"orders": SOURCE | {"database": "moved.duckdb"}}},
    "source_database": {"source_database": "moved.duckdb"},
    "cutoff": {"features": {"cutoff": "day"}},
    "alerts": {"alerts": {"command": ["page"]}},
    "schedule": {"schedule": "0 7 * * *"},
    "sensors": {"sensors": {"source_changes": {"missing": "none"}}},
    "owners": {"owners": ["team:other"]},
    "description": {"description": "Other words."},
    "gates": {"gates": {"partitions": 3, "max_flip_rate": 0.1}},
    "attempts": {"reruns": {"attempts": 7}},
    "challengers": {"scoring": {"challengers": ["champion"]}},
    "device": {"scoring": {"device": "auto"}},
    "batch_rows": {"scoring": {"batch_rows": 2048}},
    "min_row_share": {"min_row_share": 0.1},
    "max_per_run": {"partitions": {"max_per_run": 3}},
    "another end": {"partitions": {"end": "2024-05-01"}},
}
READ = {
    "lookback": {"sources": {"orders": SOURCE | {"lookback": "1 day"}}},
    "partition_column": {"sources": {"orders": {"table": "raw.orders"}}},
    "time_zone": {"partitions": {"time_zone": "Europe/Berlin"}},
    "on_unseen_category": {"scoring": {"on_unseen_category": "quarantine"}},
    "decisions": {"decisions": {"keep": "score < 0.5"}},
    "explanations": {"explanations": {"top": 1}},
    "max_quarantined": {"quality": {"expectations": "expectations.yaml", "max_quarantined": 0.5}},
}


@pytest.mark.slice
def test_what_a_run_does_not_read_makes_nothing_stale(shop):
    (shop.root / "moved.duckdb").write_bytes((shop.root / "sources.duckdb").read_bytes())
    for name, changes in UNREAD.items():
        declare(shop, **changes)
        assert said(shop) == set(), name


@pytest.mark.slice
def test_what_a_run_reads_makes_all_of_it_stale(shop):
    for name, changes in READ.items():
        expectations = (shop.folder / "expectations.yaml").read_text()
        shop.declare(**{"quality": "expectations.yaml"} | changes)
        assert len(kinds(shop)) == 2, name
        declare(shop, expectations)
        assert said(shop) == set()


def test_a_moved_source_with_other_rows_is_a_changed_source(shop):
    (shop.root / "moved.duckdb").write_bytes((shop.root / "sources.duckdb").read_bytes())
    with duckdb.connect(str(shop.root / "moved.duckdb")) as con:
        con.execute("UPDATE raw.orders SET amount = 1")
    declare(shop, source_database="moved.duckdb")
    assert kinds(shop) == [{"source_changed"}] * 2


def test_of_a_partition_as_known_the_instant_that_hid_rows_counts(shop):
    known = {"orders": SOURCE | {"available_at": "day"}}
    declare(shop, sources=known).run(FIRST, SECOND, as_known=True)
    assert said(shop) == set()
    declare(shop, sources={"orders": SOURCE | {"available_at": "day + INTERVAL 1 HOUR"}})
    assert said(shop) == {("features_changed", "features changed: sources.orders")}


def test_what_an_earlier_version_stored_is_current_until_something_else_changes(shop):
    """It covered a source's file and `available_at`."""
    known = {"orders": SOURCE | {"database": "sources.duckdb", "available_at": "day"}}
    former = declare(shop, sources=known).pipeline().features_declared_otherwise[1]
    shop.tamper(f"UPDATE ledger.extractions SET sql_digest = '{former.digest}', declared_parts = '{former.parts}'")
    assert said(shop) == set()
    declare(shop, sources=known, expectations=FEATURES % 9 + PREDICTIONS % 1 + SOURCES % "day")
    assert said(shop) == {("expectations_changed", "expectations changed: sources.orders")}
    # Which of file, instant and table it was, the ledger of that version does not tell.
    declare(shop, sources={"orders": SOURCE | {"database": "sources.duckdb", "available_at": "day + INTERVAL 1 HOUR"}})
    assert said(shop) == {("features_changed", "features changed: sources.orders")}
    shop.run(FIRST, SECOND)
    declare(shop)
    assert said(shop) == set()
