"""Texts that were stored before lose the keys and values that they quote; the audit records that they did.

Which columns are keys is not stored, so of the checks no example stays, and no observed value but counts, shares, means
and sums. Scorings that went live have no reason, so that what the audit covers of them is as it was. What it covers of
tables begins again.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from pip_dagster.declaration.canonical import canonical
from pip_dagster.quoted import message, of_duckdb, of_server
from pip_dagster.warehouse.stamp import newest_entry

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_KEPT = (
    *("column_unique_value_count", "column_proportion_of_unique_values", "column_proportion_of_non_null_values"),
    *("column_mean", "column_sum", "column_stdev", "table_row_count", "table_column_count"),
)
_OBSERVED = ", ".join(f"'expect_{name}_to_be_between'" for name in _KEPT)
_TABLE = "type LIKE 'expect_table_%'"

# Where texts quote rows: what is there, and what stays.
_QUOTING: tuple[tuple[str, str | Callable[[re.Match[str]], str]], ...] = (
    (r", such as .*(?=; a join in the feature SQL may multiply rows)", ""),
    (r"(?<= outside the requested partitions), such as .*?(?=\. Bound every row by)", ""),
    (r"(\w+) = .*?(?= has more digits than Arrow)", r"\1"),
    (r"; \([^()]*\) = .*(?=\. No row was stored\.)", ""),
    (r"the key (\([^()]*\)) .* has more than one label", r"a key \1 has more than one label"),
    (r"outcomes, .* among them, are", "outcomes are"),
    (r" has .{1,70} as (\w+) in (?=line|record|one of)", r" has a value that does not fit \1 in "),
    (r" \(observed (?:[^()\"]|\"(?:[^\"\\]|\\.)*\")*\)", ""),
    (r"(?<=could not be evaluated) \(.*?\)(?=\Z|; [a-z_.]+: )", ""),
    (r"(?<=Postgres says: )(.*?)(?= \(SQLSTATE|\Z)", lambda found: of_server(found[1])),
    (r"(?<=delta-rs says: ).*", lambda found: of_server(found[0])),
    (r"( raised \w+): .*", r"\1"),
    (
        r"(?:Conversion|Invalid Input|Out of Range|Constraint|Mismatch Type|Invalid type|Not implemented|INTERNAL) "
        r"Error: .*",
        lambda found: of_duckdb(found[0]),
    ),
)
_FORMS = tuple((re.compile(pattern, re.DOTALL), stays) for pattern, stays in _QUOTING)

# The texts of people (`why`, the reason of an acknowledgment) stay: they are in the audit.
_TEXTS = (
    ("scorings", "reason", "status <> 'scored'"),
    ("checks", "observed", "section = 'split'"),
    ("alarms", "cause", "true"),
    ("deliveries", "error", "true"),
    ("estimates", "reason", "true"),
)


def migrate(con: DuckDBPyConnection) -> None:
    """Rewrite the texts, in the transaction of the migration; all that is published is published again."""
    changed = [name for name, column, where in _TEXTS if _rewrite(con, name, column, where, without_rows)]
    changed += ["checks"] * _rewrite(con, "checks", "error", "section <> 'split'", message)
    dropped = (
        ("examples", "examples IS NOT NULL"),
        ("observed", f"observed IS NOT NULL AND section <> 'split' AND NOT ({_TABLE} OR type IN ({_OBSERVED}))"),
    )
    for column, where in dropped:
        if con.execute(f"SELECT 1 FROM ledger.checks WHERE {where} LIMIT 1").fetchone():
            con.execute(f"UPDATE ledger.checks SET {column} = NULL WHERE {where}")
            changed.append("checks")
    if changed:
        con.execute("DELETE FROM ledger.publications")
        con.execute("DELETE FROM ledger.anchor_nonces")
        _record(con, sorted(set(changed)))


def without_rows(text: str) -> str:
    """A stored text without the keys and values that earlier versions quoted."""
    for pattern, stays in _FORMS:
        text = pattern.sub(stays, text)
    return text


def _rewrite(con: DuckDBPyConnection, table: str, column: str, where: str, new: Callable[[str], str]) -> bool:
    """Whether a text of the column was changed."""
    texts = con.execute(
        f"SELECT DISTINCT {column} FROM ledger.{table} WHERE {column} IS NOT NULL AND {where}"
    ).fetchall()
    pairs = [(old, stays) for (old,) in texts if (stays := new(old)) != old]
    if pairs:
        given = {"before": [old for old, _ in pairs], "after": [stays for _, stays in pairs]}
        con.execute(
            "CREATE OR REPLACE TEMP TABLE pip_texts AS SELECT unnest($before) AS old, unnest($after) AS new", given
        )
        con.execute(
            f"UPDATE ledger.{table} SET {column} = t.new FROM pip_texts t WHERE {table}.{column} = t.old AND {where}"
        )
        con.execute("DROP TABLE pip_texts")
    return bool(pairs)


def _record(con: DuckDBPyConnection, tables: list[str]) -> None:
    """Add the audit's entry: which tables were rewritten, and none of the scorings that it covers."""
    seq, previous = newest_entry(con) or (0, "")
    row = con.execute("SELECT now(), epoch_us(now())").fetchone()
    assert row
    rewrite_id = f"migration-23-{secrets.token_hex(4)}"
    details = {"kind": "migration", "scorings": 0, "sha256": hashlib.sha256(b"").hexdigest(), "tables": tables}
    entry: dict[str, Any] = {
        "seq": seq + 1,
        "made_at": row[1],
        "actor": "pip_dagster",
        "action": "rewritten",
        "pipeline": None,
        "subject": canonical({"rewrite_id": rewrite_id}),
        "details": canonical(details),
        "previous_hash": previous,
    }
    found = hashlib.sha256(canonical(entry).encode()).hexdigest()
    con.execute(
        "INSERT INTO ledger.audit (seq, made_at, actor, action, pipeline, subject, details, previous_hash, hash) "
        "VALUES ($seq, $made_at, $actor, $action, $pipeline, $subject, $details, $previous_hash, $hash)",
        entry | {"made_at": row[0], "hash": found},
    )
