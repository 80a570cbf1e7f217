"""Gathers what a plan compares: the sources now, the declaration, the live scorings and the ledger."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from pip_dagster.declaration.grid import closed_partitions
from pip_dagster.declaration.partition import Partition
from pip_dagster.errors import DeclarationError, NoWarehouseError, RegistryError
from pip_dagster.flow.extract import close_of
from pip_dagster.flow.fingerprints import Fingerprints, fingerprints
from pip_dagster.flow.sources import open_sources
from pip_dagster.ledger.known import read_known
from pip_dagster.ledger.observations import Seen, newest_of, read_observations
from pip_dagster.ledger.plan import Plan, plan
from pip_dagster.ledger.plan_values import Arms, Known, Policy, Wanted
from pip_dagster.registry.choose import registry_of
from pip_dagster.warehouse.access import reading
from pip_dagster.warehouse.connect import workspace
from pip_dagster.warehouse.pending import pending_publications

if TYPE_CHECKING:
    from pip_dagster.declaration.pipeline import Pipeline

_NAMED = 3  # changed buckets that a reason names


def make_plan(
    pipeline: Pipeline, partitions: Sequence[Partition] | None = None, *, now: datetime | None = None
) -> Plan:
    """Which of these partitions, or of all that can be built by `now`, are stale, and why.

    The warehouse and the sources are opened for reading only, one after the other, each only for the read.

    Raises:
        DeclarationError: the declared model or alias does not exist.
        SourceError: a source cannot be read.
        WarehouseError: the warehouse cannot be opened, or another process holds it for too long.
    """
    spec, now = pipeline.spec, now or datetime.now(UTC)
    if partitions is None:
        partitions = closed_partitions(spec.partitions, now)
    if not partitions:
        return Plan(spec.name, (), (), 0)
    known: dict[str, Known] = {}
    seen: Seen = {}
    pending: tuple[str, ...] = ()
    with workspace(threads=1) as con:
        purpose = f"{spec.name}: planning"
        with suppress(NoWarehouseError), reading(con, pipeline.project, purpose=purpose):
            known = read_known(con, spec.name, partitions)
            seen = read_observations(con, spec.name)
            pending = tuple(key for name, key, _ in pending_publications(con, pipeline.project) if name == spec.name)
        with open_sources(con, spec, pipeline.project.root):
            sources = fingerprints(con, pipeline, partitions, newest_of(seen))
    changes = _Changes(sources, seen)
    wanted, policy = _wanted(pipeline, sources), _policy(pipeline)
    return replace(plan(spec.name, partitions, wanted, known, policy, now, changes.describe), pending=pending)


def _wanted(pipeline: Pipeline, sources: Fingerprints) -> Wanted:
    scoring = pipeline.spec.scoring
    try:
        registry = registry_of(pipeline.project, scoring)
        version = registry.get(scoring.model_name, scoring.alias)
        moves = registry.alias_history(scoring.model_name, scoring.alias)
    except RegistryError as error:
        raise DeclarationError(
            f"Pipeline {pipeline.spec.name}: scoring names model {scoring.model_name!r}, "
            f"alias {scoring.alias!r}: {error}"
        ) from error
    return Wanted(
        sources=sources.of,
        sql_digest=pipeline.sql_digest,
        otherwise=pipeline.features_declared_otherwise,
        code_digest=pipeline.scoring_digest,
        manifest_digest=version.manifest_digest,
        feature_parts=pipeline.feature_parts,
        scoring_parts=pipeline.scoring_parts,
        model_version=version.version,
        min_row_share=pipeline.spec.min_row_share,
        promoted_at=moves[-1].at if moves else None,
        arms=_arms(pipeline),
    )


def _arms(pipeline: Pipeline) -> Arms | None:
    experiment = pipeline.spec.scoring.experiment
    if experiment is None:
        return None
    ranges = frozenset((part.arm, part.low, part.high) for part in experiment.ranges)
    return Arms(experiment.label, tuple(pipeline.spec.unit), ranges)


def _policy(pipeline: Pipeline) -> Policy:
    spec = pipeline.spec
    return Policy(
        reruns=spec.reruns,
        late={name: source.late_data for name, source in pipeline.read_sources.items()},
        close=lambda partition: close_of(spec, partition),
        is_provisional=pipeline.is_provisional,
    )


class _Changes:
    """Which buckets of a source changed since a partition was built."""

    def __init__(self, sources: Fingerprints, seen: Seen) -> None:
        self._sources, self._seen = sources, seen
        # Only buckets that changed since a run read them, or that no run has read, can differ.
        self._times = {
            name: sorted(
                at
                for at in buckets.keys() | seen.get(name, {}).keys()
                if len(seen.get(name, {}).get(at, ())) != 1 or seen[name][at][0][1] != buckets.get(at)
            )
            for name, buckets in sources.buckets.items()
        }

    def describe(self, source: str, partition: Partition, known: Known) -> str:
        """The source, and up to three of its days or hours that changed since the partition was built."""
        windows = self._sources.windows.get(source)
        if windows is None or known.read_at is None:
            return source
        start, end = windows[partition.key]
        times = self._times[source]
        changed = []
        for at in times[bisect_left(times, start) : bisect_left(times, end)]:
            now = self._sources.buckets[source].get(at)
            history = [bucket for when, bucket in self._seen.get(source, {}).get(at, ()) if when <= known.read_at]
            was = history[-1] if history and history[-1].rows.rows else None
            if was != now:
                changed.append(f"{at:%Y-%m-%d}" if at.time() == datetime.min.time() else f"{at:%Y-%m-%d %H:%M}")
        more = f" and {len(changed) - _NAMED} more" if len(changed) > _NAMED else ""
        return " ".join([source, ", ".join(changed[:_NAMED]) + more]).strip()
