"""The sensor for labels: it reports which partitions' labels arrived or changed, and runs the declared assets."""

import hashlib
import json
from datetime import UTC, datetime

import dagster as dg

from pip_dagster.alerts.alert import news, remembered
from pip_dagster.declaration.grid import closed_partitions
from pip_dagster.declaration.pipeline import Pipeline
from pip_dagster.declaration.ranges import contiguous
from pip_dagster.errors import DeclarationError, SourceAwayError, WarehouseLockedError
from pip_dagster.orchestration.failure import quoting_nothing
from pip_dagster.orchestration.keys import performance_key, predictions_key
from pip_dagster.orchestration.publications import complete
from pip_dagster.orchestration.runs import REASON, run_request
from pip_dagster.plural import plural
from pip_dagster.quality.suite import suggest
from pip_dagster.warehouse.lock import waiting_at_most

NO_LABEL = "none"  # of a partition that had labels before
_STATE = ".state"  # in the cursor, beside the partitions: everything was in this state when no label had arrived


def labels_arrived(pipeline: Pipeline) -> dg.SensorDefinition:
    """Compare the labels of the newest partitions with those at the previous tick."""
    spec, declared = pipeline.spec, pipeline.spec.sensors.labels_arrived
    assets = [dg.AssetKey(key.split("/")) for key in pipeline.label_assets]

    @dg.sensor(
        name=f"{spec.name}_labels_arrived",
        asset_selection=dg.AssetSelection.assets(*assets) if assets else None,
        minimum_interval_seconds=int(declared.interval.total_seconds()),
        default_status=dg.DefaultSensorStatus(declared.status.upper()),
        description=f"Report which partitions of {spec.name} have new labels"
        + (f", and materialize {', '.join(pipeline.label_assets)} for them." if assets else "."),
    )
    def labels(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        complete(context, pipeline.project)
        return _evaluate(context, pipeline, assets)

    return labels


def _check_assets(context: dg.SensorEvaluationContext, pipeline: Pipeline) -> None:
    """Other pipelines' assets are only known once everything is loaded."""
    if not context.repository_def:
        return
    known = [key.to_user_string() for key in context.repository_def.asset_graph.get_all_asset_keys()]
    for name in set(pipeline.label_assets) - set(known):
        raise DeclarationError(
            f"Pipeline {pipeline.spec.name}: sensors.labels_arrived.assets names {name!r}, which is not an asset of "
            f"this code location{suggest(name, known)}"
        )


@quoting_nothing()
def _evaluate(
    context: dg.SensorEvaluationContext, pipeline: Pipeline, assets: list[dg.AssetKey]
) -> dg.SensorResult | dg.SkipReason:
    from pip_dagster.flow.labels import label_sets, live_bases
    from pip_dagster.flow.unchanged import labels_are_steady, reads_tables_only, state_of

    spec, declared = pipeline.spec, pipeline.spec.sensors.labels_arrived
    _check_assets(context, pipeline)
    window = closed_partitions(spec.partitions, datetime.now(UTC))[-declared.window :]
    last = remembered(context.cursor)
    before = last or {}
    state = state_of(pipeline, window) if labels_are_steady(pipeline) else None
    if state and before.get(_STATE) == state:
        return dg.SkipReason("No label arrived: nothing has changed since the last tick.")
    try:
        with waiting_at_most(declared.lock_deadline):
            sets = label_sets(pipeline, window)
            keys = [partition.key for partition in window]
            live = live_bases(pipeline, keys) if performance_key(spec) in assets else {}
    except (SourceAwayError, WarehouseLockedError) as error:
        return dg.SkipReason(f"Skipped: {error} Will retry on the next tick.")
    withdrawn = {p.key: NO_LABEL for p in window if p.key in before and p.key not in sets}
    standing = {key: f"{each.digest} {live[key]}" if key in live else each.digest for key, each in sets.items()}
    fresh, reported = news(standing | withdrawn, before)
    if not fresh:
        is_seen = state is not None and reads_tables_only(pipeline)
        if last is None or is_seen:
            context.update_cursor(json.dumps(reported | ({_STATE: state} if is_seen else {})))
        return dg.SkipReason(
            f"No label arrived; {len(sets)} of the newest {plural(len(window), 'partition')} have labels."
        )
    arrived = {key for key in fresh if _labels_of(before.get(key, "")) != _labels_of(reported[key])}
    reason = f"labels arrived for {plural(len(arrived), 'partition')}"
    if last is None:
        reason = f"labels exist for {plural(len(fresh), 'partition')}; no earlier tick is recorded"
    elif not arrived:
        reason = f"{plural(len(fresh), 'partition')} with labels scored since"
    scored = {*fresh} - arrived
    ranges = [
        each
        for keys in (arrived, scored)
        for each in contiguous([p for p in window if p.key in keys], at_most=declared.max_partitions)
    ]
    now, later = ranges[: declared.max_runs], ranges[declared.max_runs :]
    for partition in (item for each in later for item in each):
        reported.pop(partition.key)  # new again at the next tick
        if partition.key in before:
            reported[partition.key] = before[partition.key]
    latest = _latest_run(context.instance, pipeline)
    requests = [
        run_request(
            each,
            run_key=_run_key({partition.key: reported[partition.key] for partition in each}, latest),
            tags={REASON: reason},
            asset_selection=assets if each[0].key in arrived else [performance_key(spec)],
        )
        for each in now
    ]
    return dg.SensorResult(
        run_requests=requests if assets else [],
        skip_reason=None if assets else f"{reason}; sensors.labels_arrived.assets is empty, so nothing runs.",
        cursor=json.dumps(reported),
        asset_events=[
            dg.AssetObservation(
                predictions_key(spec),
                partition=partition.key,
                description="Labels arrived." if partition.key in sets else "The labels are gone.",
                metadata={"labelled_rows": sets[partition.key].rows if partition.key in sets else 0},
            )
            for each in now
            for partition in each
            if partition.key in arrived
        ],
    )


def _labels_of(reported: str) -> str:
    """The digest of the labels; after it, what is live by then."""
    return reported.partition(" ")[0]


def _run_key(labels: dict[str, str], latest: str) -> str:
    """Equal for the same labels until a run is launched: labels that change and change back run each time."""
    content = json.dumps([labels, latest], sort_keys=True)
    return f"{next(iter(labels))} {hashlib.sha256(content.encode()).hexdigest()[:32]}"


def _latest_run(instance: dg.DagsterInstance, pipeline: Pipeline) -> str:
    tags = {"dagster/sensor_name": f"{pipeline.spec.name}_labels_arrived"}
    runs = instance.get_runs(dg.RunsFilter(tags=tags), limit=1)
    return runs[0].run_id if runs else ""
