"""Backfills as a user runs them: in chunks, resumed after kills, pinned to a version, as known then."""

import json
import os
import random
import signal
import subprocess
import sys
import time

import dagster as dg
import pytest

from pip_dagster.flow.plan import make_plan

FIRST, SECOND, THIRD, FOURTH = DAYS = ("2024-03-01", "2024-03-02", "2024-03-03", "2024-03-04")
CONTENT = """
  SELECT p.partition_key, s.score_digest, s.feature_digest, s.model_version, count(*) FROM orders.predictions p
  JOIN ledger.scorings s USING (scoring_id) GROUP BY ALL ORDER BY 1
"""


def start(tiny, *words, **environment):
    """`pip-dagster backfill orders …` in a process of its own, without Dagster unless DAGSTER_HOME is given."""
    inherited = {name: value for name, value in os.environ.items() if name != "DAGSTER_HOME"}
    return subprocess.Popen(
        [sys.executable, "-m", "pip_dagster.cli.main", "backfill", "orders", *words],
        cwd=tiny.root,
        env=inherited | environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def backfill(tiny, *words, code=0, **environment):
    """What it said: the result as JSON, and what was told on the way."""
    process = start(tiny, *words, "--json", **environment)
    out, err = process.communicate(timeout=300)
    assert process.returncode == code, out + err
    return (json.loads(out) if out else None), err


def live_versions(tiny):
    return dict(tiny.warehouse("SELECT partition_key, model_version FROM ledger.partitions WHERE is_live ORDER BY 1"))


def due(tiny):
    return {each.partition.key for each in make_plan(tiny.pipeline(), tiny.partitions()).due}


class TestARange:
    def test_is_made_in_the_declared_chunks_and_the_rest_is_left_alone(self, tiny):
        tiny.declare(partitions={"max_per_run": 2})
        listed, _ = backfill(tiny, "--from", FIRST, "--to", THIRD, "--dry-run")
        assert listed["chunks"] == [[FIRST, SECOND], [THIRD]]
        assert not tiny.project.warehouse.exists(), "a dry run makes nothing"
        result, said = backfill(tiny, "--from", FIRST, "--to", THIRD)
        assert (result["made"], result["reused"], result["complete"]) == (3, 0, True)
        assert "DAGSTER_HOME is not set" in said and "3 of 3 partitions" in said
        assert tiny.scores() == tiny.expected(f"day <= '{THIRD}'")

    def test_once_more_scores_nothing(self, scored):
        result, _ = backfill(scored, "--from", FIRST, "--to", FOURTH)
        assert (result["made"], result["reused"]) == (4, 4)
        assert scored.warehouse("SELECT count(*) FROM ledger.scorings") == [(4,)]

    def test_a_bad_day_fails_alone_and_is_tried_again_on_resume(self, tiny):
        tiny.source(f"UPDATE raw.orders SET amount = 'inf' WHERE day = '{SECOND}'")
        result, said = backfill(tiny, "--from", FIRST, "--to", FOURTH, code=3)
        assert list(result["failed"]) == [SECOND] and result["made"] == 3
        assert f"--resume {result['backfill_id']}" in said
        tiny.source(f"UPDATE raw.orders SET amount = 1 WHERE day = '{SECOND}'")
        again, _ = backfill(tiny, "--resume")
        assert (again["made"], again["done_before"], again["complete"]) == (1, 3, True)
        assert tiny.scores() == tiny.expected()

    def test_only_stale(self, scored):
        scored.source(f"UPDATE raw.orders SET quantity = 8 WHERE day = '{THIRD}'")
        assert due(scored) == {THIRD}
        result, _ = backfill(scored, "--from", FIRST, "--to", FOURTH, "--only", "stale")
        assert (result["made"], result["reused"]) == (1, 0)
        assert due(scored) == set() and scored.scores() == scored.expected()

    @pytest.mark.parametrize(
        ("words", "code", "text"),
        [
            (("--from", "yesterday"), 1, "no partition 'yesterday'"),
            (("--from", FOURTH, "--to", FIRST), 1, "No partition lies from"),
            (("--from", FIRST, "--version", "9"), 1, "9"),
            (("--from", FIRST, "--as-known"), 1, "available_at"),
            (("--resume",), 1, "has no backfill"),
            (("--resume", "--from", FIRST), 2, "give it alone"),
            ((), 2, "--from"),
        ],
    )
    def test_what_cannot_be_meant_is_refused(self, tiny, words, code, text):
        process = start(tiny, *words)
        out, err = process.communicate(timeout=60)
        assert process.returncode == code and text in err and "Traceback" not in err, out + err


class TestAVersion:
    def test_is_made_live_and_a_plan_leaves_it(self, scored):
        scored.registry.set_alias("returns", "champion", 2, by="eve", why="better")
        backfill(scored, "--from", FIRST, "--to", FOURTH)
        assert set(live_versions(scored).values()) == {2}
        result, _ = backfill(scored, "--from", FIRST, "--to", SECOND, "--version", "1", "--why", "as it was")
        assert (result["model_version"], result["made"], result["reused"]) == (1, 2, 2)
        assert live_versions(scored) == {FIRST: 1, SECOND: 1, THIRD: 2, FOURTH: 2}
        [(why,)] = scored.warehouse(
            f"SELECT why FROM ledger.live_changes WHERE partition_key = '{FIRST}' ORDER BY change_id DESC LIMIT 1"
        )
        assert why == "pinned to v1: as it was"
        assert due(scored) == set()

    def test_that_was_live_already_is_pinned(self, scored):
        scored.registry.set_alias("returns", "champion", 2, by="eve", why="better")
        backfill(scored, "--from", FIRST, "--to", FIRST, "--version", "1")
        assert FIRST not in due(scored)

    def test_is_kept_from_beginning_to_end(self, tiny):
        tiny.source(f"UPDATE raw.orders SET amount = 'inf' WHERE day = '{SECOND}'")
        backfill(tiny, "--from", FIRST, "--to", FOURTH, code=3)
        tiny.source(f"UPDATE raw.orders SET amount = 1 WHERE day = '{SECOND}'")
        tiny.registry.set_alias("returns", "champion", 2, by="eve", why="better")
        _, said = backfill(tiny, "--resume")
        assert "champion names v2 now" in said
        assert set(live_versions(tiny).values()) == {1}


def test_as_known_a_late_correction_does_not_show(tiny):
    tiny.source(
        "ALTER TABLE raw.orders ADD COLUMN loaded_at TIMESTAMPTZ",
        "UPDATE raw.orders SET loaded_at = day + INTERVAL 20 HOUR",
    )
    source = {"table": "raw.orders", "partition_column": "day", "available_at": "loaded_at"}
    tiny.declare(
        """
        SELECT order_id, day, gift, shop, quantity, amount FROM raw.orders WHERE day >= $start_date AND day < $end_date
        QUALIFY row_number() OVER (PARTITION BY order_id ORDER BY loaded_at DESC) = 1
        """,
        sources={"orders": source},
    )
    as_then = tiny.expected()
    tiny.source(
        f"INSERT INTO raw.orders SELECT * REPLACE (8 AS quantity, '2024-06-01'::TIMESTAMPTZ AS loaded_at) "
        f"FROM raw.orders WHERE day = '{SECOND}'"
    )
    backfill(tiny, "--from", FIRST, "--to", FOURTH)
    assert tiny.scores() != as_then
    result, _ = backfill(tiny, "--from", FIRST, "--to", FOURTH, "--as-known")
    assert tiny.scores() == as_then
    assert (result["made"], result["reused"]) == (4, 3)
    assert due(tiny) == set(), "nothing changed since, so nothing undoes it"


def kill_and_resume(tiny, last, times, seed, **environment):
    """Begin a backfill, kill it -9 so many times at random, each time going on with it; then to its end."""
    chance = random.Random(seed)
    committed = 0
    for i in range(times):
        process = start(tiny, *(("--resume",) if i else ("--from", FIRST, "--to", last)), **environment)
        assert "makes" in process.stderr.readline()
        time.sleep(chance.uniform(0.0, 4.0))
        assert process.poll() is None, "it ended before it was killed: there is too little to do"
        process.send_signal(signal.SIGKILL)
        process.communicate()
        [(done,)] = tiny.warehouse("SELECT count(DISTINCT partition_key) FROM ledger.backfill_partitions")
        assert done >= committed
        committed = done
    backfill(tiny, "--resume", **environment)
    twice = "SELECT partition_key FROM ledger.scorings WHERE status = 'scored' GROUP BY ALL HAVING count(*) > 1"
    assert tiny.warehouse(twice) == [], "what was committed is not made again"


def fill(tiny, days):
    """So many days of fifty orders, ten of them a chunk."""
    tiny.declare(partitions={"start": "2024-03-01", "end": "2025-03-01", "max_per_run": 10})
    later = "order_id + 1000 * i AS order_id, (day + 4 * i::INTEGER)::DATE AS day"
    tiny.source(f"INSERT INTO raw.orders SELECT o.* REPLACE ({later}) FROM raw.orders o, range(1, {days // 4}) t(i)")


def test_killed_and_resumed_it_ends_as_if_undisturbed(tiny):
    fill(tiny, 60)
    kill_and_resume(tiny, "2024-04-20", times=2, seed=1)
    disturbed = tiny.warehouse(CONTENT)
    tiny.project.warehouse.unlink()
    backfill(tiny, "--from", FIRST, "--to", "2024-04-20")
    assert tiny.warehouse(CONTENT) == disturbed and len(disturbed) == 51


@pytest.mark.soak
@pytest.mark.parametrize("with_dagster", [False, True])
def test_a_year_killed_ten_times_ends_as_if_undisturbed(tiny, tmp_path, with_dagster):
    fill(tiny, 368)
    (tmp_path / "home").mkdir()
    environment = {"DAGSTER_HOME": str(tmp_path / "home")} if with_dagster else {}
    kill_and_resume(tiny, "2025-02-28", times=10, seed=2, **environment)
    disturbed = tiny.warehouse(CONTENT)
    if with_dagster:
        with dg.DagsterInstance.from_config(str(tmp_path / "home")) as instance:
            told = instance.get_materialized_partitions(dg.AssetKey(["orders", "predictions"]))
            assert len(told) == 365 and all(run.is_finished for run in instance.get_runs())
    tiny.project.warehouse.unlink()
    backfill(tiny, "--from", FIRST, "--to", "2025-02-28")
    assert tiny.warehouse(CONTENT) == disturbed and len(disturbed) == 365


@pytest.mark.slow
class TestInDagster:
    """With DAGSTER_HOME set: the runs and partitions are in the instance that the UI shows."""

    PREDICTIONS = dg.AssetKey(["orders", "predictions"])

    @pytest.fixture
    def home(self, tmp_path):
        (tmp_path / "home").mkdir()
        return str(tmp_path / "home")

    def test_each_chunk_is_a_run(self, tiny, home):
        tiny.declare(partitions={"max_per_run": 2})
        tiny.source(f"UPDATE raw.orders SET amount = 'inf' WHERE day = '{SECOND}'")
        result, said = backfill(tiny, "--from", FIRST, "--to", THIRD, code=3, DAGSTER_HOME=home)
        assert list(result["failed"]) == [SECOND] and result["made"] == 2, said
        with dg.DagsterInstance.from_config(home) as instance:
            runs = instance.get_runs()
            assert sorted(run.status.value for run in runs) == ["FAILURE", "SUCCESS"]
            assert {run.tags["pip_dagster/backfill"] for run in runs} == {result["backfill_id"]}
            assert instance.get_materialized_partitions(self.PREDICTIONS) == {FIRST, THIRD}

    def test_what_cannot_be_made_at_all_ends_it_with_the_reason(self, tiny, home):
        tiny.declare("SELECT order_id, day FROM raw.orders WHERE day >= $start_date AND day < $end_date")
        process = start(tiny, "--from", FIRST, "--to", FOURTH, DAGSTER_HOME=home)
        _, err = process.communicate(timeout=60)
        assert process.returncode == 1 and "'amount' is missing" in err and "Traceback" not in err

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    @pytest.mark.parametrize("with_dagster", [True, False])
    def test_a_signal_ends_it_and_it_says_how_to_go_on(self, scored, home, number, with_dagster, request):
        scored.declare(
            """
            SELECT order_id, day, gift, shop, quantity, amount FROM raw.orders
            WHERE day >= $start_date AND day < $end_date AND (
              SELECT count(*) FROM (SELECT range FROM range(10000000) WHERE $start_date <> '2024-03-01') a,
                range(10000000) b WHERE a.range * b.range = -1) = 0
            """
        )
        process = start(
            scored, "--from", FIRST, "--to", FOURTH, "--chunk", "1", **({"DAGSTER_HOME": home} if with_dagster else {})
        )
        request.addfinalizer(process.kill)
        until = time.monotonic() + 120
        while scored.warehouse("SELECT count(*) FROM ledger.backfill_partitions") == [(0,)]:
            assert time.monotonic() < until
            time.sleep(0.2)
        time.sleep(3)  # the second day is in work
        began = time.monotonic()
        process.send_signal(number)
        _, err = process.communicate(timeout=60)
        assert time.monotonic() - began < 20
        assert process.returncode == 130 and "cancelled after" in err and "--resume backfill-" in err, err
        if with_dagster:
            with dg.DagsterInstance.from_config(home) as instance:
                statuses = [run.status.value for run in instance.get_runs()]
                assert statuses == ["CANCELED", "SUCCESS"]
        assert set(live_versions(scored)) == set(DAYS)

    def test_a_killed_run_is_ended_and_what_it_committed_is_told(self, tiny, home):
        fill(tiny, 60)
        kill_and_resume(tiny, "2024-04-20", times=2, seed=3, DAGSTER_HOME=home)
        with dg.DagsterInstance.from_config(home) as instance:
            assert len(instance.get_materialized_partitions(self.PREDICTIONS)) == 51
            assert all(run.is_finished for run in instance.get_runs())
