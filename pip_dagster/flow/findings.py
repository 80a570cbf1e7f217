"""Which rows and partitions are scored: what the declared policy makes of the guard's counts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from pip_dagster.flow.guard import Encoded, Findings, findings_sql, read_findings
from pip_dagster.flow.stage import Stage
from pip_dagster.plural import plural
from pip_dagster.registry.composite import SEGMENT_COLUMN

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from pip_dagster.declaration.spec import PipelineSpec


# Each takes three aggregates, whose values for some thousand rows each thread holds at once.
_FEATURES_AT_ONCE = 128
_NAMED = 20  # columns in a sentence


@dataclass(frozen=True)
class ScoringPolicy:
    """What is refused and what a scored row carries: as declared, unless a replay or a gate scores otherwise.

    `carried`: the feature columns beside a score, apart from those that a decision mentions. `refuse_not_finite`: a
    replay compares the infinite scores that were stored before they were refused.
    """

    on_unseen_category: Literal["missing", "error", "quarantine"]
    max_quarantined: float
    carried: tuple[str, ...]
    refuse_not_finite: bool = True

    @classmethod
    def declared(cls, spec: PipelineSpec) -> ScoringPolicy:
        """The declaration's own."""
        most = spec.quality.max_quarantined if spec.quality else 1.0
        carried = (*spec.features.key, spec.features.partition_column, *spec.unit)
        return cls(spec.scoring.on_unseen_category, most, carried)


def quarantine_unscorable(stage: Stage, encoded: Sequence[Encoded], *, unseen: bool) -> None:
    """Quarantine the rows that no model of a composite is for, if it was composed so; with `unseen`, unseen categories.

    Other values that must not be scored fail the partition instead.
    """
    if conditions := [feature.unseen for feature in encoded if feature.unseen and unseen]:
        stage.quarantine_where(" OR ".join(conditions), "unseen_category")
    for condition in (feature.apart for feature in encoded if feature.apart):
        stage.quarantine_where(condition, "no_segment")


def count_findings(
    con: DuckDBPyConnection, encoded: Sequence[Encoded], partitions: Sequence[str], relation: str
) -> dict[str, Findings]:
    """The guard's counts over `relation`, for each of `partitions`, the empty ones included."""
    found = {key: Findings(0, {}, {}, {}) for key in partitions}
    for at in range(0, len(encoded), _FEATURES_AT_ONCE) or [0]:
        some = encoded[at : at + _FEATURES_AT_ONCE]
        for key, *counts in con.execute(findings_sql(some, relation)).fetchall():
            if key in found:
                found[key] = found[key].beside(read_findings(counts, some))
    return found


def refusal(found: Findings, policy: ScoringPolicy, encoded: Sequence[Encoded]) -> str | None:
    """Why a partition must not be scored, or None."""
    if found.invalid:
        means = {feature.name: feature.invalid_means for feature in encoded}
        listed = ", ".join(f"{name} in {plural(count, 'row')} ({means[name]})" for name, count in found.invalid.items())
        return (
            f"values that the model would score without an error: {listed}; "
            "correct the source or bound them in the feature SQL"
        )
    if found.unseen and policy.on_unseen_category == "error":
        listed = ", ".join(f"{name} in {plural(count, 'row')}" for name, count in found.unseen.items())
        return f"categories the model has never seen: {listed}; scoring.on_unseen_category is error"
    return None


def too_many_quarantined(apart: int, others: int, policy: ScoringPolicy) -> str | None:
    """Why a partition with so many rows in quarantine is blocked, or None."""
    most = policy.max_quarantined
    if not apart or apart <= most * (apart + others):
        return None
    return (
        f"{apart} of {apart + others} rows are in quarantine, {apart / (apart + others):.1%}; "
        f"quality.max_quarantined is {most:.1%}"
    )


def recorded(found: Findings, unseen: Mapping[str, int], apart: int, policy: ScoringPolicy) -> dict[str, Any]:
    """The findings worth a place in the ledger."""
    kept: dict[str, Any] = {} if found.rows or apart else {"empty": "the sources have no row for this partition"}
    if unseen:
        kept["unseen_category"] = {"policy": policy.on_unseen_category, "rows": unseen}
    if undecided := found.missing.get(SEGMENT_COLUMN):
        kept["segment_condition_null"] = undecided
    if found.all_missing:
        kept["all_missing"] = found.all_missing
    return kept


def in_words(found: Mapping[str, Any]) -> str:
    """Recorded findings as sentences; empty where there are none to show."""
    parts = ["The sources have no row for this partition."] if "empty" in found else []
    for name, count in found.get("unseen_category", {}).get("rows", {}).items():
        parts.append(f"{plural(count, 'row')} with a category of {name} that the model has never seen.")
    if count := found.get("segment_condition_null"):
        parts.append(f"A segment's condition is NULL in {plural(count, 'row')}.")
    if missing := found.get("all_missing"):
        more = f" and {len(missing) - _NAMED:,} more" if len(missing) > _NAMED else ""
        parts.append(f"No value at all in {', '.join(missing[:_NAMED])}{more}.")
    return " ".join(parts)
