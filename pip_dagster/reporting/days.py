"""The partitions of the period one by one, what failed in them, and the expectations that were not met."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pip_dagster.reporting.content import AttemptLine, CheckLine, Day, Status

if TYPE_CHECKING:
    from pip_dagster.reporting.distributions import Profiled, States
    from pip_dagster.reporting.facts import Facts

_LISTED = 50
_LONGEST = 300


def days_of(facts: Facts, profiled: Profiled | None) -> tuple[Day, ...]:
    """Each partition of the grid from the first of the period to the last, in order."""
    by_key: dict[str, list[dict[str, Any]]] = {}
    for row in facts.scorings:
        by_key.setdefault(row["partition_key"], []).append(row)
    drift = profiled.states if profiled else {}
    failed: dict[str, list[dict[str, Any]]] = {}
    for check in facts.checks:
        if check["status"] != "passed" and check["severity"] != "info":
            failed.setdefault(check["partition_key"], []).append(check)
    # A declaration whose grid has changed since has other keys; then only what was scored is listed.
    keys = facts.grid if {*facts.keys} <= {*facts.grid} else facts.keys
    return tuple(_day(key, by_key.get(key, ()), drift.get(key), failed.get(key, ())) for key in keys)


def _day(key: str, rows: Sequence[dict[str, Any]], drift: States | None, failed: Sequence[Mapping[str, Any]]) -> Day:
    if not rows:
        return Day(key, "missing")
    newest, live = rows[-1], next((row for row in rows if row["is_live"]), None)
    # What was made live after a failed attempt has corrected it.
    corrected = bool(live and (live.get("live_change") or "") > newest["scoring_id"])
    is_reported = newest["status"] != "scored" and not corrected
    of = live or newest
    state, drifted = drift or (None, ())
    status: Status = "blocked" if newest["status"] == "blocked" else "failed"
    if live:
        status = "provisional" if live.get("provisional") else "live"
    return Day(
        partition=key,
        status=status,
        version=of["model_version"],
        rows=of["rows_scored"],
        quarantined=of["rows_quarantined"],
        mean_score=of["mean_score"],
        seconds=of["seconds"],
        attempts=len(rows),
        failed_attempts=sum(row["status"] != "scored" for row in rows),
        reason=shortened(newest["reason"] or "") if is_reported else None,
        unmet=tuple(f"{check['section']}: {check['expectation_id']}" for check in failed),
        critical=any(check["severity"] == "critical" for check in failed),
        unseen=_unseen(of["findings"]),
        drift=state,  # type: ignore[arg-type]
        drifted=drifted,
    )


def _unseen(findings: str | None) -> int:
    try:
        rows = json.loads(findings or "{}").get("unseen_category", {}).get("rows", {})
    except (ValueError, AttributeError):
        return 0
    return sum(int(each) for each in rows.values())


def attempts_of(facts: Facts) -> tuple[AttemptLine, ...]:
    """Attempts that stored no scores, newest first."""
    failed = [row for row in facts.scorings if row["status"] != "scored"]
    failed.sort(key=lambda row: row["scoring_id"], reverse=True)
    return tuple(
        AttemptLine(
            partition=row["partition_key"],
            at=f"{row['made_at']:%Y-%m-%d %H:%M}",
            status=row["status"],
            reason=shortened(row["reason"] or ""),
            run_id=row["run_id"],
        )
        for row in failed[:_LISTED]
    )


def checks_of(facts: Facts) -> tuple[CheckLine, ...]:
    """The expectations that some partition did not meet, or that some rows broke, the worst first."""
    found: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for check in facts.checks:
        found.setdefault((check["section"], check["expectation_id"]), []).append(check)
    lines = []
    for (section, expectation), of in found.items():
        failed = [check["partition_key"] for check in of if check["status"] != "passed"]
        counts = [check["unexpected_count"] for check in of if check["unexpected_count"] is not None]
        newest = of[-1]
        lines.append(
            CheckLine(
                section=section,
                expectation=expectation,
                severity=newest["severity"],
                description=newest["description"] or "",
                partitions_failed=len(failed),
                rows=sum(counts) if counts else None,
                last_failed=max(failed, default=None),
            )
        )
    order = {"critical": 0, "warning": 1, "info": 2}
    lines.sort(key=lambda line: (not line.partitions_failed, order.get(line.severity, 3), -line.partitions_failed))
    return tuple(lines)


def shortened(text: str) -> str:
    """A text of people or of a library, of a length that a table can show."""
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
