"""One asset check for each expectation, with its sentence, what was observed, and what it does to a partition.

The checks have no partitions of their own, or Dagster would not *Execute* them. A run of several partitions reports one
evaluation a check, which names the partitions that do not meet it, and before it one for each of the newest of these.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import dagster as dg

from pip_dagster.flow.validate import is_about_rows
from pip_dagster.ledger.checks import CheckEntry
from pip_dagster.orchestration.keys import CHECK_NAMES, features_key, predictions_key, source_key
from pip_dagster.orchestration.links import docs
from pip_dagster.plural import plural
from pip_dagster.quality.sentence import observed_in_words, sentence

if TYPE_CHECKING:
    from pip_dagster.declaration.pipeline import Pipeline
    from pip_dagster.quality.suite import Expectation

# Of an expectation that a run's partitions do not meet, so many of them, the newest, have an evaluation of their own.
FAILING_REPORTED = 5
_EXAMPLES, _NAMED = 10, 50


def by_key(pipeline: Pipeline) -> dict[dg.AssetCheckKey, Expectation]:
    """Every expectation of the pipeline by its check."""
    spec = pipeline.spec
    found: dict[dg.AssetCheckKey, Expectation] = {}
    suites = [(source_key(spec, name), name, suite) for name, suite in pipeline.suites.sources.items()]
    suites.append((features_key(spec), "", pipeline.suites.features))
    suites.append((predictions_key(spec), "", pipeline.suites.predictions))
    for key, source, suite in suites:
        # Several pipelines may judge a table that another asset builds.
        prefix = f"{spec.name}_" if source and spec.sources[source].asset_key else ""
        for expectation in suite:
            taken = {each.name for each in found if each.asset_key == key}
            found[dg.AssetCheckKey(key, _name(prefix + expectation.id, taken))] = expectation
    return found


def _name(wanted: str, taken: set[str]) -> str:
    """A name that Dagster takes; the id itself wherever that is one."""
    plain = re.sub(r"\W", "_", wanted, flags=re.ASCII)
    name, number = plain, 2
    while name in taken.union(CHECK_NAMES):
        name, number = f"{plain}_{number}", number + 1
    return name


def expectation_spec(pipeline: Pipeline, key: dg.AssetCheckKey, expectation: Expectation) -> dg.AssetCheckSpec:
    """The check's description says what is expected, and what happens when it is not met."""
    own = f"{expectation.description}\n\n" if expectation.description else ""
    return dg.AssetCheckSpec(
        key.name,
        asset=key.asset_key,
        description=f"{own}Expected: {sentence(expectation)}.\n\n{_consequence(expectation)}",
        blocking=blocks(expectation),
        metadata={"expectation": expectation.type, "declared in": expectation.origin, **docs(pipeline, "quality")},
    )


def blocks(expectation: Expectation) -> bool:
    """Whether a partition that does not meet it is not published."""
    quarantines = expectation.section == "features" and is_about_rows(expectation)
    return expectation.severity == "critical" and not quarantines


def _consequence(expectation: Expectation) -> str:
    if expectation.severity != "critical":
        never = "; never fails the check" if expectation.severity == "info" else ""
        return f"**{expectation.severity}**: recorded{never}. The partition is scored."
    if blocks(expectation):
        return "**critical**: blocks the partition when not met."
    return "**critical**: rows that do not meet it are quarantined, and the other rows are scored."


def expectation_evaluations(
    pipeline: Pipeline, entries: Iterable[CheckEntry], wanted: Iterable[dg.AssetKey]
) -> Iterator[dg.AssetCheckEvaluation]:
    """What a run reports of these verdicts on the `wanted` assets and on sources; the last of each check sums it up."""
    own = {features_key(pipeline.spec), predictions_key(pipeline.spec)} - {*wanted}
    suite = by_key(pipeline)
    keys = {(each.section, each.id): key for key, each in suite.items()}
    found: dict[dg.AssetCheckKey, dict[str, CheckEntry]] = {}
    for entry in entries:
        key = keys.get((entry.section, entry.expectation_id))  # None: of a split, or recalled and since renamed
        if key and key.asset_key not in own:
            found.setdefault(key, {})[entry.partition_key] = entry
    for key, of_check in found.items():
        newest_last = [of_check[partition] for partition in sorted(of_check)]
        if len(newest_last) > 1:
            unmet = [entry for entry in newest_last if entry.status != "passed"]
            for entry in unmet[-FAILING_REPORTED:]:
                yield evaluation(key, suite[key], entry, partition=entry.partition_key)
            yield _summary(key, suite[key], newest_last, unmet)
        else:
            yield evaluation(key, suite[key], newest_last[0], partition=newest_last[0].partition_key)


def evaluation(
    key: dg.AssetCheckKey, expectation: Expectation, entry: CheckEntry, *, partition: str | None = None, note: str = ""
) -> dg.AssetCheckEvaluation:
    """One verdict. Its text begins with the partition, since the history of such a check has no column for it.

    `partition` is None where the run has no partitions, so that it takes the row which Dagster planned.
    """
    return _evaluation(
        key,
        expectation,
        [entry],
        f"{entry.partition_key}{note}: {_verdict(entry)}",
        {"partition": entry.partition_key, "observed": _observed(entry), **_example_table([entry])},
        partition=partition,
    )


def _summary(
    key: dg.AssetCheckKey, expectation: Expectation, of_run: Sequence[CheckEntry], unmet: Sequence[CheckEntry]
) -> dg.AssetCheckEvaluation:
    between = f"{of_run[0].partition_key}…{of_run[-1].partition_key}"
    if not unmet:
        text, metadata = f"{between}: met in {plural(len(of_run), 'partition')}", {}
    else:
        newest = unmet[-1]
        text = (
            f"{between}: not met in {len(unmet)} of {plural(len(of_run), 'partition')}; newest: "
            f"{newest.partition_key}: {_verdict(newest)}"
        )
        named = ", ".join(entry.partition_key for entry in unmet[-_NAMED:])
        more = f" and {len(unmet) - _NAMED} older ones" if len(unmet) > _NAMED else ""
        metadata = {"not met in": named + more, "observed": _observed(newest), **_example_table(unmet)}
    return _evaluation(key, expectation, unmet or of_run, text, {"partitions": between, **metadata})


def _evaluation(
    key: dg.AssetCheckKey,
    expectation: Expectation,
    entries: Sequence[CheckEntry],
    description: str,
    metadata: Mapping[str, Any],
    partition: str | None = None,
) -> dg.AssetCheckEvaluation:
    met = all(entry.status == "passed" for entry in entries)
    is_severe = expectation.severity == "critical"
    return dg.AssetCheckEvaluation(
        asset_key=key.asset_key,
        check_name=key.name,
        passed=met or expectation.severity == "info",
        severity=dg.AssetCheckSeverity.ERROR if is_severe else dg.AssetCheckSeverity.WARN,
        description=description + (" (info)" if not met and expectation.severity == "info" else ""),
        metadata={"expected": sentence(expectation), "severity": expectation.severity, **metadata},
        blocking=False,  # the step itself refuses a partition, and stores the others
        partition=partition,
    )


def _verdict(entry: CheckEntry) -> str:
    if entry.status == "errored":
        return f"could not be evaluated: {entry.error}"
    met, observed = "met" if entry.status == "passed" else "not met", _observed(entry)
    of_rows = entry.unexpected_count is not None
    return met if not observed else f"{met}: {observed}" if of_rows else f"{met}: observed {observed}"


def _observed(entry: CheckEntry) -> str:
    if entry.unexpected_count is not None:
        if not entry.unexpected_count:
            return f"all rows fit, {entry.element_count:,}" if entry.element_count else "no row"
        verb = "does" if entry.unexpected_count == 1 else "do"
        return f"{entry.unexpected_count:,} of {plural(entry.element_count or 0, 'row')} {verb} not fit"
    return "" if entry.observed is None else observed_in_words(json.loads(entry.observed))


def _example_table(entries: Sequence[CheckEntry]) -> dict[str, Any]:
    rows = [(entry.partition_key, row) for entry in reversed(entries) for row in entry.rows][:_EXAMPLES]
    if not rows:
        return {}
    shown = [{"partition": key} | {name: _cell(value) for name, value in row.items()} for key, row in rows]
    columns = [dg.TableColumn(name, "string") for name in dict.fromkeys(name for row in shown for name in row)]
    records = [dg.TableRecord({column.name: row.get(column.name, "") for column in columns}) for row in shown]
    return {"examples": dg.MetadataValue.table(records, schema=dg.TableSchema(columns))}


def _cell(value: Any) -> str:
    return "" if value is None else observed_in_words(value) if isinstance(value, float) else str(value)
