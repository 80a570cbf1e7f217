"""The asset checks of a pipeline, and what a run reports of them to Dagster."""

import json
from collections import Counter
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
from pip_dagster.orchestration.expectation_checks import by_key, evaluation, expectation_spec
from pip_dagster.orchestration.failure import as_failure
from pip_dagster.orchestration.keys import DRIFT_NAME, ESTIMATE_NAME, SPLIT_NAME, features_key, predictions_key
from pip_dagster.orchestration.links import docs
from pip_dagster.orchestration.partitions import partitions_of
from pip_dagster.plural import plural
from pip_dagster.warehouse.connect import workspace

# A run of more partitions does not report each one that passed: an event costs Dagster some 30 ms on SQLite.
EACH_REPORTED_UP_TO = 31

Evaluated = dg.AssetCheckEvaluation | dg.Output[None]


def asset_check_specs(pipeline: Pipeline) -> list[dg.AssetCheckSpec]:
    """The checks of features and predictions that the pipeline's own step evaluates."""
    own = {features_key(pipeline.spec), predictions_key(pipeline.spec)}
    specs = [
        expectation_spec(pipeline, key, expectation)
        for key, expectation in by_key(pipeline).items()
        if key.asset_key in own
    ]
    if experiment := pipeline.spec.scoring.experiment:
        specs.append(
            dg.AssetCheckSpec(
                SPLIT_NAME,
                asset=predictions_key(pipeline.spec),
                description=f"Whether the arms of the {experiment.kind} {experiment.salt!r} are live for their "
                f"shares, in the declared ratio, and within the canary's limits: {', '.join(experiment.arms)}.",
                metadata=docs(pipeline, "experiments"),
            )
        )
    if monitored := pipeline.spec.monitoring:
        specs.append(
            dg.AssetCheckSpec(
                DRIFT_NAME,
                asset=predictions_key(pipeline.spec),
                description="Whether features, scores and decisions are unlike training and unlike the partitions "
                f"before. A partition without drift fails with a probability of about {monitored.false_alarms:.1%}.",
                metadata=docs(pipeline, "monitoring"),
            )
        )
    if applies(pipeline):
        specs.append(
            dg.AssetCheckSpec(
                ESTIMATE_NAME,
                asset=predictions_key(pipeline.spec),
                description="How good the scores are expected to be before labels arrive. It fails where labels show "
                f"that {NO_LONGER}; without a change, on about {RUN_BY_CHANCE:.1%} of the partitions.",
                metadata=docs(pipeline, "estimates"),
            )
        )
    return specs


def source_checks(pipeline: Pipeline, partitions: dg.TimeWindowPartitionsDefinition) -> list[dg.AssetChecksDefinition]:
    """The checks of the sources. A run evaluates them for its own partitions; run alone, they take the newest one."""
    spec = pipeline.spec
    own = {features_key(spec), predictions_key(spec)}
    suite = {key: each for key, each in by_key(pipeline).items() if key.asset_key not in own}
    specs = [expectation_spec(pipeline, key, expectation) for key, expectation in suite.items()]
    if not specs:
        return []

    @dg.multi_asset_check(
        name=f"{spec.name}_source_expectations",
        specs=specs,
        can_subset=True,
        description=f"Evaluate the newest partition of the sources of {spec.name}.",
    )
    def evaluate_sources(context: dg.AssetCheckExecutionContext) -> Iterator[Evaluated]:
        newest = partitions.get_last_partition_key()
        if newest is None:
            raise dg.Failure(description=f"{spec.name} has no partition yet: its grid starts {spec.partitions.start}.")
        (partition,) = partitions_of(partitions, [newest])
        with (
            as_failure(),
            workspace(threads=available_threads()) as con,
            open_sources(con, spec, pipeline.project.root),
        ):
            verdicts = validate_sources(con, pipeline, [partition]).verdicts[newest]
        found = {(each.expectation.section, each.expectation.id): each for each in verdicts}
        for key, expectation in suite.items():
            if key in context.selected_asset_check_keys:
                entry = CheckEntry.of(found[expectation.section, expectation.id], "", spec.name, newest)
                yield from owed(evaluation(key, expectation, entry, note=", the newest partition"))

    return [evaluate_sources]


def owed(of_check: dg.AssetCheckEvaluation) -> Iterator[Evaluated]:
    """An evaluation with the output that the step owes for its check.

    `AssetCheckResult` is both, but a failed blocking one ends the step with an error of Dagster's.
    """
    yield of_check
    yield output(of_check.asset_check_key)


def output(key: dg.AssetCheckKey) -> dg.Output[None]:
    """The output of a check, without which steps that wait for it are skipped."""
    return dg.Output(None, output_name=dg.AssetCheckSpec(key.name, asset=key.asset_key).get_python_identifier())


def split_evaluations(
    pipeline: Pipeline, partition: str, checks: Iterable[CheckEntry]
) -> Iterator[dg.AssetCheckEvaluation]:
    """How a partition is split, if it is."""
    if of_split := [check for check in checks if check.section == SPLIT]:
        yield dg.AssetCheckEvaluation(
            asset_key=predictions_key(pipeline.spec),
            check_name=SPLIT_NAME,
            partition=partition,
            blocking=False,
            **split_outcome(of_split, partition),
        )


def summary(of_run: Sequence[dg.AssetCheckEvaluation]) -> dg.AssetCheckEvaluation:
    """Whether all the partitions of a run passed a check."""
    failed = [each for each in of_run if not each.passed]
    newest, between = (failed or of_run)[-1], f"{of_run[0].partition}…{of_run[-1].partition}"
    count = plural(len(of_run), "partition")
    result = f"{len(failed)} of {count} did not pass" if failed else f"all {count} passed"
    metadata = {"not passed": ", ".join(str(each.partition) for each in failed[-50:])} if failed else {}
    return dg.AssetCheckEvaluation(
        asset_key=newest.asset_key,
        check_name=newest.check_name,
        passed=not failed,
        severity=newest.severity,
        description=f"{between}: {result}; newest: {newest.partition}: {newest.description}",
        metadata={"partitions": between, **metadata},
        blocking=False,
    )


def executed_alone(
    check: dg.AssetCheckKey, of_run: Sequence[dg.AssetCheckEvaluation], nothing: str, *, note: str = ""
) -> Iterator[Evaluated]:
    """What a step owes for a check executed without its asset; `nothing` is its text where nothing was judged."""
    if len(of_run) > 1:
        yield from of_run
        yield from owed(summary(of_run))
        return
    for only in of_run:
        # The run has no partition, so its row has none either.
        yield from owed(described(only, f"{only.partition}{note}: {only.description}", partition=None))
        return
    yield from owed(unjudged(check, nothing))


def unjudged(check: dg.AssetCheckKey, why: str) -> dg.AssetCheckEvaluation:
    """A check executed where there is nothing to judge."""
    return dg.AssetCheckEvaluation(
        asset_key=check.asset_key,
        check_name=check.name,
        passed=False,
        severity=dg.AssetCheckSeverity.WARN,
        description=why,
        blocking=False,
    )


def described(of: dg.AssetCheckEvaluation, text: str, **changed: Any) -> dg.AssetCheckEvaluation:
    """The same with another description, and with its partition in its metadata."""
    values = {"partition": of.partition, "severity": of.severity, "passed": of.passed, "blocking": of.blocking}
    return dg.AssetCheckEvaluation(
        asset_key=of.asset_key,
        check_name=of.check_name,
        description=text,
        metadata={"partition": of.partition, **of.metadata},
        **(values | changed),
    )


def news(
    instance: dg.DagsterInstance, of_check: Sequence[dg.AssetCheckEvaluation]
) -> Iterator[dg.AssetCheckEvaluation]:
    """What a run reports of a check: each partition, then a summary; of a long run, those that failed now or before.

    Their texts begin with the partition, since the history of such a check has no column for it.
    """
    if len(of_check) <= EACH_REPORTED_UP_TO:
        shown = [*of_check]
    else:  # Dagster would keep showing as failed a partition that passes now
        once_failed = {*failed_evaluations(instance, of_check[0].asset_check_key)}
        shown = [each for each in of_check if not each.passed or each.partition in once_failed]
    yield from (described(each, f"{each.partition}: {each.description}") for each in shown)
    if len(of_check) > 1:
        yield summary(of_check)


def split_outcome(checks: Sequence[CheckEntry], partition: str) -> dict[str, Any]:
    """Passed, severity, description and metadata of the verdicts on how one partition is split. It warns at most."""
    unmet = [check for check in checks if check.status != "passed"]
    counts = Counter(check.status for check in checks)
    metadata: dict[str, Any] = {"partition": partition, "evaluated": len(checks), "met": counts["passed"]}
    metadata |= {"not met": counts["failed"], "not evaluated": counts["errored"]}
    # Its figures are what there is to see, passed or not.
    metadata |= {check.expectation_id: json.loads(check.observed) for check in checks if check.observed}
    return {
        "passed": not unmet,
        "severity": dg.AssetCheckSeverity.WARN,
        "description": "; ".join(check.text for check in unmet) or "The arms are live as declared.",
        "metadata": metadata,
    }
