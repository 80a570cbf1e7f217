"""New entries of the ledger are sent to the project's destination, each once: `ledger.lineage_emissions` says which.

Nobody waits for a receiver. The warehouse is read, then closed while events are sent, then what arrived is recorded. A
process that is killed in between sends a batch again, with the same run ids. The first call records where sending
begins: what is older is for `pip-dagster lineage export`.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from pip_dagster import clock
from pip_dagster.errors import LineageError
from pip_dagster.ledger.rows import insert_rows
from pip_dagster.openlineage.entries import Entry
from pip_dagster.openlineage.events import events_of
from pip_dagster.openlineage.read import Wanted, count_entries, opened, read_batch
from pip_dagster.openlineage.send import Send, sender
from pip_dagster.openlineage.subject import Subject
from pip_dagster.sql.names import literal
from pip_dagster.warehouse.access import writing
from pip_dagster.warehouse.connect import workspace

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from pip_dagster.declaration.pipeline import Pipeline

_BATCH = 200
_SECONDS = 20.0
# How much older than the newest sent entry one can be that is committed later: it waited for the warehouse.
_LATE = timedelta(days=2)
_INSTANT = "%Y%m%dT%H%M%S%f"


@dataclass(frozen=True)
class Emitted:
    """What came of it: entries sent, entries that are left, and why, if the destination did not take them."""

    sent: int = 0
    left: int = 0
    fault: str | None = None
    began: bool = False


@dataclass(frozen=True)
class _Emission:
    """One row of `ledger.lineage_emissions`."""

    destination: str
    pipeline: str
    entry_id: str
    made_at: datetime


def emit_new(pipeline: Pipeline, *, seconds: float = _SECONDS, batch: int = _BATCH) -> Emitted:
    """Send what the destination has not got, for at most about so many seconds; what is left is sent by the next call.

    Raises:
        WarehouseError: the warehouse is locked or cannot be read.
    """
    project, destination = pipeline.project, pipeline.project.openlineage
    if not destination:
        return Emitted()
    subject = Subject(project, pipeline.spec.name, pipeline)
    until, sent = time.monotonic() + seconds, 0
    with opened(project) as con:
        wanted = _unsent(con, destination, subject.pipeline)
        entries = read_batch(con, subject, wanted, batch) if wanted else []
        newest = None if wanted else _newest(con, subject.pipeline)
    if newest is not None:
        _record(pipeline, destination, [newest])
        return Emitted(began=True)
    try:
        while entries:
            with sender(destination, project.root) as send:
                done = _send(send, subject, entries, until)
            _record(pipeline, destination, [entry.entry_id for entry in entries[: done.sent]])
            sent += done.sent
            if done.fault:
                return Emitted(sent, _left(pipeline, destination), done.fault)
            if time.monotonic() >= until:
                return Emitted(sent, _left(pipeline, destination))
            entries = _next(pipeline, subject, destination, batch)
    except LineageError as error:  # the destination cannot be opened
        return Emitted(sent, _left(pipeline, destination), str(error))
    return Emitted(sent)


def _send(send: Send, subject: Subject, entries: list[Entry], until: float) -> Emitted:
    """Send entries in their order, up to the first that does not arrive or the end of the time."""
    for number, entry in enumerate(entries):
        if number and time.monotonic() >= until:
            return Emitted(number)
        try:
            for event in events_of(subject, entry):
                send(event)
        except LineageError as error:
            return Emitted(number, fault=str(error))
    return Emitted(len(entries))


def _next(pipeline: Pipeline, subject: Subject, destination: str, batch: int) -> list[Entry]:
    with opened(pipeline.project) as con:
        wanted = _unsent(con, destination, subject.pipeline)
        return read_batch(con, subject, wanted, batch) if wanted else []


def _left(pipeline: Pipeline, destination: str) -> int:
    with opened(pipeline.project) as con:
        wanted = _unsent(con, destination, pipeline.spec.name)
        return count_entries(con, wanted) if wanted else 0


def _unsent(con: DuckDBPyConnection, destination: str, pipeline: str) -> Wanted | None:
    """What was not sent; None where sending has not begun. What is long before the newest that was sent is not read."""
    of = f"FROM ledger.lineage_emissions WHERE destination = {literal(destination)} AND pipeline = {literal(pipeline)}"
    found = con.execute(f"SELECT min(entry_id), max(entry_id) {of}").fetchone()
    if found is None or found[0] is None:
        return None
    first, newest = found
    after = max(first, _before(newest))
    return Wanted(pipeline, after=after, sent=f"SELECT entry_id {of} AND entry_id > {literal(after)}")


def _before(newest: str) -> str:
    try:
        return f"{datetime.strptime(newest.partition('-')[0], _INSTANT) - _LATE:{_INSTANT}}"
    except ValueError:  # an empty ledger, or a foreign id
        return ""


def _newest(con: DuckDBPyConnection, pipeline: str) -> str:
    """The newest id of a pipeline's entries; empty where there is none."""
    of = f"WHERE pipeline = {literal(pipeline)}"
    found = con.execute(
        f"SELECT greatest((SELECT max(extraction_id) FROM ledger.extractions {of}), "
        f"(SELECT max(scoring_id) FROM ledger.scorings {of}), (SELECT max(change_id) FROM ledger.live_changes {of}))"
    ).fetchone()
    return (found[0] if found else None) or ""


def _record(pipeline: Pipeline, destination: str, ids: list[str]) -> None:
    if not ids:
        return
    rows = [_Emission(destination, pipeline.spec.name, each, clock.now()) for each in ids]
    with (
        workspace(threads=1) as con,
        writing(con, pipeline.project, purpose="recording what lineage was sent", publish=False),
    ):
        insert_rows(con, "lineage_emissions", rows)
