"""Verifies the audit by its anchors: what nobody who can only write to the warehouse and the registry can undo."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from pip_dagster import clock
from pip_dagster.errors import ProjectError
from pip_dagster.evidence.anchor import VOUCHED, anchored_lines
from pip_dagster.evidence.places import PlaceError, tag_of
from pip_dagster.evidence.signed import trusted_keys
from pip_dagster.evidence.statement import Statement, digest, parse
from pip_dagster.evidence.verify_registry import registry_faults
from pip_dagster.ledger.covered import ACTION, covered_faults, later_rows
from pip_dagster.ledger.fault import Fault
from pip_dagster.registry.store import Registry
from pip_dagster.sql.names import literal

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from duckdb import DuckDBPyConnection

    from pip_dagster.declaration.project import Project

# Longer than all places together usually take.
_ON_ITS_WAY = timedelta(minutes=2)


@dataclass
class Verified:
    """What the anchors show.

    Attributes:
        anchors: How many there are of this ledger, in all places.
        entry: The newest entry that is anchored.
        later: How many entries came behind it, which no anchor covers yet.
        later_rows: Table of the ledger → how many rows no anchor covers yet.
        earlier_ledgers: Anchors of a ledger that a person replaced by this one.
        faults: What is wrong.
    """

    anchors: int = 0
    entry: int | None = None
    later: int = 0
    later_rows: dict[str, int] = field(default_factory=dict)
    earlier_ledgers: int = 0
    faults: list[Fault] = field(default_factory=list)


def verify_anchors(con: DuckDBPyConnection, project: Project) -> Verified:
    """Compare the audit with every anchor that can be read, and ledger and registry with what entries covered.

    The warehouse is the current catalog.

    Raises:
        ProjectError: no anchors are declared, or none of their places can be read.
    """
    declared = project.anchors
    if declared is None or not any(place.can_be_read for place in declared.places.values()):
        raise ProjectError(
            f"{project.root / 'pyproject.toml'} declares no anchors that can be read back: "
            "[tool.pip_dagster.anchors] needs a place that is a file or a git repository."
        )
    found = Verified()
    entries: dict[int, str] = dict(con.execute("SELECT seq, hash FROM ledger.audit").fetchall())
    trusted, places = trusted_keys(project.root, declared.signers), dict[str, list[_Line]]()
    for name, read in anchored_lines(project).items():
        if isinstance(read, PlaceError):
            found.faults.append(Fault(None, "anchor", f"{name} cannot be read: {read}"))
        else:
            places[name] = [_Line.of(name, number, tag, line, trusted) for number, (tag, line) in enumerate(read, 1)]
    valid = [line.statement for each in places.values() for line in each if line.statement]
    accepted_at = _accepted_at(con, entries, valid)
    for name, listed in places.items():
        found.faults += _of_order(listed)
        _of_place(con, name, listed, entries, accepted_at, found)
    found.later = sum(seq > (found.entry or 0) for seq in entries)
    found.later_rows = later_rows(con)
    found.faults += _unsigned(con, entries, valid)
    found.faults += covered_faults(con)
    found.faults += registry_faults(con, Registry(project.registry))
    return found


@dataclass(frozen=True)
class _Line:
    """A line of a place: its anchor, or what is wrong with it."""

    where: str
    tag: str
    digest: str
    statement: Statement | None
    wrong: str | None

    @classmethod
    def of(cls, name: str, number: int, tag: str, line: str, trusted: Mapping[str, Ed25519PublicKey]) -> _Line:
        where = f"{name}, {f'tag {tag}' if tag else f'anchor {number}'}"
        try:
            return cls(where, tag, digest(line), parse(line, trusted), None)
        except ValueError as error:
            return cls(where, tag, digest(line), None, str(error))


def _of_order(listed: Sequence[_Line]) -> Iterator[Fault]:
    """Each anchor names the one before it: none can be removed, repeated or moved unnoticed."""
    before: list[str] = [""]
    for line in listed:
        if line.statement is None:
            yield Fault(None, "anchor", f"{line.where}: {line.wrong}")
        elif line.tag and line.tag != tag_of(line.statement):
            what = f"is the anchor of entry {line.statement.entry}: the tag was moved"
            yield Fault(None, "anchor", f"{line.where}, {what}")
        # Of several machines that tag, one may not have known the newest tag of another.
        elif line.statement.names_previous and line.statement.previous not in (before if line.tag else before[-1:]):
            what = "does not follow the anchor before it: anchors between them were removed, repeated or moved"
            yield Fault(None, "anchor", f"{line.where}, of {line.statement.made_at[:19]}, {what}")
        before.append(line.digest)


def _of_place(
    con: DuckDBPyConnection,
    name: str,
    listed: Sequence[_Line],
    entries: Mapping[int, str],
    accepted_at: str,
    found: Verified,
) -> None:
    """Add what the anchors of a place show."""
    here, newest = 0, 0
    for line in listed:
        if line.statement is None:
            continue
        fault = _of_chain(entries, line.statement, line.where)
        if fault and _instant(line.statement.made_at) < _instant(accepted_at):
            found.earlier_ledgers += 1
            continue
        here += 1
        newest = max(newest, line.statement.entry)
        if fault:
            found.faults.append(fault)
    found.anchors += here
    found.entry = max(found.entry or 0, newest) or None
    if not here:
        found.faults.append(Fault(None, "anchor", f"{name} has no anchor of this ledger: they were removed"))
    elif missing := _anchored_behind(con, newest):
        what = f"lacks the anchor of entry {missing}: it did not answer then, or the anchor was removed"
        found.faults.append(Fault(None, "anchor", f"{name} {what}. `pip-dagster audit anchor` adds the next one"))


def _instant(text: str) -> datetime:
    return datetime.fromisoformat(text) if text else datetime.min.replace(tzinfo=UTC)


def _accepted_at(con: DuckDBPyConnection, entries: Mapping[int, str], valid: Iterable[Statement]) -> str:
    """When somebody with the key accepted this warehouse in place of another last; anchors before may be of that."""
    select = "SELECT seq FROM ledger.audit WHERE action = 'accepted' AND (subject->>'warehouse') IS NOT NULL"
    of_warehouse = {seq for (seq,) in con.execute(select).fetchall()}
    return max(
        (
            statement.made_at
            for statement in valid
            if of_warehouse & {*statement.accepts} and _of_chain(entries, statement, "") is None
        ),
        key=_instant,
        default="",
    )


def _unsigned(con: DuckDBPyConnection, entries: Mapping[int, str], valid: Sequence[Statement]) -> Iterator[Fault]:
    """Entries in which something was accepted or rewritten, and no anchor vouches for it."""
    here = [statement for statement in valid if _of_chain(entries, statement, "") is None]
    vouched = {seq for statement in here for seq in statement.accepts}
    select = f"SELECT seq, actor, action, subject FROM ledger.audit WHERE action IN {VOUCHED} ORDER BY seq"
    for seq, actor, action, text in con.execute(select).fetchall():
        if seq in vouched:
            continue
        subject = json.loads(text)
        if action == "accepted":
            of = f"{subject['model']} v{subject['version']}" if "model" in subject else "this warehouse"
            yield Fault(
                seq,
                "accepted",
                f"it says that {actor} accepted {of} as it is, and no anchor vouches for that: the entry is forged, or "
                "nothing was signed then. If it is meant, `pip-dagster audit accept` signs what was accepted",
            )
        elif action == "reissued":
            yield Fault(
                seq,
                "rewritten",
                f"it says that {actor} erased golden rows of {subject['model']} v{subject['version']}, and no anchor "
                "vouches for that: the entry is forged, or the erasure ended where the key is not. If it is meant, "
                "`pip-dagster audit accept` signs it",
            )
        elif not _of_migration(con, subject):
            yield Fault(
                seq,
                "rewritten",
                f"it says that {actor} rewrote what the audit covers ({subject.get('rewrite_id')}), and no anchor "
                "vouches for that: the entry is forged, or the erasure ended where the key is not. If it is meant, "
                "`pip-dagster audit accept` signs it",
            )


def _of_migration(con: DuckDBPyConnection, subject: dict[str, str]) -> bool:
    """Whether an entry is that of a migration, which runs where no key is: one a migration, and of no scoring."""
    number = subject.get("rewrite_id", "").split("-")
    if number[0] != "migration" or len(number) != 3:
        return False
    same = "action = 'rewritten' AND starts_with(subject->>'rewrite_id', $begins)"
    row = con.execute(
        f"SELECT count(*) = 1 AND max(CAST(details->>'scorings' AS BIGINT)) = 0 FROM ledger.audit WHERE {same}",
        {"begins": f"migration-{number[1]}-"},
    ).fetchone()
    return bool(row and row[0])


def _anchored_behind(con: DuckDBPyConnection, newest: int) -> int | None:
    """The newest entry that was anchored behind this one, unless it is so young that it may be on its way."""
    select = f"SELECT max(seq) FROM ledger.audit WHERE action = {literal(ACTION)} AND seq > {newest} AND made_at < $at"
    row = con.execute(select, {"at": clock.now() - _ON_ITS_WAY}).fetchone()
    return row[0] if row else None


def _of_chain(entries: Mapping[int, str], statement: Statement, where: str) -> Fault | None:
    """What the chain lacks of what was anchored."""
    if statement.ledger != entries.get(1):
        what = "is of a ledger that began with another entry: the audit was rewritten from the start, or replaced"
    elif statement.entry not in entries:
        what = f"names entry {statement.entry}, and the audit ends at {max(entries)}: its end was cut off"
    elif entries[statement.entry] != statement.hash:
        what = f"has another hash of entry {statement.entry}: the audit was rewritten up to there"
    else:
        return None
    return Fault(None, "anchor", f"{where}, of {statement.made_at[:19]}, {what}")
