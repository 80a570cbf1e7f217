"""Texts that earlier versions stored lose keys and values; the audit records it and holds."""

import json

import pytest

from pip_dagster.ledger.verify import verify
from pip_dagster.warehouse import schema
from pip_dagster.warehouse.connect import open_warehouse, workspace
from pip_dagster.warehouse.migrations.m0023_texts import without_rows

KEY, VALUE = "731-4711-key", "zebra-86753"
DUCKDB = f"Conversion Error: Could not convert string '{VALUE}' to INT32 when casting from source column shop"
TEXTS = {
    f"3 keys (order_id, day) occur more than once, such as {KEY}, 2024; a join in the feature SQL may multiply rows": (
        "3 keys (order_id, day) occur more than once; a join in the feature SQL may multiply rows"
    ),
    f"order_id = {KEY} has more digits than Arrow and Parquet hold (38); cast it to VARCHAR in the SQL": (
        "order_id has more digits than Arrow and Parquet hold (38); cast it to VARCHAR in the SQL"
    ),
    f"a score is NaN or infinite in 9 rows: score in 9 rows; (order_id) = {KEY}; {KEY}, …. No row was stored. Then": (
        "a score is NaN or infinite in 9 rows: score in 9 rows. No row was stored. Then"
    ),
    f"the feature SQL fails: {DUCKDB}\n\nLINE 3: shop::INT\n            ^": (
        "the feature SQL fails: Conversion Error: Could not convert string … to INT32 when casting from source column "
        "shop\n\nLINE 3: shop::INT\n            ^"
    ),
    f'features: a is not met (observed ["{KEY} (x)", 3]); features: b is broken by 2 of 50 rows': (
        "features: a is not met; features: b is broken by 2 of 50 rows"
    ),
    f"features: c could not be evaluated (ValueError: bad ({VALUE})); sources.orders: d is not met (observed 7)": (
        "features: c could not be evaluated; sources.orders: d is not met"
    ),
    f'the table cannot store a value. Postgres says: invalid input syntax for type integer: "{KEY}" (SQLSTATE 2)': (
        'the table cannot store a value. Postgres says: invalid input syntax for type integer: "…" (SQLSTATE 2)'
    ),
    f"target crm: places:deliver raised ValueError: cannot take {KEY}": "target crm: places:deliver raised ValueError",
    f"2024-03-01 live for more than 1 h and not delivered: places:deliver raised KeyError: '{KEY}'": (
        "2024-03-01 live for more than 1 h and not delivered: places:deliver raised KeyError"
    ),
    "2 of 50 rows are in quarantine, 4.0%; quality.max_quarantined is 1.0%": (
        "2 of 50 rows are in quarantine, 4.0%; quality.max_quarantined is 1.0%"
    ),
}
# Without a column that is dropped for the test.
SCORED = "SELECT * EXCLUDE (lock_seconds) FROM ledger.scorings WHERE status = 'scored' ORDER BY scoring_id"


@pytest.mark.parametrize("text", TEXTS)
def test_a_text_keeps_all_but_the_row(text):
    assert without_rows(text) == TEXTS[text]


@pytest.mark.lake
def test_what_was_stored_is_rewritten_recorded_and_published_again(scored):
    def checked(kind, section, observed, examples):
        return (
            "INSERT INTO ledger.checks (entry_id, pipeline, partition_key, section, type, status, severity, observed, "
            f"examples) VALUES ('x', 'orders', '2024-03-01', '{section}', '{kind}', 'failed', 'warning', '{observed}', "
            f"{examples})"
        )

    examples = "'" + json.dumps([{"order_id": KEY, "shop": VALUE}]) + "'"
    texts = [text.replace("'", "''") for text in TEXTS]
    live = scored.warehouse(SCORED)
    scored.tamper(
        *(
            "INSERT INTO ledger.scorings (scoring_id, pipeline, partition_key, status, reason, role) VALUES "
            f"('2026-{i}', 'orders', '2024-03-01', 'failed', '{text}', 'champion')"
            for i, text in enumerate(texts)
        ),
        f"INSERT INTO ledger.alarms (event_id, pipeline, cause) VALUES ('2026-1', 'orders', '{texts[-2]}')",
        f"INSERT INTO ledger.deliveries (delivery_id, pipeline, error) VALUES ('2026-1', 'orders', '{texts[-3]}')",
        checked("expect_column_max_to_be_between", "features", KEY, examples),
        checked("expect_column_mean_to_be_between", "features", "3.5", "NULL"),
        checked("expect_table_row_count_to_be_between", "sources.orders", "50", "NULL"),
        checked("split", "split", json.dumps(f"not decided: {DUCKDB}").replace("'", "''"), "NULL"),
        "ALTER TABLE ledger.scorings DROP lock_seconds",
        "ALTER TABLE ledger.suppressions DROP subject_column",
        "DROP TABLE ledger.held_rows",
        "DROP TABLE ledger.held_subjects",  # what later migrations add
        *(
            f"ALTER TABLE ledger.{table} DROP {column}"
            for table in ("extractions", "scorings")
            for column in ("purged_by", "purged_at")
        ),
        "DELETE FROM ledger.meta WHERE key = 'schema_version'",
        "INSERT INTO ledger.meta VALUES ('schema_version', '22')",
    )
    with workspace(threads=1) as con, open_warehouse(con, scored.project.warehouse, purpose="migrating"):
        assert verify(con) is None
        (entry,) = con.execute("SELECT subject, details FROM ledger.audit WHERE action = 'rewritten'").fetchall()
        assert json.loads(entry[1])["tables"] == ["alarms", "checks", "deliveries", "scorings"]
        assert con.execute("SELECT count(*) FROM ledger.publications").fetchone() == (0,)
        stored = con.execute("SELECT reason FROM ledger.scorings WHERE status = 'failed'").fetchall()
        assert {row[0] for row in stored} == {*TEXTS.values()}
        assert con.execute(SCORED).fetchall() == live
        kept = dict(con.execute("SELECT type, observed FROM ledger.checks WHERE entry_id = 'x'").fetchall())
        assert kept["expect_column_max_to_be_between"] is None and kept["expect_column_mean_to_be_between"] == "3.5"
        assert kept["expect_table_row_count_to_be_between"] == "50" and "Conversion Error" in kept["split"]
        for table in ("scorings", "checks", "alarms", "deliveries", "audit"):
            assert not any(word in str(con.execute(f"FROM ledger.{table}").fetchall()) for word in (KEY, VALUE)), table
    assert int(scored.warehouse("SELECT value FROM ledger.meta WHERE key = 'schema_version'")[0][0]) == schema.VERSION
