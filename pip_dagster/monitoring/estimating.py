"""When calibrators are fitted and partitions estimated: after scoring, when labels count, and for what was before."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from pip_dagster import clock
from pip_dagster.declaration.durations import as_declared
from pip_dagster.errors import DeclarationError
from pip_dagster.flow.calibrate import MOST, fit, held_out, labels_digest, outcomes_of, window
from pip_dagster.flow.estimate import estimate
from pip_dagster.flow.estimate_rows import Estimated, chunks, decisions_of, estimated_of, stage_labelled, stage_scored
from pip_dagster.ledger.calibrators import Calibrator, calibrators_of, insert_calibrator
from pip_dagster.ledger.estimates import (
    EstimateEntry,
    MatureScoring,
    StoredScoring,
    insert_estimates,
    live_scorings,
    mature_scorings,
    reasons_of,
)
from pip_dagster.ledger.record import new_id
from pip_dagster.plural import plural
from pip_dagster.quoted import said
from pip_dagster.registry.choose import registry_of
from pip_dagster.statistics.band import Band
from pip_dagster.warehouse.access import reading, writing
from pip_dagster.warehouse.interrupts import raise_if_interrupted
from pip_dagster.warehouse.tables import views_of
from pip_dagster.warehouse.transaction import transaction

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from pip_dagster.declaration.pipeline import Pipeline
    from pip_dagster.registry.version import ModelVersion

# A calibrator is fitted at most once in this time, while partitions become mature one by one.
_REFIT_AFTER = timedelta(days=1)
# Past partitions that share a calibrator when they are estimated afterwards.
_PAST = 7
# Labelled rows that a calibrator is fitted on at most.
_ROWS = 3_000_000


@dataclass(frozen=True)
class Estimating:
    """What became of it: how many partitions have estimates now, and why others have none."""

    done: int = 0
    reasons: dict[str, str] = field(default_factory=dict)


def applies(pipeline: Pipeline) -> bool:
    """Whether the pipeline declares what estimates need."""
    monitoring = pipeline.spec.monitoring
    return pipeline.labels is not None and monitoring is not None and monitoring.estimates


def estimate_scored(
    con: DuckDBPyConnection, pipeline: Pipeline, version: ModelVersion, partitions: Sequence[str]
) -> Estimating:
    """Estimate partitions that a run has scored; it never raises for what monitoring cannot do, but records why."""
    try:
        return estimate_stored(con, pipeline, version, partitions)
    except Exception as error:
        raise_if_interrupted(error)
        reason = f"not estimated: {said(error)}"
        return Estimating(reasons=dict.fromkeys(partitions, reason))


def calibrate_after_labels(con: DuckDBPyConnection, pipeline: Pipeline) -> str | None:
    """Fit the calibrator of the alias's version after labels were evaluated; it never raises, but returns why not."""
    if not applies(pipeline):
        return None
    scoring = pipeline.spec.scoring
    try:
        version = registry_of(pipeline.project, scoring).get(scoring.model_name, scoring.alias)
        return refit(con, pipeline, version)
    except Exception as error:
        raise_if_interrupted(error)
        return f"not fitted: {said(error)}"


def estimate_stored(
    con: DuckDBPyConnection,
    pipeline: Pipeline,
    version: ModelVersion,
    which: Sequence[str] | int | None = None,
    progress: Callable[[str], None] = lambda text: None,
) -> Estimating:
    """Estimate the live partitions of a version that have no estimate yet, with calibrators of earlier partitions.

    Args:
        con: a workspace without the warehouse.
        pipeline: declares labels.
        version: whose scores are estimated, by its own calibrators only.
        which: these partitions, or so many of the newest. None for all: calibrators are then fitted for those that have
            none, on what was known before each week of them.
        progress: is called after each chunk.

    Raises:
        DeclarationError: the labels' SQL cannot run.
        SourceError: a source cannot be read.
    """
    name, digest = pipeline.spec.name, version.manifest_digest
    with reading(con, pipeline.project, purpose=f"{name}: reading the ledger"):
        if "predictions" not in views_of(con, name):
            return Estimating()
        missing = live_scorings(con, name, digest, without_estimate=True)
        decisions = decisions_of(con, name)
        known, calibrators = reasons_of(con, name, digest), calibrators_of(con, name, digest)
    if isinstance(which, int):
        missing = missing[-which:]
    elif which is not None:
        missing = [each for each in missing if each.partition_key in which]
    of = estimated_of(pipeline, version.manifest, decisions)
    if isinstance(of, str):
        return Estimating(reasons={each.partition_key: of for each in missing})
    done, seen, reasons = 0, 0, dict[str, str]()
    for week in _weeks(missing) if which is None else [missing]:
        lacking = None
        if which is None and week:
            lacking = refit(con, pipeline, version, before=week[0].partition_start, now=None)
            with reading(con, pipeline.project, purpose=f"{name}: reading the ledger"):
                calibrators = calibrators_of(con, name, digest)
        for calibrator, chunk in _with_calibrators(con, pipeline, version, of, week, calibrators):
            if calibrator is None and not lacking:
                lacking = _why_none_earlier(con, pipeline, version, calibrators)
            entries = _entries(con, pipeline, version, of, calibrator, chunk, lacking or "")
            news = [each for each in entries if each.metric or known.get(each.scoring_id) != each.reason]
            if news:
                with (
                    writing(con, pipeline.project, purpose=f"{name}: storing estimates"),
                    transaction(con),
                ):
                    lacking_now = {each.scoring_id for each in live_scorings(con, name, digest, without_estimate=True)}
                    # Another process may have estimated some meanwhile.
                    insert_estimates(con, [each for each in news if each.scoring_id in lacking_now])
            done += len({each.scoring_id for each in entries if each.metric})
            reasons |= {each.partition_key: each.reason for each in entries if each.reason}
            seen += len(chunk)
            progress(f"{name}: {seen} of {plural(len(missing), 'partition')}; {done} with an estimate")
    return Estimating(done, reasons)


def refit(
    con: DuckDBPyConnection,
    pipeline: Pipeline,
    version: ModelVersion,
    *,
    before: datetime | None = None,
    now: datetime | None = None,
) -> str | None:
    """Fit a calibrator on the newest partitions whose labels count, unless that was done; why there is none, in words.

    Args:
        con: a workspace without the warehouse.
        pipeline: declares labels.
        version: whose scores are calibrated.
        before: only on partitions whose labels could be complete by then, however old the newest calibrator is.
        now: the time; a calibrator that is a day old or less is kept.

    Raises:
        DeclarationError: the labels' SQL cannot run.
        SourceError: a source cannot be read.
    """
    name, digest, at = pipeline.spec.name, version.manifest_digest, now or clock.wall()
    with reading(con, pipeline.project, purpose=f"{name}: reading the ledger"):
        mature = mature_scorings(con, name, digest, now=at)
        known = calibrators_of(con, name, digest)
        decisions = decisions_of(con, name) if mature else []
    if before is not None:
        wait = (pipeline.labels and pipeline.labels.complete_after) or timedelta()
        mature = [each for each in mature if each.partition_end + wait <= before]
    if not mature:
        return "no partition of this version has labels that count" + ("" if before is None else " by then")
    fitted = [each for each in known if each.kind != "held out"]
    if any(_is_of(each, mature) for each in fitted):
        return None
    last = fitted[0].made_at if fitted else None
    if before is None and last and not clock.is_ahead(last, at) and at - last < _REFIT_AFTER:
        return None
    of = estimated_of(pipeline, version.manifest, decisions)
    if isinstance(of, str):
        return of
    newest = _bounded(mature)
    labelled = stage_labelled(con, pipeline, version.manifest, of, newest)
    chosen = window(newest, outcomes_of(con, labelled, of))
    found = fit(con, name, digest, of, labelled, chosen)
    if isinstance(found, str):
        return found
    if all(each.digest != found.digest for each in known):
        with (
            writing(con, pipeline.project, purpose=f"{name}: storing a calibrator", publish=False),
            transaction(con),
        ):
            insert_calibrator(con, found)
    return None


def _is_of(calibrator: Calibrator, mature: Sequence[MatureScoring]) -> bool:
    """Whether it was fitted on the newest of these, with the labels that they have."""
    return calibrator.labels_digest == labels_digest(mature[-calibrator.partitions :])


def _bounded(mature: Sequence[MatureScoring]) -> list[MatureScoring]:
    found: list[MatureScoring] = []
    rows = 0
    for each in reversed(mature[-MOST:]):
        rows += each.labelled
        if found and rows > _ROWS:
            break
        found.append(each)
    return found[::-1]


def _weeks(missing: Sequence[StoredScoring]) -> Iterable[list[StoredScoring]]:
    return ([*missing[at : at + _PAST]] for at in range(0, len(missing), _PAST))


def _with_calibrators(
    con: DuckDBPyConnection,
    pipeline: Pipeline,
    version: ModelVersion,
    of: Estimated,
    scorings: Sequence[StoredScoring],
    known: Sequence[Calibrator],
) -> Iterable[tuple[Calibrator | None, list[StoredScoring]]]:
    """The scorings in chunks, each with the newest of these calibrators that has seen none of its outcomes."""
    name, digest = pipeline.spec.name, version.manifest_digest
    fallback = next((each for each in known if each.kind == "held out"), None)
    if fallback is None and (fallback := held_out(version.manifest, digest, name, of)):
        with (
            writing(con, pipeline.project, purpose=f"{name}: storing a calibrator", publish=False),
            transaction(con),
        ):
            insert_calibrator(con, fallback)
    by_digest: dict[str | None, tuple[Calibrator | None, list[StoredScoring]]] = {}
    for each in scorings:
        earlier = [c for c in known if c.last_end and c.last_end <= each.partition_start]
        newest = max(earlier, key=lambda c: (c.last_end, c.made_at), default=fallback)
        by_digest.setdefault(newest.digest if newest else None, (newest, []))[1].append(each)
    for calibrator, listed in by_digest.values():
        for chunk in chunks(listed):
            yield calibrator, chunk


def _why_none_earlier(
    con: DuckDBPyConnection, pipeline: Pipeline, version: ModelVersion, known: Sequence[Calibrator]
) -> str:
    name, labels = pipeline.spec.name, pipeline.labels
    if any(each.kind != "held out" for each in known):
        return (
            f"the labels that count are not all before it; `pip-dagster estimate {name} --backfill` uses those before"
        )
    with reading(con, pipeline.project, purpose=f"{name}: reading the ledger"):
        mature = mature_scorings(con, name, version.manifest_digest, now=clock.wall())
    if mature:
        return (
            f"labels of {plural(len(mature), 'partition')} of v{version.version} count, but a calibrator could not be "
            f"fitted on them; `pip-dagster performance {name} --evaluate` says why"
        )
    wait = labels.complete_after if labels else None
    when = f"they are complete {as_declared(wait)} after a partition's end" if wait else "none of it has all its labels"
    return f"no partition of v{version.version} has labels that count yet: {when}"


def _entries(
    con: DuckDBPyConnection,
    pipeline: Pipeline,
    version: ModelVersion,
    of: Estimated,
    calibrator: Calibrator | None,
    chunk: Sequence[StoredScoring],
    lacking: str,
) -> list[EstimateEntry]:
    at, name = clock.now(), pipeline.spec.name
    none = f"no calibrator of earlier partitions: {lacking}"
    found: dict[str, dict[str, Band] | str] = {}
    if calibrator:
        try:
            found = estimate(con, of, calibrator, stage_scored(con, pipeline, of, chunk))
        except DeclarationError as error:  # such as a segment that the features do not have
            found = {each.partition_key: str(error) for each in chunk}
    entries = []
    for each in chunk:
        bands = found.get(each.partition_key, none if calibrator is None else "no row of it is live")
        listed = [("", None, bands)] if isinstance(bands, str) else [(m, band, None) for m, band in bands.items()]
        for metric, band, reason in listed:
            figures = (band.value, band.low, band.high) if band else (None, None, None)
            entries.append(
                EstimateEntry(
                    *(new_id(), name, each.partition_key, each.scoring_id, version.manifest_digest),
                    *(version.version, each.rows, metric, *figures, calibrator and calibrator.digest, reason, at),
                )
            )
    return entries
