"""The asset `performance` of a pipeline: what labels show of its scores, evaluated again whenever labels arrive."""

from collections.abc import Iterator, Sequence
from typing import Any

import dagster as dg

from pip_dagster.declaration.pipeline import Pipeline
from pip_dagster.flow.engine import available_threads
from pip_dagster.ledger.arms import CHAMPION
from pip_dagster.monitoring.coverage import Coverage
from pip_dagster.monitoring.estimating import calibrate_after_labels
from pip_dagster.monitoring.finding import Finding
from pip_dagster.monitoring.performance import Performance, judge_performance, read_performance
from pip_dagster.monitoring.watch import watch_findings
from pip_dagster.orchestration.alive import alive
from pip_dagster.orchestration.failure import as_failure
from pip_dagster.orchestration.keys import PERFORMANCE_NAME, performance_key, predictions_key, source_key
from pip_dagster.orchestration.links import docs, file_link
from pip_dagster.orchestration.metadata import digests, rounded
from pip_dagster.orchestration.runs import has_partitions
from pip_dagster.plural import plural
from pip_dagster.warehouse.connect import workspace

_SHOWN = 20


def performance_asset(pipeline: Pipeline, partitions: dg.TimeWindowPartitionsDefinition) -> dg.AssetsDefinition:
    """`<name>/performance`, partitioned as the predictions, with the check `performance`."""
    spec, key = pipeline.spec, performance_key(pipeline.spec)
    rules = spec.monitoring
    assert rules and pipeline.labels

    @dg.multi_asset(
        name=f"{spec.name}_performance",
        specs=[
            dg.AssetSpec(
                key,
                deps=[predictions_key(spec), *(source_key(spec, each) for each in sorted(pipeline.label_sources))],
                description=f"How good the predictions were, by the labels of `{pipeline.labels.sql}` that are there."
                f"\n\nQuery it: `pip-dagster query 'SELECT * FROM {spec.name}.performance'`.",
                kinds={"duckdb"},
                group_name=spec.name,
                owners=spec.owners,
                partitions_def=partitions,
                metadata={
                    "dagster/table_name": f"{spec.name}.performance",
                    **docs(pipeline, "performance"),
                    **file_link(pipeline, "labels SQL", pipeline.labels.sql),
                },
            )
        ],
        check_specs=[
            dg.AssetCheckSpec(
                PERFORMANCE_NAME,
                asset=key,
                description="Whether the newest labelled partitions are worse than those before, or than the held-out "
                "rows at registration. Without a change it fails with a probability of at most "
                f"{rules.performance.false_alarms:.1%}.",
            )
        ],
        can_subset=True,
        backfill_policy=dg.BackfillPolicy.single_run(),
    )
    def performance(context: dg.AssetExecutionContext) -> Iterator[Any]:
        with alive(context.instance, context.run.run_id), as_failure():
            yield from _run(context, pipeline)

    return performance


def _run(context: dg.AssetExecutionContext, pipeline: Pipeline) -> Iterator[Any]:
    from pip_dagster.flow.performance import evaluate

    key, name = performance_key(pipeline.spec), pipeline.spec.name
    problems: dict[str, str] = {}
    with workspace(threads=available_threads()) as con:
        if key in context.selected_asset_keys:
            if not has_partitions(context.run.tags):
                raise dg.Failure(
                    description=f"Pipeline {name}: the run names no partition. Launch it for a partition or a range.",
                    allow_retries=False,
                )
            keys = [*context.partition_keys]
            problems = evaluate(con, pipeline, keys, progress=context.log.info).problems
            if why := calibrate_after_labels(con, pipeline):
                context.log.info(f"{name}: no calibrator for estimates: {why}")
            of = read_performance(con, pipeline, also=keys)
            metadata = {each: _metadata(of, each) for each in keys if each not in problems}
            if problems:
                for each, values in metadata.items():
                    yield dg.AssetMaterialization(asset_key=key, partition=each, metadata=values)
            else:
                for each, values in metadata.items():
                    context.add_asset_metadata(values, asset_key=key, partition_key=each)
                yield dg.MaterializeResult(asset_key=key)
        else:
            of = read_performance(con, pipeline)
    rules = pipeline.spec.monitoring
    assert rules
    found = judge_performance(name, of, rules)
    for event, why in watch_findings(pipeline, found).faults.items():
        context.log.warning(f"{name}: monitoring, {event}: {why}")
    for check in context.selected_asset_check_keys:
        yield _check(check, found)
    if problems:
        shown = "\n".join(f"- partition {each}: {why}" for each, why in [*problems.items()][:_SHOWN])
        raise dg.Failure(
            description=f"Pipeline {name}: {plural(len(problems), 'partition')} could not be evaluated; what was found "
            f"of the others, and before, is stored.\n{shown}",
            metadata={"partitions": dg.MetadataValue.json(problems)},
            allow_retries=False,
        )


def _metadata(of: Performance, partition: str) -> dict[str, Any]:
    """A partition's labels and figures. Numbers are numbers, so that the UI plots them over the partitions."""
    found: dict[str, Any] = {}
    for each in of.partitions:
        if each.partition_key == partition:
            arm = "" if each.part.arm == CHAMPION else f"{each.part.arm} "
            found |= {f"{arm}{name}": value for name, value in _of_part(of, each).items()}
    return found


def _of_part(of: Performance, each: Coverage) -> dict[str, Any]:
    metadata: dict[str, Any] = {"state": each.state, "rows": each.rows, "rows with labels": each.labelled}
    metadata |= {"share with labels": rounded(each.coverage), "model version": each.part.model_version}
    found = {"scoring": each.part.live.scoring_id}
    evaluation = each.evaluation
    if evaluation is None or not evaluation.labelled:
        return metadata | {"digests": digests(found)}
    figures: dict[str, Any] = {}
    for row in of.rows.get(evaluation.evaluation_id, ()):
        if row.segment is None:
            for name, value, low, high in zip(row.metrics, row.figures, row.lows, row.highs, strict=True):
                named = {name: value, f"{name} low": low, f"{name} high": high}
                figures |= {each: rounded(figure) for each, figure in named.items() if figure is not None}
    metadata = figures | metadata | {"restated": each.restated}
    if evaluation.score_psi is not None:
        metadata |= {"PSI of the score": rounded(evaluation.score_psi), "like the rest": not each.unlike_rest}
    return metadata | {"digests": digests(found | {"labels": evaluation.labels_digest})}


def _check(check: dg.AssetCheckKey, findings: Sequence[Finding]) -> dg.AssetCheckResult:
    """Whether no rule is in alarm."""
    alarms = [each for each in findings if each.state == "alarm"]
    judged = [each for each in findings if each.rule != "labels"]
    shown = [each for each in findings if each.state in ("alarm", "warning")] or judged
    if alarms:
        text = "In alarm: " + "; ".join(f"{each.subject}: {each.cause}" for each in alarms)
    elif not any(each.state == "ok" for each in judged):
        text = "Not judged yet: " + (judged[0].cause if judged else "no labelled partition counts yet") + "."
    else:
        text = f"No loss beyond what is allowed, up to partition {judged[0].partition_key}."
    metadata: dict[str, dg.MetadataValue] = {}
    if shown:
        metadata["findings"] = dg.MetadataValue.table([_record(each) for each in shown[:_SHOWN]], schema=_SCHEMA)
    return dg.AssetCheckResult(
        asset_key=check.asset_key,
        check_name=check.name,
        passed=not alarms,
        severity=dg.AssetCheckSeverity.WARN,
        description=text,
        metadata=metadata,
    )


_SCHEMA = dg.TableSchema(
    columns=[dg.TableColumn(name) for name in ("subject", "rule", "state", "value", "limit", "rows", "why")]
)


def _record(each: Finding) -> dg.TableRecord:
    value, limit = ("" if number is None else f"{number:.4g}" for number in (each.value, each.threshold))
    record = {"subject": each.subject, "rule": each.rule, "state": each.state, "value": value, "limit": limit}
    return dg.TableRecord(record | {"rows": each.rows, "why": each.cause})
