"""A DATE or a timestamp without a zone is the partitions' wall clock wherever instants are compared."""

import pytest

from pip_dagster.errors import DeclarationError
from pip_dagster.flow.point_in_time import prove

DAY = "2024-03-02"
ZONES = ("Pacific/Auckland", "America/Los_Angeles", "Pacific/Kiritimati")
KINDS = ("TIMESTAMP", "TIMESTAMP_S", "TIMESTAMP_MS", "TIMESTAMP_NS", "TIMESTAMPTZ", "DATE")
SQL = (
    "SELECT order_id, day, gift, shop, quantity, amount, known_at FROM raw.orders "
    "WHERE day >= $start_date AND day < $end_date"
)


@pytest.fixture
def shop(tiny):
    """Orders that are known at their wall-clock time: each half hour of the day, and for two of them of the next."""

    def declare(zone, kind, **changes):
        local = "day::TIMESTAMP + to_minutes((30 * (order_id % 50))::INT)"
        known = f"timezone('{zone}', {local})" if kind == "TIMESTAMPTZ" else f"({local})::{kind}"
        tiny.source(
            f"CREATE OR REPLACE TABLE raw.orders AS SELECT * EXCLUDE day, day, {known} AS known_at FROM raw.orders"
        )
        source = {"table": "raw.orders", "partition_column": "day", "available_at": "known_at"}
        return tiny.declare(SQL, sources={"orders": source}, partitions={"time_zone": zone}, **changes)

    return declare


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("kind", KINDS)
def test_as_known_takes_what_was_known_by_the_wall_clock(shop, zone, kind):
    """What is known at midnight itself is known when the partition closes; half an hour later is not."""
    tiny = shop(zone, kind)
    result = tiny.run(DAY, as_known=True)[DAY]
    assert result.error is None and result.features.rows_extracted == (50 if kind == "DATE" else 49)


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("kind", KINDS)
def test_a_cutoff_of_the_same_column_proves_the_rows_themselves(shop, zone, kind):
    """Each row is known at its own cut-off, whichever type both have."""
    tiny = shop(zone, kind, features={"cutoff": "known_at"})
    (window,) = tiny.partitions(DAY)
    proof = prove(tiny.pipeline(), window, most_cutoffs=3)
    assert not proof.leaks


def test_the_type_of_one_column_does_not_move_the_other(shop):
    """A cut-off at the local midnight after the day, as DATE, hides what is known later and nothing else."""
    tiny = shop("Pacific/Auckland", "TIMESTAMPTZ", features={"cutoff": "day + 1"})
    (window,) = tiny.partitions(DAY)
    proof = prove(tiny.pipeline(), window)
    assert (proof.rows, {leak.rows for leak in proof.leaks}) == (50, {1})


@pytest.mark.parametrize(
    ("kind", "available_at", "says"),
    [
        ("VARCHAR", "known_at", "sources.orders.available_at 'known_at' is text"),
        ("TIMESTAMP", "known_at::TIMESTAMPTZ", "casts TIMESTAMP to TIMESTAMP WITH TIME ZONE, which DuckDB does in UTC"),
    ],
)
def test_text_and_casts_through_utc_are_refused_before_anything_is_built(shop, kind, available_at, says):
    tiny = shop("Pacific/Auckland", kind)
    source = {"table": "raw.orders", "partition_column": "day", "available_at": available_at}
    tiny.declare(sources={"orders": source}, partitions={"time_zone": "Pacific/Auckland"})
    with pytest.raises(DeclarationError, match=says):
        tiny.run(DAY, as_known=True)
    assert not tiny.project.warehouse.exists()


@pytest.mark.parametrize("function", ["epoch_ms(ms)", "make_timestamp(ms * 1000)", "coalesce(epoch_ms(ms), day)"])
def test_a_number_since_1970_is_no_wall_clock_time(tiny, function):
    """Rows that are known six hours after the close are not known at the close, however the instant is stored."""
    tiny.source(
        "ALTER TABLE raw.orders ADD COLUMN ms BIGINT",
        "UPDATE raw.orders SET ms = epoch_ms(timezone('Pacific/Auckland', day + INTERVAL 30 HOUR))",
    )
    source = {"table": "raw.orders", "partition_column": "day", "available_at": function}
    tiny.declare(sources={"orders": source}, partitions={"time_zone": "Pacific/Auckland"})
    with pytest.raises(DeclarationError, match=r"wall-clock time in UTC(.|\n)*timezone\('UTC'"):
        tiny.run(DAY, as_known=True)
    tiny.declare(
        sources={"orders": source | {"available_at": f"timezone('UTC', {function})"}},
        partitions={"time_zone": "Pacific/Auckland"},
    )
    assert tiny.run(DAY, as_known=True)[DAY].features.rows_extracted == 0
