"""The sentences of a gate report."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from pip_dagster.statistics.judge import Rule, judge
from pip_dagster.statistics.paired import drift
from pip_dagster.statistics.segments import judge_segments
from pip_dagster.statistics.wording import describe, describe_drift, describe_segments


def test_every_state_says_what_was_found_and_what_is_needed(simulation) -> None:
    rows = simulation.draw("auc", simulation.World(5, 400), np.random.default_rng(1))
    passed = describe(judge("auc", rows))
    for part in (
        "champion 0.",
        "95% interval",
        "2,000 labelled rows of 2,000 units",
        "is allowed",
        "probability of 80%",
    ):
        assert part in passed
    assert "needed" not in passed and "one partition" not in passed
    assert describe(judge("auc", rows.take(np.arange(0)))) == "no replayed row has a label"
    three = np.concatenate([np.flatnonzero(rows.y == 1)[:3], np.flatnonzero(rows.y == 0)])
    assert "; 3 of " in describe(judge("auc", rows.take(three))) and describe(judge("auc", rows.take(rows.y == 1)))
    assert "are of 9 units; 10 are needed" in describe(judge("auc", replace(rows, unit=rows.unit % 9)))
    imprecise = describe(judge("auc", rows.take(np.arange(200))))
    assert "too few to judge" in imprecise and "labelled rows are needed" in imprecise and "one partition" in imprecise
    assert "`strict` refuses" in describe(judge("auc", rows, Rule(strict=True)))
    assert "outcomes are equal" in describe(judge("rmse", replace(rows, y=np.ones(2_000))))
    assert "hardly beats the base rate" in describe(judge("auc", replace(rows, champion=np.full(2_000, 0.3))))


def test_segments_are_named_counted_and_those_left_out_too(simulation) -> None:
    rows = simulation.draw("auc", simulation.World(5, 800), np.random.default_rng(1))
    codes = np.where(np.arange(4_000) < 5, 5, np.arange(4_000) % 5)
    values = (["a", "b", "c", "d", "e", "few"], codes)
    clean = describe_segments(judge_segments("auc", rows, {"shop": values}, 0.0125))
    assert clean.startswith("0 of 5 segments") and "the least likely is shop " in clean
    assert clean.endswith("; 1 with too few labels are not judged")
    bad = replace(rows, candidate=np.where(codes < 4, 1 - rows.champion, rows.candidate))
    refused = describe_segments(judge_segments("auc", bad, {"shop": values}, 0.0125))
    assert refused.startswith("4 of 5 segments") and "; and 1 more;" in refused
    assert "none of 2" in describe_segments(judge_segments("auc", rows, {"x": (["a", "b"], codes * 0)}, 0.0))


def test_drift_names_its_noise() -> None:
    text = describe_drift("score", drift(np.array([[40, 10], [10, 40]])), 0.25)
    assert text == (
        "PSI of score is 0.000 over the champion's deciles on 100 rows, of which 0.008 is noise (p = 1); 0.25 beyond "
        "noise is allowed"
    )
