"""What is around a run breaks: a clear error, nothing lost, and the next run completes.

The disks are real ones: small tmpfs mounts, which root may make; without root these tests are skipped.
"""

import os
import shutil
import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest

from pip_dagster.erasure.holds import list_holds, place_hold, release_hold
from pip_dagster.errors import DeclarationError, SpillError, StorageError, WarehouseLockedError
from pip_dagster.flow import materialize as flow
from pip_dagster.ledger.promotions import alias_moves
from pip_dagster.ledger.verify import verify
from pip_dagster.privacy.keys import keys_of
from pip_dagster.registry.errors import CorruptRegistry
from pip_dagster.warehouse.connect import open_warehouse, workspace

DAYS = ("2024-03-01", "2024-03-02", "2024-03-03", "2024-03-04")
KEPT = "committed partitions are kept"


@contextmanager
def small_disk(folder, size):
    """`folder` is a disk of this size, with what was in it."""
    aside = Path(tempfile.mkdtemp(dir=folder.parent))
    shutil.copytree(folder, aside / "content")
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], check=False)
    if made.returncode:
        pytest.skip("a small disk can only be mounted by root")
    try:
        shutil.copytree(aside / "content", folder, dirs_exist_ok=True)
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)
        shutil.rmtree(aside)


@contextmanager
def full(folder, *, but=0):
    """The disk of `folder` has no more than so many bytes left."""
    filler, disk = folder / "filler", os.statvfs(folder)
    filler.write_bytes(b"\0" * max(0, disk.f_bavail * disk.f_frsize - but))
    try:
        yield
    finally:
        filler.unlink()


def assert_whole(tiny):
    """All is as it was before or as it should be, by partition; the ledger says the same; the chain holds."""
    live = tiny.warehouse(
        """SELECT p.partition_key, count(*), count(DISTINCT p.scoring_id), any_value(s.rows_scored)
        FROM orders.predictions p JOIN ledger.scorings s USING (scoring_id) GROUP BY 1 ORDER BY 1"""
    )
    assert live == [(day, 50, 1, 50) for day in DAYS]
    assert tiny.warehouse("SELECT * FROM orders.scores ANTI JOIN ledger.scorings USING (scoring_id)") == []
    with workspace(threads=1) as con, open_warehouse(con, tiny.project.warehouse, purpose="test", read_only=True):
        assert verify(con, moves=alias_moves(tiny.registry)) is None


def assert_completes(tiny):
    assert not any(result.error for result in tiny.run().values())
    assert_whole(tiny)
    assert tiny.scores() == tiny.expected()
    pending = "SELECT count(*) FROM ledger.live_changes c ANTI JOIN ledger.publications p ON p.change_id = c.change_id"
    assert tiny.warehouse(pending) == [(0,)]


@pytest.fixture
def changed(scored):
    """Everything is to be made anew."""
    scored.source("UPDATE raw.orders SET quantity = 1 + quantity % 8")
    return scored


@contextmanager
def meanwhile(action):
    """Do this between extracting and scoring."""
    real = flow.predict

    def predict(*arguments, **named):
        action()
        return real(*arguments, **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(flow, "predict", predict)
        yield


class TestFullDisk:
    @pytest.mark.parametrize("left", [0, 4096, 65536])
    def test_of_the_warehouse(self, changed, left):
        state = changed.root / "state"
        with small_disk(state, "24m"):
            before = changed.published("SELECT * FROM orders.predictions ORDER BY order_id")
            with full(state, but=left):
                with pytest.raises(StorageError) as caught:
                    changed.run()
                for part in ("Pipeline orders, 2024-03-01 to 2024-03-04", "warehouse.duckdb", "No space left", KEPT):
                    assert part in str(caught.value)
                # Who only reads is not kept from it.
                assert changed.published("SELECT * FROM orders.predictions ORDER BY order_id") == before
                assert_whole(changed)
            assert_completes(changed)

    @pytest.mark.slice
    def test_a_hold_is_placed_or_it_is_not_and_that_is_what_is_said(self, changed, caplog):
        """DuckDB commits to its log of writes, and then needs more room to close the file."""
        changed.declare(privacy={"subject": "order_id"})
        state, pipelines = changed.root / "state", [changed.pipeline()]
        with small_disk(state, "24m"):
            for error in (DeclarationError, StorageError):  # of the secret, and of the warehouse
                with full(state, but=0), pytest.raises(error, match="No space left"):
                    place_hold(changed.project, pipelines, "1", why="claim 8", by="ada")
                assert (
                    not list_holds(changed.project)
                    and "It is recorded" not in caplog.text
                    and not [*state.glob("*.new")]
                )
                keys_of(pipelines[0])
            with full(state, but=300_000):
                hold = place_hold(changed.project, pipelines, "1", why="claim 8", by="ada")
                assert caplog.text.count("It is recorded, and need not be repeated") == 1
                assert [each["hold_id"] for each in list_holds(changed.project)] == [hold]
                release_hold(changed.project, hold, why="settled", by="ada")
                assert caplog.text.count("It is recorded, and need not be repeated") == 2
            assert [each["state"] for each in list_holds(changed.project)] == ["released"]

    def test_of_what_is_published(self, changed, caplog):
        published = changed.project.published
        with small_disk(published, "4m"):
            before = changed.scores()
            with full(published):
                assert not any(result.error for result in changed.run().values())
                assert f"orders, partitions {DAYS[0]} to {DAYS[-1]} are stored but cannot be published" in caplog.text
                assert "No space left" in caplog.text and "the next run publishes it" in caplog.text
                assert changed.scores() == before, "readers see what was published before"
                assert_whole(changed)
            assert_completes(changed)

    def test_of_what_outgrows_memory(self, changed, tmp_path, monkeypatch):
        outgrow(changed, monkeypatch)
        folder = temporary(tmp_path, monkeypatch)
        with small_disk(folder, "4m"), pytest.raises(SpillError) as caught:
            changed.run()
        for part in ("Pipeline orders, 2024-03-01 to 2024-03-04", str(folder), "TMPDIR", KEPT):
            assert part in str(caught.value)
        assert "PRAGMA" not in str(caught.value), "DuckDB's advice is for who writes SQL"
        assert_whole(changed)
        changed.source("DELETE FROM raw.orders WHERE order_id >= 1000")
        assert_completes(changed)


def outgrow(tiny, monkeypatch):
    """Days of many rows, and little memory."""
    tiny.source(
        "INSERT INTO raw.orders SELECT o.* REPLACE (order_id + 1000 * i AS order_id) FROM raw.orders o, "
        "range(1, 12000) t(i) WHERE day = '2024-03-01'"
    )
    monkeypatch.setenv("PIP_DAGSTER_MEMORY_LIMIT", "100MB")


def temporary(tmp_path, monkeypatch):
    """A folder of its own for temporary files."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def test_a_read_only_published_folder(changed, caplog):
    published = changed.project.published
    with small_disk(published, "4m"):
        before = changed.scores()
        subprocess.run(["mount", "-o", "remount,ro", str(published)], check=True)
        assert not any(result.error for result in changed.run().values())
        assert "cannot be published" in caplog.text and "Read-only file system" in caplog.text
        assert changed.scores() == before
        subprocess.run(["mount", "-o", "remount,rw", str(published)], check=True)
        assert_completes(changed)


@pytest.mark.slice
def test_a_spill_folder_removed_in_mid_run(changed, tmp_path, monkeypatch):
    outgrow(changed, monkeypatch)
    folder = temporary(tmp_path, monkeypatch)

    def remove():
        for spill in folder.glob("pip_dagster_spill*"):
            shutil.rmtree(spill)

    with meanwhile(remove), pytest.raises(SpillError, match=f"Pipeline orders.*{folder}"):
        changed.run()
    assert_whole(changed)
    changed.source("DELETE FROM raw.orders WHERE order_id >= 1000")
    assert_completes(changed)


def test_no_folder_for_temporary_files(changed, tmp_path, monkeypatch):
    folder = temporary(tmp_path, monkeypatch)
    folder.rmdir()
    with pytest.raises(SpillError, match=f"{folder}.*No such file.*\n.*TMPDIR"):
        changed.run()
    monkeypatch.undo()
    assert_completes(changed)


def test_a_model_file_deleted_in_mid_run(changed):
    model = changed.registry.get("returns", 1).path / "model.ubj"
    away = model.with_name("away")
    with meanwhile(lambda: model.rename(away)), pytest.raises(CorruptRegistry) as caught:
        changed.run()
    for part in ("Pipeline orders, 2024-03-01 to 2024-03-04", str(model), "restore the version's folder"):
        assert part in str(caught.value)
    assert_whole(changed)
    away.rename(model)
    assert_completes(changed)


def test_a_model_file_deleted_once_it_is_loaded_keeps_nothing(changed, monkeypatch):
    model = changed.registry.get("returns", 1).path / "model.ubj"
    content, real = model.read_bytes(), flow.shadow

    def shadow(*arguments, **named):
        model.unlink(missing_ok=True)
        return real(*arguments, **named)

    monkeypatch.setattr(flow, "shadow", shadow)
    monkeypatch.setattr(flow, "CHUNK_ROWS", 1)  # each partition by itself: the later ones are scored without the file
    assert not any(result.error for result in changed.run().values())
    assert not model.exists()
    model.write_bytes(content)
    assert changed.scores() == changed.expected()


def test_an_alias_deleted(changed):
    alias = changed.registry.get("returns", 1).path.parent.parent / "aliases" / "champion.json"
    content = alias.read_bytes()
    with meanwhile(lambda: alias.unlink(missing_ok=True)):
        results = changed.run()
    assert not any(result.error for result in results.values()), "a run keeps the version that it began with"
    assert changed.scores() == changed.expected()
    changed.source("UPDATE raw.orders SET quantity = 1 + quantity % 8")
    with pytest.raises(DeclarationError, match=r"Pipeline orders.*no alias 'champion'.*models promote returns"):
        changed.run()
    alias.write_bytes(content)
    assert_whole(changed)
    assert_completes(changed)


def test_a_lock_held_for_ever(changed, monkeypatch):
    """Whoever holds it is named, in bounded time, with what it does; the file opened by somebody else's program too."""
    path = changed.project.warehouse
    hold = """
        import sys, time
        from pathlib import Path
        from pip_dagster.warehouse.lock import exclusive
        with exclusive(Path(sys.argv[1]), purpose="an endless maintenance"):
            print("held", flush=True)
            time.sleep(600)
    """
    opened = "import duckdb, sys, time; c = duckdb.connect(sys.argv[1]); print('held', flush=True); time.sleep(600)"
    for code, place in ((hold, path.with_name(path.name + ".lock")), (opened, path)):
        holder = changed.python(code, str(place))
        try:
            assert holder.stdout.readline() == "held\n"
            with monkeypatch.context() as patch:
                patch.setenv("PIP_DAGSTER_LOCK_DEADLINE", "0.5")
                with pytest.raises(WarehouseLockedError) as caught:
                    changed.run()
            for part in ("Pipeline orders, 2024-03-01 to 2024-03-04", str(path), f"PID {holder.pid}", "0.5 s"):
                assert part in str(caught.value)
        finally:
            holder.kill()
            holder.wait()
        assert_whole(changed)
    assert_completes(changed)
