"""Killed between commit and publish: `status` and `plan` show it; `--resume`, ticks and every command complete it."""

import json
import os
import signal
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import pytest
from click.testing import CliRunner

from pip_dagster.cli.main import cli
from pip_dagster.orchestration.definitions import build_definitions
from pip_dagster.warehouse.access import complete_publications, pending_now

DAYS = ["2024-03-01", "2024-03-02", "2024-03-03", "2024-03-04"]

# The process dies as soon as it has something to publish: everything is committed by then.
KILLED = """
import os, signal, sys
from pip_dagster.cli.main import main
from pip_dagster.ledger import rollback
from pip_dagster.warehouse import access
from pip_dagster.warehouse.pending import pending_publications
def killed(con, project):
    return os.kill(os.getpid(), signal.SIGKILL) if pending_publications(con, project) else 0
access.publish_pending = rollback.publish_pending = killed
main()
"""


def killed(tiny, *words):
    process = subprocess.run(
        [sys.executable, "-c", KILLED, *words], cwd=tiny.root, capture_output=True, text=True, timeout=120
    )
    assert process.returncode == -signal.SIGKILL, process.stderr
    return tiny


@pytest.fixture
def pending(scored, monkeypatch):
    """The sources of every day changed and were scored by a run that ended before it published."""
    assert complete_publications(scored.project) in (0, 4), "a copy on a lake is republished"
    scored.source("UPDATE raw.orders SET quantity = 1 + quantity % 8")
    with monkeypatch.context() as patch:
        patch.setattr("pip_dagster.warehouse.access.publish_pending", lambda con, project: 0)
        assert all(result.scoring for result in scored.run().values())
    return scored


@pytest.fixture
def killed_backfill(scored):
    """The same by the process of a backfill that was really killed: its record is open, too."""
    assert complete_publications(scored.project) in (0, 4)
    scored.source("UPDATE raw.orders SET quantity = 1 + quantity % 8")
    return killed(scored, "backfill", "orders", "--from", DAYS[0], "--to", DAYS[-1], "--no-dagster", "--chunk", "4")


def assert_published(tiny):
    assert tiny.scores() == tiny.expected()
    assert pending_now(tiny.project, within=5) == []


@pytest.mark.lake
def test_status_and_plan_show_it_and_write_nothing(pending):
    old = pending.scores()
    assert old != pending.expected()
    [row] = json.loads(pending.shell("status", "--json"))
    assert (row["pipeline"], row["pending"]) == ("orders", 4)
    rows = json.loads(pending.shell("status", "orders", "--json"))
    assert [row["pending"] for row in rows] == [True] * 4
    text = pending.shell("status", "orders")
    assert text.count("stored since, not published yet") == 4
    plan = json.loads(pending.shell("plan", "orders", "--json"))
    assert plan["pending"] == DAYS and plan["current"] == 4
    assert "4 partitions stored and not published yet: 2024-03-01" in pending.shell("plan", "orders")
    assert pending.scores() == old and [row[1] for row in pending_now(pending.project, within=5)] == DAYS


@pytest.mark.slice
@pytest.mark.lake("always")
def test_resume_completes_it(killed_backfill):
    words = ["--project", str(killed_backfill.root), "backfill", "orders", "--resume", "--no-dagster"]
    result = CliRunner().invoke(cli, words)
    assert result.exit_code == 0, result.output
    assert "4 partitions that a killed process had stored and not published: published now." in result.stderr
    assert "the backfill is finished" in result.stderr
    assert_published(killed_backfill)


def test_a_dry_run_publishes_nothing(pending):
    pending.shell("backfill", "orders", "--resume", "--dry-run", code=1)
    assert len(pending_now(pending.project, within=5)) == 4


@pytest.mark.parametrize(
    "words",
    [
        ["backfill", "orders", "--from", DAYS[0], "--to", DAYS[0], "--only", "stale", "--no-dagster"],
        ["models", "promote", "returns", "v1"],
        ["models", "rollback", "orders", "--to", "v1"],
        ["publish"],
    ],
    ids=" ".join,
)
def test_a_command_that_writes_completes_it(pending, words):
    pending.shell(*words)
    assert_published(pending)


def test_a_run_that_has_nothing_to_score_completes_it(pending):
    assert all(result.reused for result in pending.run().values())
    assert_published(pending)


def test_stopping_a_canary_completes_it(pending):
    pending.registry.set_alias("returns", "challenger", 2, by="ada", why="to try")
    pending.declare(scoring={"canary": {"arms": {"challenger": "20%"}, "salt": "a"}})
    pending.shell("models", "canary", "orders", "--stop", "a test")
    assert_published(pending)


@pytest.mark.parametrize("name", ["orders_source_changes", "orders_model_promoted", "orders_labels_arrived"])
def test_the_tick_of_a_sensor_completes_it(pending, name):
    definitions = _definitions(pending)
    with dg.instance_for_test() as instance:
        context = dg.build_sensor_context(instance=instance, repository_def=definitions.get_repository_def())
        definitions.resolve_sensor_def(name).evaluate_tick(context)
    assert_published(pending)


def test_the_tick_of_the_schedule_completes_it(pending):
    schedule = _definitions(pending).resolve_schedule_def("orders_schedule")
    with dg.instance_for_test() as instance:
        at = datetime(2024, 3, 5, 6, tzinfo=UTC)
        schedule(dg.build_schedule_context(instance=instance, scheduled_execution_time=at))
    assert_published(pending)


def _definitions(tiny):
    (tiny.folder / "labels.sql").write_text(
        "SELECT order_id, gift AS y FROM raw.orders WHERE day >= $start_date AND day < $end_date"
    )
    tiny.declare(gates={"labels": {"sql": "labels.sql", "outcome": "y"}})
    return build_definitions(tiny.pipeline())


@pytest.mark.slice
def test_a_partition_of_which_nothing_is_published_is_shown(scored):
    scored.source("INSERT INTO raw.orders SELECT * REPLACE ('2024-03-05'::DATE AS day) FROM raw.orders LIMIT 9")
    killed(scored, "backfill", "orders", "--from", "2024-03-05", "--to", "2024-03-05", "--no-dagster")
    assert json.loads(scored.shell("status", "orders", "--json"))[-1]["partition_key"] == "2024-03-05"
    assert "nothing published; stored since" in scored.shell("status", "orders")


@pytest.mark.slice
def test_before_anything_was_published_status_says_so(tiny):
    killed(tiny, "backfill", "orders", "--from", DAYS[0], "--to", DAYS[0], "--no-dagster")
    assert "Nothing is published yet" in tiny.shell("status", code=1)
    assert tiny.shell("publish").endswith("1 partition published.\n")
    [row] = json.loads(tiny.shell("status", "--json"))
    assert (row["partitions"], row["pending"]) == (1, 0)


def test_a_published_folder_that_cannot_be_written_is_reported_and_stays_pending(pending, caplog):
    folder = pending.project.published / "orders"
    kept = folder.rename(folder.with_name("kept"))
    folder.write_text("a file where a folder should be")
    text = pending.shell("publish", code=1)
    assert "4 partitions could not be published and stay pending" in text
    assert "orders, partitions 2024-03-01 to 2024-03-04 are stored but cannot be published" in caplog.text
    folder.unlink()
    kept.rename(folder)
    assert pending.shell("publish").endswith("4 partitions published.\n")
    assert_published(pending)


@pytest.mark.slice
def test_while_another_process_has_the_warehouse_status_says_that_it_does_not_know(pending):
    process = pending.python(
        """
        from pip_dagster.declaration.project import Project
        from pip_dagster.warehouse.connect import open_warehouse, workspace
        with workspace(threads=1) as con, open_warehouse(con, Project.find().warehouse, purpose="a long run"):
            print("ready", flush=True)
            input()
        """,
        stdin=True,
    )
    assert process.stdout.readline() == "ready\n"
    result = CliRunner().invoke(cli, ["--project", str(pending.root), "status", "--json"])
    process.communicate("\n")
    assert result.exit_code == 0 and json.loads(result.stdout)[0]["pending"] is None
    assert "is not known" in result.stderr and "a long run" in result.stderr


def test_a_user_who_may_only_read_sees_it(pending):
    """As another user, to whom every file of the project belongs to somebody else."""
    if os.getuid():
        pytest.skip("only root can become another user")
    before = sorted((path, path.stat().st_mtime_ns) for path in pending.project.warehouse.parent.rglob("*"))
    read, write = os.pipe()
    child = os.fork()
    if not child:  # with the right to read what pytest's folders hide, and no right to write
        _only_read(pending, write)
    os.close(write)
    with os.fdopen(read) as pipe:
        said = pipe.read()
    os.waitpid(child, 0)
    assert "4 partitions stored and not published yet" in said, said
    after = sorted((path, path.stat().st_mtime_ns) for path in pending.project.warehouse.parent.rglob("*"))
    assert before == after


def _only_read(tiny, pipe):
    import ctypes

    code = f"""
import sys
sys.argv = ["pip-dagster", "--project", {str(tiny.root)!r}, "status"]
from pip_dagster.cli.main import main
main()
"""
    try:
        capabilities = ctypes.CDLL(None, use_errno=True)
        for each in (0, 1, 3):  # CAP_CHOWN, CAP_DAC_OVERRIDE, CAP_FOWNER; reading stays (CAP_DAC_READ_SEARCH)
            capabilities.prctl(24, each, 0, 0, 0)
        for path in [tiny.project.warehouse.parent, *tiny.project.warehouse.parent.rglob("*")]:
            os.chown(path, 65534, 65534)
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=Path("/"), timeout=60)
        os.write(pipe, (done.stdout + done.stderr).encode())
    finally:
        os._exit(0)
