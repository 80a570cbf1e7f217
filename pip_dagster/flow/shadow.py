"""Challengers and arms: other versions score the champion's rows in the same run; stored with their role.

A challenger in shadow is never live. The scores of an arm may become so for its share of the rows (flow/split.py), and
must meet what the champion's must. Nothing that goes wrong with either touches the champion's partitions, which are
committed before they begin.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from pip_dagster.errors import DeclarationError, PipelineError
from pip_dagster.flow.entries import scoring_entry
from pip_dagster.flow.explain import explain
from pip_dagster.flow.fallback import score_where_it_can
from pip_dagster.flow.guard_composite import encode_model
from pip_dagster.flow.model import ScoringModel
from pip_dagster.flow.predict import Gate, Made, part_rows, read_past, reference
from pip_dagster.flow.result import PartitionResult, Refusal
from pip_dagster.flow.score import SCORED, scored_columns
from pip_dagster.flow.staged import together
from pip_dagster.flow.store_scores import Attempt, row_key, store_failure, store_scores
from pip_dagster.flow.validate import keep_unmatched_apart, keep_unseen_apart, validate
from pip_dagster.ledger.checks import CheckEntry
from pip_dagster.ledger.record import ROWS_OF, ExtractionEntry, RunInfo, ScoringEntry
from pip_dagster.quality.parameters import with_parameters
from pip_dagster.warehouse.interrupts import raise_if_interrupted
from pip_dagster.warehouse.windows import in_windows

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from pip_dagster.declaration.pipeline import Pipeline
    from pip_dagster.declaration.spec import PipelineSpec

ROLE, ARM = "challenger", "arm"


def shadow(
    con: DuckDBPyConnection,
    pipeline: Pipeline,
    champion: ScoringModel,
    columns: dict[str, str],
    results: Sequence[PartitionResult],
    stage: Callable[[list[ExtractionEntry]], object] | None,
    run: RunInfo,
    progress: Callable[[str], None],
) -> Iterator[PartitionResult]:
    """The results with what each declared challenger and arm made of the partitions that the champion scored.

    One that cannot be resolved, loaded or stored is reported through `progress` and, where its version is known, in
    the ledger; no exception of its leaves here.
    """
    made = [(r.partition, r.features) for r in results if r.features and r.scoring and not r.error]
    champions = {r.partition.key: r.scoring for r in results if r.scoring}
    found: dict[str, dict[str, ScoringEntry]] = {}
    refused: dict[str, Refusal] = {}
    name, scoring = pipeline.spec.name, pipeline.spec.scoring
    for alias in scoring.compared if made else ():
        role = ARM if alias in scoring.arms else ROLE
        try:
            model = ScoringModel.resolve(pipeline, champion.threads, alias=alias, role=role)
            if model.version.version == champion.version.version:
                own = f"{alias} names v{champion.version.version}, which is the champion's own version"
                refused[alias] = Refusal(own, transient=False)
                progress(f"{name}: challenger {alias} is the champion's own version; it is not scored twice")
                continue
            for entry in _score(con, pipeline, champion, model, columns, made, champions, stage, run):
                found.setdefault(entry.partition_key, {})[alias] = entry
        except Exception as error:
            raise_if_interrupted(error)
            # Whatever else it is, the champion's partitions are committed and stay.
            refused[alias] = Refusal(f"{alias} was not scored: {error}", transient=True)
            progress(f"{name}: challenger {alias} was not scored: {error}")
    for result in results:
        entries = found.get(result.partition.key, {})
        yield replace(
            result,
            challengers=tuple({entry.scoring_id: entry for entry in entries.values()}.values()),
            arms={alias: entry for alias, entry in entries.items() if alias in scoring.arms},
            refused={alias: why for alias, why in refused.items() if alias in scoring.arms},
        )


def _score(
    con: DuckDBPyConnection,
    pipeline: Pipeline,
    champion: ScoringModel,
    model: ScoringModel,
    columns: dict[str, str],
    made: Sequence[Made],
    champions: Mapping[str, ScoringEntry],
    stage: Callable[[list[ExtractionEntry]], object] | None,
    run: RunInfo,
) -> list[ScoringEntry]:
    spec, manifest = pipeline.spec, model.version.manifest
    is_arm = model.role == ARM
    if is_arm:
        types = scored_columns(con, spec, manifest, columns)
        _check_columns(spec, types, scored_columns(con, spec, champion.version.manifest, columns))
    past = read_past(con, pipeline, model, made)
    known = {
        key: entry
        for key, entry in past.scorings.items()
        # An arm must have the rows of this very champion, whose unseen categories may have been kept apart.
        if not is_arm or entry.rows_scored == champions[key].rows_scored
    }
    fresh = [(partition, features) for partition, features in made if partition.key not in known]
    if not fresh:
        return list(known.values())
    keys = [partition.key for partition, _ in fresh]
    if stage:
        stage([features for _, features in fresh])
    part_rows(con, pipeline, columns, keys)
    unseen = spec.scoring.on_unseen_category
    # The champion's rows, whatever the challenger would have made of the others.
    encoded = encode_model(champion.version.manifest, columns, where=spec.name)
    if unseen == "quarantine":
        keep_unseen_apart(con, [feature.unseen for feature in encoded if feature.unseen])
    keep_unmatched_apart(con, encoded)
    # What is only compared is counted; what may be live must not have what the declaration refuses.
    policy = "error" if is_arm and unseen != "missing" else "missing"
    judged = spec.model_copy(update={"scoring": spec.scoring.model_copy(update={"on_unseen_category": policy})})
    scoring, model = score_where_it_can(con, judged, model, columns, keys)
    gate, reasons = Gate(), None
    if is_arm:
        done = [key for key in keys if key in scoring.scored and key not in scoring.blocked]
        expected = with_parameters(pipeline.suites.predictions, reference(manifest))
        gate.add(validate(con, spec, expected, SCORED, types, done))
        sound = [key for key in done if key not in gate.blocked]
        reasons = explain(con, spec, model.predictor, manifest, columns, sound)

    def attempt(item: Made) -> Attempt:
        partition, features = item
        key, scored = partition.key, scoring.scored[partition.key]
        # Its quarantine is the champion's, which is stored; a replay looks there.
        apart = {ROWS_OF: champions[key].scoring_id} if champions[key].rows_quarantined else {}
        shadowed = replace(
            scored, rows_quarantined=0, rows_in=scored.rows_scored, findings={**scored.findings, **apart}
        )
        blocked = gate.blocked.get(key)
        status: Literal["scored", "blocked"] = "blocked" if blocked else "scored"
        entry = scoring_entry(pipeline, model, partition, features, run, status=status, reason=blocked, scored=shadowed)
        checks = [CheckEntry.of(v, entry.scoring_id, spec.name, key) for v in gate.verdicts.get(key, ())]
        return Attempt(shadowed, entry, checks)

    def wrong(item: Made) -> str | None:
        return scoring.failed.get(item[0].key) or scoring.blocked.get(item[0].key)

    def store(items: list[Made]) -> list[ScoringEntry]:
        reason = wrong(items[0])
        if reason is None:
            try:
                attempts = [attempt(item) for item in items]
                return store_scores(con, scoring, attempts, columns, row_key(spec), run, reasons)
            except PipelineError as error:
                if len(items) > 1:  # each alone, and the one it is about says so
                    return [entry for item in items for entry in store([item])]
                reason = str(error)
        entry = scoring_entry(pipeline, model, *items[0], run, status="failed", reason=reason)
        store_failure(con, entry)
        return [entry]

    groups = list(together(fresh, lambda item: None if wrong(item) else item[1].rows_extracted))
    stored = in_windows(con, pipeline.project, groups, store, purpose=f"{spec.name}: storing a challenger's scores")
    return [*known.values(), *(entry for group in stored for entry in group)]


def _check_columns(spec: PipelineSpec, arm: dict[str, str], champion: dict[str, str]) -> None:
    """Refuse an arm whose rows would have other columns than the champion's: the others would be NULL without a word.

    Raises:
        DeclarationError: names the columns.

    """
    if arm != champion:
        differing = sorted({*arm.items()} ^ {*champion.items()})
        listed = ", ".join(f"{name} {kind}" for name, kind in dict.fromkeys(differing))
        raise DeclarationError(f"its rows have other columns than the champion's ({listed}); it can only be in shadow")
