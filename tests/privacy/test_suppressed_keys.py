"""Suppressed subjects stay out also when secrets or the domain change: by another secret nobody would be recognised."""

from __future__ import annotations

import pytest

from pip_dagster.erasure.erase import erase
from pip_dagster.erasure.holds import list_holds, place_hold
from pip_dagster.erasure.wish import Wish
from pip_dagster.errors import DeclarationError
from pip_dagster.flow.plan import make_plan
from pip_dagster.privacy.keys import keys_of
from pip_dagster.privacy.suppressed import stored_values

FIRST = "2024-03-01"
SECRET, OTHER = "0123456789abcdef" * 3, "f" * 32  # pragma: allowlist secret
PRIVACY = {"subject": "order_id", "pseudonymize": {"key_env": "SHOP_PRIVACY_KEY"}}


@pytest.fixture
def suppressed(tiny, monkeypatch):
    """A project whose first order of the day is suppressed, and whose source has changed since."""
    monkeypatch.setenv("SHOP_PRIVACY_KEY", SECRET)
    tiny.declare(privacy=PRIVACY).run(FIRST)
    [(order,)] = tiny.source_rows(f"SELECT min(order_id) FROM raw.orders WHERE day = '{FIRST}'")
    (key,) = keys_of(tiny.pipeline())
    tiny.tamper(
        "INSERT INTO ledger.erasures (erasure_id, kind, state, made_at) VALUES ('e1', 'erase', 'done', now())",
        "INSERT INTO ledger.suppressions (erasure_id, pipeline, subject, key_version, made_at) VALUES "
        f"('e1', 'orders', '{key.suppressing.pseudonym(str(order))}', '{key.version}', now())",
    )
    tiny.source(f"UPDATE raw.orders SET quantity = 8 WHERE day = '{FIRST}'")
    return tiny


def refused_or_kept_out(tiny, rows):
    try:
        tiny.run(FIRST)
    except DeclarationError:
        return True
    return tiny.warehouse("SELECT count(*) FROM orders.predictions") == [(rows - 1,)]


def test_another_column_of_the_subject_is_refused_by_runs_plans_and_erasures(tiny):
    tiny.declare(privacy={"subject": "order_id"}).run(FIRST)
    [(order,)] = tiny.source_rows(f"SELECT min(order_id) FROM raw.orders WHERE day = '{FIRST}'")
    erase(tiny.project, [tiny.pipeline()], Wish(str(order), "request", "a test"))
    before = tiny.warehouse("FROM orders.predictions ORDER BY ALL"), tiny.warehouse("FROM ledger.erasures ORDER BY ALL")
    tiny.source(f"UPDATE raw.orders SET quantity = 8 WHERE day = '{FIRST}'")
    tiny.declare(privacy={"subject": "shop"})
    for attempt in (
        lambda: tiny.run(FIRST),
        lambda: make_plan(tiny.pipeline(), tiny.partitions()),
        lambda: erase(tiny.project, [tiny.pipeline()], Wish("plain", "request", "a test")),
    ):
        with pytest.raises(DeclarationError, match="erased by the column 'order_id', and `privacy.subject` is 'shop'"):
            attempt()
    after = tiny.warehouse("FROM orders.predictions ORDER BY ALL"), tiny.warehouse("FROM ledger.erasures ORDER BY ALL")
    assert after == before
    tiny.declare(privacy={"subject": "ORDER_ID"})
    assert [result.error for result in tiny.run(FIRST).values()] == [None]


def test_a_rotated_secret_keeps_them_out(suppressed, monkeypatch):
    [(rows,)] = suppressed.warehouse("SELECT count(*) FROM orders.predictions")
    monkeypatch.setenv("OLD_KEY", SECRET)
    monkeypatch.setenv("SHOP_PRIVACY_KEY", OTHER)
    rotated = {"key_env": "SHOP_PRIVACY_KEY", "version": "k2", "former": {"k1": {"key_env": "OLD_KEY"}}}
    suppressed.declare(privacy=PRIVACY | {"pseudonymize": rotated})
    suppressed.run(FIRST)
    assert suppressed.warehouse("SELECT count(*) FROM orders.predictions") == [(rows - 1,)]


def test_a_wrong_former_secret_lets_nobody_return(suppressed, monkeypatch):
    [(rows,)] = suppressed.warehouse("SELECT count(*) FROM orders.predictions")
    monkeypatch.setenv("OLD_KEY", "e" * 32)
    monkeypatch.setenv("SHOP_PRIVACY_KEY", OTHER)
    rotated = {"key_env": "SHOP_PRIVACY_KEY", "version": "k2", "former": {"k1": {"key_env": "OLD_KEY"}}}
    suppressed.declare(privacy=PRIVACY | {"pseudonymize": rotated})
    assert refused_or_kept_out(suppressed, rows)


def test_another_domain_lets_nobody_return(suppressed):
    [(rows,)] = suppressed.warehouse("SELECT count(*) FROM orders.predictions")
    suppressed.declare(privacy=PRIVACY | {"domain": "shop"})
    assert refused_or_kept_out(suppressed, rows)


def test_pseudonyms_that_are_switched_off_let_nobody_return(suppressed):
    [(rows,)] = suppressed.warehouse("SELECT count(*) FROM orders.predictions")
    suppressed.declare(privacy={"subject": "order_id"})
    assert refused_or_kept_out(suppressed, rows)


def test_a_pseudonym_is_no_person_to_erase_or_to_hold(tiny, monkeypatch):
    monkeypatch.setenv("SHOP_KEY", "0123456789abcdef" * 3)  # pragma: allowlist secret
    tiny.declare(privacy={"subject": "order_id", "pseudonymize": {"key_env": "SHOP_KEY"}})
    pipeline = tiny.pipeline()
    given = {"pseudonym": stored_values(pipeline, "7")[0], "NUL": "7\0", "UTF-8": "\udcff"}
    for what, subject in given.items():
        with pytest.raises(DeclarationError, match=what):
            erase(tiny.project, [pipeline], Wish(subject, "request 17", "ada"))
        with pytest.raises(DeclarationError, match=what):
            place_hold(tiny.project, [pipeline], subject, why="claim 8", by="ada")
    assert not list_holds(tiny.project)


def test_without_privacy_nothing_is_stored_where_somebody_was_erased(suppressed):
    before = suppressed.warehouse("SELECT count(*) FROM orders.features")
    suppressed.declare()
    assert "Declare `privacy` as it was" in suppressed.shell("run", "orders", FIRST, code=1)
    assert suppressed.warehouse("SELECT count(*) FROM orders.features") == before


def test_without_privacy_neither_labels_nor_training_sets_are_read_where_somebody_was_erased(suppressed):
    labels = {"sql": "labels.sql", "outcome": "returned"}
    select = "SELECT order_id, gift AS returned FROM raw.orders WHERE day >= $start_date AND day < $end_date"
    (suppressed.folder / "labels.sql").write_text(select)
    out = ("--from", FIRST, "--to", FIRST, "--prove", "0", "-o", str(suppressed.root / "out.parquet"))
    suppressed.declare(privacy=PRIVACY, labels=labels, monitoring={"performance": {}})
    erase(suppressed.project, [suppressed.pipeline()], Wish("no one", "request", "a test", absent=True))
    training_set = ("features", "export", "orders", "--labels", *out)
    evaluated = ("performance", "orders", "--evaluate")
    suppressed.shell(*training_set)
    suppressed.shell(*evaluated)
    suppressed.declare(labels=labels, monitoring={"performance": {}})
    for words in (training_set, evaluated, ("plan", "orders")):
        assert "Declare `privacy` as it was" in suppressed.shell(*words, code=1), words
