"""Pseudonyms: applied where rows come in, so that nothing that is kept holds the subject itself."""

from __future__ import annotations

import hashlib
import hmac
import json

import duckdb
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pip_dagster.errors import DeclarationError
from pip_dagster.flow.plan import make_plan
from pip_dagster.privacy.keys import keys_of
from pip_dagster.privacy.pseudonym import PseudonymKey
from pip_dagster.privacy.suppressed import incoming

FIRST, SECOND = "2024-03-01", "2024-03-02"
SECRET = "0123456789abcdef" * 3  # pragma: allowlist secret
PRIVACY = {"subject": "order_id", "pseudonymize": {"key_env": "SHOP_PRIVACY_KEY"}}


@pytest.fixture(autouse=True)
def secret(monkeypatch):
    monkeypatch.setenv("SHOP_PRIVACY_KEY", SECRET)


@pytest.mark.slice
@given(
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=80),
    st.binary(min_size=16, max_size=100),
    st.sampled_from(["shop", "a.b-c_1", "x" * 64]),
)
def test_sql_and_python_make_the_same_of_every_text(value, key, domain):
    made = PseudonymKey("k1", key, domain)
    with duckdb.connect() as con:
        found = con.execute(f"SELECT {made.sql('v')} FROM (SELECT $v AS v)", {"v": value} | made.values).fetchone()
    message = domain.encode() + b"\x1f" + f"{len(value.encode())}:".encode() + value.encode()
    expected = "k1_" + hmac.new(key, message, hashlib.sha256).hexdigest()[:32]
    assert found == (expected,) and made.pseudonym(value) == expected


def test_domains_versions_and_lengths_never_collide():
    keys = [PseudonymKey(v, b"x" * 16, d) for v in ("k1", "k2") for d in ("a", "ab")]
    assert len({key.pseudonym(text) for key in keys for text in ("", "b", "1:b", "bb")}) == 16


def declared(tiny, **others):
    return tiny.declare(privacy=PRIVACY | others)


def pseudonym(tiny, order):
    (key,) = keys_of(tiny.pipeline())
    return key.pseudonym(str(order))


@pytest.mark.lake
def test_rows_are_scored_the_same_and_kept_under_pseudonyms(tiny):
    declared(tiny)
    assert [result.error for result in tiny.run().values()] == [None] * 4
    found = dict(tiny.warehouse("SELECT order_id, score FROM orders.predictions"))
    assert found == {pseudonym(tiny, order): score for order, score in tiny.expected().items()}
    assert not make_plan(tiny.pipeline(), tiny.partitions()).stale


def test_switched_on_over_keys_of_another_type_it_is_refused(tiny):
    tiny.run(FIRST)
    before = tiny.warehouse("SELECT * FROM orders.predictions ORDER BY ALL")
    declared(tiny)
    assert [each.partition.key for each in make_plan(tiny.pipeline(), tiny.partitions(FIRST)).stale] == [FIRST]
    assert "give the pipeline another name" in tiny.run(FIRST)[FIRST].error
    assert tiny.warehouse("SELECT * FROM orders.predictions ORDER BY ALL") == before


def test_another_secret_under_the_same_version_is_refused_and_a_rotation_is_not(tiny, monkeypatch):
    declared(tiny).run(FIRST)
    stored = tiny.warehouse("SELECT order_id FROM orders.predictions ORDER BY ALL")
    monkeypatch.setenv("SHOP_PRIVACY_KEY", "f" * 32)
    tiny.source(f"UPDATE raw.orders SET quantity = 8 WHERE day = '{FIRST}'")
    with pytest.raises(DeclarationError, match="'k1' of the domain 'orders' is another than the one"):
        tiny.run(FIRST)
    assert tiny.warehouse("SELECT order_id FROM orders.predictions ORDER BY ALL") == stored
    monkeypatch.setenv("OLD_KEY", SECRET)
    rotated = {"key_env": "SHOP_PRIVACY_KEY", "version": "k2", "former": {"k1": {"key_env": "OLD_KEY"}}}
    declared(tiny, pseudonymize=rotated)
    assert [key.version for key in keys_of(tiny.pipeline())] == ["k2", "k1"]
    tiny.run(FIRST)
    found = tiny.warehouse("SELECT DISTINCT left(order_id, 3) FROM orders.predictions")
    assert found == [("k2_",)]


@pytest.mark.parametrize(
    ("value", "said"),
    [(None, "SHOP_PRIVACY_KEY has no secret"), ("  ", "has no secret"), ("short", "of 5 bytes; expected at least 16")],
)
def test_a_secret_that_is_none_is_named_and_not_shown(tiny, monkeypatch, value, said):
    monkeypatch.setenv("SHOP_PRIVACY_KEY", value) if value else monkeypatch.delenv("SHOP_PRIVACY_KEY")
    with pytest.raises(DeclarationError, match=said):
        declared(tiny).run(FIRST)


@pytest.mark.parametrize(
    ("privacy", "said"),
    [
        ({"subject": "order"}, "no column 'order' in its result, the subject; did you mean 'order_id'"),
        ({"subject": "amount"}, "the subject 'amount' is DOUBLE"),
        ({"subject": "quantity"}, "is a feature of model returns v1"),
        ({"subject": "QUANTITY"}, "'QUANTITY' is a feature of model returns v1"),
    ],
)
def test_what_cannot_be_meant_is_refused(tiny, privacy, said):
    with pytest.raises(DeclarationError, match=said):
        declared(tiny, **privacy).run(FIRST)


@pytest.mark.parametrize(
    ("privacy", "said"),
    [
        ({"subject": "day"}, "the partition column"),
        ({"retention": {"content": "5 months"}, "high_risk": True}, "at least six months"),
        ({"retention": {"content": "2 years", "evidence": "1 year"}}, "evidence outlives contents"),
        ({"retention": {"content": 13}}, "has no unit"),
        ({"pseudonymize": {"key_env": "A", "key_file": "b"}}, "takes one of"),
        ({"pseudonymize": {"key_env": "A", "former": {"k1": {"key_env": "B"}}}}, "has the present version 'k1' too"),
        ({"pseudonymize": {"key_env": "A", "version": "local"}}, "names the secret beside the warehouse"),
    ],
)
def test_what_cannot_be_declared_is_refused(tiny, privacy, said):
    with pytest.raises(ValueError, match=said):
        declared(tiny, **privacy).pipeline()


def test_no_secret_and_no_key_is_in_what_is_kept(tiny, tmp_path):
    """Keys are long numbers here, whose text and bytes are looked for in every file."""
    tiny.source("UPDATE raw.orders SET order_id = order_id + 7700000000000")
    keys = [row[0] for row in tiny.source_rows("SELECT order_id FROM raw.orders")]
    declared(tiny).run()
    looked = [path for path in tiny.root.rglob("*") if path.is_file() and path.name != "sources.duckdb"]
    assert looked
    for path in looked:
        content = path.read_bytes()
        assert SECRET.encode() not in content, path
        assert not any(str(key).encode() in content for key in keys), path
    rows = tiny.warehouse("SELECT * FROM ledger.scorings") + tiny.warehouse("SELECT * FROM ledger.checks")
    assert not any(str(key) in json.dumps(rows, default=str) for key in keys[:50])
    assert SECRET not in repr(incoming(tiny.pipeline()))


def test_a_subject_report_finds_a_person_by_the_identifier(tiny):
    tiny.declare(privacy=PRIVACY)
    tiny.run(FIRST)
    [(order,)] = tiny.source_rows(f"SELECT min(order_id) FROM raw.orders WHERE day = '{FIRST}'")
    file = tiny.root / "person.json"
    tiny.shell("subject", "report", str(order), "--json", "-o", str(file))
    (of,) = json.loads(file.read_text())["pipelines"]
    assert [each["features"]["order_id"] for each in of["predictions"]] == [pseudonym(tiny, order)]
    assert "subject report written" in tiny.shell("audit", "log")


class TestSuppressed:
    @staticmethod
    def suppress(tiny, order, pseudonymized):
        pipeline = tiny.pipeline()
        (key,) = keys_of(pipeline)
        tiny.tamper(
            "INSERT INTO ledger.erasures (erasure_id, kind, state, made_at) VALUES ('e1', 'erase', 'done', now())",
            "INSERT INTO ledger.suppressions (erasure_id, pipeline, subject, key_version, made_at) VALUES "
            f"('e1', 'orders', '{key.suppressing.pseudonym(str(order))}', '{key.version}', now())",
        )

    @pytest.mark.parametrize("pseudonymized", [True, False])
    def test_a_suppressed_subject_does_not_return(self, tiny, pseudonymized):
        tiny.declare(privacy=PRIVACY if pseudonymized else {"subject": "order_id"})
        tiny.run(FIRST)
        [(order,)] = tiny.source_rows(f"SELECT min(order_id) FROM raw.orders WHERE day = '{FIRST}'")
        [(rows,)] = tiny.warehouse("SELECT count(*) FROM orders.predictions")
        self.suppress(tiny, order, pseudonymized)
        tiny.source(f"UPDATE raw.orders SET quantity = 8 WHERE day = '{FIRST}'")
        tiny.run(FIRST)
        found = {row[0] for row in tiny.warehouse("SELECT order_id::VARCHAR FROM orders.predictions")}
        assert len(found) == rows - 1
        assert (pseudonym(tiny, order) if pseudonymized else str(order)) not in found
        tiny.tamper("INSERT INTO ledger.erasures (erasure_id, state, made_at) VALUES ('e1', 'released', now())")
        tiny.source(f"UPDATE raw.orders SET quantity = 7 WHERE day = '{FIRST}'")
        tiny.run(FIRST)
        assert tiny.warehouse("SELECT count(*) FROM orders.predictions") == [(rows,)]
