"""The tests of model development that evidence can answer."""

from __future__ import annotations

from pip_dagster.errors import PipelineError
from pip_dagster.plural import plural
from pip_dagster.promotion.reports import reports_on
from pip_dagster.registry.signing import key_id, public_key, verify_signers
from pip_dagster.scorecard.found import Evidence, Found, missing
from pip_dagster.scorecard.records import LEAST_COMPARED, WINDOW, Records
from pip_dagster.statistics.loss import chance_level
from pip_dagster.statistics.metrics.spec import HIGHER_IS_BETTER, default_metric, metric_base
from pip_dagster.statistics.metrics.sums import MetricSums, Stack

# The first of these that a task has is compared with what knows only how frequent the outcome is.
_AGAINST_CHANCE = ("logloss", "r2", "gini", "ovr_auc", "auc", "concordance")
_LEAST_PARTITIONS = 7


def reviewed(records: Records) -> Found:
    """The version carries the signature of every required signer."""
    version, required = records.version, records.pipeline.spec.scoring.required_signers
    if version is None:
        return missing(f"No version can be read: {records.why_no_version}")
    if not required:
        return missing("`scoring.required_signers` names nobody who must have reviewed a version")
    root = records.pipeline.project.root
    try:
        verify_signers(version, required, root)
        keys = ", ".join(key_id(public_key(signer, root)) for signer in required)
    except (PipelineError, OSError) as error:
        return missing(str(error).rstrip("."))
    text = f"{version} is signed by {keys}"
    return Found((Evidence("manifest", version.manifest_digest, version.manifest.registered_at, text),))


def staleness(records: Records) -> Found:
    """Labels show how a metric of the version changed over four weeks of partitions or more."""
    of, window = records.evaluated, records.window
    if of["of_version"] < WINDOW or not window:
        return missing(
            f"Labels of {plural(of['of_version'], 'partition')} of the live version count; {WINDOW} show a trend"
        )
    metric = default_metric(Stack.of([MetricSums.from_text(window[-1]["sums"])]).spec)
    slope = records.trend(metric)
    if slope is None:
        return missing(f"The trend of {metric} is not known: partitions have no figure")
    over = plural(of["of_version"], "partition")
    text = f"{metric} of {records.version} changes by {slope * 28:+.4f} in 28 days, over {over}"
    return Found((_evaluation(records, text),))


def simpler(records: Records) -> Found:
    """The version is better than scores that know only how frequent the outcome is."""
    window = records.window
    if len(window) < _LEAST_PARTITIONS:
        return missing(
            f"Labels of {plural(len(window), 'partition')} of the live version count; {_LEAST_PARTITIONS} are needed"
        )
    try:
        figures = Stack.of([MetricSums.from_text(row["sums"]) for row in window]).metrics()[0]
    except ValueError:
        return missing("The evaluations of the live version are of different kinds")
    for name, figure in figures.items():
        base = metric_base(name)
        if figure.value is None or base not in _AGAINST_CHANCE:
            continue
        simple = 0.0 if base == "r2" else chance_level(name, figures)
        if base != next(each for each in _AGAINST_CHANCE if each in map(metric_base, figures)) or simple is None:
            continue
        text = (
            f"{name} is {figure.value:.4f} over {plural(len(window), 'partition')}; a constant score has {simple:.4f}"
        )
        better = figure.value > simple if base in HIGHER_IS_BETTER else figure.value < simple
        return Found((_evaluation(records, text),)) if better else missing(f"A constant score is not worse: {text}")
    return missing("The task has no metric of which a constant score's is known")


def slices(records: Records) -> Found:
    """Each segment was compared with the weeks before, or with the former version by a gate."""
    of, mark = records.evaluated, records.marks.get("performance")
    bad = [row for row in records.open_alarms if row["event"] == "performance" and row["severity"] == "alarm"]
    if bad:
        return missing(f"Alarm {bad[0]['alarm_id']}: {bad[0]['subject']} is worse than before")
    if records.segments and mark and of["partitions"] >= LEAST_COMPARED:
        listed = ", ".join(f"{row['of_values']} of {row['segment']}" for row in records.segments)
        return Found((_evaluation(records, f"segments judged by labels, none in alarm: {listed}"),))
    version = records.version
    if version is not None:
        for report in reports_on(records.pipeline.project.registry, version.name, version.version):
            gate = next((each for each in report.results if each.name == "segment_metric"), None)
            if report.pipeline == records.name and gate and gate.state == "passed":
                text = f"gate segment_metric passed: {gate.text}"
                return Found((Evidence("gate report", f"{report.made_at:%Y%m%dT%H%M%S%fZ}", report.made_at, text),))
    return missing("No segment of the live version was judged by labels, by monitoring or by a gate")


def _evaluation(records: Records, text: str) -> Evidence:
    of = records.window[-1]
    return Evidence("evaluation", of["evaluation_id"], of["evaluated_at"], text)
