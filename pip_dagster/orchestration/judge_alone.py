"""A run of checks without their assets: what *Execute* on the checks of features and predictions launches."""

from collections.abc import Iterator, Sequence

import dagster as dg

from pip_dagster.declaration.pipeline import Pipeline
from pip_dagster.flow.judge_stored import Judged, judge_stored
from pip_dagster.ledger.checks import SPLIT
from pip_dagster.orchestration.checks import (
    Evaluated,
    executed_alone,
    owed,
    split_evaluations,
    unjudged,
)
from pip_dagster.orchestration.drift_check import drift_alone
from pip_dagster.orchestration.estimate_check import estimate_alone
from pip_dagster.orchestration.expectation_checks import by_key, evaluation, expectation_evaluations
from pip_dagster.orchestration.failure import as_failure
from pip_dagster.orchestration.keys import DRIFT_NAME, ESTIMATE_NAME, SPLIT_NAME
from pip_dagster.orchestration.runs import has_partitions

NEWEST = ", the newest that is stored"


def judge_alone(context: dg.AssetExecutionContext, pipeline: Pipeline) -> Iterator[Evaluated]:
    """Judge what is stored of the run's partitions, or of the newest stored one: Dagster has no partition for checks.

    Raises:
        Failure: what is stored cannot be judged, with the reason.
    """
    named = [*context.partition_keys] if has_partitions(context.run.tags) else []
    of_expectations: dict[dg.AssetKey, list[dg.AssetCheckKey]] = {}
    for check in sorted(context.selected_asset_check_keys, key=str):
        if check.name == DRIFT_NAME:
            yield from drift_alone(pipeline, check, named or None)
        elif check.name == ESTIMATE_NAME:
            yield from estimate_alone(pipeline, check, named)
        elif check.name == SPLIT_NAME:
            found = _judged(pipeline, SPLIT, named)
            of_split = [each for one in found for each in split_evaluations(pipeline, one.partition, one.checks)]
            yield from executed_alone(check, of_split, _nothing(check, named), note="" if named else NEWEST)
        else:
            of_expectations.setdefault(check.asset_key, []).append(check)
    for key, checks in of_expectations.items():
        yield from _expectations(pipeline, key, checks, named)


def _judged(pipeline: Pipeline, section: str, named: Sequence[str]) -> list[Judged]:
    with as_failure():
        wanted: Sequence[str | None] = named or [None]
        return [judged for key in wanted if (judged := judge_stored(pipeline, section, key))]


def _expectations(
    pipeline: Pipeline, asset: dg.AssetKey, checks: Sequence[dg.AssetCheckKey], named: Sequence[str]
) -> Iterator[Evaluated]:
    """The checks of one asset, whose partitions are read once."""
    found, suite = _judged(pipeline, asset.path[-1], named), by_key(pipeline)
    reported = [*expectation_evaluations(pipeline, [each for one in found for each in one.checks], {asset})]
    if len(found) == 1:
        note = "" if named else NEWEST
        ids = {(suite[key].section, suite[key].id): key for key in suite}
        keyed = {ids[each.section, each.expectation_id]: each for each in found[0].checks}
        reported = [evaluation(key, suite[key], entry, note=note) for key, entry in keyed.items()]
    for each in reported:
        if each.asset_check_key in checks:
            yield from (each,) if each.partition else owed(each)
    for check in {*checks} - {each.asset_check_key for each in reported}:
        yield from owed(unjudged(check, _nothing(check, named)))


def _nothing(check: dg.AssetCheckKey, named: Sequence[str]) -> str:
    where = " for this partition" if named else " yet"
    return (
        f"Nothing was judged: nothing of {check.asset_key.to_user_string()} is stored{where}. "
        "Materialize it for a partition first."
    )
