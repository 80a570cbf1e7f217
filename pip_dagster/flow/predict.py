"""From staged features to stored predictions, for a few partitions at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from pip_dagster.declaration.partition import Partition
from pip_dagster.errors import PartitionError, PipelineError, WithdrawnError
from pip_dagster.flow.entries import judged_by_share, scoring_entry
from pip_dagster.flow.model import ScoringModel
from pip_dagster.flow.result import PartitionResult
from pip_dagster.flow.row_drop import LiveRows, read_live_rows, too_few
from pip_dagster.flow.run import Run
from pip_dagster.flow.score_chunk import ScoredChunk, score_chunk
from pip_dagster.flow.scored_row import scored_columns
from pip_dagster.flow.stage import Stage
from pip_dagster.flow.store_scores import ScoredPartition, point_at, store_failure, store_scores
from pip_dagster.flow.storing import store_in_groups
from pip_dagster.flow.validate import validate_features
from pip_dagster.ledger import promotions, record, versions
from pip_dagster.ledger.checks import CheckEntry, checks_of, unmet
from pip_dagster.ledger.record import ExtractionEntry, ScoringEntry
from pip_dagster.registry.store import Registry
from pip_dagster.warehouse.access import writing

Made = tuple[Partition, ExtractionEntry]


def predict(run: Run, stage: Stage, model: ScoringModel, made: Sequence[Made]) -> list[PartitionResult]:
    """Score these partitions' features and commit each whole.

    A partition whose very scoring is in the ledger is not scored again; at most it becomes live.

    Raises:
        DeclarationError: the columns do not fit the model.
        RegistryError: the model's bytes are not those that were registered.
    """
    pipeline = run.pipeline
    types = scored_columns(pipeline.spec, model.version.manifest, stage.columns)
    past = read_past(run, model, made)
    known = past.scorings.keys() | past.blocked.keys()
    fresh = [features for partition, features in made if partition.key not in known]
    chunk = None
    if fresh:
        alone = len(fresh) == 1 and _only_scored(run)
        stage.restage(pipeline, [features.revision for features in fresh], late=alone)
        keys = [features.partition_key for features in fresh]
        validation = validate_features(stage, pipeline, keys)
        chunk = score_chunk(run, stage, model, [key for key in keys if key not in validation.blocked], validation)
        model = chunk.model
    predictions = _Predictions(run, stage, model, past, types, chunk)
    return store_in_groups(run, made, predictions, purpose=f"{pipeline.spec.name}: storing predictions")


def _only_scored(run: Run) -> bool:
    """Whether nothing beside the model reads the rows of features that are stored."""
    spec = run.pipeline.spec
    return not run.pipeline.suites.features and spec.monitoring is None and spec.explanations is None


@dataclass
class _Predictions:
    """How a champion's partitions are stored, those that are in the ledger already among them (`past`)."""

    run: Run
    stage: Stage
    model: ScoringModel
    past: Past
    types: dict[str, str]
    chunk: ScoredChunk | None

    errors: type[PipelineError] = PartitionError

    def rows(self, item: Made) -> int | None:
        """None: it was not scored in this run."""
        return item[1].rows_extracted if self.chunk and item[0].key in self.chunk.scores.scored else None

    def store(self, items: list[Made]) -> list[PartitionResult]:
        """Commit what was scored, though it may be blocked."""
        assert self.chunk
        attempts = [self._attempt(item) for item in items]
        entries = store_scores(self.run, self.stage, self.chunk, attempts, self._pending)
        if self.run.stored:
            self.run.stored(self.run.con, self.chunk.model.version, entries)
        return [self._result(*each) for each in zip(items, entries, (a.checks for a in attempts), strict=True)]

    def alone(self, item: Made, error: PipelineError | None) -> PartitionResult:
        """Record why a partition has no scores, or point at those that are in the ledger."""
        key = item[0].key
        if isinstance(error, WithdrawnError):  # not a failure of the partition: the plan need not try it again
            return PartitionResult(*item, error=str(error))
        if key in self.past.scorings or key in self.past.blocked:
            return self._known(item)
        assert self.chunk
        blocked = None if error else self._blocked(key)
        reason = blocked or (str(error) if error else self.chunk.scores.failed[key])
        status: Literal["blocked", "failed"] = "blocked" if blocked else "failed"
        entry = scoring_entry(self.run, self.model, *item, status=status, reason=reason)
        checks = self.chunk.validation.checks(entry)
        store_failure(self.run.con, entry, checks)
        return self._result(item, entry, checks)

    def _attempt(self, item: Made) -> ScoredPartition:
        assert self.chunk
        scored, blocked = self.chunk.scores.scored[item[0].key], self._blocked(item[0].key)
        few = None if blocked else self._too_few(item[0], scored.rows_scored)
        status: Literal["blocked", "scored"] = "blocked" if blocked or few else "scored"
        entry = scoring_entry(self.run, self.model, *item, status=status, reason=blocked or few, scored=scored)
        entry = judged_by_share(entry, self.run.pipeline) if few else entry
        return ScoredPartition(scored, entry, self.chunk.validation.checks(entry))

    @property
    def _pending(self) -> str | None:
        experiment = self.run.pipeline.spec.scoring.experiment
        return f"its {experiment.kind} is decided once the arms have scored" if experiment else None

    def _blocked(self, key: str) -> str | None:
        assert self.chunk
        return self.chunk.validation.blocked.get(key) or self.chunk.scores.blocked.get(key)

    def _too_few(self, partition: Partition, rows: int | None) -> str | None:
        spec = self.run.pipeline.spec
        share = 0 if self.run.allow_fewer_rows else spec.min_row_share
        return too_few(spec.partitions, share, partition, rows or 0, self.past.live_rows)

    def _known(self, item: Made) -> PartitionResult:
        key, run = item[0].key, self.run
        checks = self.past.checks[key]
        if reason := self.past.blocked.get(key):
            entry = scoring_entry(run, self.model, *item, status="blocked", reason=reason)
            store_failure(run.con, entry)
            return PartitionResult(*item, entry, error=f"blocked: {reason}", checks=checks)
        known = self.past.scorings[key]
        if few := self._too_few(item[0], known.rows_scored):
            entry = judged_by_share(scoring_entry(run, self.model, *item, status="blocked", reason=few), run.pipeline)
            store_failure(run.con, entry)
            return PartitionResult(*item, entry, error=f"blocked: {few}", checks=checks)
        try:
            failed = self.past.failed.get(key)
            point_at(run.con, known, run.info, "materialized again with the same inputs", self._pending, failed)
        except WithdrawnError as error:
            return PartitionResult(*item, error=str(error))
        return PartitionResult(*item, known, reused=True, columns=self.types, checks=checks)

    def _result(self, item: Made, entry: ScoringEntry, checks: Sequence[CheckEntry]) -> PartitionResult:
        error = f"blocked: {entry.reason}" if entry.status == "blocked" else entry.reason
        checks = (*self.past.checks[item[0].key], *checks)
        return PartitionResult(*item, entry, error=error, columns=self.types, checks=checks)


def judge_features(run: Run, stage: Stage, made: Sequence[Made]) -> list[PartitionResult]:
    """The verdicts on staged features that are not scored in this run; what they block, the next scoring will."""
    name = run.pipeline.spec.name
    verdicts = validate_features(stage, run.pipeline, [partition.key for partition, _ in made]).verdicts
    with writing(run.con, run.pipeline.project, purpose=f"{name}: reading the ledger", publish=False):
        of_sources = checks_of(run.con, [entry.extraction_id for _, entry in made])
    results = []
    for partition, entry in made:
        own = [CheckEntry.of(v, entry.extraction_id, name, partition.key) for v in verdicts.get(partition.key, ())]
        results.append(PartitionResult(partition, entry, checks=(*of_sources.get(entry.extraction_id, ()), *own)))
    return results


@dataclass(frozen=True)
class Past:
    """What the ledger has of the partitions: scorings by this very model and declaration, verdicts and live rows.

    `failed`: partition → the id of its newest attempt that did not go live.
    """

    scorings: dict[str, ScoringEntry]
    blocked: dict[str, str]
    checks: dict[str, tuple[CheckEntry, ...]]
    live_rows: LiveRows = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)


def read_past(run: Run, model: ScoringModel, made: Sequence[Made]) -> Past:
    """Read it under the warehouse's lock.

    Raises:
        LostMove: the alias's history lacks the move that was recorded last.
        ReplacedVersion: the model is not the one that scored as this version before.
    """
    con, pipeline, name = run.con, run.pipeline, run.pipeline.spec.name
    features = {partition.key: entry for partition, entry in made}
    wanted = (model.version.manifest_digest, pipeline.scoring_digest, model.engine, model.device.name, model.role)
    with writing(con, pipeline.project, purpose=f"{name}: reading the ledger", publish=False):
        versions.check(con, model.version)
        if model.alias and pipeline.spec.scoring.registry == "folder":  # MLflow itself decides what its aliases name
            promotions.check_moves(con, Registry(pipeline.project.registry), model.version.name, model.alias)
        scorings = {
            entry.partition_key: entry
            for entry in record.scorings_of(con, name, list(features))
            if (entry.manifest_digest, entry.code_digest, entry.engine, entry.device, entry.role) == wanted
            and entry.feature_digest == features[entry.partition_key].feature_digest
            and bool(entry.provisional) == bool(features[entry.partition_key].provisional)
        }
        ids = [entry.extraction_id for entry in features.values()] + [entry.scoring_id for entry in scorings.values()]
        found = checks_of(con, ids)
        partitions = [partition for partition, _ in made]
        failed = record.failed_attempts(con, name, list(features))
        live = read_live_rows(con, name, pipeline.spec.partitions, partitions) if model.role == "champion" else {}
    sources = {key: found.get(entry.extraction_id, ()) for key, entry in features.items()}
    blocked = {key: reason for key, checks in sources.items() if (reason := unmet(checks))}
    of_scorings = {key: found.get(entry.scoring_id, ()) for key, entry in scorings.items()}
    return Past(
        {key: entry for key, entry in scorings.items() if key not in blocked},
        blocked,
        {key: (*sources[key], *of_scorings.get(key, ())) for key in features},
        live,
        failed,
    )
