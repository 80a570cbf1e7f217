"""Moving an alias: through the gates of every pipeline that scores by it, unless somebody else moves it meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pip_dagster.declaration.find import find_declarations, find_pipeline
from pip_dagster.declaration.pipeline import Pipeline
from pip_dagster.declaration.project import Project
from pip_dagster.declaration.scoring import split_models_uri
from pip_dagster.ledger.versions import check_recorded
from pip_dagster.promotion.check import check
from pip_dagster.promotion.reports import store_report
from pip_dagster.registry.aliases import AliasChange
from pip_dagster.registry.errors import PromotionRefused
from pip_dagster.registry.protocol import ModelRegistry
from pip_dagster.registry.store import Registry
from pip_dagster.registry.version import ModelVersion
from pip_dagster.statistics.gate_result import GateReport
from pip_dagster.warehouse.access import check_may_write
from pip_dagster.warehouse.faults import check_writable


def pipelines_of(project: Project, model_name: str, alias: str) -> list[Pipeline]:
    """The declared pipelines that score by this alias of this model.

    Raises:
        DeclarationError: one of them is not declared as it should be.
    """
    found = []
    for name, (_, attributes) in find_declarations(project).items():
        scoring = attributes.get("scoring")
        if not isinstance(scoring, dict):
            continue
        scoring = split_models_uri(scoring)
        if (scoring.get("model_name"), scoring.get("alias", "champion")) == (model_name, alias):
            found.append(find_pipeline(project, name))
    return found


@dataclass(frozen=True)
class Promotion:
    """A promotion that has been through its gates: what they found, and where the alias pointed when they began."""

    registry: ModelRegistry
    candidate: ModelVersion
    alias: str
    seen: int | None
    reports: tuple[GateReport, ...]
    files: tuple[Path, ...]
    approvers: int
    by: str

    @property
    def refusal(self) -> str | None:
        """Which gates were not passed or not judged, and by how much; None when nothing refuses."""
        said = [f"{report.pipeline}: {report.refusal}" for report in self.reports if not report.passed]
        return "; ".join(said) or None

    @property
    def failed(self) -> bool:
        """Whether a gate failed, so that accepting what could not be judged is not enough."""
        return any(report.failed for report in self.reports)

    def commit(
        self,
        *,
        why: str = "",
        override: str | None = None,
        accept_unjudged: str | None = None,
        approved_by: str | None = None,
    ) -> AliasChange:
        """Move the alias, if it still points where it did; `why` is kept with the gates' results.

        Args:
            why: the reason of the move.
            override: the reason to promote in spite of gates that were not passed.
            accept_unjudged: the reason to promote although gates could not judge; it excuses no gate that failed.
            approved_by: the second person.

        Raises PromotionRefused (gates, or no second approver), AliasConflict (somebody moved it), RegistryBusy.
        """
        if self.approvers > 1 and (not approved_by or approved_by == self.by):
            raise PromotionRefused(
                f"{self.candidate} was not promoted: {self.alias} needs a second approver (gates.approvers: 2) beside "
                f"{self.by}; name who looked at the report with --approved-by NAME"
            )
        accepted = bool(accept_unjudged) and not self.failed
        if self.refusal and not override and not accepted:
            remedy = (
                "Fix the model, or promote it all the same with --override"
                if self.failed
                else "Wait for labels, or promote it without their judgement with --accept-unjudged"
            )
            raise PromotionRefused(
                f"{self.candidate} was not promoted, {self.alias} stays "
                f"{f'v{self.seen}' if self.seen else 'not set'}. {self.refusal}. {remedy} "
                '"REASON", which is kept in the history'
            )
        record = self._record(override, accept_unjudged)
        return self.registry.set_alias(
            *(self.candidate.name, self.alias, self.candidate.version),
            by=self.by,
            why="; ".join(filter(None, (why, record, approved_by and f"approved by {approved_by}"))),
            expect=self.seen,
        )

    def _record(self, override: str | None, accept_unjudged: str | None) -> str:
        where = ", ".join(f"reports/{file.name}" for file in self.files)
        if self.refusal and override:
            return f"override: {override}; failed gates: {self.refusal} ({where})"
        if self.refusal:
            return f"accepted unjudged: {accept_unjudged}; {self.refusal} ({where})"
        return f"gates passed ({where})" if self.files else ""


def attempt(
    project: Project,
    candidate: ModelVersion,
    alias: str,
    *,
    by: str,
    progress: Callable[[str], None],
    registry: ModelRegistry | None = None,
) -> Promotion:
    """Put `candidate` through the gates of every pipeline that scores by this alias, and keep the reports.

    `registry` is where the alias moves; the project's folder when absent.
    Raises ReplacedVersion, DeclarationError, SourceError or WarehouseError as `check` does; StorageError if this user
    may not write the registry or the warehouse.
    """
    registry = registry or Registry(project.registry)
    check_may_write(project)
    check_writable(registry.root / candidate.name)
    check_recorded(project, candidate, purpose=f"{candidate}: reading the ledger for a promotion")
    seen = registry.alias(candidate.name, alias)
    pipelines = pipelines_of(project, candidate.name, alias)
    reports = tuple(check(pipeline, registry, candidate, seen, by=by, progress=progress) for pipeline in pipelines)
    files = tuple(store_report(registry.root, report) for report in reports)
    approvers = max((pipeline.gates.approvers for pipeline in pipelines), default=1)
    return Promotion(registry, candidate, alias, seen, reports, files, approvers, by)
