"""A version compared with the live one on every gate."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pip_dagster.api.shown import Shown, ShownTable

if TYPE_CHECKING:
    from pip_dagster.declaration.pipeline import Pipeline
    from pip_dagster.statistics.gate_result import GateReport, GateResult


@dataclass(frozen=True, repr=False)
class Gating(Shown):
    """What the gates found of a version.

    Attributes:
        report: every gate with figure, threshold and finding, and the rows that would change most.
    """

    report: GateReport

    @property
    def passed(self) -> bool:
        """Whether nothing refuses the version."""
        return self.report.passed

    @property
    def failed(self) -> tuple[GateResult, ...]:
        """The gates that failed."""
        return self.report.failed

    @property
    def unjudged(self) -> tuple[GateResult, ...]:
        """The gates that could not judge, where the declaration does not let that pass."""
        return self.report.unjudged

    def _table(self) -> ShownTable:
        of = self.report
        against = f"v{of.champion}" if of.champion else "nothing: the alias is not set"
        state = "passed" if of.passed else "FAILED" if of.failed else "not judged"
        title = f"{of.pipeline}: {of.model_name} v{of.candidate} against {of.alias} ({against}): {state}"
        rows = [(each.name, each.state, each.figure, each.threshold, each.text) for each in of.results]
        return ShownTable(title, ("gate", "state", "figure", "threshold", "finding"), rows)


def gate_version(pipeline: Pipeline, ref: int | str, progress: Callable[[str], None]) -> GateReport:
    """Compare a version of the pipeline's model with the live one, and store the report if this user may.

    Raises:
        PipelineError: as `promotion.check.check`.
    """
    from pip_dagster.promotion.check import check
    from pip_dagster.promotion.reports import store_report
    from pip_dagster.registry.choose import registry_of
    from pip_dagster.registry.errors import RegistryUnwritable
    from pip_dagster.registry.store import whoami

    scoring = pipeline.spec.scoring
    registry = registry_of(pipeline.project, scoring)
    version = registry.get(scoring.model_name, ref)
    seen = registry.alias(scoring.model_name, scoring.alias)
    report = check(pipeline, registry, version, seen, by=whoami(), progress=progress)
    try:
        store_report(registry.root, report)
    except RegistryUnwritable as error:  # a user who may only read can ask all the same
        progress(f"The report is not stored: {error}")
    return report
