"""The ledger's entries in batches, in the order of their ids, which is the order of time.

The warehouse is open, and locked for a file, only while one batch is read: nobody waits for a receiver. Memory holds
one batch, however long the ledger is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

from pip_dagster.ledger.arms import arms_of
from pip_dagster.ledger.checks import SPLIT, CheckEntry
from pip_dagster.ledger.live import LiveChange
from pip_dagster.ledger.record import ExtractionEntry, ScoringEntry, dicts
from pip_dagster.openlineage.entries import Entry, ExtractionRun, LiveRun, ScoringRun
from pip_dagster.openlineage.subject import Subject
from pip_dagster.sql.names import among, literal, quote, quote_all
from pip_dagster.warehouse.access import reading
from pip_dagster.warehouse.connect import workspace

if TYPE_CHECKING:
    from _typeshed import DataclassInstance
    from duckdb import DuckDBPyConnection

    from pip_dagster.declaration.project import Project

BATCH = 1000
_PURPOSE = "reading the lineage"


@dataclass(frozen=True)
class EntryFilter:
    """Which entries of a pipeline.

    Attributes:
        pipeline: its name.
        after: only those with a later id.
        ranges: of partition keys, with their first and last, or None for an open end; without any, all partitions.
        sent: SQL of the ids that are left out, if any.
    """

    pipeline: str
    after: str = ""
    ranges: tuple[tuple[str | None, str | None], ...] = ()
    sent: str | None = None

    def where(self, key: str, alias: str = "") -> str:
        """SQL that selects rows of a table of the ledger by their id, `key`."""
        parts = [f"{alias}pipeline = {literal(self.pipeline)}", f"{alias}{key} > {literal(self.after)}"]
        bounds = []
        for first, last in self.ranges:
            ends = [f"{alias}partition_key >= {literal(first)}"] if first else []
            ends += [f"{alias}partition_key <= {literal(last)}"] if last else []
            bounds.append(" AND ".join(ends) or "true")
        if bounds:
            parts.append("(" + " OR ".join(f"({each})" for each in bounds) + ")")
        if self.sent:
            parts.append(f"{alias}{key} NOT IN ({self.sent})")
        return " AND ".join(parts)


def batches(project: Project, subject: Subject, wanted: EntryFilter, size: int = BATCH) -> Iterator[list[Entry]]:
    """All entries, a batch at a time; the warehouse is closed while one is used.

    Raises:
        WarehouseError: as `reading`.
    """
    after = wanted.after
    while True:
        with opened(project) as con:
            found = read_batch(con, subject, replace(wanted, after=after), size)
        if not found:
            return
        yield found
        after = found[-1].entry_id


@contextmanager
def opened(project: Project) -> Iterator[DuckDBPyConnection]:
    """The warehouse for one batch."""
    with workspace(threads=2) as con, reading(con, project, purpose=_PURPOSE, checked=False):
        yield con


def count_entries(con: DuckDBPyConnection, wanted: EntryFilter) -> int:
    """How many entries there are. The warehouse is the current catalog."""
    found = con.execute(f"SELECT count(*) FROM ({_ids(wanted)})").fetchone()
    return int(found[0]) if found else 0


def read_batch(con: DuckDBPyConnection, subject: Subject, wanted: EntryFilter, size: int = BATCH) -> list[Entry]:
    """The first entries by id. The warehouse is the current catalog."""
    rows = con.execute(f"SELECT kind, id FROM ({_ids(wanted)}) ORDER BY id LIMIT {size}").fetchall()
    ids: dict[str, list[str]] = {"extraction": [], "scoring": [], "change": []}
    for kind, entry_id in rows:
        ids[kind].append(entry_id)
    checks = _checks(con, [*ids["extraction"], *ids["scoring"]])
    found: list[Entry] = []
    for each in _rows(con, "extractions", ExtractionEntry, "extraction_id", ids["extraction"]):
        found.append(ExtractionRun(each, checks.get(each.extraction_id, ())))
    firsts = _first_changes(con, ids["scoring"])
    for scoring in _rows(con, "scorings", ScoringEntry, "scoring_id", ids["scoring"]):
        first = firsts.get(scoring.scoring_id)
        found.append(ScoringRun(scoring, checks.get(scoring.scoring_id, ()), first))
    found += _changes(con, ids["change"])
    _note_types(con, subject, found)
    return sorted(found, key=lambda entry: entry.entry_id)


def _ids(wanted: EntryFilter) -> str:
    """SQL of the ids: a change that made a scoring live for the first time is a part of the scoring's own run."""
    pipeline = literal(wanted.pipeline)
    again = (
        "(c.kind = 'rollback' OR c.change_id IN (SELECT change_id FROM ledger.arms) OR c.change_id > "
        f"(SELECT min(o.change_id) FROM ledger.live_changes o WHERE o.pipeline = {pipeline} "
        "AND o.partition_key = c.partition_key AND o.scoring_id = c.scoring_id))"
    )
    return (
        "SELECT 'extraction' AS kind, extraction_id AS id FROM ledger.extractions "
        f"WHERE {wanted.where('extraction_id')} "
        f"UNION ALL SELECT 'scoring', scoring_id FROM ledger.scorings WHERE {wanted.where('scoring_id')} "
        f"UNION ALL SELECT 'change', c.change_id FROM ledger.live_changes c "
        f"WHERE {wanted.where('change_id', 'c.')} AND {again}"
    )


def _rows(con: DuckDBPyConnection, table: str, kind: type[Any], key: str, ids: Sequence[str]) -> list[Any]:
    return [kind(**row) for row in _dicts(con, table, kind, key, ids)]


def _dicts(
    con: DuckDBPyConnection, table: str, kind: type[DataclassInstance], key: str, ids: Sequence[str]
) -> list[dict[str, Any]]:
    """Rows of a table of the ledger by id. The bounds let DuckDB skip what is older and newer."""
    if not ids:
        return []
    columns = quote_all(each.name for each in fields(kind))
    within = f"{key} BETWEEN {literal(min(ids))} AND {literal(max(ids))}"
    return dicts(con.execute(f"SELECT {columns} FROM ledger.{table} WHERE {within} AND {among(key, ids)}"))


def _checks(con: DuckDBPyConnection, ids: Sequence[str]) -> dict[str, tuple[CheckEntry, ...]]:
    found: dict[str, list[CheckEntry]] = {}
    for row in _dicts(con, "checks", CheckEntry, "entry_id", ids):
        if row["section"] != SPLIT:
            found.setdefault(row["entry_id"], []).append(CheckEntry(**row))
    return {key: tuple(sorted(each, key=lambda c: (c.section, c.expectation_id))) for key, each in found.items()}


def _first_changes(con: DuckDBPyConnection, scorings: Sequence[str]) -> dict[str, LiveChange]:
    found: dict[str, LiveChange] = {}
    for row in sorted(
        _dicts(con, "live_changes", LiveChange, "scoring_id", scorings), key=lambda row: row["change_id"]
    ):
        if row["kind"] != "rollback":
            found.setdefault(row["scoring_id"], LiveChange(**row))
    return found


def _changes(con: DuckDBPyConnection, ids: Sequence[str]) -> list[Entry]:
    changes = [LiveChange(**row) for row in _dicts(con, "live_changes", LiveChange, "change_id", ids)]
    arms = arms_of(con, ids) if ids else {}
    named = {change.scoring_id for change in changes} | {arm.scoring_id for each in arms.values() for arm in each}
    scorings = {each.scoring_id: each for each in _rows(con, "scorings", ScoringEntry, "scoring_id", sorted(named))}
    found: list[Entry] = []
    for change in changes:
        of_change = arms.get(change.change_id, ())
        live = dict.fromkeys((change.scoring_id, *(arm.scoring_id for arm in of_change)))
        found.append(LiveRun(change, tuple(scorings[each] for each in live if each in scorings), of_change))
    return found


def _note_types(con: DuckDBPyConnection, subject: Subject, entries: Iterable[Entry]) -> None:
    """Note the columns of the tables that hold these entries' rows, where they are not known yet."""
    tables = set()
    for entry in entries:
        of = entry.scorings if isinstance(entry, LiveRun) else (entry.entry,)
        tables |= {each.table_name for each in of if each.table_name}
    for table in sorted(tables - subject.types.keys()):
        described = con.execute(f"DESCRIBE {quote(subject.pipeline)}.{quote(table)}").fetchall()
        subject.types[table] = {row[0]: row[1] for row in described}
