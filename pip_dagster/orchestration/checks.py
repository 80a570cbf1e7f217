"""The expectations as asset checks: one check an asset, one evaluation a partition."""

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import dagster as dg

from pip_dagster.declaration.pipeline import Pipeline
from pip_dagster.flow.engine import available_threads
from pip_dagster.flow.sources import open_sources
from pip_dagster.flow.validate_sources import validate_sources
from pip_dagster.ledger.checks import SPLIT, CheckEntry
from pip_dagster.monitoring.estimates import NO_LONGER, RUN_BY_CHANCE
from pip_dagster.monitoring.estimating import applies
from pip_dagster.orchestration.dagster_private import failed_evaluations
from pip_dagster.orchestration.failure import as_failure
from pip_dagster.orchestration.keys import features_key, predictions_key, source_key
from pip_dagster.orchestration.partitions import partitions_of
from pip_dagster.plural import plural
from pip_dagster.quality.suite import Expectation
from pip_dagster.warehouse.connect import workspace

NAME, SPLIT_NAME, DRIFT_NAME, PERFORMANCE_NAME = "expectations", "split", "drift", "performance"
ESTIMATE_NAME = "estimate"
# A run of more partitions does not report each one that passed: an event costs Dagster some 30 ms on SQLite.
EACH_REPORTED_UP_TO = 31
_SHOWN = 20


def asset_check_specs(pipeline: Pipeline) -> list[dg.AssetCheckSpec]:
    """The checks of features and predictions that the pipeline's own step evaluates."""
    suites = {
        features_key(pipeline.spec): pipeline.suites.features,
        predictions_key(pipeline.spec): pipeline.suites.predictions,
    }
    specs = [_spec(key, suite) for key, suite in suites.items() if suite]
    if experiment := pipeline.spec.scoring.experiment:
        specs.append(
            dg.AssetCheckSpec(
                SPLIT_NAME,
                asset=predictions_key(pipeline.spec),
                description=f"Whether the arms of the {experiment.kind} {experiment.salt!r} are live for their "
                f"shares, in the declared ratio, and within the canary's limits: {', '.join(experiment.arms)}.",
            )
        )
    if monitored := pipeline.spec.monitoring:
        specs.append(
            dg.AssetCheckSpec(
                DRIFT_NAME,
                asset=predictions_key(pipeline.spec),
                description="Whether features, scores and decisions are unlike training and unlike the partitions "
                f"before. A partition without drift fails with a probability of about {monitored.false_alarms:.1%}.",
            )
        )
    if applies(pipeline):
        specs.append(
            dg.AssetCheckSpec(
                ESTIMATE_NAME,
                asset=predictions_key(pipeline.spec),
                description="How good the scores are expected to be before labels arrive. It fails where labels show "
                f"that {NO_LONGER}; without a change, on about {RUN_BY_CHANCE:.1%} of the partitions.",
            )
        )
    return specs


def source_checks(pipeline: Pipeline, partitions: dg.TimeWindowPartitionsDefinition) -> list[dg.AssetChecksDefinition]:
    """The checks of the sources. A run evaluates them for its own partitions; run alone, they take the newest one."""
    spec = pipeline.spec
    specs = [_spec(source_key(spec, name), suite) for name, suite in pipeline.suites.sources.items() if suite]
    if not specs:
        return []

    @dg.multi_asset_check(
        name=f"{spec.name}_source_expectations",
        specs=specs,
        can_subset=True,
        description=f"Evaluate the newest partition of the sources of {spec.name}.",
    )
    def evaluate_sources(context: dg.AssetCheckExecutionContext) -> Iterator[dg.AssetCheckResult]:
        newest = partitions.get_last_partition_key()
        if newest is None:
            raise dg.Failure(description=f"{spec.name} has no partition yet: its grid starts {spec.partitions.start}.")
        (partition,) = partitions_of(partitions, [newest])
        with (
            as_failure(),
            workspace(threads=available_threads()) as con,
            open_sources(con, spec, pipeline.project.root),
        ):
            verdicts = validate_sources(con, spec, pipeline.suites, [partition]).verdicts[newest]
        entries = [CheckEntry.of(verdict, "", spec.name, newest) for verdict in verdicts]
        for key, of_asset in _by_check(pipeline, entries).items():
            if key in context.selected_asset_check_keys:
                yield dg.AssetCheckResult(asset_key=key.asset_key, check_name=NAME, **outcome(of_asset, newest))

    return [evaluate_sources]


def evaluations(
    pipeline: Pipeline, partition: str, checks: Sequence[CheckEntry], wanted: Iterable[dg.AssetKey]
) -> Iterator[dg.AssetCheckEvaluation]:
    """One evaluation for each of the `wanted` assets and each source with `checks`."""
    own = {features_key(pipeline.spec), predictions_key(pipeline.spec)}
    for check, of_check in _by_check(pipeline, checks).items():
        if check.asset_key in wanted or check.asset_key not in own:
            yield dg.AssetCheckEvaluation(
                asset_key=check.asset_key,
                check_name=check.name,
                partition=partition,
                blocking=False,
                **outcome(of_check, partition),
            )


def summary(check: dg.AssetCheckKey, of_run: Sequence[dg.AssetCheckEvaluation]) -> dg.AssetCheckResult:
    """The one result that a step owes for each of its checks: whether all its partitions passed."""
    mine = [each for each in of_run if each.asset_check_key == check]
    failed = [each for each in mine if not each.passed]
    severe = any(each.severity == dg.AssetCheckSeverity.ERROR for each in failed)
    return dg.AssetCheckResult(
        asset_key=check.asset_key,
        check_name=check.name,
        passed=not failed,
        severity=dg.AssetCheckSeverity.ERROR if severe else dg.AssetCheckSeverity.WARN,
        description=f"{len(failed)} of {plural(len(mine), 'partition')} of the run did not pass."
        if failed
        else f"All {plural(len(mine), 'partition')} of the run passed.",
        metadata={"partitions": len(mine)}
        | ({"failing": ", ".join(str(each.partition) for each in failed[:50])} if failed else {}),
    )


def executed_alone(
    check: dg.AssetCheckKey, of_run: Sequence[dg.AssetCheckEvaluation], nothing: str
) -> Iterator[dg.AssetCheckEvaluation | dg.AssetCheckResult]:
    """What a step owes for a check executed without its asset; `nothing` is its text where nothing was judged."""
    if len(of_run) > 1:
        yield from of_run
        yield summary(check, of_run)
        return
    only = of_run[0] if of_run else None
    yield dg.AssetCheckResult(
        asset_key=check.asset_key,
        check_name=check.name,
        passed=only is not None and only.passed,
        severity=only.severity if only else dg.AssetCheckSeverity.WARN,
        description=f"Partition {only.partition}: {only.description}" if only else nothing,
        metadata=only.metadata if only else {},
    )


def news(
    instance: dg.DagsterInstance, of_run: Sequence[dg.AssetCheckEvaluation], summed_up: Iterable[dg.AssetCheckKey]
) -> Iterator[dg.AssetCheckEvaluation]:
    """The evaluations of a run to report to Dagster: all; of a long run, those that failed now or once before.

    In a long run the partitions that passed share one evaluation per check: for the checks that are `summed_up` it is
    the step's own result, for the others it is created here. The ledger has every verdict in either case.
    """
    if len({each.partition for each in of_run}) <= EACH_REPORTED_UP_TO:
        yield from of_run
        return
    checks = {each.asset_check_key for each in of_run}
    # Else Dagster would keep showing as failed a partition that passes now.
    once_failed = {(key, partition) for key in checks for partition in failed_evaluations(instance, key)}
    for each in of_run:
        if not each.passed or (each.asset_check_key, each.partition) in once_failed:
            yield each
    for key in sorted(checks - set(summed_up), key=str):
        whole = summary(key, of_run)
        yield dg.AssetCheckEvaluation(
            asset_key=key.asset_key,
            check_name=key.name,
            passed=whole.passed,
            severity=whole.severity,
            description=whole.description,
            metadata=whole.metadata,
            blocking=False,
        )


def _spec(key: dg.AssetKey, suite: Sequence[Expectation]) -> dg.AssetCheckSpec:
    listed = "\n".join(f"- `{e.id}` ({e.severity}): {e.description or e.type}" for e in suite)
    return dg.AssetCheckSpec(
        NAME, asset=key, description=f"Great Expectations, evaluated partition by partition:\n{listed}"
    )


def _by_check(pipeline: Pipeline, checks: Iterable[CheckEntry]) -> dict[dg.AssetCheckKey, list[CheckEntry]]:
    spec = pipeline.spec
    keys = {f"sources.{name}": dg.AssetCheckKey(source_key(spec, name), NAME) for name in spec.sources}
    keys["features"] = dg.AssetCheckKey(features_key(spec), NAME)
    keys["predictions"] = dg.AssetCheckKey(predictions_key(spec), NAME)
    keys[SPLIT] = dg.AssetCheckKey(predictions_key(spec), SPLIT_NAME)
    found: dict[dg.AssetCheckKey, list[CheckEntry]] = {}
    for check in checks:
        found.setdefault(keys[check.section], []).append(check)
    return found


def outcome(checks: Sequence[CheckEntry], partition: str) -> dict[str, Any]:
    """Passed, severity, description and metadata of one asset's verdicts on one partition.

    critical fails with ERROR, warning with WARN, info does not fail. An expectation that could not be evaluated fails.
    """
    unmet = [check for check in checks if check.status != "passed"]
    failing = [check for check in unmet if check.severity != "info"]
    critical = any(check.severity == "critical" for check in failing)
    metadata: dict[str, Any] = {
        "partition": partition,
        "evaluated": len(checks),
        "met": len(checks) - len(unmet),
        "not_met": len([check for check in unmet if check.status == "failed"]),
        "not_evaluated": len([check for check in unmet if check.status == "errored"]),
    }
    # A split has no rows to count: its figures are what there is to see, passed or not.
    of_split = [check for check in checks if check.section == SPLIT and check.observed]
    metadata |= {check.expectation_id: json.loads(check.observed or "null") for check in of_split}
    if unmet:
        metadata["unmet"] = dg.MetadataValue.table([_record(check) for check in unmet], schema=_SCHEMA)
        examples = [_example(check, row) for check in unmet for row in check.rows]
        if examples:
            metadata["examples"] = dg.MetadataValue.table(examples[:_SHOWN])
    return {
        "passed": not failing,
        "severity": dg.AssetCheckSeverity.ERROR if critical or not failing else dg.AssetCheckSeverity.WARN,
        "description": "; ".join(check.text for check in unmet) or "All expectations are met.",
        "metadata": metadata,
    }


_SCHEMA = dg.TableSchema(
    columns=[
        dg.TableColumn(name)
        for name in ("expectation", "severity", "status", "broken_by_rows", "of_rows", "observed", "type", "why")
    ]
)


def _record(check: CheckEntry) -> dg.TableRecord:
    return dg.TableRecord(
        {
            "expectation": check.expectation_id,
            "severity": check.severity,
            "status": check.status,
            "broken_by_rows": "" if check.unexpected_count is None else check.unexpected_count,
            "of_rows": "" if check.element_count is None else check.element_count,
            "observed": check.observed or "",
            "type": check.type,
            "why": check.error or check.description,
        }
    )


def _example(check: CheckEntry, row: dict[str, Any]) -> dg.TableRecord:
    shown = ", ".join(f"{name} = {value}" for name, value in row.items())
    return dg.TableRecord({"expectation": check.expectation_id, "row": shown})
