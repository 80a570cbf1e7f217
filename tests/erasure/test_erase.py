"""An erasure from request to byte scan: the person is nowhere, and everything else is as if nothing had happened."""

from __future__ import annotations

import pytest

from pip_dagster.erasure.erase import Wish, concerned, erase
from pip_dagster.errors import ErasureError
from pip_dagster.evidence.contents import content_faults
from pip_dagster.flow.plan import make_plan
from pip_dagster.ledger.verify import verify
from pip_dagster.warehouse.access import reading
from pip_dagster.warehouse.connect import workspace

FIRST, SECOND = "2024-03-01", "2024-03-02"
PRIVACY = {"subject": "order_id"}
BIG = 7700000000000


@pytest.fixture(params=["pseudonyms", "as they are"])
def shop(request, tiny, monkeypatch):
    """Two versions, two revisions, quarantined rows, reasons and delivered copies; keys that can be found as bytes."""
    monkeypatch.setenv("SHOP_KEY", "0123456789abcdef" * 3)  # pragma: allowlist secret
    privacy = PRIVACY | ({"pseudonymize": {"key_env": "SHOP_KEY"}} if request.param == "pseudonyms" else {})
    tiny.declare(
        privacy=privacy,
        deliver={"out": {"parquet": "delivered"}},
        explanations={"where": "score > 0.2", "top": 2},
        monitoring={},
    )
    tiny.source(f"UPDATE raw.orders SET order_id = order_id + {BIG}")
    tiny.run()
    tiny.source(f"UPDATE raw.orders SET quantity = 8 WHERE day = '{FIRST}'")
    tiny.run(FIRST)
    tiny.run(SECOND, version=2)
    tiny.shell("deliver", "orders")
    return tiny


def someone(tiny, day=FIRST):
    [(order,)] = tiny.source_rows(f"SELECT max(order_id) FROM raw.orders WHERE day = '{day}'")
    return str(order)


def rows_of(tiny, but):
    found = {}
    for table in ("features", "scores", "quarantine", "reasons", "predictions"):
        names = tiny.warehouse("SELECT view_name FROM duckdb_views() WHERE schema_name = 'orders'")
        if (table,) in names:
            rows = tiny.warehouse(f"SELECT * FROM orders.{table} ORDER BY ALL")
            found[table] = [row for row in rows if not set(map(str, row)) & but]
    return found


def faults(tiny):
    with workspace(threads=1) as con, reading(con, tiny.project, purpose="test"):
        return [verify(con)] + [*content_faults(con)]


def stood_for(tiny, subject):
    from pip_dagster.privacy.suppressed import stored_values

    return set(stored_values(tiny.pipeline(), subject))


def leftovers(tiny, needles):
    found = []
    for path in tiny.root.rglob("*"):
        if path.is_file() and path.name != "sources.duckdb":
            content = path.read_bytes()
            found += [path for needle in needles if needle.encode() in content]
    return found


@pytest.mark.slice
def test_the_person_is_nowhere_and_the_rest_is_as_before(shop):
    subject = someone(shop)
    names = stood_for(shop, subject)
    pipelines = [shop.pipeline()]
    assert concerned(shop.project, pipelines, subject)["orders"].keys() == {FIRST}
    before = rows_of(shop, names)
    done = erase(shop.project, pipelines, Wish(subject, "request 17", "ada"))
    assert done.partitions["orders"][FIRST] >= 4 and not done.resumed
    assert rows_of(shop, names) == before == rows_of(shop, set())
    assert faults(shop) == [None]
    assert not leftovers(shop, [name for name in names if len(name) > 5])
    assert not make_plan(shop.pipeline(), shop.partitions()).stale
    assert shop.shell("replay", "orders", FIRST)
    shop.source(f"UPDATE raw.orders SET quantity = 9 WHERE day = '{FIRST}'")
    assert shop.run(FIRST)[FIRST].error is None
    assert rows_of(shop, set()).keys() and not concerned(shop.project, pipelines, subject)
    assert not leftovers(shop, [name for name in names if len(name) > 5])
    assert faults(shop) == [None]
    again = erase(shop.project, pipelines, Wish(subject, "request 18", "ada"))
    assert again.partitions == {} and not again.resumed


class Failing:
    """A place that is emptied at the second attempt."""

    name = "failing"

    def __init__(self):
        self.attempts = 0

    def count(self, request):
        return 0

    def remove(self, request):
        from pip_dagster.erasure.place import Removed

        self.attempts += 1
        if self.attempts == 1:
            raise ErasureError("it is away")
        assert request.partitions == {"orders": [FIRST]}
        return Removed(1, 1, 0, "a test")

    def verify(self, request):
        return "a test"


@pytest.mark.slice
def test_an_erasure_that_was_interrupted_goes_on_with_the_same_request(shop):
    subject, place = someone(shop), Failing()
    with pytest.raises(ErasureError, match="it is away"):
        erase(shop.project, [shop.pipeline()], Wish(subject, "request 17", "ada"), others=[place])
    shop.run()
    done = erase(shop.project, [shop.pipeline()], Wish(subject, "request 17", "ada"), others=[place])
    assert done.resumed and [name for name, *_ in done.steps] == ["failing", "warehouse file"]
    assert shop.warehouse("SELECT DISTINCT state FROM ledger.erasures ORDER BY 1") == [("done",), ("running",)]
    assert faults(shop) == [None]
