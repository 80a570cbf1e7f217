"""What the project's destination has not got yet is sent, each entry once: `ledger.lineage_emissions` says what it has.

Nobody waits for a receiver. The warehouse is read, then closed while events are sent, then what arrived is recorded. A
process that is killed in between sends a batch again, with the same run ids. A new destination gets everything, from
the oldest entry on.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from pip_dagster import clock
from pip_dagster.errors import LineageError, NoWarehouseError
from pip_dagster.ledger.rows import insert_rows
from pip_dagster.openlineage.entries import Entry
from pip_dagster.openlineage.events import events_of
from pip_dagster.openlineage.read import EntryFilter, count_entries, opened, read_batch
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
    try:
        while entries := _next(subject, destination, batch):
            with sender(destination, project.root) as send:
                done = _send(send, subject, entries, until)
            _record(subject, destination, [entry.entry_id for entry in entries[: done.sent]])
            sent += done.sent
            if done.fault or time.monotonic() >= until:
                return Emitted(sent, _left(subject, destination), done.fault)
    except NoWarehouseError:
        return Emitted()
    except LineageError as error:  # the destination cannot be opened
        return Emitted(sent, _left(subject, destination), str(error))
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


def _next(subject: Subject, destination: str, batch: int) -> list[Entry]:
    with opened(subject.project) as con:
        return read_batch(con, subject, _unsent(con, destination, subject.pipeline), batch)


def _left(subject: Subject, destination: str) -> int:
    with opened(subject.project) as con:
        return count_entries(con, _unsent(con, destination, subject.pipeline))


def _unsent(con: DuckDBPyConnection, destination: str, pipeline: str) -> EntryFilter:
    """What was not sent. What is long before the newest that was sent is not read."""
    of = f"FROM ledger.lineage_emissions WHERE destination = {literal(destination)} AND pipeline = {literal(pipeline)}"
    found = con.execute(f"SELECT max(entry_id) {of}").fetchone()
    after = _before(found[0]) if found and found[0] else ""
    return EntryFilter(pipeline, after=after, sent=f"SELECT entry_id {of} AND entry_id > {literal(after)}")


def _before(newest: str) -> str:
    try:
        return f"{datetime.strptime(newest.partition('-')[0], _INSTANT) - _LATE:{_INSTANT}}"
    except ValueError:  # an id that is not ours
        return ""


def _record(subject: Subject, destination: str, ids: list[str]) -> None:
    if not ids:
        return
    rows = [_Emission(destination, subject.pipeline, each, clock.now()) for each in ids]
    with (
        workspace(threads=1) as con,
        writing(con, subject.project, purpose="recording what lineage was sent", publish=False),
    ):
        insert_rows(con, "lineage_emissions", rows)
