"""Reports of gates in the registry, which name the rows whose scores would change most."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from pip_dagster.erasure.place import ErasureRequest, Removed
from pip_dagster.errors import ErasureError
from pip_dagster.plural import plural
from pip_dagster.promotion.reports import rewrite_report, stored_reports

if TYPE_CHECKING:
    from pip_dagster.declaration.project import Project
    from pip_dagster.statistics.gate_result import GateReport


class GateReportsPlace:
    """The rows that reports name, of the partitions concerned. Figures of gates and segments stay."""

    name = "gate reports"

    def __init__(self, project: Project) -> None:
        self._root = project.registry

    def count(self, request: ErasureRequest) -> int:
        """Rows that are named."""
        return sum(len(report.movers) - len(left.movers) for _, report, left in self._reports(request))

    def remove(self, request: ErasureRequest) -> Removed:
        """Write the reports without them; whose they are does not show, so all of a concerned partition go."""
        before = after = 0
        for path, report, left in self._reports(request):
            before, after = before + len(report.movers), after + len(left.movers)
            if left != report:
                rewrite_report(path, left)
        remains = "figures of gates and of segments, which may be of few rows; reports that people wrote elsewhere"
        return Removed(before, before - after, after, "rows of the partitions removed from the reports", remains)

    def verify(self, request: ErasureRequest) -> str:
        """Read them again.

        Raises:
            ErasureError: rows are named.
        """
        if left := self.count(request):
            raise ErasureError(
                f"{plural(left, 'row')} of these partitions are in reports of gates. Resume the erasure."
            )
        return "every report of a gate was read: none names a row of these partitions"

    def _reports(self, request: ErasureRequest) -> Iterator[tuple[Path, GateReport, GateReport]]:
        for path, report in stored_reports(self._root):
            keys = {*request.partitions.get(report.pipeline, ())}
            left = tuple(mover for mover in report.movers if mover.partition_key not in keys)
            yield path, report, replace(report, movers=left)
