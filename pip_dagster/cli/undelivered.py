"""What is live and not at its targets yet, for `status`."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from pip_dagster.cli.output import progress, show_table
from pip_dagster.cli.table import Heading
from pip_dagster.declaration.find import find_declarations, load_declared
from pip_dagster.errors import PipelineError

if TYPE_CHECKING:
    from pip_dagster.declaration.project import Project
    from pip_dagster.ledger.deliveries import Pending

_WITHIN = 2.0  # seconds: status must not wait for a run


@dataclass(frozen=True)
class Undelivered:
    """Pipeline → target → what is pending, of pipelines that declare targets. `faults`: why that is not known."""

    of: dict[str, dict[str, list[Pending]]] = field(default_factory=dict)
    faults: tuple[str, ...] = ()

    def targets(self, pipeline: str, partition_key: str) -> list[str]:
        """The targets that do not have a partition."""
        return [target for target, keys in self._keys.get(pipeline, {}).items() if partition_key in keys]

    @cached_property
    def _keys(self) -> dict[str, dict[str, set[str]]]:
        """Pipeline → target → the partitions that it does not have: `status` asks for each of its partitions."""
        return {
            pipeline: {target: {each.partition_key for each in pending} for target, pending in of.items()}
            for pipeline, of in self.of.items()
        }

    def summary(self, pipeline: str) -> dict[str, Any]:
        """Target → how much is pending, since when and why, for machines."""
        return {
            target: {
                "pending": len(pending),
                "since": min((each.live_since for each in pending), default=None),
                "error": _error(pending),
            }
            for target, pending in self.of.get(pipeline, {}).items()
        }

    def show(self, *, pending_only: bool = False) -> None:
        """Print it below the other tables; nothing where no target is declared."""
        rows = [
            [pipeline, target, each["pending"], each["since"], each["error"]]
            for pipeline in self.of
            for target, each in self.summary(pipeline).items()
            if each["pending"] or not pending_only
        ]
        if rows:
            columns = ["pipeline", "target", "undelivered", "since", Heading("last error", below=True)]
            show_table("Deliveries", columns, rows)
        for fault in self.faults:
            progress(fault)


def read_undelivered(project: Project, pipeline: str | None) -> Undelivered:
    """Read it from the ledger, of one pipeline or of all, without waiting for long."""
    of: dict[str, dict[str, list[Pending]]] = {}
    faults: list[str] = []
    try:
        declared = find_declarations(project)
    except PipelineError:  # status is about what was scored, and shows it whatever is declared now
        return Undelivered()
    for name, (file, attributes) in declared.items():
        if not attributes.get("deliver") or pipeline not in (None, name):
            continue
        from pip_dagster.delivery.outbox import pending_now

        try:
            of[name] = dict(pending_now(load_declared(project, file, attributes), within=_WITHIN))
        except PipelineError as error:
            faults.append(f"{name}: what is not delivered is not known: {error}")
    return Undelivered(of, tuple(faults))


def _error(pending: list[Pending]) -> str:
    return next((each.error for each in reversed(pending) if each.error), "")
