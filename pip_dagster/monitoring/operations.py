"""Whether a partition cost, quarantined and found as many unknown categories as those before it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pip_dagster.declaration.key_order import in_order
from pip_dagster.declaration.monitoring import Monitoring
from pip_dagster.ledger.recent import RecentPartition, recent_partitions
from pip_dagster.monitoring.finding import Finding
from pip_dagster.statistics.outlying import far_above, slowed_down
from pip_dagster.warehouse.access import reading

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from pip_dagster.declaration.pipeline import Pipeline
    from pip_dagster.registry.version import ModelVersion

_NEWEST = 31  # of a long run, as of drift
# Of partitions without a change, as simulated; see tests/statistics/test_outlying.py.
_CHANCE = 0.003


def operations_findings(
    con: DuckDBPyConnection, pipeline: Pipeline, *, keys: Sequence[str] | None = None
) -> list[Finding]:
    """A finding for each rule about the newest live partition, or about each of `keys` that is live.

    `con` reads `ledger.partitions`, of the warehouse or as published.
    """
    name, rules = pipeline.spec.name, pipeline.spec.monitoring or Monitoring()
    ordered = None if keys is None else in_order(pipeline.spec.partitions, keys)
    judged: tuple[Callable[[Sequence[RecentPartition]], _Outlying], ...] = (_throughput, _quarantined, _unseen)
    return [
        _finding(name, window, judge(window))
        for window in _windows(con, name, rules.history + 2, ordered)
        for judge in judged
    ]


def _windows(
    con: DuckDBPyConnection, name: str, length: int, keys: Sequence[str] | None
) -> Iterator[Sequence[RecentPartition]]:
    """Each of the partitions, which are in the order of time, with those before it. Neighbors are read together."""
    if keys is None:
        if found := recent_partitions(con, length, pipeline=name).get(name):
            yield found
        return
    found = []
    for key in reversed(keys):
        place = next((at for at, each in enumerate(found) if each.partition_key == key), None)
        if place is None or place + length > len(found):
            found = recent_partitions(con, length + len(keys), pipeline=name, key=key).get(name, [])
            place = 0 if found and found[0].partition_key == key else None
        if place is not None:
            yield found[place : place + length]


def collect_operations(
    con: DuckDBPyConnection, pipeline: Pipeline, version: ModelVersion, partitions: Sequence[str]
) -> list[Finding]:
    """The findings of partitions that were just scored, from the warehouse, which is opened for the read."""
    with reading(con, pipeline.project, purpose=f"{pipeline.spec.name}: reading costs"):
        newest = in_order(pipeline.spec.partitions, partitions)[-_NEWEST:]
        return operations_findings(con, pipeline, keys=newest)


@dataclass(frozen=True)
class _Outlying:
    """What a rule says: its figure, what is usual at most or at least with whether that is exceeded, and why."""

    subject: str
    value: float | None
    verdict: tuple[float, bool] | None
    cause: str


def _finding(name: str, found: Sequence[RecentPartition], judged: _Outlying) -> Finding:
    of, (threshold, raised) = found[0], judged.verdict or (None, False)
    return Finding(
        event="operations",
        rule="usual",
        subject=judged.subject,
        partition_key=of.partition_key,
        scoring_id=of.scoring_id,
        partitions=1,
        state="warning" if raised else "unjudged" if threshold is None else "ok",
        value=judged.value,
        threshold=threshold,
        chance=_CHANCE,
        rows=of.rows or 0,
        cause=judged.cause if raised else "",
        command=f"pip-dagster lineage {name} {of.partition_key}",
    )


def _throughput(found: Sequence[RecentPartition]) -> _Outlying:
    of = found[0]
    alike = [each for each in found if each.computed_by == of.computed_by]
    pairs = [(each.rows_scored or 0, each.cpu_seconds or 0.0) for each in alike]
    both = alike[:2] == list(found[:2])
    verdict = slowed_down(pairs[:2], pairs[2:]) if both else None
    usual = verdict[0] if verdict else 0.0
    cause = (
        f"{of.rows_per_cpu_second or 0:,.0f} rows per CPU second instead of {usual:,.0f}, with the same libraries, "
        "device and model: a busier machine, or slower storage"
    )
    half = (usual / 2, verdict[1]) if verdict else None
    return _Outlying("rows per CPU second", of.rows_per_cpu_second, half, cause)


def _quarantined(found: Sequence[RecentPartition]) -> _Outlying:
    def counted(each: RecentPartition) -> tuple[int, int]:
        return each.rows_quarantined or 0, each.rows or 0

    return _share("quarantined rows", found, counted, "a rule or a source has changed; `quarantine` has the reasons")


def _unseen(found: Sequence[RecentPartition]) -> _Outlying:
    def counted(each: RecentPartition) -> tuple[int, int]:
        return max(each.unseen.values(), default=0), each.rows or 0

    worst = max(found[0].unseen.items(), key=lambda item: item[1], default=("", 0))[0]
    return _share("unseen categories", found, counted, f"new values of {worst}, which the model was not trained on")


def _share(
    subject: str,
    found: Sequence[RecentPartition],
    counted: Callable[[RecentPartition], tuple[int, int]],
    why: str,
) -> _Outlying:
    count, rows = counted(found[0])
    verdict = far_above(count, rows, [counted(each) for each in found[1:]])
    limit = verdict[0] if verdict else 0.0
    cause = f"{count:,} of {rows:,} rows; at most {limit:.2%} are usual: {why}"
    return _Outlying(subject, count / rows if rows else None, verdict, cause)
