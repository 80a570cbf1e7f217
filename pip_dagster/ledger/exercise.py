"""Exercises in the audit: that a proof or a replay was carried out, and what it found."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Literal

from pip_dagster import clock
from pip_dagster.ledger import audit
from pip_dagster.warehouse.access import writing
from pip_dagster.warehouse.connect import workspace
from pip_dagster.warehouse.transaction import transaction

if TYPE_CHECKING:
    from pip_dagster.declaration.project import Project


@dataclass(frozen=True)
class Exercise:
    """What was carried out.

    Attributes:
        exercise: Its kind.
        partition: The partition, or the first and the last of several.
        passed: Whether it found nothing wrong.
        found: What it found, in words, without values of rows.
        sql_digest: The feature SQL that it was of.
    """

    exercise: Literal["point in time", "replay"]
    partition: str
    passed: bool
    found: str
    sql_digest: str | None = None


def record_exercise(project: Project, pipeline: str, done: Exercise, *, by: str) -> None:
    """Add an entry to the audit.

    Raises:
        WarehouseError: it cannot be written.
    """
    details = asdict(done)
    subject = {"exercise": details.pop("exercise")}
    event = audit.Event("exercised", audit.micros(clock.now()), by, pipeline, subject, details)
    with (
        workspace(threads=1) as con,
        writing(con, project, purpose=f"{pipeline}: recording a {done.exercise} exercise"),
        transaction(con),
    ):
        audit.append(con, [event])
