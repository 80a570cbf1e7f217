"""A person accepts what `audit verify` reports, or a warehouse that runs refuse; the audit records who and why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pip_dagster import clock
from pip_dagster.errors import NoWarehouseError, OtherWarehouseError, RegistryError, RestoredWarehouseError
from pip_dagster.ledger import audit, reissued, versions
from pip_dagster.ledger.promotions import accept_lost, append_promotions, write_registry_stamp
from pip_dagster.registry.store import Registry
from pip_dagster.warehouse import lock, stamp
from pip_dagster.warehouse.access import check_not_restored, reading, see_newest, writing
from pip_dagster.warehouse.connect import open_warehouse, workspace
from pip_dagster.warehouse.transaction import transaction

if TYPE_CHECKING:
    from pathlib import Path

    from pip_dagster.declaration.project import Project


@dataclass(frozen=True)
class Accepted:
    """How much was accepted. `aside`: where the files that another ledger published are now."""

    moves: int = 0
    versions: int = 0
    warehouse: bool = False
    aside: Path | None = None


def accept(
    project: Project, *, by: str, why: str, moves: bool = False, replaced: bool = False, warehouse: bool = False
) -> Accepted:
    """Accept alias moves that no command recorded, versions that were `replaced`, and the warehouse as it is.

    What another ledger published is moved aside, and everything that this one holds is published.

    Raises:
        OtherWarehouseError: the warehouse is not the one written to last, and is not accepted.
        RestoredWarehouseError: it is from a backup of before an erasure: it is accepted, and nothing is published.
        WarehouseError: it cannot be written.
    """
    refusal = _refusal(project) if warehouse else None
    aside = None
    if refusal:
        _record(project, by, {"why": why, "refusal": refusal})
        aside = _replace(project)
        try:
            check_not_restored(project, within=lock.declared_deadline())
        except RestoredWarehouseError as error:
            moved = f" What was published is in {aside}." if aside else ""
            raise RestoredWarehouseError(f"The warehouse is accepted.{moved} {error}") from error
    registry = Registry(project.registry)
    with workspace(threads=2) as con, writing(con, project, purpose="accepting"):
        now = audit.micros(clock.now())
        with transaction(con):
            events = []
            for known in versions.recorded(con) if replaced else ():
                try:
                    version = registry.get(known.model_name, known.model_version)
                except RegistryError:  # gone or damaged, which is nothing to accept
                    continue
                if known.differs(version):
                    events.append(versions.accepted(version, by, why, now))
            audit.append(con, events + (reissued.unrecorded(con, registry) if replaced else []))
            count = 0
            if moves:
                count = accept_lost(con, registry, by=by, why=why) + append_promotions(con, registry, by=by, why=why)
        write_registry_stamp(con, project)
    return Accepted(count, len(events), bool(refusal), aside)


def _refusal(project: Project) -> str | None:
    """Why runs refuse the warehouse; None where they do not."""
    try:
        with workspace(threads=1) as con, reading(con, project, purpose="accepting"):
            return None
    except NoWarehouseError:
        return None
    except OtherWarehouseError as error:
        return error.reason


def _record(project: Project, by: str, details: dict[str, object]) -> None:
    """Record that the warehouse was accepted, in a new ledger where there is none.

    First of all: whoever is killed behind it leaves a warehouse that is refused still, and is to be accepted again.
    """
    with workspace(threads=1) as con, open_warehouse(con, project.warehouse, purpose="accepting"):
        see_newest(con)
        with transaction(con):
            subject = {"warehouse": str(project.warehouse)}
            audit.append(con, [audit.Event("accepted", audit.micros(clock.now()), by, None, subject, details)])


def _replace(project: Project) -> Path | None:
    """Move the published files aside, then remove the stamps."""
    aside = None
    if project.publishes and project.published.exists():
        aside = project.published.with_name(f"{project.published.name}.before-{clock.now():%Y%m%dT%H%M%S}")
        project.published.rename(aside)
        project.published_database.unlink(missing_ok=True)
    for path in stamp.registry_stamps(project):
        path.unlink(missing_ok=True)
    return aside
