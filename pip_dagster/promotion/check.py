"""A candidate through every gate that applies."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from pip_dagster.declaration.canonical import canonical
from pip_dagster.errors import DeclarationError, RegistryError
from pip_dagster.flow.decide import check_classes
from pip_dagster.flow.engine import available_threads, choose_device, library_versions
from pip_dagster.flow.model import ScoringModel
from pip_dagster.flow.stage import Stage
from pip_dagster.promotion.identity import golden_gate, signature_gate
from pip_dagster.promotion.labels import label_gates
from pip_dagster.promotion.rescore import Rescored, replay_gate, rescore
from pip_dagster.promotion.stored import read_stored
from pip_dagster.promotion.throughput import throughput_gate
from pip_dagster.registry.load import load_predictor
from pip_dagster.registry.protocol import ModelRegistry
from pip_dagster.statistics.agreement import flip_gate, psi_gate, segment_differences, top_movers
from pip_dagster.statistics.gate_result import GateReport, GateResult, Mover, SegmentDifference
from pip_dagster.warehouse.connect import workspace

if TYPE_CHECKING:
    from pip_dagster.declaration.pipeline import Pipeline
    from pip_dagster.registry.version import ModelVersion


def check(
    pipeline: Pipeline,
    registry: ModelRegistry,
    candidate: ModelVersion,
    seen: int | None,
    *,
    by: str,
    progress: Callable[[str], None],
) -> GateReport:
    """Hold `candidate` against `seen`, the version that the pipeline's alias names; None: it names none yet.

    Signature and golden rows always count. Where both can be loaded and partitions are live, the newest of them are
    rescored with both. Nothing is written anywhere, and the warehouse is held for its reads only.

    Raises:
        DeclarationError: a gate cannot be run as it is declared.
        SourceError, WarehouseError: something it reads cannot be.
    """
    began, gates, spec = time.monotonic(), pipeline.gates, pipeline.spec
    champion, broken = _champion(registry, candidate.name, seen)
    threads = available_threads()
    segments: tuple[SegmentDifference, ...] = ()
    movers: tuple[Mover, ...] = ()
    rescored = Rescored()
    with workspace(threads=threads) as con:
        stage = Stage(con)
        stored = read_stored(con, pipeline, gates.partitions)
        progress(f"{spec.name}: signature and golden rows of {candidate}")
        signature = signature_gate(
            candidate,
            champion,
            stored.newest_columns,
            where=f"Pipeline {spec.name}, {spec.features.sql}",
            required_signers=spec.scoring.required_signers,
            root=pipeline.project.root,
        )
        results = [signature, golden_gate(candidate, threads=threads, tolerance=gates.golden_tolerance)]
        results.extend([*broken, *_strange_classes(pipeline, candidate)])
        # A model that does not fit cannot be rescored; that it does not is refusal enough.
        if champion is not None and signature.passed and stored.partitions:
            device, engine = choose_device(spec.scoring.device), canonical(library_versions())
            new, old = (ScoringModel(version, device, threads, engine) for version in (candidate, champion))
            rescored = rescore(stage, pipeline, stored, new, old, lambda text: progress(f"{spec.name}: {text}"))
            results.append(replay_gate(rescored, str(candidate)))
            if rescored.rows > rescored.lost:
                results.extend(_compare(stage, pipeline, rescored, new, old, progress))
                segments = segment_differences(
                    con, rescored.relation, gates.segments, decided=rescored.decision is not None
                )
                movers = top_movers(con, rescored.relation)
    return GateReport(
        pipeline=spec.name,
        model_name=candidate.name,
        alias=spec.scoring.alias,
        candidate=candidate.version,
        champion=seen,
        partitions=tuple(partition.key for partition in rescored.partitions),
        results=tuple(results),
        segments=segments,
        movers=movers,
        made_by=by,
        made_at=datetime.now(UTC),
        seconds=time.monotonic() - began,
    )


def _champion(registry: ModelRegistry, name: str, seen: int | None) -> tuple[ModelVersion | None, list[GateResult]]:
    """The version to compare with; one that is damaged fails a gate of its own, so that `--override` leads away."""
    if seen is None:
        return None, []
    try:
        champion = registry.get(name, seen)
        load_predictor(champion, nthread=1)
    except RegistryError as error:
        return None, [GateResult("champion", False, None, None, f"v{seen} cannot be compared with: {error}")]
    return champion, []


def _strange_classes(pipeline: Pipeline, candidate: ModelVersion) -> list[GateResult]:
    """A failed gate if a decision compares with a class that the candidate does not have."""
    try:
        check_classes(pipeline, candidate.manifest)
    except DeclarationError as error:
        return [GateResult("decisions", False, None, None, str(error))]
    return []


def _compare(
    stage: Stage,
    pipeline: Pipeline,
    rescored: Rescored,
    candidate: ScoringModel,
    champion: ScoringModel,
    progress: Callable[[str], None],
) -> list[GateResult]:
    con, gates, manifest = stage.con, pipeline.gates, champion.version.manifest
    results = [flip_gate(con, rescored.relation, rescored.decision, gates.max_flip_rate)] if rescored.decision else []
    results.append(psi_gate(con, rescored.relation, manifest.outputs, gates.max_score_psi))
    if gates.labels:
        progress(f"{pipeline.spec.name}: labels and {gates.labels.outcome}, with intervals")
        results.extend(label_gates(con, pipeline, manifest, rescored))
    progress(f"{pipeline.spec.name}: throughput")
    results.append(throughput_gate(stage, candidate, champion, gates.min_throughput))
    return results
