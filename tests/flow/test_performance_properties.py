"""Whatever happens to scorings and labels, in whatever order, the live figures are those of a rebuild from scratch."""

import random
from datetime import UTC, datetime

import pytest

from pip_dagster.flow.performance import evaluate
from pip_dagster.warehouse.connect import workspace

SOURCES = {name: {"table": f"raw.{name}", "partition_column": "day"} for name in ("orders", "outcomes")}
LABELS = {"sql": "labels.sql", "outcome": "returned", "complete_after": "1 day"}
LIVE = """SELECT partition_key, scoring_id, arm, feature_revision, labels_digest, segment, segment_value, metric,
value, n, rows, labelled, score_psi, unlike_rest FROM orders.performance ORDER BY ALL"""
NOW = datetime(2024, 5, 1, tzinfo=UTC)


def run(gated):
    with workspace(threads=1) as con:
        return evaluate(con, gated.pipeline(), now=NOW)


def declare(gated, **scoring):
    monitoring = {"performance": {"segments": ["shop"]}}
    reruns = {"promotion": "all"}
    gated.declare(sources=SOURCES, labels=LABELS, monitoring=monitoring, reruns=reruns, scoring=scoring)


def restate(gated, rng, day):
    gated.source(
        f"UPDATE raw.outcomes SET returned = 1 - returned WHERE day = '{day}' AND order_id % 5 = {rng.randrange(5)}"
    )


def late_rows(gated, rng, day):
    gated.source(f"UPDATE raw.orders SET amount = amount + 1 WHERE day = '{day}' AND order_id % 3 = {rng.randrange(3)}")
    gated.run(day)


def rerun_by_another_version(gated, rng, day):
    gated.registry.set_alias("returns", "champion", rng.choice([1, 2, 3]), by="ada", why="a test")
    gated.run(day)


def roll_back(gated, rng, day):
    version = gated.registry.alias("returns", "champion")
    other = rng.choice([each for each in (1, 2, 3) if each != version])
    known = gated.warehouse(
        f"SELECT count(*) FROM ledger.scorings WHERE partition_key = '{day}' AND model_version = {other}"
    )[0][0]
    if known:
        words = ("--partitions", f"{day}..{day}", "--to", f"v{other}", "--why", "a test")
        gated.shell("models", "rollback", "orders", *words)


def forget(gated, rng, day):
    gated.source(f"DELETE FROM raw.outcomes WHERE day = '{day}' AND order_id % 7 = {rng.randrange(7)}")


def split(gated, rng, day):
    gated.registry.set_alias("returns", "challenger", 1, by="ada", why="a test")
    declare(gated, split={"arms": {"challenger": f"{rng.choice([20, 50])}%"}, "salt": "spring"})
    gated.run(day)
    declare(gated)


OPERATIONS = [restate, late_rows, rerun_by_another_version, roll_back, forget, split]


@pytest.mark.slice
@pytest.mark.lake
@pytest.mark.parametrize("seed", [1, *(pytest.param(seed, marks=pytest.mark.soak) for seed in range(2, 12))])
def test_live_figures_equal_a_rebuild(gated, seed):
    rng = random.Random(seed)
    declare(gated)
    days = ["2024-03-01", "2024-03-02", "2024-03-03"]
    operations = OPERATIONS * (1 if seed == 1 else 2)
    rng.shuffle(operations)
    run(gated)
    for operation in operations:
        operation(gated, rng, rng.choice(days))
        if rng.random() < 0.5:
            run(gated)
    found = run(gated)
    assert not found.problems
    live = gated.warehouse(LIVE)
    assert live and gated.published(LIVE.replace("SELECT", "SELECT /* published */")) == live
    history = gated.warehouse("SELECT count(*) FROM ledger.evaluations")[0][0]
    assert history > 4, "earlier figures stay"
    gated.tamper("DELETE FROM ledger.evaluations", "DELETE FROM ledger.performance")
    run(gated)
    assert gated.warehouse(LIVE) == live
