"""An erasure from request to byte scan: the person is nowhere, and everything else is as if nothing had happened."""

from __future__ import annotations

import shutil

import pytest

from pip_dagster.declaration.find import find_pipeline
from pip_dagster.erasure.erase import concerned, erase
from pip_dagster.erasure.wish import Wish
from pip_dagster.errors import ErasureError
from pip_dagster.evidence.contents import content_faults
from pip_dagster.flow.materialize import materialize
from pip_dagster.flow.plan import make_plan
from pip_dagster.ledger.record import RunInfo
from pip_dagster.ledger.verify import verify
from pip_dagster.warehouse.access import reading
from pip_dagster.warehouse.connect import workspace

FIRST, SECOND = "2024-03-01", "2024-03-02"
PRIVACY = {"subject": "order_id"}
BIG = 7700000000000


@pytest.fixture(params=["pseudonyms", pytest.param("as they are", marks=pytest.mark.soak)])
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


CUSTOMERS = """
SELECT order_id, day, gift, shop, quantity, amount, {customer} AS customer
FROM raw.orders WHERE day >= $start_date AND day < $end_date
"""
THREES = "'customer-' || (order_id // 3)"
ONE = Wish("customer-3", "request 1", "ada")  # of the orders 9, 10 and 11


@pytest.fixture
def customers(tiny):
    """Orders by customer, one partition scored."""
    tiny.declare(CUSTOMERS.format(customer=THREES), privacy={"subject": "customer"})
    tiny.run(FIRST)
    return tiny


@pytest.mark.slice
def test_another_pipeline_with_the_same_keys_loses_nothing(customers):
    folder = customers.folder.with_name("refunds")
    shutil.copytree(customers.folder, folder)
    declared = (folder / "defs.yaml").read_text().replace("name: orders", "name: refunds", 1)
    (folder / "defs.yaml").write_text(declared)
    (folder / "features.sql").write_text(CUSTOMERS.format(customer="'somebody else'"))
    refunds = find_pipeline(customers.project, "refunds")
    assert [each.error for each in materialize(refunds, customers.partitions(FIRST), RunInfo("run-1", "a test"))] == [
        None
    ]
    before = customers.warehouse("FROM refunds.scores ORDER BY ALL")
    done = erase(customers.project, [customers.pipeline(), refunds], ONE)
    assert done.partitions == {"orders": {FIRST: 6}}
    assert customers.warehouse("FROM refunds.scores ORDER BY ALL") == before
    assert faults(customers) == [None]


@pytest.mark.soak
def test_a_key_that_was_corrected_to_another_person_is_theirs(customers):
    corrected = f"CASE WHEN order_id = 10 THEN 'customer-999' ELSE {THREES} END"
    customers.declare(CUSTOMERS.format(customer=corrected), privacy={"subject": "customer"})
    customers.run(FIRST)
    erase(customers.project, [customers.pipeline()], ONE)
    assert customers.warehouse("SELECT order_id FROM orders.predictions WHERE order_id IN (9, 10, 11)") == [(10,)]
    assert customers.warehouse("SELECT count(*) FROM orders.scores WHERE order_id = 10") == [(1,)]
    assert faults(customers) == [None]


class Behind(Failing):
    """While places are emptied, a run of an older version stores rows that it read before anybody was suppressed."""

    name = "behind"

    def __init__(self, tiny, monkeypatch):
        self._tiny, self._monkeypatch = tiny, monkeypatch

    def remove(self, request):
        from pip_dagster.erasure.place import Removed

        with self._monkeypatch.context() as patch:
            patch.setattr("pip_dagster.flow.materialize.incoming", lambda pipeline: None)
            for storing in ("store_features", "store_scores"):
                patch.setattr(f"pip_dagster.flow.{storing}.check_suppressed", lambda *_: None)
            self._tiny.source(f"UPDATE raw.orders SET quantity = 8 WHERE day = '{FIRST}'")
            self._tiny.run(FIRST)
        return Removed(0, 0, 0, "a test")


@pytest.mark.slice
def test_rows_that_a_run_stored_meanwhile_are_erased_by_the_same_request(customers, monkeypatch):
    pipelines = [customers.pipeline()]
    with pytest.raises(ErasureError, match="had begun before"):
        erase(customers.project, pipelines, ONE, others=[Behind(customers, monkeypatch)])
    assert erase(customers.project, pipelines, ONE).resumed
    assert not concerned(customers.project, pipelines, ONE.subject)
    assert not leftovers(customers, [ONE.subject])
    assert faults(customers) == [None]


@pytest.mark.soak
def test_digests_of_what_was_delivered_before_are_gone(customers):
    customers.declare(privacy={"subject": "customer"}, deliver={"out": {"parquet": "delivered"}})
    customers.shell("deliver", "orders")
    digests = "SELECT digest FROM ledger.deliveries WHERE digest IS NOT NULL"
    before = customers.warehouse(digests)
    erase(customers.project, [customers.pipeline()], ONE)
    after = customers.warehouse(digests)
    assert len(before) == len(after) == 1 and before != after
