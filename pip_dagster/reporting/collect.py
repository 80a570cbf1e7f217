"""The content of a pipeline's report, read from the ledger and the registry."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from pip_dagster.declaration.monitoring import Monitoring
from pip_dagster.errors import RegistryError
from pip_dagster.reporting.alarms import (
    alarm_of,
    blocked_alarms,
    chain_alarm,
    drift_alarms,
    read_silences,
    silence_lines,
    stored_alarms,
)
from pip_dagster.reporting.card import card_of, gates_of, moves_of, versions_of
from pip_dagster.reporting.content import SCHEMA, AlarmLine, Audit, ExceptionLine, Report
from pip_dagster.reporting.days import attempts_of, checks_of, days_of
from pip_dagster.reporting.distributions import Profiled, column_lines, distributions, rates
from pip_dagster.reporting.expected import read_expected, why_no_estimates, with_estimates
from pip_dagster.reporting.facts import Facts, read_facts
from pip_dagster.reporting.figures import rounded
from pip_dagster.reporting.measured import by_score, findings_of, headline, metric_series, read_measured, with_labels
from pip_dagster.reporting.provenance import live_version, period_of, provenance_of
from pip_dagster.reporting.source import opened
from pip_dagster.reporting.terms import digests_of, limits_of, retention_of, thresholds_of
from pip_dagster.reporting.verdict import Headline, tiles_of, verdict_of

if TYPE_CHECKING:
    from pip_dagster.declaration.pipeline import Pipeline
    from pip_dagster.ledger.estimates import GradedEstimate
    from pip_dagster.monitoring.finding import Finding
    from pip_dagster.monitoring.performance import Performance
    from pip_dagster.registry.version import ModelVersion


def collect(pipeline: Pipeline, *, first: str | None = None, last: str | None = None) -> Report:
    """The report over the partitions from `first` to `last`, by default the newest 90.

    Raises:
        DeclarationError: a key names no partition, or the range is too long.
        WarehouseError: neither the warehouse nor what is published can be read.
    """
    with opened(pipeline.project) as source:
        version, why_not = live_version(source, pipeline)
        facts = read_facts(source, pipeline, version, first, last)
        silences = read_silences(source, pipeline.spec.name, facts.as_of)
        alarms = stored_alarms(source, pipeline.spec.name, silences, facts.as_of)
        measured = read_measured(source, pipeline, facts.keys, facts.as_of)
        expected = read_expected(source, pipeline, version, facts.as_of) if pipeline.labels else []
    findings = findings_of(pipeline, measured)
    report = _with_labels(_report(pipeline, facts, version, why_not), pipeline, measured, expected, findings)
    report = replace(report, alarms=(*(line for each in findings if (line := alarm_of(each))), *report.alarms))
    report = replace(report, accepted=(*silence_lines(silences), *report.accepted))
    return rounded(_with_head(report, pipeline, facts, alarms, headline(measured, findings)))


def _report(pipeline: Pipeline, facts: Facts, version: ModelVersion | None, why_not: str) -> Report:
    """Everything but the head and the alarms."""
    spec, unavailable = pipeline.spec, dict[str, str]()
    profiled = Profiled.of(facts.series, spec.monitoring or Monitoring()) if facts.series else None
    days = days_of(facts, profiled)
    if not profiled:
        unavailable["drift"] = _why_no_drift(pipeline, facts, why_not)
    report = Report(
        schema=SCHEMA,
        pipeline=spec.name,
        description=spec.description or "",
        owners=spec.owners,
        origin=provenance_of(pipeline, facts, version),
        period=period_of(facts),
        verdict=verdict_of(spec.name, (), ()),
        tiles=(),
        days=days,
        scores=distributions(profiled) if profiled else (),
        columns=column_lines(profiled, days) if profiled else (),
        checks=checks_of(facts),
        attempts=attempts_of(facts),
        decisions=rates(profiled, days, (spec.monitoring or Monitoring()).history),
        audit=_audit(facts),
        accepted=_accepted(facts),
        retention=retention_of(),
        limits=limits_of(pipeline, version, facts, days),
        thresholds=thresholds_of(pipeline),
        digests=digests_of(pipeline, version, facts),
        unavailable=unavailable,
    )
    if profiled and facts.why_published is None:
        report = replace(report, alarms=tuple(drift_alarms(spec.name, days, profiled, spec.monitoring or Monitoring())))
    if version is None:
        return replace(report, unavailable=unavailable | {"model": why_not})
    return _with_model(report, pipeline, version)


def _with_model(report: Report, pipeline: Pipeline, version: ModelVersion) -> Report:
    try:
        return replace(
            report,
            card=card_of(pipeline, version),
            versions=versions_of(pipeline, report.days),
            moves=moves_of(pipeline),
            gates=gates_of(pipeline, version),
        )
    except RegistryError as error:
        return replace(report, unavailable=report.unavailable | {"model": str(error)})


def _with_labels(
    report: Report,
    pipeline: Pipeline,
    measured: Performance | None,
    expected: Sequence[GradedEstimate],
    findings: Sequence[Finding],
) -> Report:
    """The report with what labels show and what was expected before, or why that is not known."""
    why = None
    if pipeline.labels is None:
        why = "no labels are declared"
    elif measured is None:
        why = "the published files have no labels; run the report where the warehouse can be read"
    elif not measured.metric:
        why = f"no labels were evaluated yet; run `pip-dagster performance {report.pipeline} --evaluate`"
    days = with_labels(report.days, measured) if measured else report.days
    if why or measured is None:
        unavailable = dict.fromkeys(("performance", "estimates", "calibration"), why or "")
        return replace(report, days=days, unavailable=report.unavailable | unavailable)
    lift, calibration = by_score(measured)
    why = why_no_estimates(expected)
    return replace(
        report,
        days=days,
        performance=with_estimates(metric_series(measured, days, findings), expected),
        lift=lift,
        calibration=calibration,
        unavailable=report.unavailable | ({"estimates": why} if why else {}),
    )


def _with_head(
    report: Report, pipeline: Pipeline, facts: Facts, alarms: list[AlarmLine] | None, measured: Headline | None
) -> Report:
    """The report with its alarms, the tiles and the verdict."""
    name = pipeline.spec.name
    listed = report.alarms if alarms is None else tuple(alarms)
    fault = facts.chain.fault if facts.chain else None
    broken = [chain_alarm(fault, report.period.last or "")] if fault else []
    listed = (*broken, *blocked_alarms(name, report.days), *listed)
    tiles = tiles_of(pipeline.spec, report.days, listed, report.performance, report.unavailable, measured)
    return replace(report, alarms=listed, tiles=tiles, verdict=verdict_of(name, tiles, listed))


def _why_no_drift(pipeline: Pipeline, facts: Facts, why_not: str) -> str:
    name = pipeline.spec.name
    if why_not:
        return why_not
    if not facts.keys:
        return "there is no partition"
    if facts.why_published:
        return "the published files have no profiles; run the report where the warehouse can be read"
    how = "" if pipeline.spec.monitoring else "declare `monitoring: {}`, and "
    return f"no partition of the period is profiled; {how}run `pip-dagster monitor {name} --backfill`"


def _audit(facts: Facts) -> Audit | None:
    chain = facts.chain
    if chain is None:
        return None
    if not chain.verified:
        return Audit(chain.entry, chain.head, None, "Too long to verify in a report; run `pip-dagster audit verify`.")
    if chain.fault:
        return Audit(chain.entry, chain.head, False, f"The chain is broken. The first fault: {chain.fault}")
    return Audit(chain.entry, chain.head, True, "The chain is intact and agrees with the ledger and the registry.")


def _accepted(facts: Facts) -> tuple[ExceptionLine, ...]:
    return tuple(
        ExceptionLine(
            at=f"{row['at']:%Y-%m-%d %H:%M}",
            by=str(row["details"].get("accepted_by") or row["actor"]),
            what=", ".join(f"{name} {value}" for name, value in row["subject"].items()),
            why=str(row["details"].get("accepted_why") or row["details"].get("why") or ""),
        )
        for row in facts.accepted
    )
