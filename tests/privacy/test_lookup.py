"""A person's pseudonyms, for holders of the secrets."""

from __future__ import annotations

import json

import pytest

DAY = "2024-03-01"
SECRET, OTHER = "0123456789abcdef" * 3, "f" * 32  # pragma: allowlist secret
PRIVACY = {"subject": "order_id", "pseudonymize": {"key_env": "KEY_1"}}
ROTATED = {"key_env": "KEY_2", "version": "k2", "former": {"k1": {"key_env": "KEY_1"}}}


@pytest.fixture
def shop(tiny, monkeypatch):
    monkeypatch.setenv("KEY_1", SECRET)
    monkeypatch.setenv("KEY_2", OTHER)
    tiny.declare(privacy=PRIVACY).run(DAY)
    return tiny.declare(privacy=PRIVACY | {"pseudonymize": ROTATED})


def test_a_person_is_found_by_every_secret_and_a_pseudonym_is_only_compared(shop, monkeypatch):
    [(order,)] = shop.source_rows(f"SELECT min(order_id) FROM raw.orders WHERE day = '{DAY}'")
    found = json.loads(shop.shell("subject", "lookup", str(order), "--json"))["pseudonyms"]
    assert [(each["version"], each["present"]) for each in found] == [("k2", True), ("k1", False)]
    present, former = (each["pseudonym"] for each in found)
    assert shop.warehouse(f"SELECT count(*) FROM orders.features WHERE order_id = '{former}'") == [(1,)]
    text = shop.shell("subject", "lookup", str(order), "orders")
    assert text.splitlines()[0] == f"{present}  orders (domain orders), present secret k2" and SECRET not in text
    assert former in shop.shell("subject", "lookup", str(order), "--is", former)
    assert "does not stand for this person" in shop.shell("subject", "lookup", "no one", "--is", former, code=1)
    assert "nobody can compute whom it stands for" in shop.shell("subject", "lookup", former, code=1)
    alike = f"user_{'0' * 32}"  # no secret is named so
    assert "present secret k2" in shop.shell("subject", "lookup", alike)
    assert "does not stand for this person" in shop.shell("subject", "lookup", former, "--is", present, code=1)
    assert "The identifier is empty" in shop.shell("subject", "lookup", " ", code=1)
    monkeypatch.setenv("KEY_1", "e" * 40)
    for words in (("subject", "lookup", str(order)), ("subject", "report", str(order), "-o", "person.html")):
        assert "'k1' of the domain 'orders' is another than the one" in shop.shell(*words, code=1)


def test_where_subjects_are_stored_as_they_are_it_says_so(tiny):
    assert "No pipeline declares `privacy.pseudonymize`" in tiny.shell("subject", "lookup", "1", code=1)
    tiny.declare(privacy={"subject": "order_id"})
    assert "Pipeline orders declares no" in tiny.shell("subject", "lookup", "1", "orders", code=1)
