"""Verifies the audit by its anchors: what nobody who can only write to the warehouse and the registry can undo."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from pip_dagster import clock
from pip_dagster.errors import ProjectError, RegistryError
from pip_dagster.evidence.anchor import anchored_lines, registry_state
from pip_dagster.evidence.places import PlaceError
from pip_dagster.evidence.signed import trusted_keys
from pip_dagster.evidence.statement import Statement, parse
from pip_dagster.evidence.views import view_faults
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
    for name, read in anchored_lines(project).items():
        if isinstance(read, PlaceError):
            found.faults.append(Fault(None, "anchor", f"{name} cannot be read: {read}"))
        else:
            _read_place(con, name, read, trusted_keys(project.root, declared.signers), entries, found)
    found.later = sum(seq > (found.entry or 0) for seq in entries)
    found.later_rows = later_rows(con)
    found.faults += covered_faults(con)
    found.faults += view_faults(con)
    found.faults += _of_registry(con, Registry(project.registry))
    return found


def _read_place(
    con: DuckDBPyConnection,
    name: str,
    read: Sequence[str],
    trusted: Mapping[str, Ed25519PublicKey],
    entries: Mapping[int, str],
    found: Verified,
) -> None:
    """Add what the lines of a place show."""
    here, newest, earlier = 0, 0, _replaced_another(con)
    for number, line in enumerate(filter(None, read), 1):
        where = f"{name}, anchor {number}"
        try:
            statement = parse(line, trusted)
        except ValueError as error:
            found.faults.append(Fault(None, "anchor", f"{where}: {error}"))
            continue
        if statement.ledger != entries.get(1) and earlier:
            found.earlier_ledgers += 1
            continue
        here += 1
        newest = max(newest, statement.entry)
        if fault := _of_chain(entries, statement, where):
            found.faults.append(fault)
    found.anchors += here
    found.entry = max(found.entry or 0, newest) or None
    if not here:
        found.faults.append(Fault(None, "anchor", f"{name} has no anchor of this ledger: they were removed"))
    elif missing := _anchored_behind(con, newest):
        what = f"lacks the anchor of entry {missing}: it did not answer then, or the anchor was removed"
        found.faults.append(Fault(None, "anchor", f"{name} {what}. `pip-dagster audit anchor` adds the next one"))


def _anchored_behind(con: DuckDBPyConnection, newest: int) -> int | None:
    """The newest entry that was anchored behind this one, unless it is so young that it may be on its way."""
    select = f"SELECT max(seq) FROM ledger.audit WHERE action = {literal(ACTION)} AND seq > {newest} AND made_at < $at"
    row = con.execute(select, {"at": clock.now() - _ON_ITS_WAY}).fetchone()
    return row[0] if row else None


def _replaced_another(con: DuckDBPyConnection) -> bool:
    """Whether a person accepted this ledger in place of another."""
    accepted = "SELECT 1 FROM ledger.audit WHERE action = 'accepted' AND (subject->>'warehouse') IS NOT NULL LIMIT 1"
    return con.execute(accepted).fetchone() is not None


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


def _of_registry(con: DuckDBPyConnection, registry: Registry) -> Iterator[Fault]:
    """What of the registry is not as the newest entry that covers it."""
    newest = con.execute(
        f"SELECT seq, details->>'models' FROM ledger.audit WHERE action = {literal(ACTION)} "
        "AND (details->>'models') IS NOT NULL ORDER BY seq DESC LIMIT 1"
    ).fetchone()
    if newest is None:
        return
    seq, models = newest[0], json.loads(newest[1])
    now = registry_state(registry)
    for model, then in models.items():
        there: dict[str, Any] = now.get(model, {"versions": {}, "aliases": {}})
        for number, digest in then["versions"].items():
            if there["versions"].get(number) != digest:
                what = "was replaced" if number in there["versions"] else "is gone"
                yield Fault(seq, "registry", f"{model} v{number} {what} since: its manifest was {digest}")
            elif text := _damaged(registry, model, int(number)):
                yield Fault(seq, "registry", text)
        for alias, version in then["aliases"].items():
            at = there["aliases"].get(alias)
            if at != version and not _moved(con, seq, model, alias, at):
                shown = "names nothing" if at is None else f"names v{at}"
                yield Fault(
                    seq,
                    "registry",
                    f"the alias {alias!r} of {model} {shown}; it named v{version}, and no later entry records a move",
                )


def _damaged(registry: Registry, model: str, number: int) -> str | None:
    """What is wrong with the files of a version whose manifest is as it was."""
    try:
        registry.get(model, number).verify()
    except RegistryError as error:
        return str(error)
    return None


def _moved(con: DuckDBPyConnection, seq: int, model: str, alias: str, version: int | None) -> bool:
    """Whether a later entry moved the alias to this version."""
    of_alias = f"(subject->>'model') = {literal(model)} AND (subject->>'alias') = {literal(alias)}"
    row = con.execute(
        "SELECT (details->>'to')::INT FROM ledger.audit "
        f"WHERE action = 'promotion' AND seq > {seq} AND {of_alias} ORDER BY seq DESC LIMIT 1"
    ).fetchone()
    return row is not None and row[0] == version
