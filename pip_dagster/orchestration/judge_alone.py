"""A run of checks without their assets: what *Execute* on the checks of features and predictions launches."""

from collections.abc import Iterator

import dagster as dg

from pip_dagster.declaration.pipeline import Pipeline
from pip_dagster.flow.judge_stored import Judged, judge_stored
from pip_dagster.ledger.checks import SPLIT
from pip_dagster.orchestration.checks import DRIFT_NAME, ESTIMATE_NAME, SPLIT_NAME, evaluations, outcome, summary
from pip_dagster.orchestration.drift_check import drift_alone
from pip_dagster.orchestration.estimate_check import estimate_alone
from pip_dagster.orchestration.failure import as_failure
from pip_dagster.orchestration.runs import has_partitions


def judge_alone(
    context: dg.AssetExecutionContext, pipeline: Pipeline
) -> Iterator[dg.AssetCheckEvaluation | dg.AssetCheckResult]:
    """Judge what is stored of the run's partitions, or of the newest stored one: Dagster has no partition for checks.

    Raises:
        Failure: what is stored cannot be judged, with the reason.
    """
    keys = context.partition_keys if has_partitions(context.run.tags) else [None]
    for check in sorted(context.selected_asset_check_keys, key=str):
        if check.name == DRIFT_NAME:
            yield from drift_alone(pipeline, check, None if keys == [None] else [key for key in keys if key])
            continue
        if check.name == ESTIMATE_NAME:
            yield from estimate_alone(pipeline, check, [key for key in keys if key])
            continue
        section = SPLIT if check.name == SPLIT_NAME else check.asset_key.path[-1]
        with as_failure():
            found = [judged for key in keys if (judged := judge_stored(pipeline, section, key))]
        if len(found) > 1:
            of_run = [each for judged in found for each in _evaluations(pipeline, check, judged)]
            yield from of_run
            yield summary(check, of_run)
        else:
            yield _result(check, found[0] if found else None, is_newest=keys == [None])


def _result(check: dg.AssetCheckKey, judged: Judged | None, *, is_newest: bool) -> dg.AssetCheckResult:
    if judged is None:
        return dg.AssetCheckResult(
            asset_key=check.asset_key,
            check_name=check.name,
            passed=False,
            severity=dg.AssetCheckSeverity.WARN,
            description=f"Nothing was judged: nothing of {check.asset_key.to_user_string()} is stored"
            + (" yet" if is_newest else " for this partition")
            + ". Materialize it for a partition first.",
        )
    found = outcome(judged.checks, judged.partition)
    which = f"Partition {judged.partition}" + (", the newest that is stored" if is_newest else "")
    found["description"] = f"{which}: {found['description']}"
    return dg.AssetCheckResult(asset_key=check.asset_key, check_name=check.name, **found)


def _evaluations(pipeline: Pipeline, check: dg.AssetCheckKey, judged: Judged) -> list[dg.AssetCheckEvaluation]:
    own = evaluations(pipeline, judged.partition, judged.checks, {check.asset_key})
    return [each for each in own if each.asset_check_key == check]
