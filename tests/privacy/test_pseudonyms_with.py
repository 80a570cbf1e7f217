"""Pseudonyms beside composite keys, point-in-time features and held subjects."""

from __future__ import annotations

import json

import pytest

import pip_dagster
from pip_dagster.privacy.keys import keys_of
from tests.api.conftest import SOURCES

FIRST, SECOND = "2024-03-01", "2024-03-02"
SECRET, OTHER = "0123456789abcdef" * 3, "f" * 32  # pragma: allowlist secret
PRIVACY = {"subject": "customer", "pseudonymize": {"key_env": "KEY_1"}}
ROTATED = PRIVACY | {"pseudonymize": {"key_env": "KEY_2", "version": "k2", "former": {"k1": {"key_env": "KEY_1"}}}}
SQL = """SELECT order_id, 'Zoë ''' || order_id % 7 AS customer, day, gift, shop, quantity, amount FROM raw.orders
WHERE day >= $start_date AND day < $end_date"""


@pytest.fixture
def shop(tiny, monkeypatch):
    monkeypatch.setenv("KEY_1", SECRET)
    monkeypatch.setenv("KEY_2", OTHER)
    return tiny


@pytest.mark.slice
def test_a_subject_that_is_one_of_several_key_columns(shop):
    """Of labels too, whose key names it with other capitals than `subject`."""
    shop.source("CREATE TABLE raw.outcomes AS SELECT order_id, day, (quantity > 4)::INT AS returned FROM raw.orders")
    (shop.folder / "labels.sql").write_text(
        "SELECT order_id, 'Zoë ''' || order_id % 7 AS customer, returned FROM raw.outcomes "
        "WHERE day >= $start_date AND day < $end_date"
    )
    declared = {
        "sources": SOURCES,
        "labels": {"sql": "labels.sql", "outcome": "returned"},
        "features": {"key": ["customer", "order_id"]},
        "monitoring": {"performance": {}},
    }
    shop.declare(SQL, privacy=PRIVACY | {"subject": "CUSTOMER"}, **declared).run(FIRST)
    shop.declare(privacy=ROTATED | {"subject": "CUSTOMER"}, **declared).run(SECOND)
    (first, former) = keys_of(shop.pipeline())
    for key, day in ((former, FIRST), (first, SECOND)):
        rows = shop.warehouse(
            f"SELECT DISTINCT customer FROM orders.predictions WHERE partition_key = '{day}' ORDER BY ALL"
        )
        assert [row[0] for row in rows] == sorted(key.pseudonym(f"Zoë '{n}") for n in range(7))
    shop.shell("performance", "orders", "--evaluate")
    assert shop.warehouse("SELECT rows, labelled FROM ledger.evaluations") == [(50, 50), (50, 50)]
    found = json.loads(shop.shell("replay", "orders", "--all", "--json"))
    assert found["verdicts"] == {"identical": 2}


def test_features_as_they_were_known(shop):
    shop.source(
        "ALTER TABLE raw.orders ADD COLUMN seen TIMESTAMPTZ",
        "UPDATE raw.orders SET seen = CASE WHEN order_id % 5 = 0 THEN TIMESTAMPTZ '2030-01-01' ELSE '2024-01-01' END",
    )
    sources = {"orders": {"table": "raw.orders", "partition_column": "day", "available_at": "seen"}}
    shop.declare(SQL, privacy=PRIVACY, sources=sources)
    shop.run(FIRST, as_known=True)
    key = keys_of(shop.pipeline())[0]
    known = shop.source_rows(f"SELECT order_id FROM raw.orders WHERE day = '{FIRST}' AND order_id % 5 > 0")
    found = shop.warehouse("SELECT order_id, customer FROM orders.features ORDER BY ALL")
    assert found == sorted((order, key.pseudonym(f"Zoë '{order % 7}")) for (order,) in known)
    given = pip_dagster.open(shop.root)["orders"].features(FIRST, FIRST, as_known=True).df()
    assert sorted(zip(given["order_id"], given["customer"], strict=True)) == found


def test_a_held_subject_stays_out_until_it_is_released(shop):
    shop.declare(SQL, privacy=PRIVACY)
    (key,) = keys_of(shop.pipeline())
    held, token = key.pseudonym("Zoë '3"), key.suppressing.pseudonym("Zoë '3")
    shop.run(FIRST)
    shop.tamper(
        "INSERT INTO ledger.erasures (erasure_id, kind, state, made_at) VALUES ('e1', 'hold', 'held', now())",
        f"INSERT INTO ledger.suppressions (erasure_id, pipeline, subject, key_version, made_at) "
        f"VALUES ('e1', 'orders', '{token}', 'k1', now())",
    )
    of_held = f"SELECT count(*) FROM orders.features WHERE partition_key = '{SECOND}' AND customer = '{held}'"
    shop.run(SECOND)
    assert shop.warehouse(of_held) == [(0,)] and shop.warehouse("SELECT count(*) FROM orders.predictions")[0][0] < 100
    shop.tamper("INSERT INTO ledger.erasures (erasure_id, state, made_at) VALUES ('e1', 'released', now())")
    shop.run(SECOND)
    assert shop.warehouse(of_held)[0][0] > 5 and shop.warehouse("SELECT count(*) FROM orders.predictions") == [(100,)]
