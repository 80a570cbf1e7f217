"""A mistyped identifier is refused, and so are texts that would keep a right one in the audit for good."""

from __future__ import annotations

import json

import pytest

from pip_dagster.erasure.erase import erase
from pip_dagster.erasure.holds import place_hold, release_hold
from pip_dagster.erasure.wish import Wish
from pip_dagster.errors import DeclarationError, ErasureError

DAY = "2024-03-01"
SQL = """
SELECT order_id, day, gift, shop, quantity, amount, customer
FROM raw.orders WHERE day >= $start_date AND day < $end_date
"""
ONE, LATER = "Ada Byron|C-103", "Bob|C-104"
RECORDED = "SELECT count(*) FROM ledger.erasures UNION ALL SELECT count(*) FROM ledger.audit"


@pytest.fixture
def shop(tiny, monkeypatch):
    """One customer with stored rows, and one of a day that is not scored yet."""
    monkeypatch.setenv("SHOP_KEY", "0123456789abcdef" * 3)  # pragma: allowlist secret
    tiny.source(
        "ALTER TABLE raw.orders ADD COLUMN customer VARCHAR",
        f"UPDATE raw.orders SET customer = CASE WHEN day = '{DAY}' THEN '{ONE}' ELSE '{LATER}' END",
    )
    tiny.declare(SQL, privacy={"subject": "customer", "pseudonymize": {"key_env": "SHOP_KEY"}})
    tiny.run(DAY)
    return tiny


@pytest.mark.slice
def test_an_identifier_that_nothing_names_is_refused_and_changes_nothing(shop):
    before = shop.warehouse(RECORDED)
    for words in (("erase",), ("erase", "--dry-run"), ("hold", "place")):
        said = shop.shell(*words, "--subject", "Bob|C-105", "--why", "request 17", code=1)
        assert "Nothing names this subject. Searched: stored rows of orders" in said
        assert "the source orders.orders" in said and "--absent" in said and "C-105" not in said
    assert shop.warehouse(RECORDED) == before
    shop.declare(SQL.replace("customer", "upper(customer) AS who"), privacy={"subject": "who"})
    with pytest.raises(ErasureError, match="Not searched: orders.orders, without a column 'who'"):
        place_hold(shop.project, [shop.pipeline()], LATER, why="claim 8", by="ada")


@pytest.mark.slice
def test_who_is_only_in_a_source_or_on_a_list_is_known_and_absent_takes_anybody(shop):
    pipelines = [shop.pipeline()]
    rows = json.loads(shop.shell("erase", "--subject", LATER, "--why", "request 17", "--dry-run", "--json"))
    assert rows == {"partitions": {}}
    assert erase(shop.project, pipelines, Wish(LATER, "request 17", "ada")).partitions == {}
    shop.source("DELETE FROM raw.orders")
    assert not erase(shop.project, pipelines, Wish(LATER, "request 18", "ada")).resumed  # by the list
    assert erase(shop.project, pipelines, Wish(ONE, "request 19", "ada")).partitions  # by stored rows
    shop.shell("erase", "--subject", "Carl|C-106", "--why", "request 20", "--absent")
    shop.source(f"INSERT INTO raw.orders BY NAME SELECT 9 AS order_id, '{DAY}' AS day, 'Carl|C-106' AS customer")
    assert shop.run(DAY)[DAY].error is None and shop.warehouse("SELECT count(*) FROM orders.features") == [(0,)]
    hold = place_hold(shop.project, pipelines, "Dora|C-107", why="claim 8", by="ada", absent=True)
    assert place_hold(shop.project, pipelines, "Dora|C-107", why="claim 9", by="ada") != hold


@pytest.mark.slice
def test_a_text_with_the_identifier_is_refused(shop):
    pipelines, before = [shop.pipeline()], shop.warehouse(RECORDED)
    person = ("--subject", ONE)
    for words, option in (
        (("erase", *person, "--why", f"request of {ONE.lower()}"), "--why has the identifier"),
        (("erase", *person, "--why", "w", "--ground", "ada called"), "--ground has a part of the identifier"),
        (("erase", *person, "--why", "w", "--asked-by", "(C-103)", "--dry-run"), "--asked-by has a part"),
        (("hold", "place", *person, "--why", "claim of Byron"), "--why has a part of the identifier"),
        (("subject", "report", ONE, "--why", "Byron asked", "-o", str(shop.root / "p.html")), "--why has a part"),
    ):
        said = shop.shell(*words, code=1)
        assert option in said and "request 17" in said
    assert shop.warehouse(RECORDED) == before and not (shop.root / "p.html").exists()
    shop.shell("erase", *person, "--why", "adapted, see C-1034 and IC-103", "--dry-run")  # no words of their own
    hold = place_hold(shop.project, pipelines, ONE, why="claim 8", by="ada")
    with pytest.raises(DeclarationError, match="--why has the identifier"):
        release_hold(shop.project, hold, why=f"settled with {ONE}.", by="ada", pipelines=pipelines)
    assert "--why has the identifier" in shop.shell("hold", "release", hold, "--why", f"{ONE}: settled", code=1)
    shop.shell("hold", "release", hold, "--why", "settled")
