"""The asset `delivered` of a pipeline: its live rows at the declared targets, and a check for each of them."""

from collections.abc import Iterator, Sequence
from typing import Any

import dagster as dg

from pip_dagster.declaration.pipeline import Pipeline
from pip_dagster.delivery.outbox import Delivered, DeliveryRequest, deliver, pending_now
from pip_dagster.delivery.verify import Compared, verify
from pip_dagster.errors import PipelineError
from pip_dagster.ledger.deliveries import DeliveryEntry, shown_at
from pip_dagster.ledger.record import RunInfo
from pip_dagster.orchestration.alive import alive
from pip_dagster.orchestration.checks import EACH_REPORTED_UP_TO, output, owed
from pip_dagster.orchestration.dagster_private import forget_planned_checks
from pip_dagster.orchestration.failure import as_failure
from pip_dagster.orchestration.keys import delivered_key, predictions_key
from pip_dagster.orchestration.links import docs
from pip_dagster.orchestration.runs import has_partitions
from pip_dagster.plural import plural
from pip_dagster.registry.store import whoami
from pip_dagster.warehouse.access import reading
from pip_dagster.warehouse.connect import workspace

_SHOWN = 20
_MOST_KINDS = 3  # that Dagster allows an asset


def delivered_asset(pipeline: Pipeline, partitions: dg.TimeWindowPartitionsDefinition) -> dg.AssetsDefinition:
    """`<name>/delivered`, partitioned as the predictions, with a check named as each target."""
    spec, key = pipeline.spec, delivered_key(pipeline.spec)
    most = spec.partitions.max_per_run
    places = "\n".join(f"- `{name}`: {target.kind}, `{target.place}`" for name, target in spec.deliver.items())

    @dg.multi_asset(
        name=f"{spec.name}_delivered",
        specs=[
            dg.AssetSpec(
                key,
                deps=[predictions_key(spec)],
                description=f"What is live, at the declared targets:\n\n{places}\n\nA run delivers everything that is "
                "pending, of other partitions too, such as those that were rolled back.",
                kinds={*sorted({target.kind for target in spec.deliver.values()})[:_MOST_KINDS]},
                group_name=spec.name,
                owners=spec.owners,
                partitions_def=partitions,
                skippable=True,  # a partition that a target does not have is not materialized
                metadata=docs(pipeline, "delivery"),
            )
        ],
        check_specs=[
            dg.AssetCheckSpec(
                name,
                asset=key,
                description=f"Whether the target has every live partition, with the rows that are live: {target.kind}, "
                f"{target.place}.",
                metadata=docs(pipeline, "delivery"),
            )
            for name, target in spec.deliver.items()
        ],
        can_subset=True,
        backfill_policy=dg.BackfillPolicy.multi_run(most) if most else dg.BackfillPolicy.single_run(),
    )
    def delivered(context: dg.AssetExecutionContext) -> Iterator[Any]:
        with alive(context.instance, context.run.run_id), as_failure():
            if key in context.selected_asset_keys:
                yield from _run(context, pipeline)
            else:  # as *Execute* of a check launches it
                for check in sorted(context.selected_asset_check_keys, key=str):
                    yield from owed(_evaluation(pipeline, Delivered(check.name), None))

    return delivered


def deliver_in_failed_run(context: dg.AssetExecutionContext, pipeline: Pipeline) -> Iterator[dg.AssetMaterialization]:
    """Deliver what is live although some partitions failed: Dagster skips the step that would."""
    try:
        done = _deliver(context, pipeline)
        keys = _news(done)
        states = _states(pipeline, keys)
    except PipelineError as error:  # the run fails for another reason, which must show
        context.log.warning(f"{pipeline.spec.name}: nothing was delivered: {error}")
        return
    for partition in keys:
        if partition in states:
            yield dg.AssetMaterialization(
                delivered_key(pipeline.spec), partition=partition, metadata=_metadata(states[partition])
            )


def _run(context: dg.AssetExecutionContext, pipeline: Pipeline) -> Iterator[Any]:
    spec, key = pipeline.spec, delivered_key(pipeline.spec)
    if not has_partitions(context.run.tags):
        raise dg.Failure(
            description=f"Pipeline {spec.name}: the run names no partition. Launch it for a partition or a range; it "
            "delivers everything that is pending.",
            allow_retries=False,
        )
    if context.selected_asset_check_keys:
        forget_planned_checks(context.instance, context.run.run_id)
    done = _deliver(context, pipeline)
    mine = [*context.partition_keys]
    others = sorted({*_news(done)} - {*mine})
    states = _states(pipeline, [*mine, *others])
    for partition in others:
        if partition in states:
            yield dg.AssetMaterialization(key, partition=partition, metadata=_metadata(states[partition]))
    if all(partition in states for partition in mine):
        for partition in mine:
            context.add_asset_metadata(_metadata(states[partition]), asset_key=key, partition_key=partition)
        yield dg.MaterializeResult(asset_key=key)
    else:
        yield from _some(pipeline, mine, states, done)
    for each in done:
        yield _evaluation(pipeline, each, sorted(each.receipts)[-EACH_REPORTED_UP_TO:])
    yield from map(output, context.selected_asset_check_keys)


def _deliver(context: dg.AssetExecutionContext, pipeline: Pipeline) -> list[Delivered]:
    info = RunInfo(context.run.run_id, context.run.tags.get("user") or whoami())
    return deliver(pipeline, DeliveryRequest(info, tuple(pipeline.spec.deliver)), progress=context.log.info)


def _news(done: Sequence[Delivered]) -> list[str]:
    """The partitions that some target got."""
    return sorted({key for each in done for key in each.receipts})


_States = dict[str, dict[str, DeliveryEntry]]


def _states(pipeline: Pipeline, keys: Sequence[str]) -> _States:
    """Of these partitions, those that all targets have as they are live, with the newest delivery to each."""
    targets = {name: declared.digest for name, declared in pipeline.spec.deliver.items()}
    purpose = f"{pipeline.spec.name}: reading deliveries"
    with workspace(threads=1) as con, reading(con, pipeline.project, purpose=purpose):
        found = shown_at(con, pipeline.spec.name, targets, keys)
    return {key: of for key, of in found.items() if of.keys() == targets.keys()}


def _some(
    pipeline: Pipeline, mine: Sequence[str], states: _States, done: Sequence[Delivered]
) -> Iterator[dg.AssetMaterialization | dg.AssetObservation]:
    """The partitions of the run that all targets have, and why the others are not delivered."""
    key = delivered_key(pipeline.spec)
    for partition in mine:
        if partition in states:
            yield dg.AssetMaterialization(key, partition=partition, metadata=_metadata(states[partition]))
            continue
        why = [f"{each.target}: {each.failed[partition]}" for each in done if partition in each.failed]
        why += [f"{each.target}: {each.error}" for each in done if each.error]
        why += [f"{each.target}: pending, the target failed before" for each in done if each.left and not why]
        reason = "; ".join(why) or "nothing is live"
        yield dg.AssetObservation(
            key, partition=partition, description=f"Not delivered: {reason}", metadata={"reason": reason}
        )


def _metadata(of: dict[str, DeliveryEntry]) -> dict[str, Any]:
    """What each target has of a partition. Numbers are numbers, so that the UI plots them over the partitions."""
    found: dict[str, Any] = {}
    for target, each in of.items():
        found |= {f"rows at {target}": each.rows, f"place of {target}": each.place or ""}
        found |= {f"delivery to {target} (s)": round(each.seconds, 3)}
    return found | {"live change": next(iter(of.values())).change_id}


def _evaluation(pipeline: Pipeline, done: Delivered, keys: Sequence[str] | None) -> dg.AssetCheckEvaluation:
    """Whether the target has everything, and what is read back of these partitions, by default the newest."""
    target, problems = done.target, [*([done.error] if done.error else [])]
    problems += [f"{key}: {why}" for key, why in [*done.failed.items()][:_SHOWN]]
    pending = len(pending_now(pipeline)[target])
    compared: list[Compared] = []
    if not done.error:
        compared = [*verify(pipeline, target, keys, last=EACH_REPORTED_UP_TO)]
        problems += [f"{each.partition_key}: {each.text}" for each in compared if not each.equal][:_SHOWN]
    if pending and not problems:
        problems.append(f"{plural(pending, 'partition')} pending")
    read = f"{plural(len(compared), 'partition')} read back, with the rows that are live" if compared else "complete"
    return dg.AssetCheckEvaluation(
        asset_key=delivered_key(pipeline.spec),
        check_name=target,
        passed=not problems,
        severity=dg.AssetCheckSeverity.ERROR,
        description="; ".join(problems) or f"Every live partition is delivered; {read}.",
        metadata={"pending": pending, "delivered": len(done.receipts), "read back": len(compared)},
        blocking=False,
    )
