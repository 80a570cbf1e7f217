"""Scoring that the GPU gave up is done on the CPU, all of it anew, so that a partition has one device and replays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from pip_dagster.errors import DeclarationError
from pip_dagster.flow.model import ScoringModel
from pip_dagster.flow.score import Scoring, score

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from pip_dagster.declaration.spec import PipelineSpec


def score_where_it_can(
    con: DuckDBPyConnection,
    spec: PipelineSpec,
    model: ScoringModel,
    columns: Mapping[str, str],
    partitions: Sequence[str],
) -> tuple[Scoring, ScoringModel]:
    """As `score`, and the model as it scored: on the CPU, with the reason, where its GPU failed on the way.

    Raises:
        DeclarationError: the GPU failed and `device: cuda` leaves no choice; what `score` raises.

    """
    manifest = model.version.manifest
    try:
        scoring = score(con, spec, model.predictor, manifest, columns, partitions)
    except Exception:  # DuckDB wraps what its batches raise
        if model.predictor.gpu_failure is None:
            raise
    failure = model.predictor.gpu_failure
    if failure is None:
        return scoring, model
    if spec.scoring.device == "cuda":
        raise DeclarationError(
            f"Pipeline {spec.name}: scoring.device is cuda, and {failure}. Nothing of {partitions[0]} to "
            f"{partitions[-1]} was stored; free the GPU's memory, or declare `device: auto`, which goes on on the CPU."
        ) from failure
    model = model.on_cpu(f"a GPU is there, but {failure}")
    return score(con, spec, model.predictor, manifest, columns, partitions), model
