"""The certificate of an erasure: from its rows, signed, and refused where something is missing."""

import json

import pytest
from anchoring import declare_anchors

from pip_dagster.erasure.certificate import certify
from pip_dagster.errors import ErasureError, NotFoundError
from pip_dagster.evidence.anchor import anchor
from pip_dagster.ledger.rewrite import rewrite
from pip_dagster.registry.signing import keygen
from pip_dagster.warehouse.access import writing
from pip_dagster.warehouse.connect import workspace
from pip_dagster.warehouse.transaction import transaction

PLACES = ("golden", "warehouse")


def erase(tiny, erasure="e1", received="2024-01-31T23:30:00+00:00", verified="read again"):
    """The rows that an engine leaves of an erasure, with its rewrite."""
    tiny.tamper(
        "INSERT INTO ledger.erasures (erasure_id, kind, pipelines, state, why, ground, asked_by, received_at, made_by, "
        f"made_at) VALUES ('{erasure}', 'erase', ['orders'], 'running', 'asked', 'Art. 17(1)(b)', 'ada', '{received}', "
        "'eve', now())",
        f"INSERT INTO ledger.suppressions (erasure_id, pipeline, subject, key_version, made_at) "
        f"VALUES ('{erasure}', 'orders', 'local_ab', 'local', now())",
        f"INSERT INTO ledger.erasure_steps VALUES ('{erasure}', 'orders', 'warehouse', 'DELETE', 5, 1, 4, "
        f"nullif('{verified}', ''), 'backups', '2025-01-01T00:00:00+00:00', now())",
        f"INSERT INTO ledger.erasure_steps VALUES ('{erasure}', NULL, 'golden', 'replaced', 1, 1, 0, 'seen', NULL, "
        "NULL, now())",
        f"INSERT INTO ledger.erased_partitions VALUES ('{erasure}', 'orders', '2024-03-01', 's', 'r', 1, now())",
    )
    ids = [scoring for (scoring,) in tiny.warehouse("SELECT scoring_id FROM ledger.scorings")]
    with workspace(threads=1) as con, writing(con, tiny.project, purpose="erasing", publish=False), transaction(con):
        rewrite(con, f"{erasure}/warehouse", "erasure", ids, actor="eve")


@pytest.fixture
def signed(tiny):
    """A project with anchors, a scored day and an erasure that the engine has come to the end of."""
    declare_anchors(tiny)
    tiny.run("2024-03-01")
    tiny.shell("audit", "accept", "--moves", "--why", "moved from Python")
    erase(tiny)
    return tiny


def changed(value):
    """Every value that differs from a JSON value in one of its parts."""
    if isinstance(value, dict):
        for name, of in value.items():
            yield from (value | {name: other} for other in changed(of))
            yield {each: of for each, of in value.items() if each != name}
    elif isinstance(value, list):
        for number, of in enumerate(value):
            yield from ([*value[:number], other, *value[number + 1 :]] for other in changed(of))
        yield [*value, "more"]
    else:
        yield "other" if value != "other" else "another"


@pytest.mark.slice
def test_a_signed_one_verifies_and_one_edited_anywhere_does_not(signed, tmp_path):
    made = certify(signed.project, "e1", PLACES)
    assert signed.warehouse("SELECT state, certificate IS NOT NULL FROM ledger.erasures ORDER BY made_at DESC")[0] == (
        "done",
        True,
    )
    assert certify(signed.project, "e1", PLACES) == made, "a second one would differ from what was handed out"
    assert made["due"] == "2024-02-29" and made["in_time"] is False
    assert made["run_by"][0] and "eve" in made["run_by"] and made["ground"] == "Art. 17(1)(b)"
    removed = {
        each["place"]: (each["rows_before"], each["rows_removed"], each["remains_until"]) for each in made["places"]
    }
    assert removed == {"golden": (1, 1, None), "warehouse": (5, 1, "2025-01-01T00:00:00+00:00")}
    assert made["subjects"] == [{"pipeline": "orders", "token": "local_ab", "key_version": "local"}]
    entry = signed.warehouse("SELECT seq, hash FROM ledger.audit WHERE action = 'rewritten'")
    assert [(each["seq"], each["hash"]) for each in made["audit"]] == entry
    assert made["partitions"][0]["rows_removed"] == 1 and len(made["digests_after"]) == 1
    file, page = tmp_path / "e1.json", tmp_path / "e1.html"
    for each in (file, page):
        assert "signed by the key" in signed.shell("certificate", "e1", "-o", str(each))
    text = page.read_text()
    assert "<script" not in text and "default-src 'none'" in text and "local_ab" in text and "not kept" in text
    signer = str(signed.root / "anchor.pub.pem")
    signed.project.warehouse.unlink()
    assert "is as" in signed.shell("certificate", "--verify", str(file), "--signer", signer)
    good = json.loads(file.read_text())
    assert good == made
    edited = list(changed(good))
    for other in edited:
        file.write_text(json.dumps(other))
        assert "is not verified" in signed.shell("certificate", "--verify", str(file), "--signer", signer, code=1), (
            other
        )
    assert len(edited) > 60
    file.write_text(json.dumps(good)[:-1] + ', "erasure_id": "e2"}')
    assert "no certificate" in signed.shell("certificate", "--verify", str(file), "--signer", signer, code=1)
    file.write_text(json.dumps(good, indent=2))
    _, another = keygen(tmp_path / "another")
    assert "not the given" in signed.shell("certificate", "--verify", str(file), "--signer", str(another), code=1)
    assert "is as" in signed.shell("certificate", "--verify", str(file), "--signer", signer)


def test_without_a_key_it_says_so(tiny, tmp_path):
    tiny.run("2024-03-01")
    erase(tiny, received="2999-01-01")
    made = certify(tiny.project, "e1", PLACES)
    assert made["signature"] is None and made["in_time"]
    assert "not signed: the project declares no key" in tiny.shell("certificate", "e1")
    file = tmp_path / "e1.json"
    file.write_text(tiny.shell("certificate", "e1", "--json"))
    _, public = keygen(tmp_path / "key")
    assert "it is not signed" in tiny.shell("certificate", "--verify", str(file), "--signer", str(public), code=1)


def test_an_erasure_that_is_not_done_is_refused(tiny):
    tiny.run("2024-03-01")
    with pytest.raises(NotFoundError, match="no erasure 'e1'"):
        certify(tiny.project, "e1", PLACES)
    erase(tiny, verified="")
    assert "missing: warehouse of orders" in tiny.shell("certificate", "e1", code=1)
    with pytest.raises(ErasureError, match="missing: lake, warehouse of orders"):
        certify(tiny.project, "e1", [*PLACES, "lake"])
    erase(tiny, "e2")
    assert "verified: golden, warehouse; the others are missing" in tiny.shell("certificate", "e2", code=1)
    assert tiny.warehouse("SELECT count(*) FROM ledger.erasures WHERE certificate IS NOT NULL OR state = 'done'") == [
        (0,)
    ]


@pytest.mark.soak
def test_a_rewrite_that_nobody_with_the_key_vouched_for(signed):
    verify = ("audit", "verify", "--anchors")
    assert "it says that eve rewrote what the audit covers (e1/warehouse)" in signed.shell(*verify, code=1)
    anchor(signed.project)
    assert "rewrote what the audit covers" in signed.shell(*verify, code=1)
    anchor(signed.project, accepts=True)
    assert "agrees with" in signed.shell(*verify)
    for rewrite_id in ("migration-23-ab", "migration-23-cd"):
        with workspace(threads=1) as con, writing(con, signed.project, purpose="x", publish=False), transaction(con):
            rewrite(con, rewrite_id, "migration", [], actor="pip_dagster")
        code = 0 if rewrite_id.endswith("ab") else 1  # a migration runs once
        signed.shell("audit", "anchor")
        assert ("migration-23" in signed.shell(*verify, code=code)) == bool(code)
