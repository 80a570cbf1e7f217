"""A candidate through every gate that applies."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from pip_dagster.declaration.canonical import canonical
from pip_dagster.errors import DeclarationError, NoWarehouseError, RegistryError
from pip_dagster.flow.compared import distribution_gate
from pip_dagster.flow.decide import check_classes
from pip_dagster.flow.engine import available_threads, choose_device, library_versions
from pip_dagster.flow.label_metric import label_metric
from pip_dagster.flow.label_window import LabelWindow, label_window
from pip_dagster.flow.model import ScoringModel
from pip_dagster.flow.stage import Stage
from pip_dagster.ledger.promotions import check_moves
from pip_dagster.ledger.versions import check_recorded
from pip_dagster.promotion.identity import golden_gate, signature_gate
from pip_dagster.promotion.labels import label_gates, nothing_to_compare
from pip_dagster.promotion.rescore import Replayed, Rescored, replay_gate, rescore
from pip_dagster.promotion.stored import read_stored
from pip_dagster.promotion.throughput import throughput_gate
from pip_dagster.registry.errors import LostMove
from pip_dagster.registry.load import load_predictor
from pip_dagster.registry.protocol import ModelRegistry
from pip_dagster.registry.store import Registry
from pip_dagster.statistics.agreement import flip_gate, segment_differences, top_movers
from pip_dagster.statistics.gate_result import GateReport, GateResult, Mover, SegmentDifference
from pip_dagster.warehouse.access import reading
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

    Signature and golden rows always count. Where both can be loaded and partitions are live, the newest of them, and
    those with the newest labels, are rescored with both. Nothing is written anywhere, and the warehouse is held for its
    reads only.

    Raises:
        DeclarationError: a gate cannot be run as it is declared.
        ReplacedVersion: the candidate is not the one that the ledger knows by its number.
        SourceError, WarehouseError: something it reads cannot be.
    """
    began, gates, spec = time.monotonic(), pipeline.gates, pipeline.spec
    champion, broken = _champion(pipeline, registry, candidate, seen)
    threads = available_threads()
    segments: tuple[SegmentDifference, ...] = ()
    movers: tuple[Mover, ...] = ()
    rescored = Rescored()
    with workspace(threads=threads) as con:
        stage = Stage(con)
        stored = read_stored(con, pipeline, None if pipeline.labels else gates.partitions)
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
        if champion is not None and signature.passed and not stored.partitions and pipeline.labels:
            results.extend(nothing_to_compare(gates))
        if champion is not None and signature.passed and stored.partitions:
            device, engine = choose_device(spec.scoring.device), canonical(library_versions())
            new, old = (ScoringModel(version, device, threads, engine) for version in (candidate, champion))
            labelled = LabelWindow()
            if pipeline.labels:
                progress(f"{spec.name}: labels, {pipeline.labels.outcome}")
                label_metric(pipeline, champion.manifest)
                labelled = label_window(con, pipeline, champion.manifest, stored.partitions)
            replayed = Replayed.of(stored, gates.partitions, labelled)
            rescored = rescore(stage, pipeline, replayed, new, old, lambda text: progress(f"{spec.name}: {text}"))
            results.append(replay_gate(rescored, str(candidate)))
            if rescored.rows > rescored.lost:
                results.extend(_compare(stage, pipeline, (rescored, labelled), (new, old), progress))
                segments = segment_differences(
                    con, rescored.newest, gates.segments, decided=rescored.decision is not None
                )
                movers = top_movers(con, rescored.newest)
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


def _champion(
    pipeline: Pipeline, registry: ModelRegistry, candidate: ModelVersion, seen: int | None
) -> tuple[ModelVersion | None, list[GateResult]]:
    """The version to compare with; one that is damaged or replaced fails a gate, so that `--override` leads away.

    Raises:
        ReplacedVersion: as `check`, about the candidate.
    """
    purpose = f"{pipeline.spec.name}: reading the ledger for gates"
    check_recorded(pipeline.project, candidate, purpose=purpose)
    if seen is None:
        return None, _lost_champion(pipeline, candidate, purpose)
    try:
        champion = registry.get(candidate.name, seen)
        check_recorded(pipeline.project, champion, purpose=purpose)
        load_predictor(champion, nthread=1)
    except RegistryError as error:
        return None, [GateResult("champion", False, None, None, f"v{seen} cannot be compared with: {error}")]
    return champion, []


def _lost_champion(pipeline: Pipeline, candidate: ModelVersion, purpose: str) -> list[GateResult]:
    """A failed gate if the alias is not set and the audit recorded that it was: this is no first version."""
    project, scoring = pipeline.project, pipeline.spec.scoring
    try:
        with workspace(threads=1) as con, suppress(NoWarehouseError), reading(con, project, purpose=purpose):
            check_moves(con, Registry(project.registry), candidate.name, scoring.alias)
    except LostMove as error:
        return [GateResult("champion", False, None, None, f"there is nothing to compare with: {error}")]
    return []


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
    found: tuple[Rescored, LabelWindow],
    models: tuple[ScoringModel, ScoringModel],
    progress: Callable[[str], None],
) -> list[GateResult]:
    """The gates on rescored rows; `models` are candidate and champion."""
    (rescored, labelled), con, gates = found, stage.con, pipeline.gates
    champion = models[1].version.manifest
    results = [flip_gate(con, rescored.newest, rescored.decision, gates.max_flip_rate)] if rescored.decision else []
    results.append(distribution_gate(con, rescored.newest, rescored.sides, gates.max_score_psi))
    if pipeline.labels:
        metric = label_metric(pipeline, champion)
        results.extend(label_gates(con, pipeline, champion, metric, labelled, rescored))
    progress(f"{pipeline.spec.name}: throughput")
    results.append(throughput_gate(stage, *models, gates.min_throughput))
    return results
