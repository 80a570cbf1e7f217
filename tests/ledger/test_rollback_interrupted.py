"""Rollback killed at any point, and at the same time as runs: what is live is whole, and the same call finishes it."""

import subprocess
import sys
from pathlib import Path

import pytest

from pip_dagster.ledger.rollback import rollback

pytestmark = pytest.mark.lake


DAYS = ("2024-03-01", "2024-03-02", "2024-03-03", "2024-03-04")


def killed(promoted, times, seed):
    script = Path(__file__).with_name("kill_rollback.py")
    done = subprocess.run(
        [sys.executable, str(script), str(promoted.root), str(times), str(seed)],
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return list(map(int, done.stdout.split()))


@pytest.mark.slice
@pytest.mark.lake("never")
def test_killed_four_times_at_random(promoted):
    assert sum(killed(promoted, 4, seed=5)) == 4


@pytest.mark.soak
@pytest.mark.lake("never")
def test_killed_thirty_times_at_random(promoted):
    before, between, after = killed(promoted, 30, seed=7)
    print(f"killed before {before}, between {between}, after {after}")
    assert before and after


def test_a_rollback_that_was_cut_off_is_finished_though_a_run_came_between(promoted, ledger, monkeypatch):
    """The alias had moved to v1; a run scored a new day with it: what went live last is v1, what to withdraw is v2."""

    def killed_here(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("pip_dagster.ledger.rollback._flip", killed_here)
        rollback(promoted.project, "orders", why="worse", by="eve")
    assert promoted.registry.alias("returns", "champion") == 1
    promoted.source("INSERT INTO raw.orders SELECT * REPLACE ('2024-03-05'::DATE AS day) FROM raw.orders LIMIT 9")
    promoted.run("2024-03-05")
    result = rollback(promoted.project, "orders", why="worse", by="eve")
    assert result.resumed and len(result.flips) == 4 and result.kept == 1
    assert dict.fromkeys([*DAYS, "2024-03-05"], 1) == dict(
        promoted.warehouse("SELECT partition_key, model_version FROM ledger.partitions WHERE is_live ORDER BY 1")
    )
    assert ledger.verified(promoted) is None
    assert not rollback(promoted.project, "orders", why="", by="eve").resumed, "finished once"


def test_a_rollback_killed_before_it_was_published_is_published_and_goes_no_further(promoted, ledger, monkeypatch):
    def killed_here(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("pip_dagster.ledger.rollback.publish_pending", killed_here)
        rollback(promoted.project, "orders", why="worse", by="eve")
    assert promoted.scores() == promoted.expected(version=2), "not published yet"
    result = rollback(promoted.project, "orders", why="worse", by="eve")
    assert result.complete and not result.flips and result.published == 4
    assert promoted.scores() == promoted.expected(version=1)
    assert ledger.verified(promoted) is None


@pytest.mark.soak
def test_rollbacks_and_runs_at_the_same_time(promoted, ledger):
    """Each is whole; what was rolled back since a run began it leaves as it is, and says so."""
    run = promoted.python(
        """
        from pathlib import Path
        import yaml
        from pip_dagster.flow.materialize import materialize
        from pip_dagster.declaration.find import find_pipeline
        from pip_dagster.ledger.record import RunInfo
        from pip_dagster.orchestration.partitions import partitions_definition, partitions_of
        from pip_dagster.declaration.project import Project
        pipeline = find_pipeline(Project.find(), "orders")
        keys = ["2024-03-01", "2024-03-02", "2024-03-03", "2024-03-04"]
        print("ready", flush=True)
        for _ in range(6):
            for key in keys:
                parts = partitions_of(partitions_definition(pipeline.spec.partitions), [key])
                wrong = [r.error for r in materialize(pipeline, parts, RunInfo("run-2", "a run")) if r.error]
                assert not wrong or f"{key} was rolled back" in wrong[0], wrong
        """,
        PIP_DAGSTER_LOCK_DEADLINE="60",
    )
    assert run.stdout.readline() == "ready\n"
    rolled = 0
    for version in (1, 2, 1, 2, 1, 2, 1):
        rolled += len(rollback(promoted.project, "orders", to_version=version, why="to and fro", by="eve").flips)
    output, _ = run.communicate(timeout=120)
    assert run.returncode == 0, output
    assert rolled and ledger.verified(promoted) is None
    rollback(promoted.project, "orders", to_version=1, why="the last word", by="eve")
    live = promoted.warehouse("SELECT partition_key, model_version FROM ledger.partitions WHERE is_live ORDER BY 1")
    shown = promoted.published(
        "SELECT partition_key, max(model_version) FROM orders.predictions GROUP BY ALL ORDER BY 1"
    )
    assert live == shown == [(day, 1) for day in DAYS]
    assert promoted.scores() == promoted.expected(version=1)
