"""The limits of a canary in each segment: found where it is one segment's, and not by chance where there are many."""

import numpy as np
import pandas as pd
import pytest

from pip_dagster.statistics.segment_agreement import segment_flip_gate, segment_psi_gate
from pip_dagster.warehouse.connect import workspace

BOTH = {"flip": lambda con: segment_flip_gate(con, "paired", ["shop"], 0.2, 50)} | {
    "psi": lambda con: segment_psi_gate(con, "paired", (["shop"], ["score"]), 0.25, 50)
}


def paired(rng, shops=40, rows=100, bad=None, flips=0.2):
    """Both score every row; at the limit of flips everywhere, in `bad` far beyond both limits."""
    shop = np.repeat(np.arange(shops), rows)
    champion = rng.normal(size=len(shop))
    candidate = champion + rng.normal(size=len(shop)) * 0.3 + 2 * (shop == bad)
    flipped = rng.random(len(shop)) < np.where(shop == bad, 0.5, flips)
    return pd.DataFrame(
        {
            "pip_seen": True,
            "pip_champion_0": champion,
            "pip_candidate_0": candidate,
            "pip_champion_decision": "yes",
            "pip_candidate_decision": np.where(flipped, "no", "yes"),
            "pip_unit": np.arange(len(shop)).astype(str),
            "pip_segment_0": [f"s{i:02}" for i in shop],
        }
    )


def judged(*frames):
    """What both gates say of each frame."""
    with workspace(threads=1) as con:
        return [[(name, gate(con.register("paired", frame))) for name, gate in BOTH.items()] for frame in frames]


def test_one_bad_segment_among_many_is_found_and_named():
    for name, of in judged(paired(np.random.default_rng(0), bad=7))[0]:
        assert of.state == "failed" and of.details["failed"] == ["shop s07"], name
        assert of.text.startswith("shop s07: ") and "40 are judged" in of.text


def test_at_the_limit_in_forty_segments_few_are_stopped_by_chance():
    """The exact test at the limit itself, its worst case, refuses at most 2.5%; PSI at 0.1%."""
    rng = np.random.default_rng(1)
    stops = [[name for name, of in both if not of.passed] for both in judged(*(paired(rng) for _ in range(30)))]
    assert sum("flip" in each for each in stops) <= 3
    assert not sum("psi" in each for each in stops)


def test_rows_of_one_unit_count_once_and_few_are_not_judged():
    frame = paired(np.random.default_rng(2), shops=2, bad=1)
    frame["pip_unit"] = (np.arange(len(frame)) // 25).astype(str)  # four units a shop
    for _, of in judged(frame)[0]:
        assert of.state == "unjudged" and of.passed
    frame.loc[frame.pip_segment_0 == "s01", "pip_segment_0"] = None
    frame["pip_unit"] = None
    for _, of in judged(frame)[0]:
        assert of.state == "failed" and of.details["failed"] == ["shop (missing)"]


@pytest.mark.parametrize(("most", "flips", "state"), [(0.0, 0.0, "passed"), (0.0, 0.1, "failed"), (1.0, 1.0, "passed")])
def test_limits_of_nothing_and_of_everything(most, flips, state):
    with workspace(threads=1) as con:
        con.register("paired", paired(np.random.default_rng(3), shops=2, flips=flips))
        assert segment_flip_gate(con, "paired", ["shop"], most, 50).state == state
