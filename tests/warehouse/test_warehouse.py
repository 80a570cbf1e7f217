"""The warehouse file among processes, versions and odd places; what is published beside it."""

import os
import shutil
import subprocess
import sys
import tempfile
import textwrap
import threading
import time

import duckdb
import pytest

from pip_dagster.cli.published import open_published
from pip_dagster.errors import WarehouseError
from pip_dagster.warehouse.connect import open_warehouse, workspace
from pip_dagster.warehouse.published import publish_pending
from pip_dagster.warehouse.schema import VERSION
from pip_dagster.warehouse.transaction import transaction

pytestmark = pytest.mark.lake

FIRST, SECOND, THIRD, FOURTH = "2024-03-01", "2024-03-02", "2024-03-03", "2024-03-04"

# What a run does, without Dagster and without this test's own process.
MATERIALIZE = """
import sys
from datetime import datetime, timedelta, timezone
import yaml
from pip_dagster.flow.materialize import materialize
from pip_dagster.declaration.partition import Partition
from pip_dagster.ledger.record import RunInfo
from pip_dagster.declaration.pipeline import Pipeline
from pip_dagster.declaration.project import Project
from pip_dagster.declaration.spec import PipelineSpec

project = Project.find()
folder = project.root / "acme" / "defs" / "orders"
spec = PipelineSpec.model_validate(yaml.safe_load((folder / "defs.yaml").read_text())["attributes"])
starts = [datetime.fromisoformat(key).replace(tzinfo=timezone.utc) for key in sys.argv[1:]]
partitions = [Partition(f"{start:%Y-%m-%d}", start, start + timedelta(days=1)) for start in starts]
print("ready", flush=True)
for result in materialize(Pipeline.load(spec, folder, project), partitions, RunInfo("other", "a process")):
    print(result.partition.key, result.error or "stored", flush=True)
"""


def output(process):
    text = process.communicate(timeout=120)[0]
    assert process.returncode == 0, text
    return text


@pytest.mark.slice
@pytest.mark.lake("always")
def test_two_processes_write_while_a_third_reads_what_is_published(scored):
    tiny = scored
    tiny.source("UPDATE raw.orders SET quantity = quantity + 1")
    reader = duckdb.connect(str(tiny.project.published_database), read_only=True)
    before = reader.execute("SELECT count(*), sum(score) FROM orders.predictions").fetchone()
    writers = [tiny.python(MATERIALIZE, *keys) for keys in ((FIRST, SECOND), (FOURTH, THIRD))]
    reads = 0
    while any(writer.poll() is None for writer in writers):
        assert reader.execute("SELECT count(*) FROM orders.predictions").fetchone() == (200,)
        reads += 1
        time.sleep(0.02)  # the writers are what is to have the cores
    assert reads > 3
    for writer, keys in zip(writers, ((FIRST, SECOND), (FOURTH, THIRD)), strict=True):
        assert output(writer).splitlines() == ["ready", *(f"{key} stored" for key in keys)]
    after = reader.execute("SELECT count(*), sum(score) FROM orders.predictions").fetchone()
    reader.close()
    assert after[0] == before[0] and after[1] != before[1], "an old connection sees new rows"
    assert tiny.scores() == tiny.expected()


@pytest.mark.lake("never")
def test_a_file_that_somebody_else_has_open_is_waited_for_and_then_named(scored, monkeypatch):
    holder = scored.python(
        "import duckdb, sys, time; c = duckdb.connect(sys.argv[1]); print('open', flush=True); time.sleep(60)",
        str(scored.project.warehouse),
    )
    try:
        assert holder.stdout.readline().strip() == "open"
        scored.source("UPDATE raw.orders SET quantity = 8")
        monkeypatch.setenv("PIP_DAGSTER_LOCK_DEADLINE", "0.5")
        with pytest.raises(WarehouseError, match=rf"(?s)stayed locked .* 0\.5 s.*PID {holder.pid}"):
            scored.run()
        monkeypatch.undo()
    finally:
        holder.kill()
        holder.wait()
    assert scored.warehouse("SELECT count(*) FROM ledger.scorings") == [(4,)]
    scored.run()
    assert scored.scores() == scored.expected()


def test_a_newer_schema_is_refused_and_an_absent_one_made(scored, tmp_path):
    scored.tamper(f"UPDATE ledger.meta SET value = '{VERSION + 1}' WHERE key = 'schema_version'")
    with pytest.raises(
        WarehouseError, match=rf"schema version {VERSION + 1}, written by a newer .* supports {VERSION}"
    ):
        scored.run()
    empty = tmp_path / "empty.duckdb"
    duckdb.connect(str(empty)).close()
    with workspace(threads=1) as con:
        with (
            pytest.raises(WarehouseError, match="schema version 0"),
            open_warehouse(con, empty, purpose="test", read_only=True),
        ):
            pass
        for _ in range(2):
            with open_warehouse(con, empty, purpose="test"):
                found = con.execute("SELECT value FROM ledger.meta WHERE key = 'schema_version'").fetchall()
                assert found == [(str(VERSION),)]


def test_a_migration_that_fails_leaves_the_file_as_it_was(tmp_path, monkeypatch):
    path = tmp_path / "w.duckdb"
    good = "CREATE SCHEMA ledger; CREATE TABLE ledger.meta (key VARCHAR, value VARCHAR);"
    monkeypatch.setattr("pip_dagster.warehouse.schema.MIGRATIONS", (good, "SELECT nonsense"))
    with workspace(threads=1) as con:
        monkeypatch.setattr("pip_dagster.warehouse.schema.VERSION", 2)
        with pytest.raises(duckdb.Error, match="nonsense"), open_warehouse(con, path, purpose="test"):
            pass
        monkeypatch.undo()
        with open_warehouse(con, path, purpose="test"):
            assert con.execute("SELECT count(*) FROM ledger.scorings").fetchone() == (0,)


@pytest.mark.lake("never")
def test_a_file_that_is_no_database_is_named(tiny):
    tiny.project.warehouse.parent.mkdir(parents=True, exist_ok=True)
    tiny.project.warehouse.write_text("not a database")
    with pytest.raises(WarehouseError, match=r"warehouse\.duckdb cannot be opened as a DuckDB file"):
        tiny.run()


@pytest.mark.parametrize("ended_by", [ValueError, KeyboardInterrupt])
def test_a_transaction_is_undone_whatever_ends_it(ended_by):
    with workspace(threads=1) as con:
        con.execute("CREATE TABLE t (a INT)")
        with pytest.raises(ended_by), transaction(con):
            con.execute("INSERT INTO t VALUES (1)")
            raise ended_by
        assert con.execute("SELECT count(*) FROM t").fetchone() == (0,)


def test_rows_that_do_not_arrive_undo_the_partition(scored, monkeypatch):
    """What the commit checks: as many rows as were scored, and rows in = scored + quarantined."""
    from pip_dagster.flow import store_features, store_scores
    from pip_dagster.flow.storing import insert_counted

    before = scored.scores()
    for module in (store_features, store_scores):
        monkeypatch.setattr(
            module,
            "insert_counted",
            lambda con, table, select, *a: insert_counted(con, table, f"{select} LIMIT 49", *a),
        )
    scored.source("UPDATE raw.orders SET quantity = 8 WHERE order_id = 60")
    with pytest.raises(Exception, match="50 rows were staged, 49 arrived. Nothing was stored"):
        scored.run()
    assert scored.warehouse("SELECT count(*) FROM orders.features") == [(200,)]
    assert scored.scores() == before


def test_a_published_file_is_replaced_at_once_so_that_an_open_one_stays_whole(scored):
    file = scored.project.published / "orders" / "rows-0001.duckdb"
    before = file.read_bytes()
    with file.open("rb") as old:
        scored.source("UPDATE raw.orders SET quantity = quantity + 1")
        scored.run()
        assert old.read() == before != file.read_bytes()
    assert not list(scored.project.published.rglob("*.tmp")), "nothing temporary stays"


def test_what_was_committed_but_not_published_is_published_by_the_next_run(scored):
    shutil.rmtree(scored.project.published)
    scored.project.published_database.unlink()
    scored.tamper("DELETE FROM ledger.publications")
    scored.run(FIRST)
    assert scored.scores() == scored.expected()


@pytest.mark.lake("never")
def test_what_publishing_everything_anew_leaves_undone_is_done_by_the_next_run(scored):
    published = scored.project.published
    shutil.rmtree(published)
    (published.parent / "kept").mkdir()
    (published.parent / "kept" / "orders").write_text("a file where a folder should be")
    (published.parent / "kept").rename(published)
    with workspace(threads=1) as con, open_warehouse(con, scored.project.warehouse, purpose="test"):
        publish_pending(con, scored.project, everything=True)
    (published / "orders").unlink()
    scored.run(FIRST)
    assert scored.scores() == scored.expected()


def test_what_cannot_be_published_is_told_keeps_nothing_and_is_published_later(scored, caplog):
    folder = scored.project.published / "orders"
    shutil.rmtree(folder)
    folder.write_text("a file where a folder should be")
    scored.source("UPDATE raw.orders SET quantity = quantity + 1")
    scored.run()
    assert f"partitions {FIRST} to {FOURTH} are stored but cannot be published" in caplog.text
    folder.unlink()
    scored.run()
    assert scored.scores() == scored.expected()


@pytest.mark.slice
def test_readers_may_open_and_close_all_the_time(scored):
    stop, failures = threading.Event(), []

    def read():
        while not stop.is_set():
            try:
                assert scored.published("SELECT count(*) FROM orders.predictions") == [(200,)]
            except Exception as error:
                failures.append(error)

    thread = threading.Thread(target=read)
    thread.start()
    for amount in range(3):
        scored.source(f"UPDATE raw.orders SET quantity = {amount + 1}")
        scored.run()
    stop.set()
    thread.join()
    assert not failures


@pytest.mark.parametrize("name", ['it\'s a "shop"', "лавка 東京", "a [b]", "a*b", "per%20cent"])
def test_a_project_may_lie_anywhere(tiny, helpers, tmp_path, name):
    moved = helpers.Tiny(tmp_path / name)
    tiny.root.rename(moved.root)
    moved.run()
    assert moved.scores() == moved.expected()
    with open_published(moved.project) as con:  # which may read nothing but the published folder
        assert con.execute("SELECT count(*) FROM orders.predictions").fetchone() == (200,)


def test_what_a_killed_process_had_spilled_is_removed_by_the_next(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    code = """
        import os
        from pip_dagster.warehouse.connect import workspace
        with workspace(threads=1):
            os.kill(os.getpid(), 9)
    """
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], env=environment, check=False)
    (left,) = tmp_path.glob("pip_dagster_spill_*")
    with workspace(threads=1):
        (mine,) = tmp_path.glob("pip_dagster_spill_*")
        assert mine != left
    assert not list(tmp_path.glob("pip_dagster_spill_*"))
