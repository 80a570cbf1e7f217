"""The audit's chain: written with every change, and what is altered afterwards is caught and named."""

import json
import time
from datetime import UTC, datetime, timedelta

import pytest

from pip_dagster.ledger import audit, record, verify_rows
from pip_dagster.ledger.live import make_live
from pip_dagster.ledger.promotions import alias_moves, record_promotions, unrecorded
from pip_dagster.ledger.record import RunInfo, scorings_of
from pip_dagster.ledger.verify import verify
from pip_dagster.warehouse import schema
from pip_dagster.warehouse.connect import open_warehouse, workspace
from pip_dagster.warehouse.stamp import published_stamp
from pip_dagster.warehouse.transaction import transaction

pytestmark = pytest.mark.lake

FIRST = "2024-03-01"


def verified(tiny, **options):
    with workspace(threads=1) as con, open_warehouse(con, tiny.project.warehouse, purpose="test", read_only=True):
        return verify(con, moves=alias_moves(tiny.registry), **options)


def tamper(tiny, *statements):
    tiny.tamper(*statements)


@pytest.mark.lake("always")
def test_every_live_change_and_promotion_has_its_entry(scored):
    record_promotions(scored.project)
    rows = scored.warehouse("SELECT seq, actor, action, pipeline FROM ledger.audit ORDER BY seq")
    assert rows[0] == (1, "pip_dagster", "audit started", None)
    assert rows[1:5] == [(seq, "a test", "live", "orders") for seq in range(2, 6)]
    assert rows[5:] == [(6, "ada", "promotion", None)]
    assert verified(scored) is None
    assert record_promotions(scored.project) == 0, "each move once"


def test_materializing_again_with_nothing_new_adds_nothing(scored):
    before = scored.warehouse("SELECT count(*) FROM ledger.audit")
    scored.run()
    assert scored.warehouse("SELECT count(*) FROM ledger.audit") == before


COLUMNS = {
    "made_at": "made_at + INTERVAL 1 MICROSECOND",
    "actor": "'mallory'",
    "action": "'rollback'",
    "pipeline": "pipeline || ' '",
    "subject": "replace(subject, '2024-03-02', '2024-03-03')",
    "details": "replace(details, 'scored', 'scored ')",
    "previous_hash": "reverse(previous_hash)",
    "hash": "reverse(hash)",
}


@pytest.mark.parametrize("column", COLUMNS)
def test_an_edited_column_of_an_entry_is_caught_at_that_entry(scored, column):
    tamper(scored, f"UPDATE ledger.audit SET {column} = {COLUMNS[column]} WHERE seq = 3")
    fault = verified(scored)
    assert (fault.seq, fault.kind) == (3, "content")


def test_an_entry_made_anew_with_a_right_hash_breaks_the_link_of_the_next(scored):
    with workspace(threads=1) as con, open_warehouse(con, scored.project.warehouse, purpose="a forger"):
        (row,) = audit.dicts(
            con.execute("SELECT * REPLACE (epoch_us(made_at) AS made_at) FROM ledger.audit WHERE seq = 3")
        )
        made = row | {"actor": "mallory"}
        con.execute("UPDATE ledger.audit SET actor = 'mallory', hash = $h WHERE seq = 3", {"h": audit.hash_of(made)})
        con.execute(
            "UPDATE ledger.live_changes SET made_by = 'mallory' WHERE change_id = "
            "(SELECT subject->>'change_id' FROM ledger.audit WHERE seq = 3)"
        )
    fault = verified(scored)
    assert (fault.seq, fault.kind) == (4, "link")


@pytest.mark.parametrize(
    ("action", "subject"), [("live", {}), ("live", []), ("canary", {}), ("promotion", {"model": "returns"})]
)
def test_an_entry_that_lacks_what_its_action_needs_is_a_fault(scored, action, subject):
    forged = audit.Event(action, audit.micros(datetime.now(UTC)), "mallory", "orders", subject, {})
    with workspace(threads=1) as con, open_warehouse(con, scored.project.warehouse, purpose="a forger"):
        audit.append(con, [forged])
    fault = verified(scored)
    assert fault.kind == "content" and fault.seq == 6 and "lack what its action needs" in str(fault)


def test_a_removed_entry_is_a_gap(scored):
    tamper(scored, "DELETE FROM ledger.audit WHERE seq = 3")
    fault = verified(scored)
    assert (fault.seq, fault.kind) == (4, "gap") and "entry 3" in str(fault)


def test_the_end_cut_off_is_caught_by_the_ledger_or_by_a_hash_noted_elsewhere(scored):
    ((head,),) = scored.warehouse("SELECT arg_max(hash, seq) FROM ledger.audit")
    assert verified(scored, expect=head) is None
    tamper(scored, "DELETE FROM ledger.audit WHERE seq = 5")
    fault = verified(scored)
    assert fault.seq is None and "has no entry" in str(fault) and "2024-03-04" in str(fault)
    tamper(
        scored,
        "DELETE FROM ledger.live_changes WHERE partition_key = '2024-03-04'",
    )
    assert verified(scored) is None, "nothing in the warehouse tells"
    assert verified(scored, expect=head).kind == "head"


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("score_digest", "'dh1:0'"),
        ("model_digest", "reverse(model_digest)"),
        ("feature_digest", "'dh1:0'"),
        ("model_version", "2"),
    ],
)
def test_an_edited_digest_in_the_ledger_is_named(scored, column, value):
    tamper(scored, f"UPDATE ledger.scorings SET {column} = {value} WHERE partition_key = '2024-03-02'")
    fault = verified(scored)
    assert (fault.seq, fault.kind) == (3, "ledger")
    assert column in str(fault) and "2024-03-02" in str(fault)


@pytest.mark.parametrize("column", [c for c in audit._COVERED if c not in {"scoring_id", *audit.NAMED}])
def test_any_other_edited_column_of_a_scoring_is_caught(scored, column):
    value = {"BIGINT": "coalesce({}, 0) + 1", "DOUBLE": "coalesce({}, 0) + 1e-12", "VARCHAR": "coalesce({}, '') || ' '"}
    ((kind,),) = scored.warehouse(f"SELECT column_type FROM (DESCRIBE ledger.scorings) WHERE column_name = '{column}'")
    changed = value.get(kind, "{} + INTERVAL 1 MICROSECOND").format(column)
    tamper(scored, f"UPDATE ledger.scorings SET {column} = {changed} WHERE partition_key = '2024-03-02'")
    fault = verified(scored)
    assert (fault.seq, fault.kind) == (3, "ledger") and "2024-03-02" in str(fault)


@pytest.mark.parametrize(
    "change",
    ["why = 'because'", "made_by = 'x'", "run_id = 'x'", "made_at = made_at + INTERVAL 1 SECOND", "pipeline = 'x'"],
)
def test_an_edited_live_change_is_caught(scored, change):
    tamper(scored, f"UPDATE ledger.live_changes SET {change} WHERE partition_key = '2024-03-02'")
    fault = verified(scored)
    assert (fault.seq, fault.kind) == (3, "ledger") and change.split(" ")[0].removeprefix("made_") in str(fault) + "by"


@pytest.mark.parametrize(
    ("statement", "seq", "text"),
    [
        ("DELETE FROM ledger.live_changes WHERE partition_key = '2024-03-02'", 3, "is gone"),
        ("DELETE FROM ledger.scorings WHERE partition_key = '2024-03-02'", 3, "is gone from ledger.scorings"),
        (
            "INSERT INTO ledger.live_changes SELECT * REPLACE ('2099' AS change_id) FROM ledger.live_changes LIMIT 1",
            None,
            "has no entry",
        ),
    ],
)
def test_a_live_change_or_scoring_that_is_gone_or_added_is_caught(scored, monkeypatch, statement, seq, text):
    tamper(scored, statement)
    for at_once in (verify_rows._AT_ONCE, 2):
        monkeypatch.setattr(verify_rows, "_AT_ONCE", at_once)
        fault = verified(scored)
        assert fault.seq == seq and text in str(fault)


def test_only_some_entries_and_changes_are_in_memory(scored, monkeypatch):
    """Of 113,000 entries, all were, in 10 KB each: more than a container of 1 GB has."""
    monkeypatch.setattr(verify_rows, "_AT_ONCE", 2)
    read = []
    with (
        workspace(threads=1) as con,
        open_warehouse(con, scored.project.warehouse, purpose="test", read_only=True),
        monkeypatch.context() as patched,
    ):
        patched.setattr(verify_rows, "dicts", lambda result: read.append(record.dicts(result)) or read[-1])
        assert [row["seq"] for row in verify_rows.Laid(con).entries()] == [1, 2, 3, 4, 5]
        assert verify(con) is None
    assert max(map(len, read)) == 2


@pytest.mark.lake("never")
def test_a_flipped_byte_of_the_stored_audit_never_passes(scored):
    """In the file itself: DuckDB's checksums or the chain catches it."""
    tamper(scored, "CHECKPOINT")
    path = scored.project.warehouse
    original = path.read_bytes()
    ((actor, digest),) = scored.warehouse("SELECT actor, hash FROM ledger.audit WHERE seq = 5")
    for text in (b"audit started", actor.encode(), digest.encode()[:16]):
        assert text in original
        # Every copy of it: some lie in blocks that are no longer used.
        path.write_bytes(original.replace(text, bytes([text[0] ^ 1]) + text[1:]))
        try:
            fault = verified(scored)
        except Exception as error:
            assert "orrupt" in str(error) or "checksum" in str(error)
        else:
            assert fault


def test_an_alias_history_that_was_edited_is_caught(scored):
    record_promotions(scored.project)
    path = scored.project.registry / "returns" / "aliases" / "champion.json"
    path.write_text(path.read_text().replace("the first", "approved by the board"))
    fault = verified(scored)
    assert (fault.seq, fault.kind) == (6, "registry") and "champion" in str(fault)


def test_a_promotion_whose_recorder_was_killed_is_caught_up(scored):
    record_promotions(scored.project)
    scored.registry.set_alias("returns", "champion", 2, by="eve", why="better")  # and nothing told the audit
    with workspace(threads=1) as con, open_warehouse(con, scored.project.warehouse, purpose="test"):
        assert [move.version for _, move in unrecorded(con, scored.registry)] == [2]
    assert verified(scored) is None
    assert record_promotions(scored.project) == 1
    rows = scored.warehouse("SELECT actor, details FROM ledger.audit WHERE action = 'promotion' ORDER BY seq")
    version = scored.registry.get("returns", 2)
    digests = {"manifest_digest": version.manifest_digest, "model_digest": version.digest}
    assert (rows[-1][0], json.loads(rows[-1][1])) == ("eve", {"from": 1, "to": 2, "why": "better"} | digests)


def test_an_older_warehouse_is_migrated_and_its_past_vouched_for(scored, helpers):
    tamper(scored, "DROP TABLE ledger.audit", "DROP VIEW ledger.live_arms", "DROP TABLE ledger.arms")
    tamper(scored, "DROP TABLE ledger.canaries", "DROP TABLE ledger.source_buckets", "DROP TABLE ledger.backfills")
    tamper(scored, "DROP TABLE ledger.backfill_partitions", "ALTER TABLE ledger.extractions DROP provisional")
    tamper(scored, "ALTER TABLE ledger.scorings DROP provisional", "ALTER TABLE ledger.scorings DROP inputs_digest")
    tamper(scored, *(f"ALTER TABLE ledger.{table} DROP declared_parts" for table in ("extractions", "scorings")))
    tamper(scored, "ALTER TABLE ledger.scorings DROP declared_row")
    tamper(scored, *helpers.untyped_live_changes())
    tamper(scored, "UPDATE ledger.meta SET value = '2' WHERE key = 'schema_version'")
    assert schema.VERSION >= 3
    published_stamp(scored.project).unlink()  # an older release wrote none
    scored.registry.set_alias("returns", "champion", 2, by="ada", why="better")
    scored.run(FIRST)
    rows = scored.warehouse("SELECT action FROM ledger.audit ORDER BY seq")
    assert rows == [("audit started",), ("live",)]
    assert verified(scored) is None
    tamper(scored, "UPDATE ledger.live_changes SET scoring_id = 'x' WHERE partition_key = '2024-03-02'")
    fault = verified(scored)
    assert (fault.seq, fault.kind) == (1, "ledger")


def test_what_is_rolled_back_leaves_no_entry(scored):
    before = scored.warehouse("SELECT count(*) FROM ledger.audit")
    with workspace(threads=1) as con, open_warehouse(con, scored.project.warehouse, purpose="test"):
        (entry,) = scorings_of(con, "orders", [FIRST])
        with pytest.raises(KeyboardInterrupt), transaction(con):
            make_live(con, [entry], RunInfo("r", "b"), "never")
            raise KeyboardInterrupt
    assert scored.warehouse("SELECT count(*) FROM ledger.audit") == before


def test_ten_thousand_entries_are_verified_in_two_seconds(scored):
    days = 10_000
    with workspace(threads=1) as con, open_warehouse(con, scored.project.warehouse, purpose="test"):
        with transaction(con):
            con.execute(
                "INSERT INTO ledger.scorings SELECT s.* REPLACE ('s' || i AS scoring_id, 'p' || i AS partition_key) "
                f"FROM (FROM ledger.scorings LIMIT 1) s, range({days}) r(i)"
            )
            con.execute(
                "INSERT INTO ledger.live_changes SELECT c.* REPLACE ('x' || i AS change_id, 's' || i AS scoring_id, "
                "'p' || i AS partition_key, $now::TIMESTAMPTZ + to_seconds(i) AS made_at) "
                f"FROM (FROM ledger.live_changes LIMIT 1) c, range({days}) r(i)",
                {"now": datetime.now(UTC) + timedelta(days=1)},
            )
            audit.append_live(con, [f"x{i}" for i in range(days)])
        began = time.process_time()
        assert verify(con) is None
        assert time.process_time() - began < 2
