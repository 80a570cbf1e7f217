"""From staged features to stored predictions, for a few partitions at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from pip_dagster.declaration.partition import Partition
from pip_dagster.errors import PartitionError, WithdrawnError
from pip_dagster.flow.entries import scoring_entry
from pip_dagster.flow.explain import Explanation, check_explanations, explain
from pip_dagster.flow.fallback import score_where_it_can
from pip_dagster.flow.guard_composite import encode_model
from pip_dagster.flow.model import ScoringModel
from pip_dagster.flow.query import STAGED
from pip_dagster.flow.result import PartitionResult
from pip_dagster.flow.score import SCORED, Scoring, scored_columns
from pip_dagster.flow.staged import together
from pip_dagster.flow.store_scores import Attempt, point_at, row_key, store_failure, store_scores
from pip_dagster.flow.validate import Validation, Verdicts, nothing_apart, validate
from pip_dagster.ledger import record
from pip_dagster.ledger.checks import CheckEntry, checks_of, unmet
from pip_dagster.ledger.record import ExtractionEntry, RunInfo, ScoringEntry
from pip_dagster.quality.parameters import with_parameters
from pip_dagster.quality.suite import check_columns
from pip_dagster.registry.manifest import Manifest
from pip_dagster.warehouse.connect import open_warehouse
from pip_dagster.warehouse.windows import in_windows

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from pip_dagster.declaration.pipeline import Pipeline

Made = tuple[Partition, ExtractionEntry]


def predict(
    con: DuckDBPyConnection,
    pipeline: Pipeline,
    model: ScoringModel,
    columns: dict[str, str],
    made: Sequence[Made],
    stage: Callable[[list[ExtractionEntry]], object] | None,
    run: RunInfo,
) -> list[PartitionResult]:
    """Score these partitions' features, whose columns are `columns`, and commit each whole.

    `stage` brings features to the staging table first, where they are not there already. A partition whose very
    scoring is in the ledger is not scored again; at most it is made live.

    Raises:
        DeclarationError: the columns do not fit the model.
        RegistryError: the model's bytes are not those that were registered.

    """
    types = scored_columns(con, pipeline.spec, model.version.manifest, columns)
    past = read_past(con, pipeline, model, made)
    fresh = [(p, features) for p, features in made if p.key not in past.scorings and p.key not in past.blocked]
    gate = Gate()
    scoring: Scoring | None = None
    reasons: Explanation | None = None
    if fresh:
        if stage:
            stage([features for _, features in fresh])
        keys = [partition.key for partition, _ in fresh]
        gate, scoring, reasons, model = _score(con, pipeline, model, columns, types, keys)

    experiment = pipeline.spec.scoring.experiment
    pending = f"its {experiment.kind} is decided once the arms have scored" if experiment else None

    def said(item: Made, failure: str | None = None) -> tuple[ScoringEntry, tuple[CheckEntry, ...]]:
        key = item[0].key
        assert scoring
        scored = None if failure else scoring.scored.get(key)
        reason = failure or gate.blocked.get(key) or scoring.blocked.get(key)
        status: Literal["scored", "blocked", "failed"] = "failed" if failure else "blocked" if reason else "scored"
        if not reason and key in scoring.failed:
            status, reason = "failed", scoring.failed[key]
        entry = scoring_entry(pipeline, model, *item, run, scored=scored, status=status, reason=reason)
        return entry, tuple(CheckEntry.of(v, entry.scoring_id, entry.pipeline, key) for v in gate.verdicts.get(key, ()))

    def result(item: Made, entry: ScoringEntry, checks: Sequence[CheckEntry]) -> PartitionResult:
        error = f"blocked: {entry.reason}" if entry.status == "blocked" else entry.reason
        return PartitionResult(*item, entry, error=error, columns=types, checks=(*past.checks[item[0].key], *checks))

    def store_known(item: Made) -> PartitionResult:
        checks = past.checks[item[0].key]
        if reason := past.blocked.get(item[0].key):
            entry = scoring_entry(pipeline, model, *item, run, status="blocked", reason=reason)
            store_failure(con, entry)
            return PartitionResult(*item, entry, error=f"blocked: {reason}", checks=checks)
        known = past.scorings[item[0].key]
        try:
            point_at(con, known, run, "materialized again with the same inputs", pending)
        except WithdrawnError as error:
            return PartitionResult(*item, error=str(error))
        return PartitionResult(*item, known, reused=True, columns=types, checks=checks)

    def store_failed(item: Made, failure: str | None = None) -> PartitionResult:
        entry, checks = said(item, failure)
        store_failure(con, entry, checks)
        return result(item, entry, checks)

    def is_scored(item: Made) -> bool:
        return scoring is not None and item[0].key in scoring.scored

    def store(items: list[Made]) -> list[PartitionResult]:
        if not is_scored(items[0]):
            (item,) = items
            return [store_failed(item) if item in fresh else store_known(item)]
        assert scoring
        attempts = [Attempt(scoring.scored[item[0].key], *said(item)) for item in items]
        try:
            entries = store_scores(con, scoring, attempts, columns, row_key(pipeline.spec), run, reasons, pending)
        except (WithdrawnError, PartitionError) as error:
            if len(items) > 1:  # each alone, and the one it is about says so
                return [made for item in items for made in store([item])]
            if isinstance(error, WithdrawnError):  # no failure of the partition's: the plan need not try it again
                return [PartitionResult(*items[0], error=str(error))]
            return [store_failed(items[0], str(error))]
        return [result(*each) for each in zip(items, entries, (a.checks for a in attempts), strict=True)]

    groups = list(together(made, lambda item: item[1].rows_extracted if is_scored(item) else None))
    purpose = f"{pipeline.spec.name}: storing predictions"
    return [made for group in in_windows(con, pipeline.project, groups, store, purpose=purpose) for made in group]


def check_fit(con: DuckDBPyConnection, pipeline: Pipeline, model: ScoringModel, columns: dict[str, str]) -> None:
    """Refuse features that the model or the expectations cannot be meant for, before any is kept.

    Raises:
        DeclarationError: says which column, expectation or parameter.

    """
    spec, manifest = pipeline.spec, model.version.manifest
    encode_model(manifest, columns, where=f"Pipeline {spec.name}, {spec.features.sql}")
    check_columns(pipeline.suites.features, columns)
    check_columns(pipeline.suites.predictions, scored_columns(con, spec, manifest, columns))
    with_parameters(pipeline.suites.predictions, reference(manifest))
    check_explanations(con, spec, manifest, columns)


def judge_features(
    con: DuckDBPyConnection, pipeline: Pipeline, columns: dict[str, str], made: Sequence[Made]
) -> list[PartitionResult]:
    """The verdicts on staged features that are not scored in this run; what they block, the next scoring will."""
    keys = [partition.key for partition, _ in made]
    nothing_apart(con)
    verdicts = validate(con, pipeline.spec, pipeline.suites.features, STAGED, columns, keys).verdicts
    with open_warehouse(con, pipeline.project.warehouse, purpose=f"{pipeline.spec.name}: reading the ledger"):
        of_sources = checks_of(con, [entry.extraction_id for _, entry in made])
    return [
        PartitionResult(
            partition,
            entry,
            checks=(
                *of_sources.get(entry.extraction_id, ()),
                *(
                    CheckEntry.of(verdict, entry.extraction_id, pipeline.spec.name, partition.key)
                    for verdict in verdicts.get(partition.key, ())
                ),
            ),
        )
        for partition, entry in made
    ]


@dataclass
class Gate:
    """What the expectations on features and predictions said, and why some partitions are blocked."""

    verdicts: dict[str, Verdicts] = field(default_factory=dict)
    blocked: dict[str, str] = field(default_factory=dict)

    def add(self, validation: Validation) -> None:
        """Take in the verdicts on one more table."""
        for key, verdicts in validation.verdicts.items():
            self.verdicts[key] = (*self.verdicts.get(key, ()), *verdicts)
        for key, reason in validation.blocked.items():
            self.blocked[key] = "; ".join(filter(None, (self.blocked.get(key), reason)))


def _score(
    con: DuckDBPyConnection,
    pipeline: Pipeline,
    model: ScoringModel,
    columns: dict[str, str],
    types: dict[str, str],
    keys: list[str],
) -> tuple[Gate, Scoring, Explanation | None, ScoringModel]:
    """Judge the staged features, score what may be, judge the scores, explain those that are to be."""
    spec, gate = pipeline.spec, Gate()
    gate.add(part_rows(con, pipeline, columns, keys))
    sound = [key for key in keys if key not in gate.blocked]
    scoring, model = score_where_it_can(con, spec, model, columns, sound)
    made = [key for key in sound if key in scoring.scored and key not in scoring.blocked]
    expected = with_parameters(pipeline.suites.predictions, reference(model.version.manifest))
    gate.add(validate(con, spec, expected, SCORED, types, made))
    sound = [key for key in made if key not in gate.blocked]
    reasons = explain(con, spec, model.predictor, model.version.manifest, columns, sound)
    return gate, scoring, reasons, model


def part_rows(con: DuckDBPyConnection, pipeline: Pipeline, columns: dict[str, str], keys: Sequence[str]) -> Validation:
    """Judge the staged features; the rows that are not to be scored are apart after it."""
    nothing_apart(con)
    return validate(con, pipeline.spec, pipeline.suites.features, STAGED, columns, keys)


def reference(manifest: Manifest) -> dict[str, float]:
    """The parameters that an expectation on predictions may take: each output's mean in the training sample."""
    return {f"{name}_mean": of.mean for name, of in manifest.score_reference.items() if of.mean is not None}


@dataclass(frozen=True)
class Past:
    """What the ledger knows of the partitions: the very scoring asked for, verdicts on it and on the sources."""

    scorings: dict[str, ScoringEntry]
    blocked: dict[str, str]
    checks: dict[str, tuple[CheckEntry, ...]]


def read_past(con: DuckDBPyConnection, pipeline: Pipeline, model: ScoringModel, made: Sequence[Made]) -> Past:
    """Read it under the warehouse's lock."""
    name = pipeline.spec.name
    features = {partition.key: entry for partition, entry in made}
    wanted = (model.version.manifest_digest, pipeline.scoring_digest, model.engine, model.device.name, model.role)
    with open_warehouse(con, pipeline.project.warehouse, purpose=f"{name}: reading the ledger"):
        scorings = {
            entry.partition_key: entry
            for entry in record.scorings_of(con, name, list(features))
            if (entry.manifest_digest, entry.code_digest, entry.engine, entry.device, entry.role) == wanted
            and entry.feature_digest == features[entry.partition_key].feature_digest
            and bool(entry.provisional) == bool(features[entry.partition_key].provisional)
        }
        ids = [entry.extraction_id for entry in features.values()] + [entry.scoring_id for entry in scorings.values()]
        found = checks_of(con, ids)
    sources = {key: found.get(entry.extraction_id, ()) for key, entry in features.items()}
    blocked = {key: reason for key, checks in sources.items() if (reason := unmet(checks))}
    of_scorings = {key: found.get(entry.scoring_id, ()) for key, entry in scorings.items()}
    return Past(
        {key: entry for key, entry in scorings.items() if key not in blocked},
        blocked,
        {key: (*sources[key], *of_scorings.get(key, ())) for key in features},
    )
