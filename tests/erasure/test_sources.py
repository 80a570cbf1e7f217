"""What the ledger has of source rows after an erasure: nothing that a search could use, and a plan that is right."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from pip_dagster.erasure import sources as erased_sources
from pip_dagster.erasure.erase import erase
from pip_dagster.erasure.wish import Wish
from pip_dagster.errors import SourceError
from pip_dagster.flow.plan import make_plan

FIRST, SECOND = "2024-03-01", "2024-03-02"
SQL = """
SELECT order_id, day, gift, shop, quantity, amount, person
FROM raw.orders WHERE day >= $start_date AND day < $end_date
"""
ORDERS = {"table": "raw.orders", "partition_column": "day"}
OF = "order_id // 3 = 1"  # the person's rows: on the first day


@dataclass(frozen=True)
class Variant:
    """A source, and what names the person in it."""

    person: str = "'p-' || (order_id // 3)"
    source: dict[str, Any] = field(default_factory=lambda: ORDERS)
    privacy: dict[str, Any] = field(default_factory=dict)
    declared: dict[str, Any] = field(default_factory=dict)
    files: bool = False


VARIANTS = {
    "text": Variant(),
    "number": Variant("(order_id // 3)::BIGINT"),
    "uuid": Variant("md5((order_id // 3)::VARCHAR)::UUID"),
    "lookback": Variant(source=ORDERS | {"lookback": "1 day"}),
    "change column": Variant(source=ORDERS | {"change_column": "changed"}),
    "whole": Variant(source={"table": "raw.orders"}),
    "files": Variant(source=ORDERS | {"parquet": "orders/*.parquet"}, files=True),
    "pseudonyms": Variant(privacy={"pseudonymize": {"key_env": "SHOP_KEY"}}),
    "composite": Variant(
        declared={"features": {"sql": "features.sql", "key": ["order_id", "shop"], "partition_column": "day"}}
    ),
}


def change(tiny, variant, *statements):
    tiny.source(*statements)
    if variant.files:
        (tiny.root / "orders").mkdir(exist_ok=True)
        to = "TO '{}' (FORMAT parquet)"
        files = {half: str(tiny.root / "orders" / f"{half}.parquet") for half in (0, 1)}
        tiny.source(*(f"COPY (FROM raw.orders WHERE order_id % 2 = {h}) {to.format(f)}" for h, f in files.items()))


def stale(tiny):
    return {each.partition.key for each in make_plan(tiny.pipeline(), tiny.partitions(FIRST, SECOND)).stale}


RECORDS = (
    "SELECT source_digests FROM ledger.extractions",
    "SELECT source_digests FROM ledger.scorings",
    "SELECT inputs_digest FROM ledger.scorings",
    "SELECT total || ' ' || xor FROM ledger.source_buckets WHERE rows > 0",
)


def records(tiny, day=""):
    """The digests that the ledger has, of partitions that read the person's day, and of buckets of that day."""
    found = set()
    for select, of in zip(RECORDS, ("partition_key", "partition_key", "partition_key", "bucket::VARCHAR"), strict=True):
        word = " AND " if "WHERE" in select else " WHERE "
        found |= {text for (text,) in tiny.warehouse(select + (f"{word}{of} LIKE '{day}%'" if day else ""))}
    return found


@pytest.fixture
def laid(tiny, request, monkeypatch):
    variant = VARIANTS[request.param]
    monkeypatch.setenv("SHOP_KEY", "0123456789abcdef" * 3)  # pragma: allowlist secret
    named = (
        f"CREATE OR REPLACE TABLE raw.orders AS SELECT *, {variant.person} AS person, TIMESTAMP '2024-01-01' AS changed"
    )
    change(tiny, variant, f"{named} FROM raw.orders")
    privacy = {"subject": "person"} | variant.privacy
    tiny.declare(SQL, privacy=privacy, sources={"orders": variant.source}, **variant.declared)
    tiny.run(FIRST, SECOND)
    [(subject,)] = tiny.source_rows(f"SELECT DISTINCT person::VARCHAR FROM raw.orders WHERE {OF}")
    return tiny, variant, Wish(subject, "request 1", "ada")


LONG = ("number", "uuid", "lookback", "whole", "change column", "composite", "text")


@pytest.mark.slice
@pytest.mark.parametrize(
    "laid", [pytest.param(each, marks=pytest.mark.soak) if each in LONG else each for each in VARIANTS], indirect=True
)
def test_a_plan_is_quiet_whether_or_not_the_source_forgets_and_finds_a_change(laid):
    tiny, variant, wish = laid
    of_person, others = records(tiny, FIRST), records(tiny)
    if variant.source != ORDERS | {"lookback": "1 day"}:
        others -= of_person
    assert of_person and stale(tiny) == set()
    erase(tiny.project, [tiny.pipeline()], wish)
    now = records(tiny)
    assert not of_person & now, "a search by a digest of the source would find the person"
    assert erased_sources.ERASED not in str(now) and None not in now
    assert "agrees with" in tiny.shell("audit", "verify", code=4)
    assert stale(tiny) == set()
    tiny.run(FIRST, SECOND)  # which reads the source again, and finds all as it is recorded
    assert records(tiny) == now
    change(tiny, variant, f"DELETE FROM raw.orders WHERE {OF}")
    assert stale(tiny) == set(), "the source forgot the person"
    changed = "SET quantity = quantity + 1, changed = TIMESTAMP '2024-01-02'"
    change(tiny, variant, f"UPDATE raw.orders {changed} WHERE day = '{SECOND}' AND order_id % 2 = 0")
    assert stale(tiny) == ({FIRST, SECOND} if variant.source == {"table": "raw.orders"} else {SECOND})
    tiny.run(FIRST, SECOND)
    assert stale(tiny) == set()


@pytest.mark.soak
@pytest.mark.parametrize("laid", ["text"], indirect=True)
def test_a_change_from_before_the_erasure_is_still_found(laid):
    tiny, variant, wish = laid
    change(tiny, variant, f"UPDATE raw.orders SET quantity = 9 WHERE day = '{FIRST}' AND NOT ({OF})")
    old = records(tiny, FIRST)
    erase(tiny.project, [tiny.pipeline()], wish)
    assert stale(tiny) == {FIRST} and not old & records(tiny)
    tiny.run(FIRST)
    assert stale(tiny) == set()


@pytest.mark.soak
@pytest.mark.parametrize("laid", ["text"], indirect=True)
def test_digests_of_former_contents_are_gone_and_the_newest_ones_are_right(laid):
    tiny, variant, wish = laid
    change(tiny, variant, f"UPDATE raw.orders SET quantity = 9 WHERE day = '{FIRST}'")
    former = records(tiny, FIRST)
    tiny.run(FIRST)
    erase(tiny.project, [tiny.pipeline()], wish)
    assert not former & records(tiny) and stale(tiny) == set()
    assert tiny.warehouse("SELECT count(*) FROM ledger.extractions WHERE source_digests LIKE '%\"erased\"%'") == [(1,)]
    assert "agrees with" in tiny.shell("audit", "verify", code=4)


@pytest.mark.slice
@pytest.mark.parametrize("laid", ["text"], indirect=True)
def test_sources_that_cannot_be_read_are_forgotten(laid, monkeypatch):
    tiny, _, wish = laid
    old, said = records(tiny), []

    def away(*_, **__):
        raise SourceError("The source is away.")

    with monkeypatch.context() as patch:
        patch.setattr(erased_sources, "open_sources", away)
        erase(tiny.project, [tiny.pipeline()], wish, progress=said.append)
    assert any("become stale. The source is away." in text for text in said)
    assert not old & records(tiny) and stale(tiny) == {FIRST, SECOND}


@pytest.mark.slice
@pytest.mark.parametrize("laid", ["text"], indirect=True)
def test_a_partition_that_is_blocked_stays_on_hold(laid):
    tiny, variant, wish = laid
    tiny.declare(SQL, privacy={"subject": "person"}, sources={"orders": ORDERS}, min_row_share=0.9)
    change(tiny, variant, f"DELETE FROM raw.orders WHERE day = '{FIRST}' AND order_id > 15")
    tiny.run(FIRST)
    plan = make_plan(tiny.pipeline(), tiny.partitions(FIRST, SECOND))
    assert [each.partition.key for each in plan.on_hold] == [FIRST] and not plan.stale, plan
    old = records(tiny, FIRST)
    erase(tiny.project, [tiny.pipeline()], wish)
    after = make_plan(tiny.pipeline(), tiny.partitions(FIRST, SECOND))
    assert [each.partition.key for each in after.on_hold] == [FIRST] and not after.stale and not old & records(tiny)
