"""Gathers what a plan compares: the sources now, the declaration, the live scorings and the ledger."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from pip_dagster.declaration.grid import closed_partitions
from pip_dagster.declaration.partition import Partition
from pip_dagster.declaration.reruns import Reach, reaches
from pip_dagster.errors import DeclarationError, NoWarehouseError, RegistryError
from pip_dagster.flow.extract import close_of
from pip_dagster.flow.source_digests import WindowedSource, lay_source_digests
from pip_dagster.flow.sources import open_sources
from pip_dagster.ledger.known import lay_known, read_purged, read_unlike
from pip_dagster.ledger.observations import lay_observations
from pip_dagster.ledger.plan import Plan, plan
from pip_dagster.ledger.plan_values import Arms, Known, PlanPart, Policy, PurgedPartitions, Wanted
from pip_dagster.privacy.retention import past_content
from pip_dagster.privacy.suppressed import suppressed_in
from pip_dagster.registry.choose import registry_of
from pip_dagster.warehouse.access import reading
from pip_dagster.warehouse.connect import workspace
from pip_dagster.warehouse.pending import pending_publications

if TYPE_CHECKING:
    from pip_dagster.declaration.pipeline import Pipeline

_NAMED = 3  # changed buckets that a reason names


def make_plan(
    pipeline: Pipeline,
    partitions: Sequence[Partition] | None = None,
    *,
    now: datetime | None = None,
    part: PlanPart | None = None,
) -> Plan:
    """Which of these partitions, or of all that can be built by `now`, are stale, and why; with `part`, some of these.

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
    pending: tuple[str, ...] = ()
    purged: tuple[PurgedPartitions, ...] = ()
    expired = past_content(spec, partitions, now)
    partitions, every = [each for each in partitions if each.key not in expired], {each.key for each in partitions}
    declared = declared_of(pipeline)
    with workspace(threads=1) as con:
        lay_observations(con, None)
        is_stored, people = False, None
        purpose = f"{spec.name}: planning"
        with suppress(NoWarehouseError), reading(con, pipeline.project, purpose=purpose):
            purged = read_purged(con, spec.name, every)
            gone = {key for each in purged for key in each.keys}
            partitions = [partition for partition in partitions if partition.key not in gone] if gone else partitions
            expired -= gone
            pending = tuple(key for name, key, _ in pending_publications(con, pipeline.project) if name == spec.name)
            if partitions:
                lay_known(con, spec.name, [partition.start for partition in partitions], declared)
                lay_observations(con, spec.name)
            people = suppressed_in(con, pipeline)
            is_stored = True
        left_out: dict[str, Any] = {"pending": pending, "purged": purged, "expired": len(expired)}
        if not partitions:
            return Plan(spec.name, (), (), 0, **left_out)
        with open_sources(con, spec, pipeline.project.root) as opened:
            sources = lay_source_digests(con, pipeline, partitions, opened, people)
        wanted, policy = with_model(pipeline, declared), _policy(pipeline)
        unlike = read_unlike(con, wanted if is_stored else None, begin_of(partitions, policy.reruns.promotion), part)
        wanted = replace(wanted, sources={key: text for key, (text, _) in unlike.of.items()})
        known: dict[str, Known | str] = {**{key: of for key, (_, of) in unlike.of.items()}, **unlike.like}
        describe = partial(_describe, sources)
        found = plan(spec.name, partitions, wanted, known, policy, now, describe)
    left_out |= {"never_built": unlike.never_built, "more_from": unlike.more_from}
    return replace(found, current=found.current - unlike.others - unlike.never_built, **left_out)


def begin_of(partitions: Sequence[Partition], reach: Reach) -> datetime | None:
    """When the first of the partitions begins that a change with this reach applies to; they are the newest ones."""
    first = None
    for from_end, partition in enumerate(sorted(partitions, key=lambda each: each.start, reverse=True), start=1):
        if not reaches(reach, partition, from_end):
            break
        first = partition.start
    return first


def declared_of(pipeline: Pipeline) -> Wanted:
    """What partitions should be built from by the declaration, but for their sources and the model."""
    return Wanted(
        sources={},
        sql_digest=pipeline.sql_digest,
        otherwise=pipeline.features_declared_otherwise,
        code_digest=pipeline.scoring_digest,
        manifest_digest="",
        feature_parts=pipeline.feature_parts,
        scoring_parts=pipeline.scoring_parts,
        model_version=0,
        min_row_share=pipeline.spec.min_row_share,
        arms=_arms(pipeline),
    )


def with_model(pipeline: Pipeline, declared: Wanted) -> Wanted:
    """The same by the version that the alias names."""
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
    return replace(
        declared,
        manifest_digest=version.manifest_digest,
        model_version=version.version,
        promoted_at=moves[-1].at if moves else None,
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
        complete_at=pipeline.complete_at,
    )


def _describe(sources: Mapping[str, WindowedSource], source: str, partition: Partition, known: Known) -> str:
    """The source, and up to three of its days or hours that changed since the partition was built."""
    windowed = sources.get(source)
    if windowed is None or known.read_at is None:
        return source
    changed = [
        f"{at:%Y-%m-%d}" if at.time() == datetime.min.time() else f"{at:%Y-%m-%d %H:%M}"
        for at in windowed.changed(partition, known.read_at)
    ]
    more = f" and {len(changed) - _NAMED} more" if len(changed) > _NAMED else ""
    return " ".join([source, ", ".join(changed[:_NAMED]) + more]).strip()
