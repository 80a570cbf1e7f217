"""A chunk of staged partitions through one model: scored, judged and explained, by champions and challengers alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from pip_dagster.errors import DeclarationError
from pip_dagster.flow.distributed.shared_stage import SharedStage
from pip_dagster.flow.engine import Device
from pip_dagster.flow.explain import Explanation, explain
from pip_dagster.flow.findings import ScoringPolicy
from pip_dagster.flow.model import ScoringModel
from pip_dagster.flow.profile import ToProfile, profiles_of
from pip_dagster.flow.run import Run
from pip_dagster.flow.score import Scores, score
from pip_dagster.flow.stage import Stage
from pip_dagster.flow.validate import Validation, validate
from pip_dagster.ledger.profiles import Profile
from pip_dagster.quality.parameters import with_parameters
from pip_dagster.registry.manifest import Manifest
from pip_dagster.warehouse.memory import with_more


@dataclass(frozen=True)
class ScoredChunk:
    """The staged scores and reason codes of a chunk, its verdicts and profiles; `model` as it scored."""

    model: ScoringModel
    scores: Scores
    validation: Validation
    reasons: Explanation | None = None
    profiles: Mapping[str, Sequence[Profile]] = field(default_factory=dict)


def score_chunk(
    run: Run,
    stage: Stage,
    model: ScoringModel,
    keys: Sequence[str],
    validation: Validation | None,
    policy: ScoringPolicy | None = None,
) -> ScoredChunk:
    """Score the staged features of these partitions, judge the scores, explain those that are to be explained.

    The verdicts on the scores are added to the `validation` of the features. Without one the scores are for comparison
    only: neither judged nor explained.

    Raises:
        DeclarationError: the columns do not fit the model, or its GPU failed and `device: cuda` leaves no choice.
    """
    pipeline = run.pipeline
    scores, model = _score_where_it_can(run, stage, model, keys, policy)
    if validation is None:
        return ScoredChunk(model, scores, Validation())
    scored = [key for key in keys if key in scores.scored and key not in scores.blocked]
    manifest = model.version.manifest
    expected = with_parameters(pipeline.suites.predictions, reference(manifest))
    validation += validate(run.con, pipeline, expected, stage.scores, scores.columns, scored)
    sound = [key for key in scored if key not in validation.blocked]
    explained = partial(explain, stage, pipeline.spec, model.predictor, manifest, scores, sound)
    reasons = with_more(run.con, explained)
    profiles = _profiles(run, stage, model, scores, scored) if _is_monitored(run, model) else {}
    return ScoredChunk(model, scores, validation, reasons, profiles)


def _is_monitored(run: Run, model: ScoringModel) -> bool:
    return run.pipeline.spec.monitoring is not None and model.role == "champion"


def _profiles(
    run: Run, stage: Stage, model: ScoringModel, scores: Scores, keys: Sequence[str]
) -> Mapping[str, Sequence[Profile]]:
    spec = run.pipeline.spec
    if isinstance(stage, SharedStage) and not _segments(run):
        from pip_dagster.flow.distributed.score_shares import SharedScores

        assert isinstance(scores, SharedScores)
        return {key: of for key, of in scores.profiles.items() if key in keys}
    some_apart = any(each.rows_quarantined for each in scores.scored.values())
    relation = stage.admitted if some_apart else stage.features
    manifest, gains = model.version.manifest, model.predictor.gains()
    of = ToProfile(
        stage.con, relation, scores.encoded, manifest, gains, stage.scores, scores.columns, spec.features.key
    )
    return profiles_of(replace(of, segments=_segments(run)), keys)


def _segments(run: Run) -> tuple[str, ...]:
    """The columns by whose values profiles are counted too. Which values are frequent, only all rows show."""
    monitoring = run.pipeline.spec.monitoring
    return monitoring.segments if monitoring else ()


def reference(manifest: Manifest) -> dict[str, float]:
    """The parameters that an expectation on predictions may take: each output's mean in the training sample."""
    return {f"{name}_mean": of.mean for name, of in manifest.score_reference.items() if of.mean is not None}


def _score_where_it_can(
    run: Run, stage: Stage, model: ScoringModel, keys: Sequence[str], policy: ScoringPolicy | None
) -> tuple[Scores, ScoringModel]:
    """The scores, and the model as it scored: on the CPU, with the reason, if its GPU failed on the way.

    The whole chunk is then scored again, so that a partition has one device and replays.
    """
    spec, manifest = run.pipeline.spec, model.version.manifest
    if isinstance(stage, SharedStage):
        from pip_dagster.flow.distributed.score_shares import score_shares

        profiles = _is_monitored(run, model) and not _segments(run)
        shared = score_shares(stage, run.pipeline, model.version, keys, policy, profiles=profiles)
        return shared, replace(model, threads=shared.threads, device=Device("cpu", shared.where))
    try:
        scores = score(stage, spec, model.predictor, manifest, keys, policy)
    except Exception:  # DuckDB wraps what its batches raise
        if model.predictor.gpu_failure is None:
            raise
    failure = model.predictor.gpu_failure
    if failure is None:
        return scores, model
    if spec.scoring.device == "cuda":
        raise DeclarationError(
            f"Pipeline {spec.name}: scoring.device is cuda, and {failure}. Nothing of {keys[0]} to {keys[-1]} was "
            "stored; free the GPU's memory, or declare `device: auto`, which continues on the CPU."
        ) from failure
    model = model.on_cpu(f"a GPU is there, but {failure}")
    return score(stage, spec, model.predictor, manifest, keys, policy), model
