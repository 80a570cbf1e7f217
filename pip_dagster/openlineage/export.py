"""The past as events: all entries of a selection, streamed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from pip_dagster.openlineage.events import events_of
from pip_dagster.openlineage.read import EntryFilter, batches, count_entries, opened
from pip_dagster.openlineage.send import Send
from pip_dagster.openlineage.subject import Subject

if TYPE_CHECKING:
    from pip_dagster.declaration.project import Project

Ranges = tuple[tuple[str | None, str | None], ...]


def pipelines_of(project: Project) -> list[str]:
    """The pipelines that the ledger has entries of, declared or not."""
    with opened(project) as con:
        found = con.execute(
            "SELECT DISTINCT pipeline FROM ledger.extractions UNION SELECT pipeline FROM ledger.scorings"
        )
        return sorted(row[0] for row in found.fetchall())


def count(project: Project, pipelines: Sequence[str], ranges: Ranges) -> int:
    """How many entries there are to export."""
    with opened(project) as con:
        return sum(count_entries(con, EntryFilter(name, ranges=ranges)) for name in pipelines)


def export(
    project: Project, subject: Subject, ranges: Ranges, send: Send, progress: Callable[[int], None] | None = None
) -> int:
    """Send the events of a pipeline's entries in their order; the number of events. `progress` gets entries done.

    Raises:
        LineageError: they cannot be sent. Those that were sent have the same run ids the next time.
        WarehouseError: the warehouse is locked or cannot be read.
    """
    events = 0
    for batch in batches(project, subject, EntryFilter(subject.pipeline, ranges=ranges)):
        for entry in batch:
            for event in events_of(subject, entry):
                send(event)
                events += 1
        if progress:
            progress(len(batch))
    return events
