"""`audit verify` finds published data that somebody altered: it names pipeline, partition, file and the remedy."""

import json
import shutil

import duckdb
import pytest

DAYS = ["2024-03-01", "2024-03-02", "2024-03-03", "2024-03-04"]
INTACT = "the chain is intact"


def rows_file(tiny, name="rows-0001.duckdb"):
    return tiny.project.published / "orders" / name


def alter(tiny, *statements):
    with duckdb.connect(str(rows_file(tiny))) as con:
        for statement in statements:
            con.execute(statement)


def verified(tiny, code):
    # 4: the alias of the test's project was moved from Python.
    return tiny.shell("audit", "verify", code=code)


@pytest.mark.lake
def test_what_was_published_is_intact(scored):
    text = verified(scored, 4)
    assert INTACT in text and "altered" not in text and "Not compared" not in text
    counted = dict(scored.warehouse("SELECT table_name, sum(rows) FROM ledger.published_digests GROUP BY ALL"))
    assert counted["predictions"] == 200 and counted["partitions"] == 4


ALTERED = {
    "a score": (
        "UPDATE orders.predictions SET score = 0.5 WHERE order_id = (SELECT min(order_id) FROM orders.predictions "
        f"WHERE partition_key = '{DAYS[1]}')",
        f"partition {DAYS[1]}: predictions in",
        "has other values than the 50 rows that were published",
    ),
    "a removed row": (
        f"DELETE FROM orders.predictions WHERE rowid = (SELECT min(rowid) FROM orders.predictions "
        f"WHERE partition_key = '{DAYS[2]}')",
        f"partition {DAYS[2]}: predictions in",
        "has 49 rows; 50 were published",
    ),
    "an added row": (
        f"INSERT INTO orders.predictions FROM orders.predictions WHERE partition_key = '{DAYS[0]}' LIMIT 1",
        f"partition {DAYS[0]}: predictions in",
        "has 51 rows; 50 were published",
    ),
    "an added partition": (
        "INSERT INTO orders.predictions SELECT * REPLACE ('2024-03-09' AS partition_key) FROM orders.predictions "
        "LIMIT 3",
        "partition 2024-03-09: predictions in",
        "has 3 rows that were not published there",
    ),
    "a removed partition": (
        f"DELETE FROM orders.predictions WHERE partition_key = '{DAYS[3]}'",
        f"partition {DAYS[3]}: predictions in",
        "has none of the 50 rows that were published",
    ),
    "two values swapped": (
        "UPDATE orders.predictions SET order_id = -order_id WHERE partition_key = '2024-03-01'",
        f"partition {DAYS[0]}: predictions in",
        "has other values",
    ),
    "the ledger": (
        f"UPDATE ledger.partitions SET model_version = 7 WHERE partition_key = '{DAYS[1]}'",
        f"partition {DAYS[1]}: partitions in",
        "has other values than the 1 row that were published",
    ),
    "a check that never was": (
        "DROP TABLE ledger.checks; CREATE TABLE ledger.checks AS SELECT '2024-03-01' AS partition_key, 'x' AS status",
        f"partition {DAYS[0]}: checks in",
        "has 1 row that were not published there",
    ),
    "a column": (
        "ALTER TABLE orders.predictions ADD COLUMN decision VARCHAR DEFAULT 'yes'",
        f"partition {DAYS[0]}: predictions in",
        "has other values",
    ),
    "a column's removal": (
        "ALTER TABLE orders.predictions DROP COLUMN model_name",
        f"partition {DAYS[0]}: predictions in",
        "has other values",
    ),
}


@pytest.mark.slice
def test_altered_rows_are_named(scored, tmp_path):
    kept = shutil.copy(rows_file(scored), tmp_path / "kept.duckdb")
    for what, (statements, where, expected) in ALTERED.items():
        alter(scored, statements)
        text = verified(scored, 1)
        assert INTACT in text and f"orders, {where} {rows_file(scored)}" in text and expected in text, (what, text)
        assert "`pip-dagster publish` writes everything again" in text
        shutil.copy(kept, rows_file(scored))
    assert INTACT in verified(scored, 4)
    alter(scored, ALTERED["a score"][0])
    scored.shell("publish")
    assert INTACT in verified(scored, 4)


@pytest.mark.lake
def test_older_rows_that_were_put_back_are_found(scored, tmp_path):
    older = shutil.copy(rows_file(scored), tmp_path / "older.duckdb")
    scored.source("UPDATE raw.orders SET quantity = 1 + quantity % 8 WHERE day = '2024-03-02'")
    scored.run()
    assert INTACT in verified(scored, 4)
    shutil.copy(older, rows_file(scored))
    text = verified(scored, 1)
    assert f"partition {DAYS[1]}: partitions in {rows_file(scored)} has 1 row; 2 were published" in text
    assert "1 more fault" not in text, "each partition of a file once"


def test_a_removed_and_an_added_file_are_found(scored, tmp_path):
    kept = rows_file(scored).rename(tmp_path / "kept.duckdb")
    scored.run()
    assert "has none of the" in verified(scored, 1)
    shutil.copy(kept, rows_file(scored))
    assert INTACT in verified(scored, 4)
    shutil.copy(kept, rows_file(scored, "rows-0002.duckdb"))
    text = verified(scored, 1)
    assert "that were not published there" in text and "rows-0002.duckdb" in text
    rows_file(scored, "rows-0002.duckdb").write_bytes(kept.read_bytes()[:5000])
    text = verified(scored, 1)
    assert "rows-0002.duckdb cannot be read" in text


def test_an_altered_view_is_found_and_written_again(scored, tmp_path):
    database = scored.project.published_database
    kept = shutil.copy(database, tmp_path / "kept.duckdb")
    for kind in ("VIEW", "TABLE", None):
        if kind is None:
            database.unlink()
        else:
            with duckdb.connect(str(database)) as con:
                (view,) = con.execute("SELECT sql FROM duckdb_views() WHERE view_name = 'predictions'").fetchone()
                select = view.partition(" AS ")[2].rstrip(";").replace("*", "* REPLACE (1 - score AS score)", 1)
                con.execute("DROP VIEW orders.predictions")
                con.execute(f"CREATE {kind} orders.predictions AS {select}")
        text = verified(scored, 1)
        assert f"{database}: " in text and ("is gone" if kind is None else "orders.predictions is not as") in text
        scored.shell("publish")
        assert INTACT in verified(scored, 4)
    shutil.copy(kept, database)
    assert INTACT in verified(scored, 4), "the views are the same as before"


def test_the_answer_as_json(scored):
    alter(scored, ALTERED["a score"][0])
    found = json.loads(scored.shell("audit", "verify", "--json", code=1))
    assert found["fault"]["kind"] == "published" and DAYS[1] in found["fault"]["message"]
    assert (found["altered"], found["without_digest"]) == (1, 0)


@pytest.mark.slice
@pytest.mark.lake
def test_columns_that_come_and_change_alter_nothing(scored):
    """Rows of the same file that an earlier declaration published keep their digests."""
    scored.declare(decisions={"high": "score > 0.5"}).run(DAYS[0])
    assert INTACT in verified(scored, 4)
    scored.declare(decisions={"high": "CASE WHEN score > 0.5 THEN 'yes' ELSE 'no' END"}).run(DAYS[1])
    assert INTACT in verified(scored, 4)
    scored.declare(decisions={"high": "score", "pair": "{'a': score, 'b': 'text'}"}).run(DAYS[2])
    assert INTACT in verified(scored, 4)
    scored.declare().run(DAYS[2])
    assert INTACT in verified(scored, 4)


def test_values_of_every_type_keep_their_digest_when_the_file_is_rewritten(tiny, monkeypatch):
    decisions = {
        "wide": "170141183460469231731687303715884105727::HUGEINT",
        "took": "INTERVAL 90 minutes",
        "either": "CASE WHEN score > 0.5 THEN union_value(yes := 1) ELSE union_value(yes := 2) END",
        "listed": "[score, NULL]",
        "pair": "{'a': score, 'b': [1, 2]}",
        "nothing": "NULL::INTEGER",
    }
    tiny.declare(decisions=decisions).run(DAYS[0])
    assert INTACT in verified(tiny, 4)
    monkeypatch.setattr("pip_dagster.warehouse.published_change._WHOLE_EVERY", 1)
    tiny.run(*DAYS[1:])
    assert INTACT in verified(tiny, 4)


def test_partitions_of_an_earlier_version_are_not_compared_until_they_are_published_again(scored):
    scored.tamper("DELETE FROM ledger.published_digests")
    text = verified(scored, 4)
    assert "Not compared: 4 published partitions" in text
    scored.shell("publish")
    assert "Not compared" not in verified(scored, 4)


def test_what_is_pending_is_not_compared(scored, monkeypatch):
    scored.source("UPDATE raw.orders SET quantity = 1 + quantity % 8")
    with monkeypatch.context() as patch:
        patch.setattr("pip_dagster.warehouse.access.publish_pending", lambda con, project: 0)
        scored.run(DAYS[0])
    alter(scored, f"DELETE FROM orders.predictions WHERE partition_key = '{DAYS[0]}'")
    assert INTACT in verified(scored, 4)
    alter(scored, f"DELETE FROM orders.predictions WHERE partition_key = '{DAYS[1]}'")
    assert DAYS[1] in verified(scored, 1)
