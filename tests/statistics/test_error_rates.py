"""Error rates of the gates, simulated: how often intervals cover, equal models are refused and worse ones found.

The long form prints the tables of docs/gate-statistics.md:
`.venv/bin/python -m pytest tests/statistics/test_error_rates.py -m soak -s`.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pip_dagster.statistics.interval import PairedRows, gain
from pip_dagster.statistics.judge import judge
from pip_dagster.statistics.planning import labels_needed_before
from pip_dagster.statistics.segments import judge_segments

METRICS = ("auc", "logloss", "rmse", "poisson_deviance", "multi_logloss", "accuracy", "macro_f1", "ovr_auc")
NOMINAL, LEAST, MOST = 0.95, 0.92, 0.98
FALSE = 0.05


def slack(share: float, draws: int) -> float:
    """Twice the standard error of a simulated share."""
    return 2 * (share * (1 - share) / draws) ** 0.5


def coverage(simulation, metric: str, world, draws: int) -> tuple[float, float, float]:
    """The shares of intervals that contain no difference: ours and by row; the mean width over that of the truth."""
    inside, by_row, widths, gains = 0, 0, [], []
    for seed in range(draws):
        found = gain(metric, simulation.draw(metric, world, np.random.default_rng((seed, 1))))
        assert found
        inside += found.low <= 0 <= found.high
        by_row += abs(found.gain) <= 1.96 * found.spread.row_se
        widths.append(found.high - found.low)
        gains.append(found.gain)
    return inside / draws, by_row / draws, float(np.mean(widths) / (2 * 1.96 * np.std(gains)))


def together(parts: list[PairedRows]) -> PairedRows:
    """Rows of several worlds as one; days are the same, units are not."""
    start = np.cumsum([0, *(int(part.unit.max()) + 1 for part in parts)])
    units = [part.unit + first for part, first in zip(parts, start, strict=False)]
    fields = {
        name: np.concatenate([getattr(part, name) for part in parts]) for name in ("y", "champion", "candidate", "day")
    }
    return PairedRows(**fields, unit=np.concatenate(units))


def gates(metric: str, rows: PairedRows, codes: np.ndarray, segments: int):
    """Both label gates, as a promotion calls them."""
    overall = judge(metric, rows)
    values = [str(i) for i in range(segments)]
    allowed = overall.margin.value if overall.margin else 0.0
    return overall, judge_segments(metric, rows, {"segment": (values, codes)}, allowed)


def false_refusals(simulation, metric: str, world, segments: int, draws: int) -> tuple[float, float, float]:
    """The shares of sets of equal models that all rows refuse, that a segment refuses, and that either does."""
    counts = np.zeros(3)
    for seed in range(draws):
        rows = simulation.draw(metric, world, np.random.default_rng((seed, 2)))
        overall, by_segment = gates(metric, rows, rows.unit % segments, segments)
        one, two = overall.state == "refused", by_segment.state == "refused"
        counts += one, two, one or two
    return tuple(counts / draws)


@pytest.mark.parametrize("metric", ["auc", "rmse", "macro_f1"])
def test_intervals_cover_with_units_and_days_where_intervals_by_row_do_not(simulation, metric: str) -> None:
    world, draws = simulation.World, 120
    for each in (world(7, 100), world(10, 120, day=True), world(20, 60, unit=True)):
        covered, by_row, _ = coverage(simulation, metric, each, draws)
        assert LEAST - slack(LEAST, draws) <= covered <= 1, each.name
    assert by_row < 0.75, "the last world's"


def test_an_equal_model_is_rarely_refused_with_ten_segments(simulation) -> None:
    draws = 120
    _, _, either = false_refusals(simulation, "auc", simulation.World(10, 100), 10, draws)
    assert either <= FALSE + slack(FALSE, draws)


def test_a_bad_segment_is_found(simulation) -> None:
    found = 0
    for seed in range(20):
        rng = np.random.default_rng((seed, 3))
        parts = [simulation.World(5, 720), simulation.World(5, 80, worse=5.0)]
        rows = together([simulation.draw("auc", part, rng) for part in parts])
        codes = np.where(np.arange(len(rows)) < 3_600, np.arange(len(rows)) % 9, 9)
        found += [each.value for each in gates("auc", rows, codes, 10)[1].refused] == ["9"]
    assert found >= 18


@pytest.mark.soak
def test_coverage_table(simulation) -> None:
    world, draws = simulation.World, 500
    worlds = [
        *(world(7, 200), world(30, 100), world(7, 200, day=True), world(7, 1_000, day=True)),
        *(world(7, 1_000, day=True, shift=0.1), world(30, 200, day=True), world(30, 200, unit=True)),
        *(world(7, 300, unit=True, day=True), world(48, 150, unit=True, day=True, shift=0.1)),
        world(20, 120, unit=True, recurring=12),
    ]
    print(f"\n| partitions × rows, dependence | {' | '.join(METRICS)} | mean | width | by row |")
    means = {}
    for each in worlds:
        found = np.array([coverage(simulation, metric, each, draws) for metric in METRICS])
        means[each.name] = found[:, 0]
        cells = " | ".join(f"{100 * covered:.1f}" for covered in (*found[:, 0], found[:, 0].mean()))
        print(f"| {each.name} | {cells} | {found[:, 2].mean():.2f} | {100 * found[:, 1].mean():.0f} |", flush=True)
    for name, covered in means.items():
        assert LEAST <= covered.mean() <= MOST, name
        assert covered.min() >= LEAST - slack(LEAST, draws), name
        assert covered.max() <= MOST + slack(MOST, draws), name


@pytest.mark.soak
def test_false_refusal_table(simulation) -> None:
    world = simulation.World
    cells = [
        *((world(10, size * segments // 10), segments) for size, segments in ((200, 1), (200, 10), (500, 10))),
        *((world(10, size * segments // 10), segments) for size, segments in ((2_000, 10), (200, 50), (500, 50))),
        *((world(20, size * segments // 20, unit=True), segments) for size, segments in ((400, 1), (400, 10))),
        (world(20, 500, unit=True, day=True), 50),
    ]
    print("\n| metric | rows a segment | segments | rows | all rows | a segment | either |")
    worst = []
    for metric, rate in (("auc", 0.3), ("auc", 0.05), ("logloss", 0.3), ("poisson_deviance", 1.0)):
        for each, segments in cells:
            size = each.days * each.rows
            draws = 400 if size < 8_000 else 200
            found = false_refusals(simulation, metric, replace(each, rate=rate), segments, draws)
            worst.append((found[2] - slack(FALSE, draws), metric, each.name, segments))
            shares = " | ".join(f"{100 * share:.1f}" for share in found)
            kind = each.name.split(", ")[1]
            print(f"| {metric} {rate:g} | {size // segments:,} | {segments} | {kind} | {shares} |", flush=True)
    assert max(worst)[0] <= FALSE, max(worst)


@pytest.mark.soak
def test_power_table(simulation) -> None:
    world = simulation.World
    print("\n| metric | rows | loss in margins | refused | passed | unjudged | seen with 80% (margins) | rows needed |")
    for metric in ("auc", "logloss", "rmse", "poisson_deviance"):
        for rows in (500, 2_000, 8_000):
            for worse in (1.0, 1.25, 1.5, 2.0):
                draws = 100
                found = [
                    judge(
                        metric,
                        simulation.draw(metric, world(10, rows // 10, worse=worse), np.random.default_rng((seed, 4))),
                    )
                    for seed in range(draws)
                ]
                allowed = np.mean([each.margin.value for each in found])
                loss = -np.mean([each.gain.gain for each in found]) / allowed
                states = [sum(each.state == state for each in found) for state in ("refused", "passed", "unjudged")]
                seen = np.mean([each.detectable for each in found]) / allowed
                needed = np.mean([each.needed for each in found])
                shares = " | ".join(str(100 * count // draws) for count in states)
                print(f"| {metric} | {rows:,} | {loss:.1f} | {shares} | {seen:.1f} | {needed:,.0f} |", flush=True)
                if worse == 1.0:
                    assert states[0] <= 100 * (FALSE + slack(FALSE, draws))
                if loss > 1.5 * seen:
                    assert states[0] >= 80


@pytest.mark.soak
def test_segment_power_table(simulation) -> None:
    world = simulation.World
    print("\n| metric | rows a segment | segments | loss in the bad one | found | a good one refused |")
    for metric in ("auc", "poisson_deviance"):
        for size, segments in ((200, 1), (200, 10), (200, 50), (500, 10), (500, 50), (2_000, 10)):
            for worse in (2.0, 4.0):
                draws, losses, hits, wrong = 60 if size * segments < 15_000 else 30, [], 0, 0
                for seed in range(draws):
                    rng = np.random.default_rng((seed, 5))
                    parts = [world(5, size // 5, worse=worse), *[world(5, size * (segments - 1) // 5)][: segments - 1]]
                    rows = together([simulation.draw(metric, part, rng) for part in parts])
                    at = np.arange(len(rows))
                    codes = np.where(at < size, 0, 1 + at % max(segments - 1, 1))
                    _, found = gates(metric, rows, codes, segments)
                    losses += [-each.gain.gain for each in found.segments if each.value == "0"]
                    hits += "0" in [each.value for each in found.refused]
                    wrong += any(each.value != "0" for each in found.refused)
                shares = f"{100 * hits / draws:.0f} | {100 * wrong / draws:.0f}"
                print(f"| {metric} | {size:,} | {segments} | {np.mean(losses):.3f} | {shares} |", flush=True)
                assert wrong / draws <= FALSE + slack(FALSE, draws)


@pytest.mark.soak
def test_need_for_labels_table(simulation) -> None:
    world, draws = simulation.World, 60
    print("\n| metric | dependence | predicted SE ÷ actual | rows needed, predicted | from labels |")
    for metric in METRICS:
        for each in (world(20, 200), world(20, 200, unit=True, day=True)):
            sets = [simulation.draw(metric, each, np.random.default_rng((seed, 6))) for seed in range(draws)]
            actual = np.std([gain(metric, rows).gain for rows in sets])
            noise = (2 - each.correlation) ** 0.5 if metric == "rmse" else None
            before = [labels_needed_before(metric, rows, noise=noise) for rows in sets[:15]]
            after = np.mean([judge(metric, rows).needed for rows in sets])
            ratio = np.mean([need.se for need in before]) / actual
            rows = np.mean([need.rows for need in before])
            kind = each.name.split(", ")[1]
            print(f"| {metric} | {kind} | {ratio:.2f} | {rows:,.0f} | {after:,.0f} |", flush=True)
            assert 0.75 < ratio < 1.4
