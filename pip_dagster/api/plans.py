"""The plan of a pipeline: which partitions are stale, and why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pip_dagster.api.shown import Shown, ShownTable
from pip_dagster.plural import plural

if TYPE_CHECKING:
    from pip_dagster.ledger.plan_values import OnHold, Plan, Stale


@dataclass(frozen=True, repr=False)
class PipelinePlan(Shown):
    """What a plan found when it was made.

    Attributes:
        plan: the stale partitions, those on hold, and how many are current.
    """

    plan: Plan

    @property
    def stale(self) -> tuple[Stale, ...]:
        """The partitions to rerun, each with its reasons, oldest first."""
        return self.plan.stale

    @property
    def on_hold(self) -> tuple[OnHold, ...]:
        """The partitions with a change that the rerun policy only reports."""
        return self.plan.on_hold

    @property
    def current(self) -> int:
        """How many partitions have nothing to report."""
        return self.plan.current

    def _table(self) -> ShownTable:
        found = self.plan
        stale = plural(len(found.stale), "stale partition")
        title = f"{found.pipeline}: {stale}, {len(found.on_hold):,} on hold, {found.current:,} current"
        listed = [(each, "stale") for each in found.stale] + [(each, "on hold") for each in found.on_hold]
        rows = [(each.partition.key, state, "; ".join(of.text for of in each.reasons)) for each, state in listed]
        return ShownTable(title, ("partition", "state", "why"), rows)
