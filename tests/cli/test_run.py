"""`pip-dagster run`: scores what is stale or named, through Dagster, and says what to type next."""

import json
import os
import re
import signal
import subprocess
import sys
import time

import dagster as dg
import pytest
from click.testing import CliRunner

from pip_dagster.cli.main import cli

FIRST, SECOND, THIRD, FOURTH = DAYS = ("2024-03-01", "2024-03-02", "2024-03-03", "2024-03-04")


def run(tiny, *words, code=0, home=None):
    """Standard output and standard error of `pip-dagster run orders …`, without Dagster unless there is a home."""
    words = ["--project", str(tiny.root), "run", "orders", *words, *([] if home else ["--no-dagster"])]
    result = CliRunner().invoke(cli, words, env={"DAGSTER_HOME": str(home) if home else None})
    assert result.exit_code == code, result.output + repr(result.exception)
    return result.stdout, result.stderr


@pytest.fixture
def short(tiny):
    """A grid of the four days that have rows."""
    return tiny.declare(partitions={"end": "2024-03-05"})


@pytest.fixture
def scored_short(scored):
    return scored.declare(partitions={"end": "2024-03-05"})


class TestWithoutPartitions:
    def test_scores_what_is_stale_then_nothing(self, short):
        out, err = run(short)
        assert "orders: scoring 4 partitions by v1." in err
        assert "4 of 4 partitions scored, 0 up to date, 0 failed or blocked" in out
        assert re.search(rf"{FIRST}\s+scored\s+50\s+0\s+0\.", out), "a line for each partition"
        assert out.endswith("Next:\n  pip-dagster status orders\n  pip-dagster report orders\n")
        assert short.scores() == short.expected()
        out, err = run(short)
        assert (out, err) == ("orders: nothing is stale.\n", "")

    def test_scores_exactly_what_the_plan_lists(self, scored_short):
        scored_short.source(f"UPDATE raw.orders SET quantity = 1 WHERE day = '{SECOND}'")
        plan = json.loads(run(scored_short, "--dry-run", "--json")[0])
        assert plan["partitions"] == [SECOND] == [each["partition"] for each in plan["plan"]["stale"]]
        done = json.loads(run(scored_short, "--json")[0])
        assert [each["partition"] for each in done["partitions"]] == [SECOND]
        assert (done["complete"], done["built"], done["on_hold"]) == (True, 1, {})

    def test_leaves_what_is_on_hold_and_says_so(self, scored_short):
        scored_short.source(f"UPDATE raw.orders SET amount = 'inf' WHERE day = '{SECOND}'")
        out, _ = run(scored_short, code=3)
        assert "0 of 1 partition scored" in out and f"{SECOND}: values that the model would score" in out
        assert f"pip-dagster lineage orders {SECOND}" in out
        out, _ = run(scored_short)
        assert out == "orders: nothing is stale; 1 partition on hold, see `pip-dagster plan orders`.\n"


class TestWithPartitions:
    @pytest.mark.parametrize(
        ("words", "keys"),
        [
            ([FIRST, THIRD], [FIRST, THIRD]),
            (["2024-03-02..2024-03-03"], [SECOND, THIRD]),
            (["--from", SECOND, "--to", THIRD], [SECOND, THIRD]),
            (["--to", FIRST], [FIRST]),
            (["--partition", FIRST], [FIRST]),
        ],
        ids=["keys", "a range", "from and to", "to alone", "the former option"],
    )
    def test_scores_these(self, short, words, keys):
        done = json.loads(run(short, *words, "--json")[0])
        assert [each["partition"] for each in done["partitions"]] == keys

    def test_that_are_up_to_date_are_not_scored_again(self, scored_short):
        out, _ = run(scored_short, FIRST)
        assert "0 of 1 partition scored, 1 up to date" in out and re.search(rf"{FIRST}\s+up to date", out)

    @pytest.mark.parametrize(
        ("words", "message"),
        [
            (["2024-03-99"], "orders has no partition '2024-03-99' that can be built by now; it has 2024-03-01 to"),
            (["2024-03-03..2024-03-01"], "no partition lies from 2024-03-03 to 2024-03-01"),
            ([FIRST, "--from", SECOND], "Name partitions, or a range by --from and --to; not both"),
        ],
    )
    def test_refuses_what_is_not_there(self, short, words, message):
        result = CliRunner().invoke(cli, ["--project", str(short.root), "run", "orders", *words])
        assert message in result.output + str(result.exception)


@pytest.mark.slice
def test_a_run_shows_in_dagster_under_the_job_with_tags_that_say_what_it_did(short, tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    run(short, FIRST, SECOND, FOURTH, "--why", "a test", home=home)
    with dg.DagsterInstance.from_config(str(home)) as instance:
        runs = instance.get_runs()
        assert {each.job_name for each in runs} == {"orders_job"}
        assert {each.status for each in runs} == {dg.DagsterRunStatus.SUCCESS}
        assert {each.tags["pip_dagster/why"] for each in runs} == {"a test"}
        assert all("" not in each.tags.values() for each in runs)
        key = dg.AssetKey(["orders", "predictions"])
        assert instance.get_materialized_partitions(key) == {FIRST, SECOND, FOURTH}


def command(tiny, *words):
    environment = {name: value for name, value in os.environ.items() if name != "DAGSTER_HOME"}
    return subprocess.Popen(
        [sys.executable, "-m", "pip_dagster.cli.main", "run", "orders", *words],
        cwd=tiny.root,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


@pytest.mark.slice
def test_a_first_run_in_a_shell_is_quiet_and_kept_in_the_project(short):
    process = command(short)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    first, *progress = err.splitlines()
    assert first == "orders: scoring 4 partitions in 1 run by v1."
    assert progress and all(re.match(r"\d of 4 partitions", line) for line in progress), "nothing of Dagster's own"
    assert "4 of 4 partitions scored" in out
    assert (short.root / ".dagster_home" / "dagster.yaml").is_file()


@pytest.mark.slice
@pytest.mark.parametrize("signalled", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.soak)])
def test_ctrl_c_keeps_what_is_stored_and_says_how_to_go_on(short, signalled):
    short.declare(partitions={"end": "2024-03-05", "max_per_run": 1})
    process = command(short)
    warehouse = short.project.published_database
    while not warehouse.exists() and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signalled)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130, out + err
    assert "stored; they stay. To score the others:\n  pip-dagster run orders\n" in out
    again = command(short)
    out, err = again.communicate(timeout=120)
    assert again.returncode == 0, err
    assert short.scores() == short.expected()


@pytest.mark.slice
def test_a_run_that_was_killed_is_ended_in_dagster_by_the_next(short, monkeypatch):
    short.declare(partitions={"end": "2024-03-05", "max_per_run": 1})
    process = command(short)
    while not short.project.published_database.exists() and process.poll() is None:
        time.sleep(0.01)
    process.kill()
    process.communicate()
    _, err = command(short).communicate(timeout=120)
    monkeypatch.setenv("DAGSTER_HOME", str(short.root / ".dagster_home"))  # which its dagster.yaml reads
    with dg.DagsterInstance.get() as instance:
        assert not instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED]))
        assert len(instance.get_materialized_partitions(dg.AssetKey(["orders", "predictions"]))) == 4
    assert "was killed; the partitions that it committed are reported to Dagster" in err
