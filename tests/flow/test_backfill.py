"""Backfills as a user runs them: in chunks, resumed after kills, pinned to a version, as known then."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from datetime import date, timedelta

import dagster as dg
import pytest
from click.testing import CliRunner

from pip_dagster.cli.main import cli
from pip_dagster.errors import BackfillError, PipelineError
from pip_dagster.flow.backfill import BackfillRequest, begin, check_not_withdrawn, run_in_process
from pip_dagster.flow.plan import make_plan
from pip_dagster.ledger.rollback import rollback
from pip_dagster.warehouse.lock import exclusive

CHALLENGERS = {"challengers": ["challenger"]}
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


def invoke(tiny, *words, **environment):
    """The same in this process."""
    words = ["--project", str(tiny.root), "backfill", "orders", *words]
    return CliRunner().invoke(cli, words, env={"DAGSTER_HOME": None} | environment)


def backfill(tiny, *words, code=0, **environment):
    """What it said: the result as JSON, and what was told on the way."""
    result = invoke(tiny, *words, "--json", **environment)
    if isinstance(result.exception, PipelineError):
        raise result.exception
    assert result.exit_code == code, result.output
    return json.loads(result.stdout), result.stderr


def live_versions(tiny):
    return dict(tiny.warehouse("SELECT partition_key, model_version FROM ledger.partitions WHERE is_live ORDER BY 1"))


def due(tiny):
    return {each.partition.key for each in make_plan(tiny.pipeline(), tiny.partitions()).stale}


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

    def test_an_unfinished_one_of_the_same_partitions_is_named_with_its_version(self, tiny):
        tiny.source("UPDATE raw.orders SET amount = 'inf' WHERE day = '2024-03-01'")
        words = ("backfill", "orders", "--from", "2024-03-01", "--to", "2024-03-01", "--no-dagster")
        tiny.shell(*words, "--version", "v2", code=3)
        assert "of the same partitions is unfinished" in (text := tiny.shell(*words, "--version", "v1", code=3))
        assert "resumes it, pinned to v2" in text and "builds 1 partition in 1 chunk, pinned to v1" in text

    @pytest.mark.slice
    def test_resumed_it_keeps_the_size_of_its_chunks(self, tiny):
        tiny.source(f"UPDATE raw.orders SET amount = 'inf' WHERE day IN ('{SECOND}', '{THIRD}')")
        backfill(tiny, "--from", FIRST, "--to", FOURTH, "--chunk", "1", code=3)
        listed, _ = backfill(tiny, "--resume", "--dry-run")
        assert listed["chunks"] == [[SECOND], [THIRD]]
        listed, _ = backfill(tiny, "--resume", "--dry-run", "--chunk", "5")
        assert listed["chunks"] == [[SECOND, THIRD]]

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
            (("--resume", "--from", FIRST), 2, "cannot be combined with others"),
            ((), 2, "--from"),
        ],
    )
    def test_what_cannot_be_meant_is_refused(self, tiny, words, code, text):
        result = invoke(tiny, *words)
        # What is an error of the user's is said by `main`, with exit code 1.
        said = str(result.exception) if isinstance(result.exception, PipelineError) else result.stderr
        assert result.exit_code == code and text in said


class TestJson:
    """`--json` prints the outcome however the backfill ends, and the exit code tells how it ended."""

    def test_of_an_error_in_the_middle(self, scored, monkeypatch):
        from pip_dagster.flow import backfill as core

        asked, check = [], core.check_not_withdrawn

        def refuse_the_second(pipeline, backfill):
            asked.append(backfill)
            if len(asked) == 2:
                raise BackfillError("rolled back meanwhile")
            check(pipeline, backfill)

        monkeypatch.setattr(core, "check_not_withdrawn", refuse_the_second)
        words = ("--from", FIRST, "--to", FOURTH, "--chunk", "2", "--version", "2")
        result, said = backfill(scored, *words, code=1)
        assert (result["error"], result["complete"], result["cancelled"]) == ("rolled back meanwhile", False, False)
        assert (result["built"], result["failed"]) == (2, {})
        assert (
            "Error: rolled back meanwhile\nCommitted partitions stay. To resume: pip-dagster backfill orders " in said
        )
        assert f"--resume {result['backfill_id']}" in said

    def test_of_a_declaration_that_fits_no_model(self, tiny):
        tiny.declare("SELECT order_id, day FROM raw.orders WHERE day >= $start_date AND day < $end_date")
        result, _ = backfill(tiny, "--from", FIRST, "--to", SECOND, code=1)
        assert "'amount' is missing" in result["error"] and result["built"] == 0

    def test_of_failed_partitions(self, tiny):
        tiny.source(f"UPDATE raw.orders SET amount = 'inf' WHERE day = '{SECOND}'")
        result, _ = backfill(tiny, "--from", FIRST, "--to", SECOND, code=3)
        assert (result["error"], list(result["failed"]), result["complete"]) == (None, [SECOND], False)

    def test_of_one_that_was_cancelled(self, tiny, monkeypatch):
        def interrupt(*_):
            raise KeyboardInterrupt

        monkeypatch.setattr("pip_dagster.flow.backfill.check_not_withdrawn", interrupt)
        result, _ = backfill(tiny, "--from", FIRST, "--to", SECOND, code=130)
        assert result["cancelled"] and not result["complete"] and result["built"] == 0

    def test_the_former_name_of_a_key_stays(self, scored):
        result, _ = backfill(scored, "--from", FIRST, "--to", SECOND)
        assert result["made"] == result["built"] == 2


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

    def test_is_due_again_once_the_alias_moves(self, scored):
        scored.declare(reruns={"promotion": "all"})
        scored.registry.set_alias("returns", "champion", 2, by="eve", why="better")
        assert due(scored) == set(DAYS), "else nothing below would be shown"
        backfill(scored, "--from", FIRST, "--to", SECOND, "--version", "1")
        assert due(scored) == {THIRD, FOURTH}
        plan = CliRunner().invoke(cli, ["--project", str(scored.root), "plan", "orders", "--json"])
        listed = {each["partition"] for each in json.loads(plan.stdout)["due"]}
        assert not listed & {FIRST, SECOND} and {THIRD, FOURTH} <= listed
        scored.registry.set_alias("returns", "champion", 1, by="eve", why="not better")
        assert due(scored) == set(), "all are by v1"
        scored.registry.set_alias("returns", "champion", 2, by="eve", why="it was better")
        assert due(scored) == set(DAYS)


class TestAfterARollback:
    """It is a newer word than a backfill that began before it."""

    def cut_off(self, tiny, *words, last=FOURTH):
        """Of these days all but the second, which fails; mended afterwards. Its id."""
        tiny.source(f"UPDATE raw.orders SET amount = 'inf' WHERE day = '{SECOND}'")
        result, _ = backfill(tiny, "--from", FIRST, "--to", last, *words, code=3)
        tiny.source(f"UPDATE raw.orders SET amount = 1 WHERE day = '{SECOND}'")
        return result["backfill_id"]

    def rolled_back(self, tiny, **options):
        return rollback(tiny.project, "orders", why="wrong", by="eve", **options)

    def refused(self, tiny, *words):
        before = tiny.warehouse("SELECT * FROM ledger.live_changes ORDER BY ALL")
        result = invoke(tiny, *words)
        assert isinstance(result.exception, BackfillError) and "begin a new backfill" in str(result.exception)
        assert tiny.warehouse("SELECT * FROM ledger.live_changes ORDER BY ALL") == before
        return str(result.exception)

    @pytest.mark.slice
    def test_of_what_it_made_live_it_is_not_gone_on_with(self, scored):
        pinned = self.cut_off(scored, "--version", "2")
        assert live_versions(scored) == {FIRST: 2, SECOND: 1, THIRD: 2, FOURTH: 2}
        assert self.rolled_back(scored, partitions=(FIRST, FOURTH)).flips
        said = self.refused(scored, "--resume")
        assert f"{FIRST} and 2 more of its partitions was rolled back from v2: wrong (by eve)" in said
        self.refused(scored, "--resume", pinned)
        assert set(live_versions(scored).values()) == {1} and due(scored) == {SECOND}
        _, said = backfill(scored, "--from", FIRST, "--to", FOURTH, "--version", "2")
        assert "--resume" not in said, "nor is it offered"
        assert set(live_versions(scored).values()) == {2}, "a new one is a new word"

    def test_of_the_alias_alone_it_is_not_gone_on_with(self, tiny):
        tiny.registry.set_alias("returns", "champion", 2, by="eve", why="better")
        self.cut_off(tiny)
        found = self.rolled_back(tiny, to_version=1)
        assert not found.flips and found.alias.after == 1, "v1 has scored nothing to go back to"
        assert "v2 was rolled back to v1 (by eve): wrong" in self.refused(tiny, "--resume")

    @pytest.mark.slice
    def test_of_something_else_it_goes_on(self, scored):
        backfill(scored, "--from", FOURTH, "--to", FOURTH, "--version", "2")
        self.cut_off(scored, last=THIRD)
        assert self.rolled_back(scored, partitions=(FOURTH, FOURTH)).flips
        result, _ = backfill(scored, "--resume")
        assert result["made"] == 1 and result["complete"]

    def test_in_its_midst_it_stops_at_the_next_chunk(self, scored):
        work = begin(scored.pipeline(), BackfillRequest(FIRST, FOURTH, "ada", version=2), chunk=2)
        check_not_withdrawn(scored.pipeline(), work.backfill)
        list(run_in_process(scored.pipeline(), print)(work.backfill, work.chunks[0]))
        check_not_withdrawn(scored.pipeline(), work.backfill)
        self.rolled_back(scored, partitions=(FIRST, SECOND))
        with pytest.raises(BackfillError, match="rolled back from v2"):
            check_not_withdrawn(scored.pipeline(), work.backfill)


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


def kill_and_resume(tiny, days, times, seed, **environment):
    """Begin a backfill of so many days, kill it -9 so often at random, each time going on with it; then to its end."""
    chance = random.Random(seed)
    words = ("--from", FIRST, "--to", str(date.fromisoformat(FIRST) + timedelta(days=days - 1)))
    # Each time it has come somewhere further, the first time nowhere yet, and has gone on for a moment.
    ways = [0, *sorted(chance.sample(range(1, days - 12), times - 1))] if times > 1 else [days // 3]
    committed = 0
    for i, way in enumerate(ways):
        process = start(tiny, *(("--resume",) if i else words), **environment)
        try:
            assert "builds" in process.stderr.readline()
            until(lambda p=process, target=way: p.poll() is not None or done(tiny) >= target)
            time.sleep(chance.uniform(0.0, 0.5))
            assert process.poll() is None, "it ended before it was killed: there is too little to do"
        finally:
            process.kill()
            process.communicate()
        assert done(tiny) >= committed
        committed = done(tiny)
    backfill(tiny, "--resume", **environment)
    twice = "SELECT partition_key FROM ledger.scorings WHERE status = 'scored' GROUP BY ALL HAVING count(*) > 1"
    assert tiny.warehouse(twice) == [], "what was committed is not made again"


def done(tiny):
    """How many partitions a backfill is done with."""
    return tiny.warehouse("SELECT count(DISTINCT partition_key) FROM ledger.backfill_partitions")[0][0]


def until(what, seconds=240):
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, f"waited {seconds} s"
        time.sleep(0.1)


def fill(tiny, days):
    """So many days of fifty orders, ten of them a chunk."""
    tiny.declare(partitions={"start": "2024-03-01", "end": "2025-03-01", "max_per_run": 10})
    later = "order_id + 1000 * i AS order_id, (day + 4 * i::INTEGER)::DATE AS day"
    tiny.source(f"INSERT INTO raw.orders SELECT o.* REPLACE ({later}) FROM raw.orders o, range(1, {days // 4}) t(i)")


@pytest.mark.slice
def test_killed_and_resumed_it_ends_as_if_undisturbed(tiny):
    fill(tiny, 24)
    kill_and_resume(tiny, 24, times=2, seed=1)
    disturbed = tiny.warehouse(CONTENT)
    tiny.begin_again()
    backfill(tiny, "--from", FIRST, "--to", "2024-03-24")
    assert tiny.warehouse(CONTENT) == disturbed and len(disturbed) == 24


@pytest.mark.soak
@pytest.mark.parametrize("with_dagster", [False, True])
def test_a_year_killed_ten_times_ends_as_if_undisturbed(tiny, tmp_path, with_dagster):
    fill(tiny, 368)
    (tmp_path / "home").mkdir()
    environment = {"DAGSTER_HOME": str(tmp_path / "home")} if with_dagster else {}
    kill_and_resume(tiny, 365, times=10, seed=2, **environment)
    disturbed = tiny.warehouse(CONTENT)
    if with_dagster:
        with dg.DagsterInstance.from_config(str(tmp_path / "home")) as instance:
            told = instance.get_materialized_partitions(dg.AssetKey(["orders", "predictions"]))
            assert len(told) == 365 and all(run.is_finished for run in instance.get_runs())
    tiny.begin_again()
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

    @pytest.mark.slice
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
        result = invoke(tiny, "--from", FIRST, "--to", FOURTH, DAGSTER_HOME=home)
        assert result.exit_code == 1 and "'amount' is missing" in result.stderr
        assert "Traceback" not in result.stderr

    @pytest.mark.slice
    @pytest.mark.parametrize(("number", "with_dagster"), [(signal.SIGINT, True), (signal.SIGTERM, False)])
    def test_a_signal_ends_it_and_it_says_how_to_go_on(self, scored, home, number, with_dagster, request):
        scored.declare(
            """
            SELECT order_id, day, gift, shop, quantity, amount FROM raw.orders
            WHERE day >= $start_date AND day < $end_date AND (
              SELECT count(*) FROM (SELECT range FROM range(10000000) WHERE $start_date <> '2024-03-01') a,
                range(10000000) b WHERE a.range * b.range = -1) = 0
            """
        )
        environment = {"DAGSTER_HOME": home} if with_dagster else {}
        process = start(scored, "--from", FIRST, "--to", FOURTH, "--chunk", "1", **environment)
        request.addfinalizer(process.kill)
        until(lambda: done(scored) == 1 and (not with_dagster or self.extracts_the_second(home)))
        process.send_signal(number)
        _, err = process.communicate(timeout=240)  # it would count for hours
        assert process.returncode == 130 and "cancelled after" in err and "--resume backfill-" in err, err
        if with_dagster:
            with dg.DagsterInstance.from_config(home) as instance:
                statuses = [run.status.value for run in instance.get_runs()]
                assert statuses == ["CANCELED", "SUCCESS"]
        assert set(live_versions(scored)) == set(DAYS)

    def extracts_the_second(self, home):
        with dg.DagsterInstance.from_config(home) as instance:
            runs = instance.get_runs()
            said = " ".join(entry.user_message for entry in instance.all_logs(runs[0].run_id)) if runs else ""
            return len(runs) == 2 and "extracting the features" in said

    def test_ctrl_c_before_a_run_has_begun_ends_it(self, tiny, home, monkeypatch):
        def interrupted(*_, **__):
            raise KeyboardInterrupt

        monkeypatch.setattr("dagster._core.execution.execute_in_process.ExecuteRunWithPlanIterable", interrupted)
        assert invoke(tiny, "--from", FIRST, "--to", FIRST, DAGSTER_HOME=home).exit_code == 130
        with dg.DagsterInstance.from_config(home) as instance:
            assert [run.status.value for run in instance.get_runs()] == ["CANCELED"]

    @pytest.mark.parametrize("in_work", [False, True])
    def test_begun_anew_the_runs_of_one_that_was_killed_are_ended(self, tiny, home, monkeypatch, in_work):
        class Killed(BaseException):
            """Nobody handles it, as nobody handles a kill -9."""

        def kill(*_, **__):
            raise Killed

        with monkeypatch.context() as patch, pytest.raises(Killed):
            patch.setattr("dagster._core.execution.execute_in_process.ExecuteRunWithPlanIterable", kill)
            invoke(tiny, "--from", FIRST, "--to", FIRST, DAGSTER_HOME=home)
        [(killed,)] = tiny.warehouse("SELECT backfill_id FROM ledger.backfills")
        lock = tiny.project.warehouse.with_name(f"{tiny.project.warehouse.name}.{killed}.lock")
        with exclusive(lock, purpose="at work", deadline=0) if in_work else nullcontext():
            _, said = backfill(tiny, "--from", FIRST, "--to", FIRST, DAGSTER_HOME=home)
        assert ("was killed" in said) != in_work
        with dg.DagsterInstance.from_config(home) as instance:
            statuses = [run.status.value for run in instance.get_runs()]
        assert statuses == ["SUCCESS", "NOT_STARTED" if in_work else "FAILURE"]

    @pytest.mark.parametrize("scoring", [{"split": {"arms": {"challenger": "40%"}, "salt": "spring"}}, CHALLENGERS])
    def test_the_scores_of_arms_are_materialized_as_challengers_are(self, tiny, home, scoring):
        tiny.registry.set_alias("returns", "challenger", 2, by="ada", why="a test")
        tiny.declare(scoring=scoring)
        backfill(tiny, "--from", FIRST, "--to", SECOND, DAGSTER_HOME=home)
        with dg.DagsterInstance.from_config(home) as instance:
            challengers = dg.AssetKey(["orders", "challengers"])
            assert instance.get_materialized_partitions(challengers) == {FIRST, SECOND}

    @pytest.mark.soak
    def test_a_killed_run_is_ended_and_what_it_committed_is_told(self, tiny, home):
        fill(tiny, 24)
        kill_and_resume(tiny, 24, times=1, seed=3, DAGSTER_HOME=home)
        with dg.DagsterInstance.from_config(home) as instance:
            assert len(instance.get_materialized_partitions(self.PREDICTIONS)) == 24
            assert all(run.is_finished for run in instance.get_runs())
