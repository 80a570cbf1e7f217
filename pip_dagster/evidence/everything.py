"""Verifies all that there is: chain, ledger, stored rows, views, registry, published files and anchors."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from pip_dagster.evidence.contents import content_faults
from pip_dagster.evidence.structure import as_created, structure_faults, view_faults
from pip_dagster.evidence.verify import Verified, verify_anchors
from pip_dagster.ledger.fault import Fault
from pip_dagster.ledger.promotions import alias_moves, unrecorded
from pip_dagster.ledger.verify import verify as verify_chain
from pip_dagster.ledger.verify_published import pending_partitions, published_faults, without_digest
from pip_dagster.registry.store import Registry
from pip_dagster.warehouse import stamp
from pip_dagster.warehouse.access import see_newest
from pip_dagster.warehouse.connect import open_warehouse, workspace

if TYPE_CHECKING:
    from pip_dagster.declaration.project import Project
    from pip_dagster.registry.aliases import AliasChange


@dataclass
class Everything:
    """What was found.

    Attributes:
        entries: How many entries the audit has.
        head: The hash of the newest.
        of_chain: The first fault of the chain, or of what its entries say of ledger and registry.
        stored: Faults of tables, views and stored rows.
        published: Faults of published files.
        without_digest: Published partitions that were not compared, since they have no digest.
        unpublished: Partitions that were not compared, since they are not published yet.
        pending: Moves of aliases that no command recorded, each behind its model.
        anchored: What the anchors show, where they were requested.
    """

    entries: int = 0
    head: str | None = None
    of_chain: Fault | None = None
    stored: list[Fault] = field(default_factory=list)
    published: list[Fault] = field(default_factory=list)
    without_digest: int = 0
    unpublished: int = 0
    pending: list[tuple[str, AliasChange]] = field(default_factory=list)
    anchored: Verified | None = None

    @property
    def faults(self) -> list[Fault]:
        """All faults; of the chain only the first, since the others mostly follow from it."""
        of_anchors = self.anchored.faults if self.anchored else []
        return [*filter(None, [self.of_chain]), *of_anchors, *self.stored, *self.published]


def verify_everything(
    project: Project, *, expect: str | None, anchors: bool, progress: Callable[[str], object] = lambda text: None
) -> Everything:
    """Verify the project's warehouse, registry and published files, and with `anchors` compare them with those.

    Raises:
        ProjectError: anchors are to be compared, and none can be read.
        RegistryError: an alias's history cannot be read.
        WarehouseError: there is no warehouse, or it stayed locked.
    """
    registry, stamps, found = Registry(project.registry), stamp.stamps_of(project), Everything()
    with workspace(threads=2) as con, as_created() as own:
        new = partial(stamp.check_new, con, project, stamps)
        place, purpose = project.warehouse, "pip-dagster audit verify"
        with open_warehouse(con, place, purpose=purpose, read_only=True, new=new):
            found.stored = structure_faults(con, own)
            if found.stored:  # then nothing else of it can be read
                return found
            see_newest(con)
            totals = con.execute("SELECT count(*), arg_max(hash, seq) FROM ledger.audit").fetchone()
            found.entries, found.head = totals or (0, None)
            if anchors:
                found.anchored = verify_anchors(con, project)
            moves = alias_moves(registry)
            with _guarded(found.stored, "the audit's entries"):
                found.of_chain = verify_chain(con, moves=moves, expect=expect, registry=registry, stamps=stamps)
                found.pending = unrecorded(con, registry)
            with _guarded(found.stored, "the views"):
                found.stored += view_faults(con, own)
            with _guarded(found.stored, "the stored rows"):
                found.stored += content_faults(con, progress)
            progress("verifying the published files")
            with _guarded(found.published, "the published files"):
                found.published += published_faults(con, project)
                if project.publishes:
                    found.without_digest, found.unpublished = without_digest(con), pending_partitions(con)
    return found


@contextmanager
def _guarded(faults: list[Fault], what: str) -> Iterator[None]:
    """Report what cannot be compared, since a forger left rows that nothing of pip_dagster writes."""
    import duckdb

    try:
        yield
    except (duckdb.Error, ArithmeticError, AssertionError, AttributeError, LookupError, TypeError, ValueError) as error:
        text = f"{what} cannot be compared: rows or tables are not as pip_dagster writes them ({type(error).__name__})"
        faults.append(Fault(None, "ledger", text))
