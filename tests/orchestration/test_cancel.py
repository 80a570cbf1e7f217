"""Cancelling: a run ends within seconds, in CANCELED, what it had in work is undone and what it had committed stays."""

import os
import select
import signal
import subprocess
import sys
import time
from contextlib import contextmanager

import dagster as dg
import pytest

FIRST, SECOND, THIRD, FOURTH = DAYS = ("2024-03-01", "2024-03-02", "2024-03-03", "2024-03-04")

# It would count for hours.
ENDLESS = """
SELECT order_id, day, gift, shop, quantity, amount
FROM raw.orders
WHERE day >= $start_date AND day < $end_date
  AND (SELECT count(*) FROM range(10000000) a, range(10000000) b WHERE a.range * b.range = -1) = 0
"""

# The tiny project's assets as its code location. A day is committed before the next is scored, and scoring the third
# would take a while, batch by batch.
SLOW_PREDICT = """
import itertools, pathlib, time
import pip_dagster.flow.materialize
from acme.definitions import defs
from pip_dagster.registry.engines.xgboost.predictor import BoosterPredictor

pip_dagster.flow.materialize.CHUNK_ROWS = 1
fast, calls = BoosterPredictor.predict, itertools.count()

def predict(self, X):
    if next(calls) >= 4:
        pathlib.Path("predicting").touch()
        time.sleep(0.2)
    return fast(self, X)

BoosterPredictor.predict = predict
"""
# Ending takes a second or two. The machine may be busy; what would go on by itself goes on for hours.
PATIENCE = 240

pytestmark = pytest.mark.slow


@contextmanager
def started(tiny, home, module="acme.definitions", days=(FIRST, FOURTH)):
    """`dagster asset materialize` over these days in a process of its own."""
    home.mkdir(exist_ok=True)
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "dagster", "asset", "materialize", "-m", module),
            *("--select", "orders/features,orders/predictions", "--partition-range", "...".join(days)),
        ],
        cwd=tiny.root,
        env=os.environ | {"DAGSTER_HOME": str(home), "PYTHONPATH": f"{tiny.root}:{os.environ.get('PYTHONPATH', '')}"},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def wait_for_line(process, text, seconds=PATIENCE):
    until = time.monotonic() + seconds
    seen = ""
    while time.monotonic() < until and text not in seen:
        if select.select([process.stdout], [], [], 0.5)[0]:
            # What Python had read ahead, select would not see.
            if not (more := os.read(process.stdout.fileno(), 65536)):
                break
            seen += more.decode(errors="replace")
    if text in seen:
        return
    raise AssertionError(f"{text!r} was not said:\n{seen}")


def the_run(home):
    with dg.DagsterInstance.from_config(str(home)) as instance:
        [run] = instance.get_runs(limit=1)
        return run


@pytest.mark.slice
@pytest.mark.parametrize("number", [pytest.param(signal.SIGINT, marks=pytest.mark.soak), signal.SIGTERM])
def test_a_signal_ends_a_long_extraction(scored, tmp_path, number):
    before = scored.warehouse("SELECT * FROM ledger.live ORDER BY ALL")
    scored.declare(ENDLESS)
    with started(scored, tmp_path / "home") as process:
        wait_for_line(process, "extracting the features")
        process.send_signal(number)
        process.communicate(timeout=PATIENCE)
    assert the_run(tmp_path / "home").status == dg.DagsterRunStatus.CANCELED
    assert scored.warehouse("SELECT * FROM ledger.live ORDER BY ALL") == before
    assert scored.warehouse("SELECT count(*) FROM ledger.scorings") == [(4,)]


@pytest.mark.slice
def test_a_sigterm_of_a_run_that_is_to_be_retried_is_a_failure(scored, tmp_path):
    """Its machine may be taken away: Dagster retries what failed, not what was cancelled."""
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "dagster.yaml").write_text("run_retries: {enabled: true, max_retries: 2}\n")
    scored.declare(ENDLESS)
    with started(scored, tmp_path / "home") as process:
        wait_for_line(process, "extracting the features")
        time.sleep(1)  # until the query runs
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=PATIENCE)
    assert the_run(tmp_path / "home").status == dg.DagsterRunStatus.FAILURE


@pytest.mark.slice
def test_ctrl_c_ends_a_long_scoring_and_keeps_what_was_committed(tiny, tmp_path):
    tiny.source(
        "INSERT INTO raw.orders SELECT o.* REPLACE (order_id + 1000 * i AS order_id) FROM raw.orders o, "
        f"range(1, 1000) t(i) WHERE day = '{THIRD}'"
    )
    tiny.declare(scoring={"batch_rows": 2048}, decisions={"big": "score >= 0.5"})
    (tiny.root / "slow.py").write_text(SLOW_PREDICT)
    with started(tiny, tmp_path / "home", module="slow") as process:
        wait_for_line(process, "scoring")
        until = time.monotonic() + PATIENCE
        while not (tiny.root / "predicting").exists():
            assert time.monotonic() < until
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=PATIENCE)
    assert the_run(tmp_path / "home").status == dg.DagsterRunStatus.CANCELED, out
    assert tiny.warehouse("SELECT partition_key, status FROM ledger.scorings ORDER BY 1") == [
        (FIRST, "scored"),
        (SECOND, "scored"),
    ]
    assert tiny.scores() == tiny.expected(f"day <= '{SECOND}'")
    with dg.DagsterInstance.from_config(str(tmp_path / "home")) as instance:
        told, features = (
            instance.get_materialized_partitions(dg.AssetKey(["orders", name])) for name in ("predictions", "features")
        )
        logged = [entry.user_message for entry in instance.all_logs(the_run(tmp_path / "home").run_id)]
    assert told == {FIRST, SECOND}
    assert features == set(DAYS), "they were committed before any of them was scored"
    kept = "features of 4, predictions of 2 of 4 partitions"
    assert f"orders: ended early; committed partitions stay: {kept}." in logged
