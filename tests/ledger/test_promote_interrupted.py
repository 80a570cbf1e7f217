"""`models register` and `models promote` killed at any point: each has happened or has not, and again does the rest."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def ready(gated: Any, helpers: Any) -> Any:
    """The gated project with a candidate's file, sample and categories beside it; its audit knows all so far."""
    from pip_dagster.ledger.promotions import record_promotions

    record_promotions(gated.project)
    history = helpers.orders(600, seed=2)
    helpers.train(9, history).save_model(gated.root / "candidate.ubj")
    history.to_parquet(gated.root / "sample.parquet")
    (gated.root / "shops.json").write_text(json.dumps({"shop": helpers.SHOPS}))
    return gated


def killed(ready: Any, work: str, times: int, seed: int) -> list[int]:
    script = Path(__file__).with_name("kill_promote.py")
    done = subprocess.run(
        [sys.executable, str(script), work, str(ready.root), str(times), str(seed)],
        capture_output=True,
        text=True,
        timeout=1800,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return list(map(int, done.stdout.split()))


@pytest.mark.slice
@pytest.mark.parametrize("work", ["register", pytest.param("promote", marks=pytest.mark.soak)])
def test_killed_three_times_at_random(ready: Any, work: str) -> None:
    assert sum(killed(ready, work, 3, seed=5)) == 3


@pytest.mark.soak
@pytest.mark.parametrize("work", ["register", "promote"])
def test_killed_thirty_times_at_random(ready: Any, work: str) -> None:
    before, after = killed(ready, work, 30, seed=7)
    print(f"{work} killed before {before}, after {after}")
    assert before
