"""A legal hold: an erasure restricts, a purge keeps the person's rows aside, and the release lets both be completed."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from pip_dagster.erasure.certificate import certificate_of
from pip_dagster.erasure.erase import concerned, erase
from pip_dagster.erasure.holds import place_hold, release_hold
from pip_dagster.erasure.purge import due, purge
from pip_dagster.erasure.wish import Wish
from pip_dagster.errors import ErasureError, NotFoundError
from pip_dagster.evidence.contents import content_faults
from pip_dagster.flow.plan import make_plan
from pip_dagster.ledger.verify import verify
from pip_dagster.privacy.suppressed import stored_values
from pip_dagster.warehouse.access import reading
from pip_dagster.warehouse.connect import workspace

OLD, NEW = "2024-03-01", "2024-03-02"
BIG = 7700000000000


@pytest.fixture(params=["pseudonyms", pytest.param("as they are", marks=pytest.mark.soak)])
def shop(request, tiny, monkeypatch):
    monkeypatch.setenv("SHOP_KEY", "0123456789abcdef" * 3)  # pragma: allowlist secret
    privacy = {"subject": "order_id"}
    privacy |= {"pseudonymize": {"key_env": "SHOP_KEY"}} if request.param == "pseudonyms" else {}
    tiny.declare(privacy=privacy)
    tiny.source(f"UPDATE raw.orders SET order_id = order_id + {BIG}")
    tiny.run(OLD, NEW)
    days = (datetime.now(UTC) - datetime.fromisoformat(NEW).replace(tzinfo=UTC)).days
    tiny.declare(privacy=privacy | {"retention": {"content": f"{days} days"}})
    return tiny


def someone(tiny, day, place="max"):
    [(order,)] = tiny.source_rows(f"SELECT {place}(order_id) FROM raw.orders WHERE day = '{day}'")
    return str(order)


def kept(tiny):
    return tiny.warehouse("SELECT table_name, content FROM ledger.held_rows ORDER BY 1")


def stored(tiny, subject):
    names = {*stored_values(tiny.pipeline(), subject)}
    tables = tiny.warehouse("SELECT table_name FROM duckdb_tables() WHERE schema_name = 'orders'")
    rows = [row for (table,) in tables for row in tiny.warehouse(f"FROM orders.{table}")]
    rows += tiny.published("FROM orders.predictions")
    return [row for row in rows if names & {*map(str, row)}]


def faults(tiny):
    with workspace(threads=1) as con, reading(con, tiny.project, purpose="test"):
        return [verify(con)] + [*content_faults(con)]


def left(tiny, subject):
    names = [name.encode() for name in stored_values(tiny.pipeline(), subject)]
    files = [path for path in tiny.root.rglob("*") if path.is_file() and path.name != "sources.duckdb"]
    return [path for path in files if any(name in path.read_bytes() for name in names)]


def reported(tiny, subject):
    """How many rows that are kept a report about the person shows."""
    page, data = tiny.root.parent / "person.html", tiny.root.parent / "person.json"
    assert "that a legal hold keeps" in tiny.shell("subject", "report", subject, "-o", str(page))
    tiny.shell("subject", "report", subject, "--json", "-o", str(data))
    [of] = json.loads(data.read_text())["pipelines"]
    names = {*stored_values(tiny.pipeline(), subject)}
    assert all(names & {*map(str, row["row"].values())} or row["kind"] == "scores" for row in of["restricted"])
    assert page.read_text().count("The row</summary>") == len(of["restricted"])
    return len(of["restricted"])


@pytest.mark.slice
def test_an_erasure_under_a_hold_restricts_and_is_completed_after_its_release(shop):
    pipelines, subject = [shop.pipeline()], someone(shop, NEW)
    before = len(stored(shop, subject))
    until = datetime(2027, 12, 31, tzinfo=UTC)
    hold = place_hold(shop.project, pipelines, subject, why="claim 8", by="ada", until=until)
    assert stored(shop, subject) and not kept(shop)  # a hold alone changes nothing
    done = erase(shop.project, pipelines, Wish(subject, "request 17", "ada"))
    assert not stored(shop, subject) and 0 < len(kept(shop)) < before
    [step] = [removed for name, removed, _ in done.steps if name == "warehouse"]
    assert hold in step.remains and "restricted" in step.remains and step.remains_until == until
    found = certificate_of(shop.project, done.erasure_id)
    assert [(each["hold_id"], each["rows"]) for each in found["restricted"]] == [(hold, len(kept(shop)))]
    assert reported(shop, subject) == len(kept(shop))
    shop.source(f"UPDATE raw.orders SET quantity = 9 WHERE day = '{NEW}'")
    assert shop.run(NEW)[NEW].error is None and not stored(shop, subject)
    assert faults(shop) == [None] and not make_plan(shop.pipeline(), shop.partitions(OLD, NEW)).stale
    again = erase(shop.project, pipelines, Wish(subject, "request 17", "ada"))
    assert kept(shop) and not again.partitions  # still on hold

    assert release_hold(shop.project, hold, why="settled", by="ada") == len(kept(shop))
    with pytest.raises(ErasureError, match="released already"):
        release_hold(shop.project, hold, why="settled", by="ada")
    with pytest.raises(NotFoundError, match=hold):
        release_hold(shop.project, "nothing", why="settled", by="ada")
    assert [each["state"] for each in json.loads(shop.shell("hold", "list", "--json"))] == ["released"]
    erase(shop.project, pipelines, Wish(subject, "request 17", "ada"))
    assert not kept(shop) and not left(shop, subject) and faults(shop) == [None]
    assert not concerned(shop.project, pipelines, subject)


@pytest.mark.slice
def test_a_purge_keeps_who_is_on_hold_and_removes_them_after_the_last_release(shop):
    pipelines, subject, other = [shop.pipeline()], someone(shop, OLD), someone(shop, OLD, "min")
    holds = [place_hold(shop.project, pipelines, subject, why=why, by="ada") for why in ("claim 8", "claim 9")]
    done = purge(shop.project, pipelines, actor="ada")
    assert not stored(shop, subject) and not stored(shop, other) and stored(shop, someone(shop, NEW))
    texts = [content for _, content in kept(shop)]
    names = stored_values(shop.pipeline(), subject)
    assert texts and all(any(name in text for name in names) for text in texts)
    assert reported(shop, subject) == len(kept(shop))
    assert "on legal hold" in next(removed.remains for name, removed, _ in done.steps if name == "warehouse")
    assert purge(shop.project, pipelines, actor="ada") is None
    release_hold(shop.project, holds[1], why="settled", by="ada")
    assert not due(shop.project, pipelines).partitions  # the other is on
    release_hold(shop.project, holds[0], why="settled", by="ada")
    assert due(shop.project, pipelines).partitions == {"orders": [OLD]}
    assert purge(shop.project, pipelines, actor="ada")
    assert not kept(shop) and not left(shop, subject) and faults(shop) == [None]
    assert purge(shop.project, pipelines, actor="ada") is None
