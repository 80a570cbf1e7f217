"""The two assets of a pipeline, made by one step so that a date that fails leaves the others whole."""

from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

import dagster as dg

from pip_dagster.declaration.pipeline import Pipeline
from pip_dagster.errors import PipelineError, RegistryError, WithdrawnError
from pip_dagster.flow.materialize import materialize
from pip_dagster.flow.result import PartitionResult
from pip_dagster.flow.withdrawn import version_withdrawn
from pip_dagster.ledger.record import ScoringEntry
from pip_dagster.orchestration.alive import alive
from pip_dagster.orchestration.cancel import ask_to_cancel
from pip_dagster.orchestration.checks import asset_check_specs, evaluations, news, summary
from pip_dagster.orchestration.inputs import model_metadata
from pip_dagster.orchestration.keys import challengers_key, features_key, model_key, predictions_key, source_key
from pip_dagster.orchestration.metadata import (
    arms_metadata,
    challengers_metadata,
    features_metadata,
    features_of_run,
    lineage_metadata,
    predictions_metadata,
)
from pip_dagster.orchestration.options import BACKFILL_TAG, requested_at, run_info, run_options
from pip_dagster.orchestration.partitions import partitions_of
from pip_dagster.registry.choose import registry_of
from pip_dagster.registry.store import Registry

DATA_VERSION_TAG = "dagster/data_version"
Done = dict[dg.AssetKey, dict[str, dict[str, Any]]]  # asset → partition → metadata


def pipeline_assets(
    pipeline: Pipeline,
    partitions: dg.TimeWindowPartitionsDefinition,
    observe: Callable[[PartitionResult], None] | None = None,
) -> dg.AssetsDefinition:
    """`<name>/features` and `<name>/predictions`, together or apart, for one partition or a range of them.

    `observe` is told of each partition's result as soon as it is committed.
    """
    spec = pipeline.spec
    common: dict[str, Any] = {"group_name": spec.name, "owners": spec.owners, "partitions_def": partitions}
    specs = [
        dg.AssetSpec(
            features_key(spec),
            deps=[source_key(spec, source) for source in spec.sources],
            description=f"The feature snapshot: what `{spec.features.sql}` gave for each partition, kept as it was.",
            kinds={"duckdb", "sql"},
            code_version=pipeline.feature_digest[:16],
            metadata={
                "dagster/table_name": f"{spec.name}.features",
                "key": ", ".join(spec.features.key),
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
            metadata={
                "dagster/table_name": f"{spec.name}.predictions",
                "published": str(pipeline.project.published_database),
            },
            **common,
        ),
    ]
    if spec.scoring.compared:
        specs.append(
            dg.AssetSpec(
                challengers_key(spec),
                deps=[features_key(spec), model_key(spec)],
                description=f"The scores of {', '.join(spec.scoring.compared)} on the champion's rows"
                + (f", those of {', '.join(spec.scoring.arms)} live for a share of them" if spec.scoring.arms else "")
                + f"; in shadow they are stored, never live. Compared by `pip-dagster models compare {spec.name}`.",
                kinds={"xgboost", "duckdb"},
                skippable=True,
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
            yield from _run(context, pipeline, partitions, observe)

    return features_and_predictions


def _run(
    context: dg.AssetExecutionContext,
    pipeline: Pipeline,
    definition: dg.TimeWindowPartitionsDefinition,
    observe: Callable[[PartitionResult], None] | None,
) -> Iterator[Any]:
    spec = pipeline.spec
    assets = (features_key(spec), predictions_key(spec), challengers_key(spec))
    selected = [key for key in assets if key in context.selected_asset_keys]
    done: Done = {key: {} for key in selected}
    judged: list[dg.AssetCheckEvaluation] = []
    failed: dict[str, str] = {}
    last: PartitionResult | None = None
    reused, total = 0, len(context.partition_keys)
    run = run_info(context.run, _made_by(context), requested_at(context.instance, context.run))
    why = run.live_why
    if why:
        context.log.info(f"{spec.name}: requested: {why}")
    try:
        scores = bool({predictions_key(spec), challengers_key(spec)} & set(selected))
        failed |= _withdrawn(context, pipeline, run.requested_at) if scores else {}
        wanted = [key for key in context.partition_keys if key not in failed]
        results = materialize(
            pipeline,
            partitions_of(definition, wanted),
            run,
            features=features_key(spec) in selected,
            predictions=scores,
            progress=context.log.info,
            **run_options(context.run),
        )
        for result in results if wanted else ():
            if observe:
                observe(result)
            _note(result, spec_keys=(features_key(spec), predictions_key(spec)), done=done, failed=failed, why=why)
            reused += result.reused and not result.error
            judged.extend(evaluations(pipeline, result.partition.key, result.checks, selected))
            last = result if result.scoring and not result.error else last
    except BaseException as error:
        if isinstance(error, (KeyboardInterrupt, dg.DagsterExecutionInterruptedError)):
            ask_to_cancel(context)
        # What is committed stays; Dagster is told of it before the run ends in failure or is cancelled. Features are
        # committed for the whole range before the first of them is scored.
        if features_key(spec) in selected:
            of_run = features_of_run(pipeline, context.run.run_id, context.partition_keys)
            done[features_key(spec)] = of_run | done[features_key(spec)]
        kept = ", ".join(f"{key.path[-1]} of {len(made)}" for key, made in done.items() if key != challengers_key(spec))
        context.log.info(f"{spec.name}: ended early; committed, and they stay: {kept} of {total} partitions.")
        yield from _events(done)
        yield from news(context.instance, judged, ())
        if isinstance(error, (PipelineError, RegistryError)):
            raise dg.Failure(description=str(error), allow_retries=False) from error
        raise
    as_they_were = f"; the scores of {reused} are as they were, made of the same" if reused else ""
    context.log.info(f"{spec.name}: {total - len(failed)} of {total} partitions are made{as_they_were}")
    if last and last.scoring:
        if _is_named_by_alias(pipeline, last.scoring):
            yield from _model_observation(pipeline, last)
            # Read when the step began: without this the predictions would be stale to Dagster as soon as they are made.
            context.get_step_execution_context().wipe_input_asset_version_info(model_key(spec))
        # The schema and the columns' lineage once a run: with each partition they would swell its events.
        done[predictions_key(spec)][last.partition.key] |= lineage_metadata(pipeline, last.scoring, last.columns)
    if challengers_key(spec) in selected:
        done[challengers_key(spec)] = challengers_metadata(pipeline, context.partition_keys)
    if failed:
        yield from _events(done)
        yield from _checks(context, judged)
        raise dg.Failure(
            description=_failure_text(spec.name, failed, total),
            metadata={"failed_partitions": dg.MetadataValue.json(failed)},
            allow_retries=False,
        )
    for key in selected:
        for partition, metadata in done[key].items():
            context.add_asset_metadata(metadata, asset_key=key, partition_key=partition)
        if done[key] or key != challengers_key(spec):  # no challenger scored: nothing was materialized
            yield dg.MaterializeResult(asset_key=key)
    yield from _checks(context, judged)


def _withdrawn(context: dg.AssetExecutionContext, pipeline: Pipeline, since: datetime) -> dict[str, str]:
    """All of them, where the version that the run names was rolled back since. A backfill's own command has asked."""
    version = run_options(context.run)["version"]
    if version is None or BACKFILL_TAG in context.run.tags:
        return {}
    why = version_withdrawn(pipeline, version, since)
    return dict.fromkeys(context.partition_keys, str(WithdrawnError(why))) if why else {}


def _checks(context: dg.AssetExecutionContext, judged: list[dg.AssetCheckEvaluation]) -> Iterator[Any]:
    """The partitions' evaluations, then for each check of this step the one result that the step owes."""
    yield from news(context.instance, judged, context.selected_asset_check_keys)
    for check in context.selected_asset_check_keys:
        yield summary(check, judged)


def _note(
    result: PartitionResult,
    *,
    spec_keys: tuple[dg.AssetKey, dg.AssetKey],
    done: Done,
    failed: dict[str, str],
    why: str,
) -> None:
    features, predictions = spec_keys
    asked = {"why": why} if why else {}
    if result.error:
        failed[result.partition.key] = result.error
    if result.features and features in done:
        done[features][result.partition.key] = asked | features_metadata(result.features)
    if result.scoring and not result.error and predictions in done:
        scored = predictions_metadata(result.scoring, result.reused)
        done[predictions][result.partition.key] = asked | scored | arms_metadata(result)


def _events(done: Done) -> Iterator[dg.AssetMaterialization]:
    for key, partitions in done.items():
        for partition, metadata in partitions.items():
            yield dg.AssetMaterialization(asset_key=key, partition=partition, metadata=metadata)


def _model_observation(pipeline: Pipeline, last: PartitionResult) -> Iterator[dg.AssetObservation]:
    """The model that the alias named: its node in the graph shows it without being asked to observe."""
    scoring = last.scoring
    assert scoring and scoring.model_version and scoring.manifest_digest
    version = Registry(pipeline.project.registry).get(scoring.model_name, scoring.model_version)
    yield dg.AssetObservation(
        model_key(pipeline.spec), tags={DATA_VERSION_TAG: scoring.manifest_digest}, metadata=model_metadata(version)
    )


def _is_named_by_alias(pipeline: Pipeline, scoring: ScoringEntry) -> bool:
    """Whether the model that scored is the alias's: a pinned one must not look like a promotion."""
    declared = pipeline.spec.scoring
    try:
        version = registry_of(pipeline.project, declared).get(declared.model_name, declared.alias)
    except RegistryError:  # what was made is stored, whatever became of the alias since
        return False
    return version.manifest_digest == scoring.manifest_digest


def _failure_text(name: str, failed: dict[str, str], of: int) -> str:
    shown = "\n".join(f"- partition {key}: {reason}" for key, reason in list(failed.items())[:20])
    more = f"\n- and {len(failed) - 20} more, in this event's metadata" if len(failed) > 20 else ""
    return (
        f"Pipeline {name}: {len(failed)} of {of} partitions failed; the other {of - len(failed)} are stored, and what "
        f"was stored of the failed ones before is as it was.\n{shown}{more}"
    )


def _made_by(context: dg.AssetExecutionContext) -> str:
    """Who asked for the run, as far as Dagster knows: a schedule, sensor, backfill, or the account it runs under."""
    import getpass

    tags = context.run.tags
    for tag, kind in (
        ("dagster/schedule_name", "schedule"),
        ("dagster/sensor_name", "sensor"),
        ("dagster/backfill", "backfill"),
    ):
        if tag in tags:
            return f"{kind} {tags[tag]}"
    return tags.get("user") or getpass.getuser()
