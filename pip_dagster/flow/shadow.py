"""Challengers: other versions score the champion's rows in the same run; stored with their role, never live.

Nothing that goes wrong with a challenger touches the champion's partitions, which are committed before it begins.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from pip_dagster.errors import PipelineError
from pip_dagster.flow.entries import scoring_entry
from pip_dagster.flow.guard import encode
from pip_dagster.flow.model import ScoringModel
from pip_dagster.flow.predict import Made, part_rows, read_past
from pip_dagster.flow.publish import store_failure, store_scores
from pip_dagster.flow.result import PartitionResult
from pip_dagster.flow.score import score
from pip_dagster.flow.validate import keep_unseen_apart
from pip_dagster.ledger.record import ExtractionEntry, RunInfo, ScoringEntry
from pip_dagster.warehouse.windows import in_windows

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from pip_dagster.pipeline import Pipeline

ROLE = "challenger"


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
    """The results with what each declared challenger made of the partitions that the champion scored.

    A challenger that cannot be resolved, loaded or stored is reported through `progress` and, where its version is
    known, in the ledger; no exception of its leaves here.
    """
    made = [(r.partition, r.features) for r in results if r.features and r.scoring and not r.error]
    found: dict[str, list[ScoringEntry]] = {}
    for alias in pipeline.spec.scoring.challengers if made else ():
        try:
            model = ScoringModel.resolve(pipeline, champion.threads, alias=alias, role=ROLE)
            if model.version.version == champion.version.version:
                progress(
                    f"{pipeline.spec.name}: challenger {alias} is the champion's own version; it is not scored twice"
                )
                continue
            for entry in _score(con, pipeline, champion, model, columns, made, stage, run):
                found.setdefault(entry.partition_key, []).append(entry)
        except Exception as error:  # whatever it is, the champion's partitions are committed and stay
            progress(f"{pipeline.spec.name}: challenger {alias} was not scored: {error}")
    for result in results:
        yield replace(result, challengers=tuple(found.get(result.partition.key, ())))


def _score(
    con: DuckDBPyConnection,
    pipeline: Pipeline,
    champion: ScoringModel,
    model: ScoringModel,
    columns: dict[str, str],
    made: Sequence[Made],
    stage: Callable[[list[ExtractionEntry]], object] | None,
    run: RunInfo,
) -> list[ScoringEntry]:
    past = read_past(con, pipeline, model, made)
    fresh = [(partition, features) for partition, features in made if partition.key not in past.scorings]
    if not fresh:
        return list(past.scorings.values())
    keys = [partition.key for partition, _ in fresh]
    if stage:
        stage([features for _, features in fresh])
    part_rows(con, pipeline, columns, keys)
    spec = pipeline.spec
    if spec.scoring.on_unseen_category == "quarantine":
        # The champion's rows, whatever the challenger would have made of the others.
        known = encode(champion.version.manifest.features, columns, where=spec.name)
        keep_unseen_apart(con, [feature.unseen for feature in known if feature.unseen])
    counting = spec.model_copy(update={"scoring": spec.scoring.model_copy(update={"on_unseen_category": "missing"})})
    manifest = model.version.manifest
    scoring = score(con, counting, model.predictor, manifest, columns, keys)

    def store(item: Made) -> ScoringEntry:
        partition, features = item
        key = partition.key
        reason = scoring.failed.get(key) or scoring.blocked.get(key)
        if reason is None:
            scored = scoring.scored[key]
            # Its quarantine is the champion's, which is stored.
            shadowed = replace(scored, rows_quarantined=0, rows_in=scored.rows_scored)
            entry = scoring_entry(pipeline, model, partition, features, run, status="scored", scored=shadowed)
            try:
                return store_scores(con, scoring, shadowed, entry, columns, spec.features.key, (), run)
            except PipelineError as error:
                reason = str(error)
        entry = scoring_entry(pipeline, model, partition, features, run, status="failed", reason=reason)
        store_failure(con, entry)
        return entry

    stored = in_windows(con, pipeline.project, fresh, store, purpose=f"{spec.name}: storing a challenger's scores")
    return [*past.scorings.values(), *stored]
