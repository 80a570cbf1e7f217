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
            {"sources": {"orders": {"table": "raw.orders", "partition_column": "day", "available_at": "day"}}},
            {("features_changed", "features changed: sources.orders")},
        ),
    ],
    ids=["features", "predictions", "sources", "declaration", "all at once", "a source"],
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
