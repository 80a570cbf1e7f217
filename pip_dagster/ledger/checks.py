"""The verdicts of the expectations on each partition, recorded beside the entry that they judge."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import TYPE_CHECKING, Any

from pip_dagster import clock
from pip_dagster.ledger.record import dicts
from pip_dagster.ledger.rows import insert_rows

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from pip_dagster.quality.verdict import Verdict


SPLIT = "split"
# The descriptions of that section's checks; an arm's own checks end in its alias.
SPLIT_CHECKS = {
    "arms": "The arms of the partition are decided.",
    "arm": "The arm is live for its share of the units.",
    "sample_ratio": "The units are shared as declared (chi-squared test).",
    "flip_rate": "The canary decides as the champion does.",
    "score_psi": "The canary's scores are distributed as the champion's are.",
    "mean_shift": "The canary's mean score is the champion's.",
    "segment_flip_rate": "The canary decides as the champion does in each segment.",
    "metric": "The canary's past scores are as good as the champion's, by their labels.",
    "segment_psi": "The canary's scores are distributed as the champion's are in each segment.",
}


@dataclass(frozen=True)
class CheckEntry:
    """One row of `ledger.checks`. `entry_id`: the extraction's (sources) or scoring's (features, predictions) id."""

    entry_id: str
    pipeline: str
    partition_key: str
    section: str
    expectation_id: str
    type: str
    severity: str
    status: str
    unexpected_count: int | None
    element_count: int | None
    unexpected_percent: float | None
    observed: str | None
    examples: str | None
    error: str | None
    description: str
    made_at: datetime

    @classmethod
    def of(cls, verdict: Verdict, entry_id: str, pipeline: str, partition_key: str) -> CheckEntry:
        """A verdict as a row."""
        expectation = verdict.expectation
        return cls(
            entry_id=entry_id,
            pipeline=pipeline,
            partition_key=partition_key,
            section=expectation.section,
            expectation_id=expectation.id,
            type=expectation.type,
            severity=expectation.severity,
            status=verdict.status,
            unexpected_count=verdict.unexpected_count,
            element_count=verdict.element_count,
            unexpected_percent=verdict.unexpected_percent,
            observed=None if verdict.observed is None else _json(verdict.observed),
            examples=_json(list(verdict.examples)) if verdict.examples else None,
            error=verdict.error,
            description=expectation.description,
            made_at=clock.now(),
        )

    @property
    def text(self) -> str:
        """The verdict, where it is not a pass, in words."""
        what = f"{self.section}: {self.expectation_id}"
        if self.section == SPLIT:
            return f"{what}: {json.loads(self.observed or 'null')}"
        if self.status == "errored":
            return f"{what} could not be evaluated ({self.error})"
        if self.unexpected_count is not None:
            return f"{what} is broken by {self.unexpected_count} of {self.element_count} rows"
        return f"{what} is not met" + ("" if self.observed is None else f" (observed {self.observed})")

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The examples, parsed."""
        return list(json.loads(self.examples)) if self.examples else []


def split_check(
    pipeline: str,
    partition_key: str,
    change_id: str,
    name: str,
    *,
    passed: bool | None,
    observed: Any,
) -> CheckEntry:
    """A verdict on how a partition is split; beside the live change, not a scoring. It warns and never blocks.

    `passed` is None where it could not be evaluated.
    """
    nothing = dict.fromkeys(("unexpected_count", "element_count", "unexpected_percent", "examples", "error"))
    return CheckEntry(
        entry_id=change_id,
        pipeline=pipeline,
        partition_key=partition_key,
        section=SPLIT,
        expectation_id=name,
        type="split",
        severity="warning",
        status="errored" if passed is None else "passed" if passed else "failed",
        observed=_json(observed),
        description=SPLIT_CHECKS[name.partition(" ")[0]],
        made_at=clock.now(),
        **nothing,
    )


def unmet(entries: Sequence[CheckEntry]) -> str | None:
    """The critical ones that are not met, or could not be evaluated, in words; None where there are none."""
    wrong = [entry for entry in entries if entry.severity == "critical" and entry.status != "passed"]
    return "; ".join(entry.text for entry in wrong) or None


def insert_checks(con: DuckDBPyConnection, entries: Sequence[CheckEntry]) -> None:
    """Append rows, all of them in one statement. The warehouse is the current catalog."""
    insert_rows(con, "checks", entries)


def checks_of(con: DuckDBPyConnection, entry_ids: Sequence[str]) -> Mapping[str, tuple[CheckEntry, ...]]:
    """The rows of these entries, by entry, in the order they were declared."""
    names = ", ".join(field.name for field in fields(CheckEntry))
    result = con.execute(
        f"SELECT {names} FROM ledger.checks WHERE list_contains($ids, entry_id) ORDER BY rowid",
        {"ids": list(entry_ids)},
    )
    found: dict[str, list[CheckEntry]] = {}
    for row in dicts(result):
        found.setdefault(row["entry_id"], []).append(CheckEntry(**row))
    return {entry_id: tuple(entries) for entry_id, entries in found.items()}


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)
