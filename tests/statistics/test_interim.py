"""A canary's interim analyses over thirty days: how often an equal arm is stopped, and how soon a worse one is.

The long form prints the table of docs/experiments.md:
`.venv/bin/python -m pytest tests/statistics/test_interim.py -m soak -s`.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pip_dagster.statistics.interim import Interim
from pip_dagster.statistics.judge import Rule, judge

DAYS, FALSE = 30, 0.05


def analyses(days: int = DAYS) -> list[Interim]:
    """The analyses of a canary that is judged on each of its days."""
    return sorted({each for day in range(days + 1) if (each := Interim.at(day))}, key=lambda each: each.number)


def stopped_at(metric, rows, rule=None) -> tuple[int, bool]:
    """The partitions of the analysis that stops the arm, 0 if none does; and whether any judged it."""
    judged = False
    for each in analyses(int(rows.day.max()) + 1):
        seen = rows.take(rows.day < each.partitions)
        found = judge(metric, seen, Rule(confidence=each.confidence(Rule().confidence)))
        judged |= found.state != "unjudged"
        if found.state == "refused":
            return each.partitions, judged
    return 0, judged


def each_day(metric, rows) -> bool:
    """Whether a judgement on each day would refuse the arm on one of them."""
    days = range(4, int(rows.day.max()) + 2)
    return any(judge(metric, rows.take(rows.day < day)).gain.high < 0 for day in days)


def simulated(simulation, metric, world, draws) -> tuple[dict[int, int], int]:
    """Partitions of the analysis that stops → how many arms; and how many were judged at all."""
    found: dict[int, int] = {}
    judged = 0
    for seed in range(draws):
        at, known = stopped_at(metric, simulation.draw(metric, world, np.random.default_rng((seed, 21))))
        found[at] = found.get(at, 0) + 1
        judged += known
    return found, judged


def test_analyses_double_and_share_one_error() -> None:
    assert [Interim.at(days) for days in (0, 3)] == [None, None]
    assert [Interim.at(days) for days in (4, 7, 8, 15, 16, 31, 32)] == [
        Interim(*each) for each in ((1, 4), (1, 4), (2, 8), (2, 8), (3, 16), (3, 16), (4, 32))
    ]
    assert Interim(1, 4).next == 8
    errors = [1 - Interim(number, 4).confidence(0.95) for number in range(1, 2_000)]
    assert errors[:2] == pytest.approx([0.025, 0.05 / 6]) and sum(errors) == pytest.approx(0.05, rel=1e-3)


def test_an_equal_arm_is_rarely_stopped_and_a_bad_one_soon(simulation) -> None:
    world, draws = simulation.World, 100
    for each in (world(16, 150), world(16, 150, day=True), world(16, 600, unit=True)):
        found, _ = simulated(simulation, "auc", each, draws)
        assert draws - found[0] <= FALSE * draws + 2 * (FALSE * draws) ** 0.5, each.name
        worse, _ = simulated(simulation, "auc", replace(each, worse=3.0), 10)
        assert worse.get(0, 0) == 0, f"{each.name}: {worse}"


def row(simulation, metric, world, draws) -> tuple[float, str]:
    """The share of arms that are stopped, and a row of the table."""
    found, judged = simulated(simulation, metric, world, draws)
    sets = [simulation.draw(metric, world, np.random.default_rng((seed, 21))) for seed in range(min(draws, 20))]
    whole = [judge(metric, rows) for rows in sets]
    loss = -np.mean([each.gain.gain for each in whole]) / np.mean([each.margin.value for each in whole])
    shares = " | ".join(f"{100 * found.get(at, 0) / draws:.0f}" for at in (4, 8, 16))
    total, of = 1 - found.get(0, 0) / draws, f"{metric} | {world.name} | {loss:.1f}"
    return total, f"| {of} | {shares} | {100 * total:.1f} | {100 * judged / draws:.0f} |"


@pytest.mark.soak
def test_false_stops_and_power_table(simulation) -> None:
    world = simulation.World
    print("\n| metric | days × rows | loss in margins | stopped at 4 | 8 | 16 | in all | judged |")
    others = [(metric, 200) for metric in ("logloss", "rmse", "poisson_deviance", "multi_logloss")]
    for metric, rows in [("auc", 50), ("auc", 200), ("auc", 1_000), *others]:
        for of in ({}, {"day": True}, {"unit": True}):
            for worse in (1.0, 1.5, 2.0, 3.0):
                draws = 300 if worse == 1 else 60
                total, text = row(simulation, metric, world(DAYS, rows, worse=worse, **of), draws)
                print(text, flush=True)
                if worse == 1:
                    assert total <= FALSE, text


@pytest.mark.soak
def test_a_judgement_on_each_day_refuses_more(simulation) -> None:
    """What the analyses are for: intervals of 95% on each of thirty days."""
    sets = [
        simulation.draw("auc", simulation.World(DAYS, 200), np.random.default_rng((seed, 21))) for seed in range(200)
    ]
    daily = np.mean([each_day("auc", rows) for rows in sets])
    print(f"\nequal arms refused on some day: {100 * daily:.0f}%")
    assert daily > FALSE
