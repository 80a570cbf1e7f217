"""The proof that features do not look into the future, and the leaks that it finds."""

import pytest

from pip_dagster.errors import DeclarationError
from pip_dagster.flow.point_in_time import prove

DAY = "2024-03-02"

SAFE = """
SELECT o.order_id, o.day, o.gift, o.shop, o.quantity, o.amount, o.ordered_at,
       (SELECT count(*) FROM raw.returns r WHERE r.shop = o.shop AND r.returned_at <= o.ordered_at) AS earlier_returns
FROM raw.orders o
WHERE o.day >= $start_date AND o.day < $end_date
"""
LEAKY = SAFE.replace("r.returned_at <= o.ordered_at", "r.returned_at::DATE <= o.day")
SOURCES = {
    "orders": {"table": "raw.orders", "partition_column": "day"},
    "returns": {"table": "raw.returns", "available_at": "returned_at"},
}


@pytest.fixture
def shop(tiny):
    """Orders through the day, and returns that are known when they happen."""
    tiny.source(
        "ALTER TABLE raw.orders ADD COLUMN ordered_at TIMESTAMPTZ",
        "UPDATE raw.orders SET ordered_at = day::TIMESTAMP AT TIME ZONE 'UTC' + to_hours((order_id % 24)::INT)",
        "CREATE TABLE raw.returns AS SELECT shop, ordered_at + INTERVAL 30 MINUTE AS returned_at FROM raw.orders",
    )
    return tiny.declare(
        SAFE,
        sources=SOURCES,
        features={"cutoff": "ordered_at"},
    )


def proof_of(shop, **options):
    (window,) = shop.partitions(DAY)
    return prove(shop.pipeline(), window, **options)


def test_features_that_read_what_was_known_pass(shop):
    proof = proof_of(shop)
    assert (proof.rows, proof.cutoffs, proof.leaks) == (50, 24, ())
    assert (proof.limited_sources, proof.unlimited_sources) == (("returns",), ("orders",))


def test_a_join_on_the_day_is_caught_with_the_rows_it_changed(shop):
    (leak,) = proof_of(shop, sql=LEAKY).leaks
    assert leak.feature == "earlier_returns" and leak.rows > 30
    example = leak.examples[0]
    assert example["from_all_rows"] > example["from_known_rows"]


def test_without_a_cutoff_it_is_the_partitions_end_or_with_an_end_offset_its_beginning(shop):
    shop.declare(LEAKY, sources=SOURCES)
    assert proof_of(shop).leaks == ()
    shop.declare(LEAKY, sources=SOURCES, partitions={"end_offset": 1})
    assert [leak.feature for leak in proof_of(shop).leaks] == ["earlier_returns"]


def test_rows_whose_availability_is_unknown_are_hidden(shop):
    shop.source("INSERT INTO raw.returns SELECT shop, NULL FROM raw.orders")
    ignoring = SAFE.replace("r.returned_at <= o.ordered_at", "r.returned_at IS NULL")
    assert [leak.feature for leak in proof_of(shop, sql=ignoring).leaks] == ["earlier_returns"]


def test_a_row_that_vanishes_is_a_leak(shop):
    inner = SAFE.replace("WHERE o.day", "JOIN (SELECT DISTINCT shop FROM raw.returns) s USING (shop) WHERE o.day")
    shop.source("UPDATE raw.returns SET returned_at = TIMESTAMPTZ '2024-03-02 12:00:00+00'")
    assert "quantity" in {leak.feature for leak in proof_of(shop, sql=inner).leaks}


def test_a_comment_at_the_end_of_an_expression_is_a_comment(shop):
    returns = {"table": "raw.returns", "available_at": "returned_at -- when it came"}
    shop.declare(SAFE, sources=SOURCES | {"returns": returns}, features={"cutoff": "ordered_at -- when it was placed"})
    assert proof_of(shop).leaks == ()


def test_fewer_cutoffs_can_be_tried(shop):
    proof = proof_of(shop, sql=LEAKY, most_cutoffs=5)
    assert (proof.cutoffs, proof.cutoffs_tried) == (24, 5) and 8 <= proof.rows <= 15 and proof.leaks


@pytest.mark.parametrize(
    ("features", "available_at", "says"),
    [
        ({}, None, "no source declares `available_at`"),
        ({"cutoff": "orderd_at"}, "returned_at", "features.cutoff .*did you mean 'ordered_at'"),
        (
            {"cutoff": "(SELECT max(ordered_at) FROM memory.pip_stage.features)"},
            "returned_at",
            "features.cutoff .*a subq",
        ),
        (
            {"cutoff": "ordered_at), now() AS x, (NULL"},
            "returned_at",
            "features.cutoff .*is not a single SQL expression",
        ),
        ({"cutoff": "now()"}, "returned_at", r"features.cutoff .*now\(\)"),
        ({"cutoff": "quantity"}, "returned_at", "features.cutoff 'quantity' is .*expected an instant"),
        ({}, "(SELECT max(day) FROM raw.orders)", "sources.returns.available_at .*a subquery"),
        ({}, "current_timestamp", "sources.returns.available_at .*which has shop, returned_at"),
        ({}, "returned_at IS NULL) OR (returned_at", "sources.returns.available_at .*is not a single SQL expression"),
        ({}, "returned_att", "sources.returns.available_at .*did you mean 'returned_at'"),
        ({}, "returned_at IS NULL", "sources.returns.available_at .*is BOOLEAN; expected an instant"),
        ({"cutoff": "CASE WHEN order_id % 2 = 0 THEN ordered_at END"}, "returned_at", "is NULL for some rows"),
    ],
)
def test_nothing_is_called_proven_that_is_not(shop, features, available_at, says):
    returns = {"table": "raw.returns"} | ({"available_at": available_at} if available_at else {})
    shop.declare(
        sources={"orders": {"table": "raw.orders", "partition_column": "day"}, "returns": returns}, features=features
    )
    with pytest.raises(DeclarationError, match=says):
        proof_of(shop)
