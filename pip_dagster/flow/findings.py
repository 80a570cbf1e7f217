"""What the guard's counts mean for a partition: refused, blocked, or scored with a note in the ledger."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pip_dagster.flow.guard import Encoded, Findings, findings_sql, read_findings
from pip_dagster.registry.composite import SEGMENT_COLUMN

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from pip_dagster.declaration.spec import PipelineSpec


def count_findings(
    con: DuckDBPyConnection, encoded: Sequence[Encoded], partitions: Sequence[str], relation: str
) -> dict[str, Findings]:
    """The guard's counts over `relation`, for each of `partitions`, the empty ones included."""
    rows = con.execute(findings_sql(encoded, relation)).fetchall()
    found = {row[0]: read_findings(row[1:], encoded) for row in rows}
    return {key: found.get(key, Findings(0, {}, {}, {})) for key in partitions}


def refusal(found: Findings, spec: PipelineSpec, encoded: Sequence[Encoded]) -> str | None:
    """Why a partition must not be scored, or None."""
    if found.invalid:
        means = {feature.name: feature.invalid_means for feature in encoded}
        listed = ", ".join(f"{name} in {count} rows ({means[name]})" for name, count in found.invalid.items())
        return (
            f"values that the model would score without an error: {listed}; "
            "correct the source or bound them in the feature SQL"
        )
    if found.unseen and spec.scoring.on_unseen_category == "error":
        listed = ", ".join(f"{name} in {count} rows" for name, count in found.unseen.items())
        return f"categories the model has never seen: {listed}; scoring.on_unseen_category is error"
    return None


def too_many_apart(apart: int, others: int, spec: PipelineSpec) -> str | None:
    """Why a partition with so many rows in quarantine is blocked, or None."""
    most = spec.quality.max_quarantined if spec.quality else 1.0
    if not apart or apart <= most * (apart + others):
        return None
    return (
        f"{apart} of {apart + others} rows are in quarantine, {apart / (apart + others):.1%}; "
        f"quality.max_quarantined is {most:.1%}"
    )


def recorded(found: Findings, unseen: Mapping[str, int], apart: int, spec: PipelineSpec) -> dict[str, Any]:
    """The findings worth a place in the ledger."""
    kept: dict[str, Any] = {} if found.rows or apart else {"empty": "the sources have no row for this partition"}
    if unseen:
        kept["unseen_category"] = {"policy": spec.scoring.on_unseen_category, "rows": unseen}
    if undecided := found.missing.get(SEGMENT_COLUMN):
        kept["segment_condition_null"] = undecided
    if found.all_missing:
        kept["all_missing"] = found.all_missing
    return kept
