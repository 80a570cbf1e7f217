"""A report's sha256 in the audit: proof of what was reported, and when."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pip_dagster import clock
from pip_dagster.ledger import audit
from pip_dagster.warehouse.access import writing
from pip_dagster.warehouse.connect import workspace
from pip_dagster.warehouse.transaction import transaction

if TYPE_CHECKING:
    from pip_dagster.declaration.project import Project
    from pip_dagster.reporting.content import Provenance


def record(
    project: Project, pipeline: str, origin: Provenance, sha256: str, period: tuple[str, str], *, by: str, why: str
) -> None:
    """Add an entry with the sha256 of the page and the ledger entry that it was read from.

    The same page can be written again from the ledger: entries that record reports change no report.

    Raises:
        WarehouseError: it cannot be written.
    """
    first, last = period
    details = {
        "first": first,
        "last": last,
        "ledger_entry": origin.ledger_entry,
        "ledger_head": origin.ledger_head,
        "why": why,
    }
    event = audit.Event("report", audit.micros(clock.now()), by, pipeline, {"report": sha256}, details)
    with (
        workspace(threads=1) as con,
        writing(con, project, purpose=f"{pipeline}: recording a report"),
        transaction(con),
    ):
        audit.append(con, [event])
