"""Ledger entries as OpenLineage's events. The same entries give the same events: nothing is of now, nothing is random.

A pipeline has four jobs. `<p>.features` reads the sources; `<p>.predictions` reads the features and the model, for the
scoring that goes live; `<p>.challengers` does so for challengers and arms; `<p>.live` makes an earlier scoring, or the
arms of a split, live. Two steps instead of one job, because a model is no input of the features: who asks what a model
or a source reaches gets the right answer from the graph alone.

Nothing here is a value of a row: no example or observed value of a check, no reason of a failure, no text of a person.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from pip_dagster.ledger.arms import Arm
from pip_dagster.ledger.checks import CheckEntry
from pip_dagster.ledger.record import ScoringEntry
from pip_dagster.openlineage.entries import Entry, ExtractionRun, LiveRun, ScoringRun
from pip_dagster.openlineage.facets import EVENT, PRODUCER, Facets, facet, tags
from pip_dagster.openlineage.subject import Json, Subject, dataset
from pip_dagster.plural import plural

FEATURES, PREDICTIONS, CHALLENGERS, LIVE = "features", "predictions", "challengers", "live"
_RUNS = uuid.UUID("5c1b4b5e-6f0e-5d8e-9d5c-0f3c6c8f2a11")  # never changes: a run's id follows from it
_SEVERITIES = {"critical": "error", "warning": "warn"}
_NAMED = 20


def events_of(subject: Subject, entry: Entry) -> Iterator[Json]:
    """The events of an entry: that its run started, and how it ended."""
    if isinstance(entry, ExtractionRun):
        return _of_extraction(subject, entry)
    return _of_scoring(subject, entry) if isinstance(entry, ScoringRun) else _of_change(subject, entry)


def line(event: Mapping[str, Any]) -> str:
    """An event as one line of JSON, equal for equal events."""
    return json.dumps(event, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def run_id(entry_id: str) -> str:
    """The id of a run: always the same one for an entry of the ledger."""
    return str(uuid.uuid5(_RUNS, entry_id))


def _of_extraction(subject: Subject, extracted: ExtractionRun) -> Iterator[Json]:
    entry = extracted.entry
    run = _run(subject, entry.run_id, entry.partition_start, entry.partition_end)
    seen = {"partition": entry.partition_key, "revision": entry.revision, "new_revision": entry.is_new}
    run |= tags("run", seen | {"provisional": entry.provisional or None})
    run |= _tests(subject, extracted.checks)
    job = subject.job(FEATURES, **subject.sql(entry.sql_digest))
    output = dataset(
        subject.own("features"),
        facet("version", datasetVersion=entry.revision) | subject.features_facets(entry.table_name, entry.sql_digest),
        outputFacets=facet("outputStatistics", rowCount=entry.rows_extracted),
    )
    inputs = list(_sources(subject, entry.source_digests, extracted.checks))
    yield from _pair(entry.extraction_id, job, run, (entry.made_at, entry.seconds), "COMPLETE", inputs, [output])


def _of_scoring(subject: Subject, scored: ScoringRun) -> Iterator[Json]:
    entry, first = scored.entry, scored.first
    run = _run(subject, entry.run_id, entry.partition_start, entry.partition_end)
    seen = {
        "partition": entry.partition_key,
        "status": entry.status,
        "role": entry.role,
        "live": (first.kind or "scored") if first else None,
        "pinned_version": first.pinned_version if first else None,
        "as_known": (first.as_known or None) if first else None,
        "provisional": entry.provisional or None,
        "device": entry.device,
        "declaration_digest": entry.code_digest,
        "score_digest": entry.score_digest,
    }
    libraries = json.loads(entry.engine) if entry.engine else {}
    seen |= {f"library.{name}": version for name, version in sorted(libraries.items())}
    run |= tags("run", seen) | _engine(libraries) | _tests(subject, scored.checks)
    inputs: list[Json]
    if entry.feature_revision is None:  # it failed before there were features
        job, inputs = subject.job(FEATURES), list(_sources(subject, entry.source_digests, ()))
    else:
        job = subject.job(PREDICTIONS if entry.role == "champion" else CHALLENGERS)
        inputs = [_features(subject, [entry], scored.checks), *subject.models([entry])]
    ended = (entry.made_at, entry.seconds or 0.0)
    if entry.status != "scored":
        run |= facet("errorMessage", message=_why(scored), programmingLanguage="PYTHON")
        yield from _pair(entry.scoring_id, job, run, ended, "FAIL", inputs, [])
        return
    yield from _pair(entry.scoring_id, job, run, ended, "COMPLETE", inputs, list(_outputs(subject, scored)))


def _of_change(subject: Subject, made: LiveRun) -> Iterator[Json]:
    change, entries = made.change, made.scorings
    own = entries[0] if entries else None
    start, end = (own.partition_start, own.partition_end) if own else (None, None)
    run = _run(subject, change.run_id, start, end)
    seen = {
        "partition": change.partition_key,
        "live": change.kind or "scored",
        "pinned_version": change.pinned_version,
        "as_known": change.as_known or None,
        "experiment": change.experiment,
        "scoring": change.scoring_id,
    }
    run |= tags("run", seen | {f"arm.{arm.arm}": _arm(arm, entries) for arm in made.arms})
    facets = facet("version", datasetVersion=change.change_id if made.arms else change.scoring_id)
    facets |= facet("lifecycleStateChange", lifecycleStateChange="OVERWRITE")
    facets |= subject.predictions_facets(own) if own else {}
    rows = own.rows_scored if own and not made.arms else None
    statistics = facet("outputStatistics", rowCount=rows) if rows is not None else {}
    output = dataset(subject.own("predictions"), facets, outputFacets=statistics)
    inputs = [_features(subject, entries, ()), *subject.models([*entries])]
    yield from _pair(change.change_id, subject.job(LIVE), run, (change.made_at, 0.0), "COMPLETE", inputs, [output])


def _pair(
    entry_id: str,
    job: Json,
    facets: Facets,
    ended: tuple[datetime, float],
    how: str,
    inputs: Sequence[Json],
    outputs: Sequence[Json],
) -> Iterator[Json]:
    """The start of a run, and its end with all that is known then; `ended`: when, after how many seconds."""
    at, seconds = ended
    common = {"producer": PRODUCER, "schemaURL": EVENT, "job": job}
    known = {key: each for key, each in facets.items() if key in ("parent", "nominalTime")}
    began = _instant(at - timedelta(seconds=max(0.0, seconds)))
    yield {
        "eventType": "START",
        "eventTime": began,
        "run": _with_id(entry_id, known),
        "inputs": [],
        "outputs": [],
        **common,
    }
    yield {
        "eventType": how,
        "eventTime": _instant(at),
        "run": _with_id(entry_id, facets),
        "inputs": [*inputs],
        "outputs": [*outputs],
        **common,
    }


def _with_id(entry_id: str, facets: Facets) -> Json:
    return {"runId": run_id(entry_id), "facets": facets}


def _run(subject: Subject, dagster_run: str | None, start: datetime | None, end: datetime | None) -> Facets:
    """What the run of every entry says: the stretch of time of its partition, and the run that it was part of."""
    found: Facets = {}
    if dagster_run:
        found |= facet("parent", run={"runId": _parent(dagster_run)}, job=subject.job())
    if start and end:
        found |= facet("nominalTime", nominalStartTime=_instant(start), nominalEndTime=_instant(end))
    return found


def _parent(run: str) -> str:
    """The id of a run as a UUID: Dagster's is one; a rollback's, or that of a run without Dagster, is not."""
    try:
        return str(uuid.UUID(run))
    except ValueError:
        return run_id(run)


def _engine(libraries: Mapping[str, str]) -> Facets:
    name = "xgboost" if "xgboost" in libraries else "pip-dagster"
    if name not in libraries:
        return {}
    own = libraries.get("pip-dagster")
    return facet("processing_engine", name=name, version=libraries[name], openlineageAdapterVersion=own or "unknown")


def _sources(subject: Subject, digests: str | None, checks: Sequence[CheckEntry]) -> Iterator[Json]:
    """The sources as they were read: two that are one dataset are one input, with both fingerprints."""
    found: dict[Any, list[tuple[str, Mapping[str, Any]]]] = {}
    for name, read in sorted((json.loads(digests) if digests else {}).items()):
        found.setdefault(subject.source(name), []).append((name, read))
    for of, sources in found.items():
        version = " + ".join(str(read["digest"]) for _, read in sources if read.get("digest"))
        facets = facet("version", datasetVersion=version) if version else {}
        rows = [read["rows"] for _, read in sources if isinstance(read.get("rows"), int)]
        given = facet("inputStatistics", rowCount=sum(rows)) if rows else {}
        sections = {f"sources.{name}" for name, _ in sources}
        given |= _assertions(subject, [check for check in checks if check.section in sections])
        yield dataset(
            of, facets | tags("dataset", {"source": ", ".join(name for name, _ in sources)}), inputFacets=given
        )


def _features(subject: Subject, entries: Iterable[ScoringEntry], checks: Sequence[CheckEntry]) -> Json:
    revisions = {entry.feature_revision: entry.rows_in for entry in entries if entry.feature_revision}
    facets = facet("version", datasetVersion=" + ".join(revisions)) if revisions else {}
    rows = next(iter(revisions.values()), None)
    given = facet("inputStatistics", rowCount=rows) if rows is not None and len(revisions) == 1 else {}
    given |= _assertions(subject, [check for check in checks if check.section == "features"])
    return dataset(subject.own("features"), facets, inputFacets=given)


def _outputs(subject: Subject, scored: ScoringRun) -> Iterator[Json]:
    entry = scored.entry
    live = entry.role == "champion"
    facets = facet("version", datasetVersion=entry.scoring_id)
    if live:
        facets |= subject.predictions_facets(entry)
    rows = entry.rows_scored or 0
    statistics = facet("outputStatistics", rowCount=rows)
    yield dataset(subject.own("predictions" if live else "scores"), facets, outputFacets=statistics)
    if entry.rows_quarantined and live:
        statistics = facet("outputStatistics", rowCount=entry.rows_quarantined)
        quarantined = facet("version", datasetVersion=entry.scoring_id) | subject.published("quarantine")
        yield dataset(subject.own("quarantine"), quarantined, outputFacets=statistics)


def _assertions(subject: Subject, checks: Sequence[CheckEntry]) -> Facets:
    """The verdicts on one dataset; an expectation about several columns is one assertion for each."""
    found = []
    for check in checks:
        given = {"assertion": check.type, **_verdict(check)} | {"success": check.status == "passed"}
        found += [given | {"column": column} for column in _columns(subject, check)] or [given]
    return facet("dataQualityAssertions", assertions=found) if found else {}


def _tests(subject: Subject, checks: Sequence[CheckEntry]) -> Facets:
    """All verdicts of a run, those on the predictions too: assertions are for inputs alone."""
    found = []
    for check in checks:
        verdict = _verdict(check)
        if columns := _columns(subject, check):
            verdict["params"]["columns"] = [*columns]
        found.append({"type": check.type, "status": "pass" if check.status == "passed" else "fail", **verdict})
    return facet("test", tests=found) if found else {}


def _columns(subject: Subject, check: CheckEntry) -> tuple[str, ...]:
    """The columns that an expectation judges, as far as it is still declared."""
    declared = subject.expectation(check.section, check.expectation_id)
    if declared is None or declared.type != check.type:
        return ()
    named = declared.kwargs.get("column")  # of a type that judges the table, such as that a column exists
    return declared.judged_columns or ((named,) if isinstance(named, str) else ())


def _verdict(check: CheckEntry) -> Json:
    """What both facets say. Observed values and examples are data, and stay in the ledger."""
    counts = {"unexpected_rows": check.unexpected_count, "rows": check.element_count}
    found: Json = {
        "name": f"{check.section}.{check.expectation_id}",
        "severity": _SEVERITIES.get(check.severity, check.severity),
        "description": check.description,
        "params": {"status": check.status} | {key: count for key, count in counts.items() if count is not None},
    }
    return found


def _why(scored: ScoringRun) -> str:
    """Why an attempt was refused, in words that quote no value; the ledger's reason may."""
    entry = scored.entry
    broken = [check for check in scored.checks if check.severity == "critical" and check.status != "passed"]
    said = [_broken(check) for check in broken[:_NAMED]]
    said += [f"{len(broken) - _NAMED} more"] if len(broken) > _NAMED else []
    stage = "scoring" if entry.feature_revision else "building the features"
    text = f"Partition {entry.partition_key} was {'blocked' if entry.status == 'blocked' else 'not built'}: "
    text += "; ".join(said) if said else f"{stage} {'was refused' if entry.status == 'blocked' else 'failed'}"
    return f"{text}. The reason: pip-dagster lineage {entry.pipeline} {entry.partition_key}"


def _broken(check: CheckEntry) -> str:
    name = f"{check.section}: {check.expectation_id}"
    if check.status == "errored":
        return f"{name} could not be evaluated"
    if check.unexpected_count is None:
        return f"{name} is not met"
    return f"{name} is broken by {check.unexpected_count} of {plural(check.element_count or 0, 'row')}"


def _arm(arm: Arm, entries: Iterable[ScoringEntry]) -> str:
    version = next((entry.model_version for entry in entries if entry.scoring_id == arm.scoring_id), None)
    return f"v{version}, {arm.share:.2%} of the units, scoring {arm.scoring_id}"


def _instant(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ").zfill(27)
