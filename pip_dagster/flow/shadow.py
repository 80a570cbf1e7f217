"""Challengers and arms: other versions score the champion's rows in the same run; stored with their role.

A challenger in shadow is never live. The scores of an arm may become so for its share of the rows (flow/split.py), and
must meet what the champion's must. Nothing that goes wrong with either touches the champion's partitions, which are
committed before they begin.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from pip_dagster.errors import DeclarationError, PipelineError
from pip_dagster.flow.decide import check_classes
from pip_dagster.flow.entries import scoring_entry
from pip_dagster.flow.findings import ScoringPolicy, quarantine_unscorable
from pip_dagster.flow.guard_composite import encode_model
from pip_dagster.flow.model import ScoringModel
from pip_dagster.flow.predict import Made, read_past
from pip_dagster.flow.result import PartitionResult, Refusal
from pip_dagster.flow.run import Run
from pip_dagster.flow.score_chunk import ScoredChunk, score_chunk
from pip_dagster.flow.scored_row import scored_columns
from pip_dagster.flow.stage import Stage
from pip_dagster.flow.store_scores import ScoredPartition, store_failure, store_scores
from pip_dagster.flow.storing import store_in_groups
from pip_dagster.flow.validate import Validation, validate_features
from pip_dagster.ledger.record import ROWS_OF, ScoringEntry
from pip_dagster.quoted import said
from pip_dagster.registry.task import CALIBRATED
from pip_dagster.warehouse.interrupts import raise_if_interrupted

ROLE, ARM = "challenger", "arm"


def shadow(
    run: Run, stage: Stage, champion: ScoringModel, results: Sequence[PartitionResult]
) -> Iterator[PartitionResult]:
    """The results with what each declared challenger and arm scored of the partitions that the champion scored.

    One that cannot be resolved, loaded or stored is reported as progress and, where its version is known, in
    the ledger; it never raises.
    """
    made = [(r.partition, r.features) for r in results if r.features and r.scoring and not r.error]
    champions = {r.partition.key: r.scoring for r in results if r.scoring}
    found: dict[str, dict[str, ScoringEntry]] = {}
    refused: dict[str, Refusal] = {}
    name, scoring, progress = run.pipeline.spec.name, run.pipeline.spec.scoring, run.progress
    for alias in scoring.compared if made else ():
        role = ARM if alias in scoring.arms else ROLE
        try:
            model = ScoringModel.resolve(run.pipeline, champion.threads, alias=alias, role=role)
            if model.version.version == champion.version.version:
                own = f"{alias} names v{champion.version.version}, which is the champion's own version"
                refused[alias] = Refusal(own, transient=False)
                progress(f"{name}: challenger {alias} is the champion's own version; it is not scored twice")
                continue
            for entry in _score(run, stage, champion, model, made, champions):
                found.setdefault(entry.partition_key, {})[alias] = entry
        except Exception as error:
            raise_if_interrupted(error)
            # Whatever else it is, the champion's partitions are committed and stay.
            refused[alias] = Refusal(f"{alias} was not scored: {said(error)}", transient=True)
            progress(f"{name}: challenger {alias} was not scored: {said(error)}")
    for result in results:
        entries = found.get(result.partition.key, {})
        yield replace(
            result,
            challengers=tuple({entry.scoring_id: entry for entry in entries.values()}.values()),
            arms={alias: entry for alias, entry in entries.items() if alias in scoring.arms},
            refused={alias: why for alias, why in refused.items() if alias in scoring.arms},
        )


def _score(
    run: Run,
    stage: Stage,
    champion: ScoringModel,
    model: ScoringModel,
    made: Sequence[Made],
    champions: Mapping[str, ScoringEntry],
) -> list[ScoringEntry]:
    pipeline, spec, is_arm = run.pipeline, run.pipeline.spec, model.role == ARM
    if is_arm:
        own, other = (scored_columns(spec, each.version.manifest, stage.columns) for each in (model, champion))
        _check_columns(own, other)
    check_classes(pipeline, model.version.manifest)
    past = read_past(run, model, made)
    known = {
        key: entry
        for key, entry in past.scorings.items()
        # An arm must have the rows of this very champion, whose unseen categories may have been quarantined.
        if not is_arm or entry.rows_scored == champions[key].rows_scored
    }
    fresh = [item for item in made if item[0].key not in known]
    if not fresh:
        return list(known.values())
    keys = [partition.key for partition, _ in fresh]
    stage.restage(pipeline, [features.revision for _, features in fresh])
    validate_features(stage, pipeline, keys)
    unseen = spec.scoring.on_unseen_category
    # The champion's rows, even if the challenger would score others.
    encoded = encode_model(champion.version.manifest, stage.columns, where=spec.name)
    quarantine_unscorable(stage, encoded, unseen=unseen == "quarantine")
    # What is only compared is counted; what may be live must not have what the declaration refuses.
    policy = replace(
        ScoringPolicy.declared(spec), on_unseen_category="error" if is_arm and unseen != "missing" else "missing"
    )
    chunk = score_chunk(run, stage, model, keys, Validation() if is_arm else None, policy)
    compared, purpose = _Compared(run, stage, chunk, champions), f"{spec.name}: storing a challenger's scores"
    return [*known.values(), *store_in_groups(run, fresh, compared, purpose=purpose)]


@dataclass
class _Compared:
    """How the scores of a challenger or an arm are stored, beside their `champions`."""

    run: Run
    stage: Stage
    chunk: ScoredChunk
    champions: Mapping[str, ScoringEntry]

    errors: type[PipelineError] = PipelineError

    def rows(self, item: Made) -> int | None:
        """None: it was refused."""
        return None if self._refusal(item) else item[1].rows_extracted

    def store(self, items: list[Made]) -> list[ScoringEntry]:
        """Commit what was scored; an arm's may be blocked."""
        return store_scores(self.run, self.stage, self.chunk, [self._attempt(item) for item in items])

    def alone(self, item: Made, error: PipelineError | None) -> ScoringEntry:
        """Record why a partition has no scores."""
        reason = str(error) if error else self._refusal(item)
        entry = scoring_entry(self.run, self.chunk.model, *item, status="failed", reason=reason)
        store_failure(self.run.con, entry)
        return entry

    def _refusal(self, item: Made) -> str | None:
        scores = self.chunk.scores
        return scores.failed.get(item[0].key) or scores.blocked.get(item[0].key)

    def _attempt(self, item: Made) -> ScoredPartition:
        key = item[0].key
        scored, champion = self.chunk.scores.scored[key], self.champions[key]
        # Its quarantine is the champion's, which is stored; a replay reads it there.
        findings = {**scored.findings, **({ROWS_OF: champion.scoring_id} if champion.rows_quarantined else {})}
        scored = replace(scored, rows_quarantined=0, rows_in=scored.rows_scored, findings=findings)
        blocked = self.chunk.validation.blocked.get(key)
        status: Literal["scored", "blocked"] = "blocked" if blocked else "scored"
        entry = scoring_entry(self.run, self.chunk.model, *item, status=status, reason=blocked, scored=scored)
        return ScoredPartition(scored, entry, self.chunk.validation.checks(entry))


def _check_columns(arm: dict[str, str], champion: dict[str, str]) -> None:
    """Refuse an arm whose rows would have other columns than the champion's: the others would silently be NULL.

    `calibrated` may differ: it is NULL in the rows of a version that has no calibration.

    Raises:
        DeclarationError: names the columns.
    """
    if {**arm, CALIBRATED: ""} != {**champion, CALIBRATED: ""}:
        differing = sorted({*arm.items()} ^ {*champion.items()})
        listed = ", ".join(f"{name} {kind}" for name, kind in dict.fromkeys(differing))
        raise DeclarationError(f"its rows have other columns than the champion's ({listed}); it can only be in shadow")
