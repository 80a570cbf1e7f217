"""The gates as a promotion runs them, on simulated rows with known truth: staged relations in, results out."""

from __future__ import annotations

from datetime import UTC, datetime
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
import yaml

from pip_dagster.flow.label_window import LabelWindow
from pip_dagster.flow.stage import keep
from pip_dagster.ledger.live_partitions import LivePartition
from pip_dagster.promotion.labels import label_gates
from pip_dagster.promotion.rescore import Rescored
from pip_dagster.statistics.agreement import flip_gate, psi_gate
from pip_dagster.warehouse.connect import workspace


@pytest.fixture
def wired(gated):
    """All gates on rows of two models: every row has a label, and belongs to a unit, a day and a segment."""
    attributes = yaml.safe_load((gated.folder / "defs.yaml").read_text())["attributes"]
    gates = {"labels": attributes["gates"]["labels"], "segments": ["shop"], "unit": "shop"}
    pipeline = gated.declare(sources=attributes["sources"], gates=gates).pipeline()
    manifest = gated.registry.get("returns", 1).manifest
    at = datetime(2024, 1, 1, tzinfo=UTC)
    with workspace(threads=1) as con:

        def run(metric, rows, segments):
            n, day = len(rows), np.char.mod("%03d", rows.day)
            given = pa.table(
                {
                    "partition_key": day,
                    "pip_key": np.arange(n).astype(str),
                    "order_id": np.arange(n),
                    "pip_champion_0": rows.champion.astype(np.float32),
                    "pip_candidate_0": rows.candidate.astype(np.float32),
                    "pip_segment_0": (rows.unit % segments).astype(str),
                    "pip_unit": rows.unit.astype(str),
                    "pip_outcome": rows.y.astype(float),
                }
            )
            con.register("given", given)
            relation = keep(
                con,
                "rescored",
                "SELECT * EXCLUDE (pip_outcome), true AS pip_newest, true AS pip_seen, "
                "pip_champion_0 >= 0.5 AS pip_champion_decision, pip_candidate_0 >= 0.5 AS pip_candidate_decision "
                "FROM given",
            )
            labels = keep(con, "labels", "SELECT partition_key, order_id, pip_outcome FROM given")
            con.unregister("given")
            partitions = tuple(LivePartition(key, at, at, "", "", 1) for key in np.unique(day))
            rescored, window = Rescored(partitions, n, relation=relation), LabelWindow(partitions, labels, n)
            found = [
                *label_gates(con, pipeline, manifest, metric, window, rescored),
                flip_gate(con, rescored.newest, "score >= 0.5", pipeline.gates.max_flip_rate),
                psi_gate(con, rescored.newest, ("score",), pipeline.gates.max_score_psi),
            ]
            return SimpleNamespace(
                refused=[each.name for each in found if each.state == "failed"], metric=found[0].details
            )

        yield run


def rates(wired, simulation, metric, world, segments, draws):
    """The shares of intervals that contain no difference, and of sets of equal models that any gate refuses."""
    inside, refused = 0, 0
    for seed in range(draws):
        found = wired(metric, simulation.draw(metric, world, np.random.default_rng((seed, 11))), segments)
        inside += found.metric["low"] <= 0 <= found.metric["high"]
        refused += bool(found.refused)
    return inside / draws, refused / draws


def slack(share: float, draws: int) -> float:
    return 2 * (share * (1 - share) / draws) ** 0.5


def test_equal_models_pass_and_intervals_cover_with_units_and_days(wired, simulation) -> None:
    world, draws = simulation.World, 25
    covered, refused = zip(
        rates(wired, simulation, "auc", world(10, 120, day=True), 10, draws),
        rates(wired, simulation, "auc", world(20, 60, unit=True), 10, draws),
        strict=True,
    )
    assert np.mean(covered) >= 0.95 - slack(0.95, 2 * draws)
    assert np.mean(refused) <= 0.05 + slack(0.05, 2 * draws)


def test_a_worse_model_is_refused(wired, simulation) -> None:
    found = [
        wired(
            "auc", simulation.draw("auc", simulation.World(10, 200, worse=2.0), np.random.default_rng((seed, 12))), 10
        )
        for seed in range(5)
    ]
    assert all("metric" in each.refused for each in found)


@pytest.mark.soak
def test_coverage_and_false_refusals_of_the_wired_gates(wired, simulation) -> None:
    world, draws = simulation.World, 200
    print("\n| metric | rows | segments | covered | an equal model refused by any gate |")
    for metric in ("auc", "logloss"):
        for each in (world(10, 300), world(20, 200, day=True), world(20, 200, unit=True)):
            for segments in (1, 10, 50):
                covered, refused = rates(wired, simulation, metric, each, segments, draws)
                print(
                    f"| {metric} | {each.name} | {segments} | {100 * covered:.1f} | {100 * refused:.1f} |", flush=True
                )
                assert 0.92 - slack(0.92, draws) <= covered <= 0.98 + slack(0.98, draws), each.name
                assert refused <= 0.05 + slack(0.05, draws), each.name
