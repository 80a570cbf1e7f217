"""What an anchor of an erasure vouches for, and what shows that its certificate was replaced."""

from __future__ import annotations

import json

import pytest
from anchoring import declare_anchors

from pip_dagster.erasure import erase as erasing
from pip_dagster.erasure.erase import erase
from pip_dagster.erasure.wish import Wish
from pip_dagster.evidence.anchor import anchor
from pip_dagster.ledger.rewrite import rewrite
from pip_dagster.warehouse.access import writing
from pip_dagster.warehouse.connect import workspace
from pip_dagster.warehouse.transaction import transaction

DAY = "2024-03-01"
WISH = Wish("3", "request 1", "ada")


@pytest.fixture
def anchored(tiny):
    """A day of orders of a pipeline that names its subject, with anchors."""
    declare_anchors(tiny)
    tiny.declare(privacy={"subject": "order_id"})
    tiny.run(DAY)
    tiny.shell("audit", "accept", "--moves", "--why", "moved from Python")
    return tiny


def anchors(tiny):
    return [json.loads(line) for line in (tiny.root / "archive" / "audit.ndjson").read_text().splitlines()]


class Killed(BaseException):
    """Stands for a process that ends here."""


@pytest.mark.slice
def test_killed_between_certificate_and_anchor_the_same_call_anchors(anchored, monkeypatch):
    def killed(*_, **__):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(erasing, "anchor_after", killed)
        with pytest.raises(Killed):
            erase(anchored.project, [anchored.pipeline()], WISH)
    assert "no anchor vouches" in anchored.shell("audit", "verify", "--anchors", code=1)
    again = erase(anchored.project, [anchored.pipeline()], WISH)
    assert again.resumed and not again.steps and again.partitions["orders"][DAY] == 2
    assert anchored.warehouse("SELECT count(DISTINCT erasure_id) FROM ledger.erasures") == [(1,)]
    assert "agrees with" in anchored.shell("audit", "verify", "--anchors")
    assert not erase(anchored.project, [anchored.pipeline()], WISH).resumed, "it is anchored, and another one begins"


@pytest.mark.soak
def test_a_place_that_does_not_answer_is_tried_by_the_same_call(anchored):
    archive, said = anchored.root / "archive", []
    archive.rename(anchored.root / "kept")
    archive.write_text("no folder")
    erase(anchored.project, [anchored.pipeline()], WISH, progress=said.append)
    assert "not anchored in archive" in said[-1] and "Repeat the erasure" in said[-1]
    archive.unlink()
    (anchored.root / "kept").rename(archive)
    assert erase(anchored.project, [anchored.pipeline()], WISH).resumed
    assert "agrees with" in anchored.shell("audit", "verify", "--anchors")


@pytest.mark.soak
def test_an_erasure_vouches_for_its_own_rewrites_only(anchored):
    with workspace(threads=1) as con, writing(con, anchored.project, purpose="x", publish=False), transaction(con):
        rewrite(con, "forged", "erasure", [], actor="mallory")
    done = erase(anchored.project, [anchored.pipeline()], WISH)
    said = anchored.shell("audit", "verify", "--anchors", code=1)
    assert "it says that mallory rewrote" in said and done.erasure_id not in said
    own = {
        seq for (seq,) in anchored.warehouse("SELECT seq FROM ledger.audit WHERE subject->>'rewrite_id' <> 'forged'")
    }
    assert {*anchors(anchored)[-1]["accepts"]} == own
    anchor(anchored.project, accepts=True)
    assert "agrees with" in anchored.shell("audit", "verify", "--anchors")


@pytest.mark.slice
@pytest.mark.parametrize(
    "statement",
    [
        "SET certificate = replace(certificate, 'request 1', 'request 2')",
        pytest.param("SET certificate = NULL", marks=pytest.mark.soak),
        pytest.param("SET erasure_id = 'another' WHERE certificate IS NOT NULL", marks=pytest.mark.soak),
    ],
    ids=["edited", "gone", "moved"],
)
def test_a_replaced_certificate_is_found(anchored, statement):
    done = erase(anchored.project, [anchored.pipeline()], WISH)
    assert "agrees with" in anchored.shell("audit", "verify")
    anchored.tamper(f"UPDATE ledger.erasures {statement}")
    found = anchored.shell("audit", "verify", code=1)
    assert done.erasure_id in found and "was replaced, or is gone" in found


@pytest.mark.slice
def test_a_certificate_without_an_entry_is_found(anchored):
    anchored.tamper(
        "INSERT INTO ledger.erasures (erasure_id, state, certificate, made_at) VALUES ('e', 'done', '{}', now())"
    )
    assert "certificate of erasure e has no entry" in anchored.shell("audit", "verify", code=1)
