"""Keys of people are printed where somebody names them or asks for them, and stand in no reason and no error."""

from __future__ import annotations

import json

import pytest

import pip_dagster
from pip_dagster.errors import LeakError, TrainingSetError
from tests.api.conftest import Shop

SECOND = "2024-03-02"
SUBJECT = {"subject": "order_id"}
FIRST_KEY = 7_700_000_000_000


@pytest.fixture
def shop(tiny):
    """Orders whose numbers no other number contains."""
    tiny.source(f"UPDATE raw.orders SET order_id = order_id + {FIRST_KEY}")
    tiny.declare(privacy=SUBJECT)
    return tiny


def test_a_replay_counts_rows_and_shows_their_keys_only_if_asked(shop):
    shop.run(SECOND)
    [(name, key)] = shop.warehouse(
        "SELECT table_name, (SELECT min(order_id) FROM orders.scores) FROM duckdb_tables() "
        "WHERE table_name LIKE 'scores%'"
    )
    shop.tamper(f"UPDATE orders.{name} SET score = score * 2 WHERE order_id = {key}")
    for words in ((), ("--json",)):
        text = shop.shell("replay", "orders", SECOND, *words, code=1)
        assert "1 of 50 scored rows differ" in text and str(key) not in text
    assert f"a row that is differing: order_id = {key}" in shop.shell("replay", "orders", SECOND, "--show-keys", code=1)
    examples = json.loads(shop.shell("replay", "orders", SECOND, "--show-keys", "--json", code=1))["partitions"][0]
    assert examples["rows"]["examples"]["differing"][0]["order_id"] == str(key)
    assert str(key) in shop.shell("replay", "orders", SECOND, "--key", str(key), code=1), "it was named"
    unknown = str(FIRST_KEY * 2)
    for words in (("replay", "orders", SECOND, "--key", unknown), ("lineage", "orders", "--key", unknown)):
        assert unknown not in shop.shell(*words, code=1)


def test_a_leak_is_counted_in_errors_and_shown_only_if_asked(shop):
    sources = {"orders": {"table": "raw.orders", "partition_column": "day"}}
    sources["returns"] = {"table": "raw.returns", "available_at": "returned_at"}
    shop.source("CREATE TABLE raw.returns AS SELECT shop, TIMESTAMPTZ '2030-01-01' AS returned_at FROM raw.orders")
    leaky = (
        "SELECT order_id, day, gift, shop, quantity, amount, (SELECT count(*) FROM raw.returns) AS seen "
        "FROM raw.orders WHERE day >= $start_date AND day < $end_date"
    )
    shop.declare(leaky, sources=sources, privacy=SUBJECT)
    for words in ((), ("--json",)):
        text = shop.shell("prove-point-in-time", "orders", SECOND, *words, code=1)
        assert "seen" in text and "77000000" not in text
        assert "77000000" in shop.shell("prove-point-in-time", "orders", SECOND, "--show-keys", *words, code=1)
    with pytest.raises(LeakError, match="seen in 50 rows") as leak:
        pip_dagster.open(shop.root)["orders"].training_set(SECOND, SECOND, labels=False).arrow()
    assert "77000000" not in str(leak.value)


def test_a_key_with_two_labels_is_counted(shop):
    of = Shop(shop)
    of.declare(privacy=SUBJECT)
    shop.source("INSERT INTO raw.outcomes FROM raw.outcomes WHERE day = '2024-03-02' AND order_id % 10 = 1")
    with pytest.raises(TrainingSetError, match="5 keys .* more than one label") as error:
        of.rows().df()
    assert "77000000" not in str(error.value) + str(error.value.excluded)
