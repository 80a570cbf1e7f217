"""Rewritten scorings: the chain holds commitments, so a search by digest finds nothing, and verifies as before."""

from __future__ import annotations

import json
import struct

import duckdb
import pytest

from pip_dagster.evidence.anchor import _cover
from pip_dagster.ledger import audit, covered
from pip_dagster.ledger.rewrite import rewrite
from pip_dagster.warehouse.access import writing
from pip_dagster.warehouse.connect import workspace
from pip_dagster.warehouse.digest import RowSet, row_set_sql
from pip_dagster.warehouse.transaction import transaction

FIRST, SECOND = "2024-03-01", "2024-03-02"


def change(tiny, rewrite_id, statements=(), scorings=()):
    """Statements and the rewrite of these scorings in one transaction."""
    with workspace(threads=1) as con, writing(con, tiny.project, purpose="an erasure", publish=False), transaction(con):
        for statement in statements:
            con.execute(statement)
        rewrite(con, rewrite_id, "erasure", scorings, actor="ada")


def scoring_of(tiny, key):
    [(found,)] = tiny.warehouse(f"SELECT scoring_id FROM ledger.live WHERE partition_key = '{key}'")
    return found


def test_the_chain_verifies_after_a_rewrite_and_finds_what_is_changed_afterwards(scored, ledger):
    first, second = scoring_of(scored, FIRST), scoring_of(scored, SECOND)
    change(scored, "e1", [f"UPDATE ledger.scorings SET mean_score = NULL WHERE scoring_id = '{first}'"], [first])
    assert ledger.verified(scored) is None
    change(scored, "e2", [f"UPDATE ledger.scorings SET min_score = NULL WHERE scoring_id = '{first}'"], [first, second])
    assert ledger.verified(scored) is None
    scored.run(FIRST, version=2)
    assert ledger.verified(scored) is None
    scored.tamper(f"UPDATE ledger.scorings SET max_score = 1 WHERE scoring_id = '{first}'")
    assert f"{first} (partition {FIRST}) was changed since it was rewritten" in str(ledger.verified(scored))


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        (
            "UPDATE ledger.rewrites SET entry_digest = 'e2:0'",
            "was changed since it was rewritten",
        ),
        ("DELETE FROM ledger.rewrites", "has feature_digest"),
        ("INSERT INTO ledger.rewrites SELECT 'e9', scoring_id, 'e2:0' FROM ledger.live", "rewrites e9 has no entry"),
        ("UPDATE ledger.scorings SET nonce = md5(nonce)", "was changed since it was rewritten"),
        ("UPDATE ledger.scorings SET nonce = NULL", "was changed since it was rewritten"),
    ],
    ids=["digest", "rows", "another", "nonce", "no nonce"],
)
def test_what_is_changed_of_a_rewrite_is_named(scored, ledger, statement, said):
    change(scored, "e1", [], [scoring_of(scored, FIRST)])
    scored.tamper(statement)
    assert said in str(ledger.verified(scored))


def test_what_covers_tables_begins_anew(scored):
    with workspace(threads=1) as con, writing(con, scored.project, purpose="an anchor", publish=False):
        with transaction(con):
            _cover(con, scored.project)
        assert not [*covered.covered_faults(con)]
    [(seq, nonce)] = scored.warehouse("SELECT seq, nonce FROM ledger.anchor_nonces")
    change(scored, "e1", ["UPDATE ledger.scorings SET mean_score = 0"], [scoring_of(scored, FIRST)])
    with workspace(threads=1) as con, writing(con, scored.project, purpose="an anchor", publish=False):
        assert not [*covered.covered_faults(con)]
        with transaction(con):
            _cover(con, scored.project)
        assert not [*covered.covered_faults(con)]
    [(later, other)] = scored.warehouse("SELECT seq, nonce FROM ledger.anchor_nonces")
    assert later > seq and other != nonce
    scored.tamper("UPDATE ledger.scorings SET mean_score = 1")
    with workspace(threads=1) as con, writing(con, scored.project, purpose="verifying", publish=False):
        assert "ledger.scorings" in str(next(covered.covered_faults(con)))


COLUMNS = {"key": "BIGINT", "score": "FLOAT"}


def sets_of(scores, key):
    """Score → the row that has it and this key."""
    rows = f"SELECT {key}::BIGINT AS key, unnest($scores::FLOAT[]) AS score"
    select = f"SELECT score, {row_set_sql(COLUMNS)} FROM ({rows}) GROUP BY key, score"
    with duckdb.connect() as con:
        return {score: RowSet(*found) for score, *found in con.execute(select, {"scores": scores}).fetchall()}


def oracle(chain, rest, others):
    """The published attack: scores of an erased row are tried against the chain's text, 2^23 there, 2^12 here.

    `rest` are the remaining rows, `others` the columns of the scoring as they are stored now.
    """
    found = []
    candidates = [struct.unpack("<f", struct.pack("<I", 0x3F000000 + bits))[0] for bits in range(2**12)]
    for score, row in sets_of(candidates, 99).items():
        tried = others | {"score_digest": (rest + row).digest(COLUMNS)}
        texts = (tried["score_digest"], audit.entry_digest(tried), audit._committed(tried, "score_digest"))
        if any(text in chain for text in texts):
            found.append(score)
    return found


@pytest.mark.parametrize(("keyed", "erased"), [(False, False), (True, False), (True, True)])
def test_the_score_of_an_erased_row_is_not_found_by_its_digest(keyed, erased):
    (score,) = struct.unpack("<f", struct.pack("<I", 0x3F000777))
    rest = sum(sets_of([0.1, 0.2, 0.3], 1).values(), RowSet())
    whole = rest + sets_of([score], 99)[score]
    scoring = dict.fromkeys(audit._COVERED) | {"score_digest": whole.digest(COLUMNS), "scoring_id": "s"}
    scoring["nonce"] = audit.new_nonce() if keyed else None
    chain = json.dumps([audit._committed(scoring, "score_digest"), audit.entry_digest(scoring)])
    now = scoring | ({"nonce": audit.new_nonce()} if erased else {})
    assert oracle(chain, rest, now) == ([] if erased else [score])
