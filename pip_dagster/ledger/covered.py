"""Digests of every table of the ledger, in the audit: so the chain covers all rows, not those of live changes only.

The tables are only appended to, so an entry covers the rows that came since the entry before it, by their row ids. A
rewrite begins again: the first entry behind it covers all rows.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal

from pip_dagster.ledger.fault import Fault
from pip_dagster.ledger.rewrite import ACTION as REWRITTEN
from pip_dagster.sql.names import literal, quote
from pip_dagster.warehouse import kinds

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

ACTION: Literal["anchored"] = "anchored"
# `publications` is emptied when everything is published again, `meta` holds the schema's version, an erasure replaces
# nonces; the audit is a chain.
_OTHERS = {"publications", "meta", "audit", "anchor_nonces"}
_CHUNK = 2**16  # rows whose digests are joined at once

_TABLES = "system.main.duckdb_tables() WHERE database_name = current_database()"
_OF_ROWS = ("starts_with(table_name, 'quarantine__')", "starts_with(table_name, 'reasons__')")

Upto = dict[str, int]  # table → the highest row id that is covered


def tables() -> list[str]:
    """The names of the tables of the ledger that entries cover."""
    found = (kind.name for kind in kinds.KINDS if kind.schema == kinds.LEDGER and kind.form == "table")
    return sorted({*found} - _OTHERS)


def last_covered(con: DuckDBPyConnection) -> dict[str, Any] | None:
    """The details of the newest entry that covers tables; of one before a rewrite, without the rows that it covers."""
    last = (
        f"SELECT max(seq) FILTER (action = '{ACTION}'), max_by(details, seq) FILTER (action = '{ACTION}'), "
        f"max(seq) FILTER (action = '{REWRITTEN}') FROM ledger.audit WHERE action IN ('{ACTION}', '{REWRITTEN}')"
    )
    seq, text, rewritten = con.execute(last).fetchone() or (None, None, None)
    if seq is None:
        return None
    return json.loads(text) | ({"upto": {}} if seq < (rewritten or 0) else {})


def newest_rows(con: DuckDBPyConnection) -> Upto:
    """Table → the highest row id, -1 without rows. The warehouse is the current catalog."""
    names = [*tables(), *_content_tables(con)]
    # A subquery for each takes DuckDB twice as long to plan.
    newest = " UNION ALL ".join(
        f"SELECT {literal(name)}, coalesce(max(rowid), -1) FROM {_in_sql(name)}" for name in names
    )
    found = dict(con.execute(newest).fetchall())
    return {name: found[name] for name in names}


def _content_tables(con: DuckDBPyConnection) -> list[str]:
    """Tables of the pipelines, as `orders.reasons__1a2b3c4d`, with rows that the ledger has no digest of."""
    select = f"SELECT schema_name, table_name FROM {_TABLES} AND ({' OR '.join(_OF_ROWS)}) ORDER BY ALL"
    return [f"{space}.{name}" for space, name in con.execute(select).fetchall()]


def _in_sql(name: str) -> str:
    """A covered table, qualified and quoted."""
    space, _, table = name.rpartition(".")
    return f"{quote(space or kinds.LEDGER)}.{quote(table)}"


def cover(con: DuckDBPyConnection, before: Mapping[str, int], upto: Upto, nonce: str) -> dict[str, dict[str, Any]]:
    """Of each table with rows that came since, their number and sha256; `before` and `upto` as `newest_rows`.

    The nonce is covered too: without it, the digests tell nothing of rows that are erased.
    """
    return {
        name: _digest(con, name, before.get(name, -1), last, nonce)
        for name, last in upto.items()
        if last > before.get(name, -1)
    }


def keep_nonce(con: DuckDBPyConnection, nonce: str) -> None:
    """Keep the nonce of the newest entry, which covers tables."""
    con.execute("INSERT INTO ledger.anchor_nonces SELECT max(seq), $nonce FROM ledger.audit", {"nonce": nonce})


def covered_faults(con: DuckDBPyConnection) -> Iterator[Fault]:
    """The tables whose rows are not those that entries covered. The warehouse is the current catalog."""
    before: Mapping[str, int] = {}
    known, there = {*tables()}, _present(con)
    nonces = dict(con.execute("SELECT seq, nonce FROM ledger.anchor_nonces").fetchall())
    since = f"coalesce((SELECT max(seq) FROM ledger.audit WHERE action = {literal(REWRITTEN)}), 0)"
    select = f"SELECT seq, details FROM ledger.audit WHERE action = {literal(ACTION)} AND seq > {since} ORDER BY seq"
    of_rows = {name for name in (last_covered(con) or {}).get("upto", {}) if "." in name}
    known |= of_rows
    for seq, text in con.execute(select).fetchall():
        try:
            details = json.loads(text)
            upto, digests = dict(details["upto"]), dict(details["tables"])
            nonce = nonces.get(seq) if details.get("keyed") else ""
            if nonce is None:
                yield Fault(seq, "ledger", "its nonce is gone from ledger.anchor_nonces, so it cannot be compared")
            for name in sorted(known & {each for each in upto if upto[each] != before.get(each, -1)}):
                if name not in digests:
                    yield Fault(seq, "content", f"it skips rows of {_shown(name)}: it covers them without a digest")
                    continue
                if name not in there:
                    yield Fault(seq, "ledger", f"{_shown(name)} is gone, or a view instead of a table")
                    continue
                if nonce is None:
                    continue
                now = _digest(con, name, before.get(name, -1), upto[name], nonce)
                if now != digests[name]:
                    yield Fault(
                        seq,
                        "ledger",
                        f"{_shown(name)}: the {digests[name]['rows']:,} rows that came before this entry were changed"
                        + ("" if now["rows"] == digests[name]["rows"] else f"; there are {now['rows']:,} now"),
                    )
        except (ValueError, KeyError, TypeError) as error:
            yield Fault(seq, "content", f"its details lack what its action needs: {error}")
            continue
        before = upto


def later_rows(con: DuckDBPyConnection) -> dict[str, int]:
    """Table → how many rows no entry covers yet, where there are any. The warehouse is the current catalog."""
    upto = (last_covered(con) or {}).get("upto", {})
    counts = (
        f"SELECT {literal(name)}, count(*) FROM {_in_sql(name)} WHERE rowid > {int(upto.get(name, -1))}"
        for name in sorted({*tables(), *_content_tables(con)} & _present(con))
    )
    return {name: count for name, count in con.execute(" UNION ALL ".join(counts)).fetchall() if count}


def _present(con: DuckDBPyConnection) -> set[str]:
    """The tables that are there, named as they are covered."""
    select = f"SELECT table_name FROM {_TABLES} AND schema_name = {literal(kinds.LEDGER)}"
    return {name for (name,) in con.execute(select).fetchall()} | {*_content_tables(con)}


def _shown(name: str) -> str:
    return name if "." in name else f"{kinds.LEDGER}.{name}"


def _digest(con: DuckDBPyConnection, table: str, after: int, upto: int, nonce: str) -> dict[str, Any]:
    """Rows and sha256 of a range of row ids. A NULL adds nothing, so columns that come later change no digest."""
    columns = con.execute(f"DESCRIBE {_in_sql(table)}").fetchall()
    named = ", ".join(
        f"CASE WHEN {quote(name)} IS NOT NULL THEN {literal(name + '=')} || to_json({quote(name)})::VARCHAR END"
        for name in sorted(row[0] for row in columns)
    )
    rows = (
        f"SELECT rowid AS id, sha256(concat_ws(chr(31), {named})) AS digest FROM {_in_sql(table)} "
        f"WHERE rowid > {after} AND rowid <= {upto}"
    )
    chunks = f"SELECT id // {_CHUNK} AS chunk, count(*) AS n, sha256(string_agg(digest, '' ORDER BY id)) AS digest"
    row = con.execute(
        f"SELECT coalesce(sum(n), 0)::BIGINT, sha256({literal(nonce)} || string_agg(digest, '' ORDER BY chunk)) "
        f"FROM ({chunks} FROM ({rows}) GROUP BY 1)"
    ).fetchone()
    assert row
    return {"rows": row[0], "sha256": row[1]}
