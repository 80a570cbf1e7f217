"""The assets of a pipeline, built by one step, so that a partition that fails does not block the others."""

from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from typing import Any

import dagster as dg

from pip_dagster.declaration.pipeline import Pipeline
from pip_dagster.errors import PipelineError, RegistryError, WithdrawnError
from pip_dagster.evidence.anchor import anchor_after
from pip_dagster.flow.materialize import materialize
from pip_dagster.flow.result import PartitionResult
from pip_dagster.ledger.record import RunInfo, ScoringEntry
from pip_dagster.monitoring.judged import judging
from pip_dagster.monitoring.watch import watch, watch_scored
from pip_dagster.orchestration.alive import alive
from pip_dagster.orchestration.cancel import request_cancellation
from pip_dagster.orchestration.checks import asset_check_specs
from pip_dagster.orchestration.dagster_private import forget_input_version, forget_planned_checks
from pip_dagster.orchestration.drift_check import drift_evaluations
from pip_dagster.orchestration.estimate_check import estimate_evaluations
from pip_dagster.orchestration.failure import quoting_nothing, without_causes
from pip_dagster.orchestration.freshness import freshness_policy
from pip_dagster.orchestration.inputs import DATA_VERSION_TAG, model_metadata, source_observations
from pip_dagster.orchestration.judge_alone import judge_alone
from pip_dagster.orchestration.keys import (
    challengers_key,
    features_key,
    model_key,
    own_keys,
    predictions_key,
    source_key,
)
from pip_dagster.orchestration.links import docs, file_link, report_link
from pip_dagster.orchestration.metadata import challengers_metadata, features_of_run
from pip_dagster.orchestration.options import BACKFILL_TAG, requested_at, run_info, run_options
from pip_dagster.orchestration.partitions import partitions_of
from pip_dagster.orchestration.runs import has_partitions, range_tags
from pip_dagster.orchestration.step import StepOutcome
from pip_dagster.plural import plural
from pip_dagster.registry.choose import registry_of, version_withdrawn
from pip_dagster.registry.store import Registry, whoami
from pip_dagster.registry.version import ModelVersion
from pip_dagster.warehouse.connect import workspace


def pipeline_assets(
    pipeline: Pipeline,
    partitions: dg.TimeWindowPartitionsDefinition,
    observe: Callable[[PartitionResult], None] | None = None,
) -> dg.AssetsDefinition:
    """`<name>/features`, `<name>/predictions` and `<name>/challengers`, in any selection, for a range of partitions.

    `observe` is called with each partition's result as soon as it is committed.
    """
    spec = pipeline.spec
    common: dict[str, Any] = {"group_name": spec.name, "owners": spec.owners, "partitions_def": partitions}
    freshness = freshness_policy(spec)
    specs = [
        dg.AssetSpec(
            features_key(spec),
            deps=[source_key(spec, source) for source in pipeline.read_sources],
            description=f"The feature snapshot: for each partition, the stored rows of `{spec.features.sql}`.",
            kinds={"duckdb", "sql"},
            code_version=pipeline.feature_digest[:16],
            freshness_policy=freshness,
            metadata={
                "dagster/table_name": f"{spec.name}.features",
                "key": ", ".join(spec.features.key),
                **docs(pipeline, "declaration"),
                "sql": dg.MetadataValue.md(f"```sql\n{pipeline.sql}\n```"),
            },
            **common,
        ),
        dg.AssetSpec(
            predictions_key(spec),
            deps=[features_key(spec), model_key(spec)],
            description=(spec.description or f"The predictions of {spec.name}.")
            + f"\n\nQuery them: `pip-dagster query 'SELECT * FROM {spec.name}.predictions'`.",
            kinds={"xgboost", "duckdb"},
            code_version=pipeline.scoring_digest[:16],
            freshness_policy=freshness,
            metadata={
                "dagster/table_name": f"{spec.name}.predictions",
                "published": dg.MetadataValue.path(str(pipeline.project.published_database)),
                **docs(pipeline, "reading"),
                **report_link(pipeline),
                **file_link(pipeline, "feature SQL", spec.features.sql),
            },
            **common,
        ),
    ]
    if spec.scoring.compared:
        specs.append(
            dg.AssetSpec(
                challengers_key(spec),
                deps=[features_key(spec), model_key(spec)],
                description=f"The scores of {', '.join(spec.scoring.compared)} on the champion's rows. "
                + (f"Those of {', '.join(spec.scoring.arms)} are live for a share. " if spec.scoring.arms else "")
                + f"Shadow scores are stored, never live. Compare them: `pip-dagster models compare {spec.name}`.",
                kinds={"xgboost", "duckdb"},
                skippable=True,
                metadata=docs(pipeline, "challengers"),
                **common,
            )
        )
    most = spec.partitions.max_per_run
    policy = dg.BackfillPolicy.multi_run(most) if most else dg.BackfillPolicy.single_run()

    @dg.multi_asset(
        name=spec.name,
        specs=specs,
        check_specs=asset_check_specs(pipeline),
        can_subset=True,
        backfill_policy=policy,
        pool=f"pip_dagster_{spec.name}",
    )
    def features_and_predictions(context: dg.AssetExecutionContext) -> Iterator[Any]:
        with alive(context.instance, context.run.run_id):
            if context.selected_asset_keys:
                with quoting_nothing():
                    yield from _anchored(context, pipeline, _run(context, pipeline, partitions, observe))
            else:  # as *Execute* of a check launches it
                yield from judge_alone(context, pipeline)

    return features_and_predictions


def _anchored(context: dg.AssetExecutionContext, pipeline: Pipeline, built: Iterator[Any]) -> Iterator[Any]:
    """What is built, and then the audit's anchor; not after a cancellation, which must end soon."""
    try:
        yield from built
    except dg.Failure:
        anchor_after(pipeline.project, context.log.warning)
        raise
    anchor_after(pipeline.project, context.log.warning)


def _run(
    context: dg.AssetExecutionContext,
    pipeline: Pipeline,
    definition: dg.TimeWindowPartitionsDefinition,
    observe: Callable[[PartitionResult], None] | None,
) -> Iterator[Any]:
    spec = pipeline.spec
    if not has_partitions(context.run.tags):
        raise dg.Failure(
            description=f"Pipeline {spec.name}: the run names no partition. Launch it for a partition or a range.",
            allow_retries=False,
        )
    total = len(context.partition_keys)
    selected = [key for key in own_keys(spec) if key in context.selected_asset_keys]
    if shown := range_tags(context.partition_keys):  # those of the range itself are hidden in the UI
        context.instance.add_run_tags(context.run.run_id, shown)
    if context.selected_asset_check_keys:
        forget_planned_checks(context.instance, context.run.run_id)
    requested = requested_at(context.instance, context.run, pipeline.project)
    run = run_info(context.run, _requested_by(context.run.tags), requested)
    outcome = StepOutcome(pipeline, {key: {} for key in selected}, run.live_why)
    if outcome.why:
        context.log.info(f"{spec.name}: requested: {outcome.why}")
    try:
        for result in _results(context, outcome, definition, run):
            if observe:
                observe(result)
            outcome.add(result)
    except BaseException as error:
        yield from _ended_early(context, outcome, error)
        if isinstance(error, PipelineError):
            raise dg.Failure(description=str(error), allow_retries=False) from without_causes(error)
        raise
    unchanged = f"; the scores of {outcome.reused} are unchanged, from the same inputs" if outcome.reused else ""
    context.log.info(f"{spec.name}: {total - len(outcome.failed)} of {plural(total, 'partition')} built{unchanged}")
    if outcome.last and outcome.last.scoring:
        if _is_named_by_alias(pipeline, outcome.last.scoring):
            yield from _model_observation(pipeline, outcome.last.scoring)
            forget_input_version(context, model_key(spec))
        outcome.describe_columns()
    if spec.monitoring is None and outcome.last:
        watch_scored(pipeline, None)
    elif outcome.last and outcome.last.scoring:
        version = _version_of(pipeline, outcome.last.scoring)
        scored = [*outcome.done.get(predictions_key(spec), {})]
        with workspace(threads=1) as con:
            outcome.judged.extend(drift_evaluations(con, pipeline, version, scored))
            outcome.judged.extend(estimate_evaluations(con, pipeline, version, scored))
            watched = watch(con, pipeline, version, scored)
        for event, why in watched.faults.items():
            context.log.warning(f"{spec.name}: monitoring, {event}: {why}")
    if outcome.read:
        yield from source_observations(context.instance, pipeline, outcome.read[-1])
    if challengers_key(spec) in selected:
        outcome.done[challengers_key(spec)] = challengers_metadata(pipeline, context.partition_keys)
    if outcome.failed:
        outcome.note_failed()
        yield from outcome.materializations()
        yield from outcome.blocked()
        yield from outcome.checks(context)
        if outcome.last and spec.deliver:
            from pip_dagster.orchestration.delivered import deliver_in_failed_run

            yield from deliver_in_failed_run(context, pipeline)
        raise outcome.failure(total)
    for key, partitions in outcome.done.items():
        for partition, metadata in partitions.items():
            context.add_asset_metadata(metadata, asset_key=key, partition_key=partition)
        if partitions or key != challengers_key(spec):  # where no challenger scored, nothing was materialized
            yield dg.MaterializeResult(asset_key=key)
    yield from outcome.checks(context)


def _results(
    context: dg.AssetExecutionContext,
    outcome: StepOutcome,
    definition: dg.TimeWindowPartitionsDefinition,
    run: RunInfo,
) -> Iterator[PartitionResult]:
    """Materialize the run's partitions; those that were rolled back since the request fail."""
    spec = outcome.pipeline.spec
    scores = bool({predictions_key(spec), challengers_key(spec)} & outcome.done.keys())
    outcome.failed |= _withdrawn(context, outcome.pipeline, run.requested_at) if scores else {}
    wanted = [key for key in context.partition_keys if key not in outcome.failed]
    if not wanted:
        return
    yield from materialize(
        outcome.pipeline,
        partitions_of(definition, wanted),
        run,
        features=features_key(spec) in outcome.done,
        predictions=scores,
        progress=context.log.info,
        stored=judging(outcome.pipeline, wanted),
        read=outcome.read.append,
        **run_options(context.run),
    )


def _ended_early(context: dg.AssetExecutionContext, outcome: StepOutcome, error: BaseException) -> Iterator[Any]:
    """Report to Dagster what was committed, before the run fails or is cancelled."""
    if isinstance(error, (KeyboardInterrupt, dg.DagsterExecutionInterruptedError)):
        request_cancellation(context)
    spec = outcome.pipeline.spec
    # Features are committed for the whole range before the first of them is scored.
    if features_key(spec) in outcome.done:
        of_run = features_of_run(outcome.pipeline, context.run.run_id, context.partition_keys)
        outcome.done[features_key(spec)] = of_run | outcome.done[features_key(spec)]
    kept = ", ".join(
        f"{key.path[-1]} of {len(done)}" for key, done in outcome.done.items() if key != challengers_key(spec)
    )
    total = plural(len(context.partition_keys), "partition")
    context.log.info(f"{spec.name}: ended early; committed partitions stay: {kept} of {total}.")
    yield from outcome.materializations()
    yield from outcome.checks(context)


def _withdrawn(context: dg.AssetExecutionContext, pipeline: Pipeline, requested: datetime) -> dict[str, str]:
    """All partitions, if the version that the run names was rolled back since. A backfill's command checks itself."""
    version = run_options(context.run)["version"]
    if version is None or BACKFILL_TAG in context.run.tags:
        return {}
    why = version_withdrawn(pipeline, version, requested)
    return dict.fromkeys(context.partition_keys, str(WithdrawnError(why))) if why else {}


def _model_observation(pipeline: Pipeline, scoring: ScoringEntry) -> Iterator[dg.AssetObservation]:
    """The model that the alias named, so that its asset shows the version without a separate observation."""
    version = _version_of(pipeline, scoring)
    yield dg.AssetObservation(
        model_key(pipeline.spec), tags={DATA_VERSION_TAG: version.manifest_digest}, metadata=model_metadata(version)
    )


def _version_of(pipeline: Pipeline, scoring: ScoringEntry) -> ModelVersion:
    """The version that scored a partition."""
    assert scoring.model_version
    return Registry(pipeline.project.registry).get(scoring.model_name, scoring.model_version)


def _is_named_by_alias(pipeline: Pipeline, scoring: ScoringEntry) -> bool:
    """Whether the alias names the model that scored: a pinned one must not look like a promotion."""
    declared = pipeline.spec.scoring
    try:
        version = registry_of(pipeline.project, declared).get(declared.model_name, declared.alias)
    except RegistryError:  # the scores are stored, whatever happened to the alias since
        return False
    return version.manifest_digest == scoring.manifest_digest


def _requested_by(tags: Mapping[str, str]) -> str:
    """Who requested the run, as far as Dagster knows: a schedule, sensor or backfill, or the account it runs under."""
    for kind, tag in (("schedule", "schedule_name"), ("sensor", "sensor_name"), ("backfill", "backfill")):
        if name := tags.get(f"dagster/{tag}"):
            return f"{kind} {name}"
    return tags.get("user") or whoami()
