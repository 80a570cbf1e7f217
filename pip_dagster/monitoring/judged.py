"""Judging what is live and keeping the result: each judgement is bound to the scorings that it was computed from.

A rerun, rollback or correction changes what is live; the judgements that were computed from it are then no longer
current, and the next call appends new ones. What `ledger.live_drift` shows equals a computation from nothing.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from pip_dagster import clock
from pip_dagster.declaration.key_order import in_order
from pip_dagster.declaration.monitoring import Monitoring
from pip_dagster.errors import NoWarehouseError
from pip_dagster.ledger.judgements import (
    DriftJudgement,
    StoredJudgement,
    figures_of,
    insert_judgements,
    newest_judgements,
)
from pip_dagster.ledger.profiles import LiveScoring, live_profiled, profile_rows
from pip_dagster.ledger.record import ScoringEntry, new_id
from pip_dagster.monitoring.drift import JudgedPartition, PartitionDrift, at_once, judge_all
from pip_dagster.monitoring.judgement_rows import STORED, drift_from, rows_of
from pip_dagster.monitoring.series import needed_for, reaches, season_of, series_of
from pip_dagster.quoted import said
from pip_dagster.warehouse.access import reading, writing
from pip_dagster.warehouse.interrupts import raise_if_interrupted

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from pip_dagster.declaration.pipeline import Pipeline
    from pip_dagster.registry.version import ModelVersion

LOG = logging.getLogger("pip_dagster")

# Of a longer run the newest partitions are judged; `monitor --backfill` judges the others.
NEWEST = 31
# What drift depends on of what is declared.
_OF_DRIFT = (*("history", "false_alarms", "psi", "missing", "unseen", "references", "season", "segments"),)


def judge_drift(
    con: DuckDBPyConnection,
    pipeline: Pipeline,
    version: ModelVersion,
    partitions: Sequence[str] | None = None,
    *,
    publish: bool = True,
) -> list[PartitionDrift]:
    """Judge these live partitions, or the newest, on the bins of a version; their drift, in order.

    What is stored is read where it was computed from what is live now, by the same rules; else it is judged and
    stored, and so are other partitions whose judgement no longer holds. Partitions that are not profiled are left out.
    """
    purpose = f"{pipeline.spec.name}: judging drift"
    try:
        with reading(con, pipeline.project, purpose=purpose):
            current = _Current.of(con, pipeline, version)
            if not current.outdated(current.keys(partitions)):
                return current.read(con, partitions)
    except NoWarehouseError:
        return []
    with writing(con, pipeline.project, purpose=purpose, publish=publish):
        current = _Current.of(con, pipeline, version)
        current.store(con, current.outdated(current.keys(partitions)))
        return _Current.of(con, pipeline, version).read(con, partitions)


def judge_all_drift(
    con: DuckDBPyConnection, pipeline: Pipeline, version: ModelVersion, again: Collection[str] = ()
) -> int:
    """Judge every profiled live partition whose judgement is not stored or no longer holds; how many.

    So are those from the first of `again` on, whose profiles have columns that they had not: segments declared since.
    """
    with writing(con, pipeline.project, purpose=f"{pipeline.spec.name}: judging drift"):
        current = _Current.of(con, pipeline, version)
        named = {*again}
        first = next((at for at, each in enumerate(current.live) if each.partition_key in named), len(current.live))
        outdated = [at for at in current.outdated(each.partition_key for each in current.live) if at < first]
        outdated += range(first, len(current.live))
        current.store(con, outdated)
    return len(outdated)


def judging(
    pipeline: Pipeline, keys: Sequence[str]
) -> Callable[[DuckDBPyConnection, ModelVersion, Sequence[ScoringEntry]], None] | None:
    """What a run of these partitions calls with the scorings that it has just committed; None without monitoring.

    Readers then see the drift of the newest of them with their predictions. It never fails a run.
    """
    if pipeline.spec.monitoring is None:
        return None
    newest = {*in_order(pipeline.spec.partitions, keys)[-NEWEST:]}

    def judge(con: DuckDBPyConnection, version: ModelVersion, entries: Sequence[ScoringEntry]) -> None:
        stored = [e.partition_key for e in entries if e.status == "scored" and e.partition_key in newest]
        try:
            if stored:
                current = _Current.of(con, pipeline, version)
                current.store(con, current.wanted(stored))
        except Exception as error:
            raise_if_interrupted(error)
            LOG.warning(
                "%s, %s to %s: drift is not judged yet: %s", pipeline.spec.name, stored[0], stored[-1], said(error)
            )

    return judge


def bases_of_live(live: Sequence[LiveScoring], manifest_digest: str, rules: Monitoring) -> list[str]:
    """For each of these partitions, a digest of what its figures are computed from.

    It has the rules and bins, and sums of the scorings' hashes, which cost the same for any window.
    """
    import numpy as np

    declared = rules.model_dump_json(include={*_OF_DRIFT})
    how = hashlib.sha256(f"{manifest_digest}\n{declared}".encode()).hexdigest()[:16]
    hashes = [hashlib.blake2b(each.scoring_id.encode(), digest_size=8).digest() for each in live]
    sums = np.zeros(len(hashes) + 1, np.uint64)
    sums[1:] = np.array([int.from_bytes(each) for each in hashes], np.uint64).cumsum()
    season = np.array(season_of([each.partition_start for each in live], rules), np.int64)
    found = []
    for end, length in zip((np.arange(len(live)), season), reaches(rules), strict=True):
        found.append((sums[end + 1] - sums[np.maximum(end + 1 - length, 0)]).tolist())
    return [f"{how}{own:016x}{then:016x}" for own, then in zip(*found, strict=True)]


class _Current:
    """What is live and profiled on the bins of a version, in order. The warehouse is the current catalog."""

    def __init__(
        self,
        pipeline: Pipeline,
        version: ModelVersion,
        live: Sequence[LiveScoring],
        stored: Mapping[tuple[str, str], StoredJudgement],
    ) -> None:
        self.pipeline, self.version, self.live, self.stored = pipeline, version, live, stored
        self.rules = pipeline.spec.monitoring or Monitoring()

    @classmethod
    def of(cls, con: DuckDBPyConnection, pipeline: Pipeline, version: ModelVersion) -> _Current:
        live = live_profiled(con, pipeline.spec.name, version.manifest_digest, pipeline.spec.partitions.zone)
        return cls(pipeline, version, live, newest_judgements(con, pipeline.spec.name))

    def wanted(self, keys: Sequence[str] | None) -> list[int]:
        if keys is None:
            return [len(self.live) - 1] if self.live else []
        named = {*keys}
        return [at for at, each in enumerate(self.live) if each.partition_key in named]

    def keys(self, partitions: Sequence[str] | None) -> list[str]:
        return [self.live[at].partition_key for at in self.wanted(partitions)]

    def basis(self, at: int) -> str:
        """A digest of what the figures of the partition at this place are computed from."""
        return self._bases[at]

    @cached_property
    def _bases(self) -> list[str]:
        return bases_of_live(self.live, self.version.manifest_digest, self.rules)

    def outdated(self, keys: Sequence[str] | Iterator[str]) -> list[int]:
        """The places of these partitions, and of all that were judged before, whose stored judgement does not hold."""
        named = {*keys} | {key for key, _ in self.stored}
        return [at for at, e in enumerate(self.live) if e.partition_key in named and not self._holds(at)]

    def _holds(self, at: int) -> bool:
        found = self._stored_at(at)
        return found is not None and found.basis == self.basis(at)

    def _stored_at(self, at: int) -> StoredJudgement | None:
        return self.stored.get((self.live[at].partition_key, self.live[at].scoring_id))

    def read(self, con: DuckDBPyConnection, keys: Sequence[str] | None) -> list[PartitionDrift]:
        """The stored drift of these partitions. It is judged where a column is not stored, since it had no rows."""
        places = self.wanted(keys)
        stored = {at: judgement for at in places if (judgement := self._stored_at(at))}
        rows: dict[str, list[tuple[Any, ...]]] = {}
        for judgement_id, *row in figures_of(con, [each.judgement_id for each in stored.values()], STORED):
            rows.setdefault(judgement_id, []).append(tuple(row))
        found: dict[int, PartitionDrift | None] = {}
        for at, judgement in stored.items():
            history = min(at, self.rules.history)
            found[at] = drift_from(rows.get(judgement.judgement_id, ()), self.live[at], judgement, history)
        lacking = [at for at in places if not found.get(at)]
        judged = [each.drift for part in self.judge(con, lacking) for each in part]
        found |= zip(lacking, judged, strict=True)
        return [of for at in places if (of := found[at])]

    def judge(self, con: DuckDBPyConnection, places: Sequence[int]) -> Iterator[list[JudgedPartition]]:
        """The drift of the partitions at these places, a chunk at a time."""
        for part in at_once(places, len(self.version.manifest.feature_reference)):
            needed = needed_for(self.live, part, self.rules)
            live = [self.live[at] for at in needed]
            ids = [each.scoring_id for each in live]
            rows = profile_rows(con, self.pipeline.spec.name, self.version.manifest_digest, ids)
            series = series_of(live, rows, self.version.manifest, self.pipeline)
            position = {at: i for i, at in enumerate(needed)}
            yield judge_all(series, [position[at] for at in part], self.rules)

    def store(self, con: DuckDBPyConnection, places: Sequence[int]) -> None:
        """Judge the partitions at these places and append the judgements."""
        of_key = {self.live[at].partition_key: at for at in places}
        for found in self.judge(con, places):
            entries = [self._entry(each, of_key[each.partition_key]) for each in found]
            insert_judgements(con, entries, rows_of(found, entries))

    def _entry(self, found: JudgedPartition, at: int) -> DriftJudgement:
        states = found.states
        return DriftJudgement(
            judgement_id=new_id(),
            pipeline=self.pipeline.spec.name,
            partition_key=found.partition_key,
            scoring_id=self.live[at].scoring_id,
            model_version=self.version.version,
            manifest_digest=self.version.manifest_digest,
            basis=self.basis(at),
            columns=len(states),
            in_alarm=states.count("alarm"),
            max_psi=found.max_psi,
            judged_at=clock.now(),
        )
