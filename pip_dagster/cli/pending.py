"""What the ledger holds and the published files do not show, for `status` and `plan`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pip_dagster.cli.output import progress
from pip_dagster.errors import OtherWarehouseError, RestoredWarehouseError, WarehouseError
from pip_dagster.plural import plural

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pip_dagster.declaration.project import Project

_WITHIN = 2.0  # seconds: status must not wait for a run
_SHOWN = 5


@dataclass(frozen=True)
class Waiting:
    """Pipeline → its pending partitions. `error`: why they are not known."""

    of: dict[str, list[str]] = field(default_factory=dict)
    error: WarehouseError | None = None

    def keys(self, pipeline: str) -> list[str] | None:
        """The pending partitions of a pipeline; None where they are not known."""
        return None if self.error else self.of.get(pipeline, [])

    def show(self) -> None:
        """Report it beside the result.

        Raises:
            OtherWarehouseError: the warehouse was lost, replaced, or is older than what is published.
            RestoredWarehouseError: it is from a backup of before an erasure.
        """
        if isinstance(self.error, OtherWarehouseError | RestoredWarehouseError):
            raise self.error
        if self.error:
            progress(f"Whether stored partitions are not published yet is not known: {self.error}")
        for pipeline, keys in self.of.items():
            progress(pending_text(pipeline, keys))


def read_waiting(project: Project) -> Waiting:
    """Read it from the ledger, which nobody waits for long."""
    from pip_dagster.warehouse.access import check_not_restored, pending_now

    try:
        check_not_restored(project, within=_WITHIN)
        found = pending_now(project, within=_WITHIN)
    except WarehouseError as error:
        return Waiting(error=error)
    of: dict[str, list[str]] = {}
    for pipeline, key, _ in found:
        of.setdefault(pipeline, []).append(key)
    return Waiting(of)


def pending_text(pipeline: str, keys: Sequence[str]) -> str:
    """The pending partitions of a pipeline in a sentence, with what publishes them."""
    more = f" and {len(keys) - _SHOWN} more" if len(keys) > _SHOWN else ""
    return (
        f"{pipeline}: {plural(len(keys), 'partition')} stored and not published yet: {', '.join(keys[:_SHOWN])}{more}. "
        "The next run or tick publishes them, or `pip-dagster publish`."
    )
