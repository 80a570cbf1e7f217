"""A source that is not what it was: a clear error or a blocked partition, and nothing stored changes."""

import pytest
import yaml

from pip_dagster.errors import DeclarationError, SourceError

SECOND = "2024-03-02"


def everything(tiny):
    return [
        tiny.warehouse(f"SELECT * FROM {table} ORDER BY ALL")
        for table in ("ledger.extractions", "ledger.live_changes", "orders.features", "orders.scores")
    ] + [tiny.scores()]


@pytest.fixture
def stored(tiny):
    enough = {
        "type": "expect_table_row_count_to_be_between",
        "kwargs": {"min_value": 10, "max_value": 200},
        "name": "a_usual_number",
    }
    (tiny.folder / "expectations.yaml").write_text(yaml.safe_dump({"sources": {"orders": [enough]}}))
    tiny.declare(quality="expectations.yaml")
    assert not any(result.error for result in tiny.run().values())
    return everything(tiny)


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        ("DROP TABLE raw.orders", SourceError, "It has: no tables"),
        ("ALTER TABLE raw.orders RENAME TO order_s", SourceError, "Did you mean raw.order_s"),
        ("ALTER TABLE raw.orders RENAME COLUMN quantity TO qty", DeclarationError, "quantity"),
        ("ALTER TABLE raw.orders RENAME COLUMN day TO date_", SourceError, "has no column 'day'"),
        ("ALTER TABLE raw.orders ALTER quantity TYPE VARCHAR", DeclarationError, "'quantity' is VARCHAR"),
        ("ALTER TABLE raw.orders ALTER gift TYPE INTEGER", DeclarationError, "'gift' is INTEGER"),
        ("ALTER TABLE raw.orders ALTER shop TYPE BLOB USING encode(shop)", DeclarationError, "'shop' is BLOB"),
    ],
    ids=[
        "missing",
        "renamed",
        "renamed column",
        "renamed partition column",
        "number to text",
        "bool to int",
        "text to bytes",
    ],
)
def test_another_shape_is_an_error_that_names_it(tiny, stored, change, error, says):
    tiny.source(change)
    with pytest.raises(error, match="orders") as refused:
        tiny.run()
    assert says in str(refused.value)
    assert everything(tiny) == stored


@pytest.mark.parametrize(
    ("change", "observed"),
    [
        (f"DELETE FROM raw.orders WHERE day = '{SECOND}'", 0),
        (
            f"INSERT INTO raw.orders SELECT o.* REPLACE (order_id + 1000 * n AS order_id) "
            f"FROM raw.orders o, range(1, 10) t(n) WHERE day = '{SECOND}'",
            500,
        ),
    ],
    ids=["no rows", "ten times the rows"],
)
def test_another_amount_blocks_the_partition_and_keeps_what_was_live(tiny, stored, change, observed):
    live = tiny.scores()
    tiny.source(change)
    results = tiny.run()
    assert [key for key, result in results.items() if result.error] == [SECOND]
    assert f"a_usual_number is not met (observed {observed})" in results[SECOND].error
    assert tiny.scores() == live
