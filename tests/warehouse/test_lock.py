"""One writer at a time: who waits, how long, and what the one who gives up is told."""

import fcntl
import json
import os
import re
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest

from pip_dagster.errors import WarehouseError
from pip_dagster.registry.files import locked
from pip_dagster.warehouse import lock
from pip_dagster.warehouse.lock import declared_deadline, exclusive

HOLD = """
import sys, time
from pathlib import Path
from pip_dagster.warehouse.lock import exclusive
with exclusive(Path(sys.argv[1]), purpose="a long read"):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def path(tmp_path):
    return tmp_path / "warehouse.duckdb.lock"


@pytest.fixture
def holder(tiny, path):
    """Another process that holds the lock."""
    process = tiny.python(HOLD, str(path))
    assert process.stdout.readline().strip() == "held"
    yield process
    process.kill()
    process.wait()


def test_the_one_who_gives_up_is_told_who_holds_it_and_why(holder, path):
    began = time.monotonic()
    words = rf"not free within 0\.3 s.*PID {holder.pid} .*a long read.*nothing was"
    with pytest.raises(WarehouseError, match=words), exclusive(path, purpose="test", deadline=0.3):
        raise AssertionError("two hold the lock")
    assert 0.3 <= time.monotonic() - began < 3


def test_a_killed_holder_frees_it(holder, path):
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    with exclusive(path, purpose="test", deadline=2):
        assert json.loads(path.read_text())["pid"] == os.getpid()
    assert path.read_text() == "", "a free lock names no holder"


def test_who_waits_gets_it_as_soon_as_it_is_free(holder, path):
    threading.Timer(0.5, holder.kill).start()
    began = time.monotonic()
    with exclusive(path, purpose="test", deadline=30):
        assert time.monotonic() - began < 10


def test_a_wait_is_in_the_log_of_who_waited(holder, path, caplog, monkeypatch):
    monkeypatch.setattr(lock, "_WORTH_A_LINE", 0.3)
    threading.Timer(0.5, holder.kill).start()
    with caplog.at_level("INFO", "pip_dagster"), exclusive(path, purpose="test", deadline=30):
        assert re.search(rf"waited \d+\.\d s for the warehouse's lock {re.escape(str(path))}", caplog.text)


def test_threads_of_one_process_exclude_each_other(path):
    inside, overlaps = [], []

    def work(number):
        for _ in range(10):
            with exclusive(path, purpose=f"thread {number}"):
                inside.append(number)
                overlaps.append(len(inside))
                time.sleep(0.001)
                inside.remove(number)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert overlaps == [1] * 40


def test_an_error_inside_frees_it(path):
    with pytest.raises(ZeroDivisionError), exclusive(path, purpose="test"):
        raise ZeroDivisionError
    with exclusive(path, purpose="test", deadline=0.1):
        pass


TAKE_TURNS = """
import sys, time
from pathlib import Path
from pip_dagster.warehouse.lock import exclusive
print("ready", flush=True)
sys.stdin.readline()
until = time.monotonic() + 4
turns = 0
while time.monotonic() < until:
    with exclusive(Path(sys.argv[1]), purpose="turns"):
        time.sleep(0.05)
        turns += 1
print(turns)
"""


def wait_until_queued(path, count):
    """Until so many wait for the lock, by the kernel's own account."""
    queue, until = path.with_name(path.name + ".queue"), time.monotonic() + 60
    while time.monotonic() < until:
        if queue.exists():
            inode = f":{queue.stat().st_ino} "
            if sum(inode in line for line in Path("/proc/locks").read_text().splitlines()) >= count:
                return
        time.sleep(0.02)
    raise AssertionError(f"{count} never waited at once")


def test_who_has_just_let_it_go_comes_behind_those_who_wait(tiny, path):
    """Without a queue one of four has nearly all turns: it asks again before the others look."""
    processes = [tiny.python(TAKE_TURNS, str(path), stdin=True) for _ in range(4)]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    turns = [int(process.communicate(timeout=60)[0]) for process in processes]
    assert min(turns) >= 3 and max(turns) - min(turns) <= 3, turns


def test_they_come_in_the_order_of_asking(path):
    order, asked = [], []

    def ask(number):
        asked.append(number)
        with exclusive(path, purpose=f"waiter {number}", deadline=60):
            order.append(number)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(6)]
    with exclusive(path, purpose="test"):
        for count, thread in enumerate(threads, 1):
            thread.start()
            wait_until_queued(path, count)
    for thread in threads:
        thread.join()
    assert order == asked


def test_a_waiter_that_gives_up_or_dies_or_sleeps_keeps_nobody(tiny, holder, path):
    with pytest.raises(WarehouseError), exclusive(path, purpose="gives up", deadline=0.1):
        pass
    dying, asleep = (tiny.python(HOLD, str(path)) for _ in range(2))
    try:
        wait_until_queued(path, 2)
        dying.kill()
        dying.wait()
        os.kill(asleep.pid, signal.SIGSTOP)
        holder.kill()
        with exclusive(path, purpose="test", deadline=60):
            assert json.loads(path.read_text())["pid"] == os.getpid()
    finally:
        asleep.kill()
        asleep.wait()


@pytest.mark.parametrize(("folder", "mode"), [(0o755, 0o600), (0o775, 0o660), (0o2775, 0o660), (0o777, 0o666)])
@pytest.mark.parametrize("lock", [lambda path: exclusive(path, purpose="test"), locked], ids=["warehouse", "registry"])
def test_only_who_may_write_beside_it_may_open_its_file(path, lock, folder, mode):
    path.parent.chmod(folder)
    path.touch(0o644)  # as earlier versions created it
    with lock(path):
        files = list(path.parent.iterdir())
        assert path in files and {stat.S_IMODE(file.stat().st_mode) for file in files} == {mode}


READER = """
import fcntl, os, sys
from pathlib import Path
os.setgroups([])
os.setgid(12345)
os.setuid(12345)
for file in Path(sys.argv[1]).iterdir():
    try:
        descriptor = os.open(file, os.O_RDONLY)
    except PermissionError:
        continue
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    print(file.name)
print("tried", flush=True)
sys.stdin.read()
"""


def test_a_reader_cannot_stop_a_run(path):
    if os.geteuid():
        pytest.skip("only root can become another user")
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:  # pytest's own is closed to other users
        Path(folder).chmod(0o755)
        open_to_all = Path(folder, path.name)
        with exclusive(open_to_all, purpose="a first run"), locked(Path(folder, ".lock")):
            pass
        command = [sys.executable, "-c", READER, folder]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as reader:
            assert reader.stdout.readline() == "tried\n", "it holds a lock"
            with exclusive(open_to_all, purpose="the next run", deadline=1), locked(Path(folder, ".lock"), 1):
                reader.stdin.close()


def test_a_holder_that_left_no_note_is_named_by_the_kernel(path):
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with (
            pytest.raises(WarehouseError, match=f"held by PID {os.getpid()}\\."),
            exclusive(path, purpose="test", deadline=0.1),
        ):
            pass


@pytest.mark.parametrize("text", ["abc", "nan", "-1"])
def test_a_deadline_that_is_none_is_refused(monkeypatch, text):
    monkeypatch.setenv("PIP_DAGSTER_LOCK_DEADLINE", text)
    with pytest.raises(WarehouseError, match=f"PIP_DAGSTER_LOCK_DEADLINE is '{text}'; expected seconds, such as 60"):
        declared_deadline()


def test_how_long_a_run_waited_for_the_warehouse_is_recorded(tiny, monkeypatch):
    tiny.run("2024-03-01")
    path = tiny.project.warehouse.with_name(tiny.project.warehouse.name + ".lock")
    holding, asked = threading.Event(), threading.Event()
    taken = lock._taken

    def seen(descriptor):
        if not (got := taken(descriptor)):
            asked.set()
        return got

    def hold():
        with exclusive(path, purpose="a long look"):
            holding.set()
            assert asked.wait(60)
            time.sleep(0.5)

    monkeypatch.setattr(lock, "_taken", seen)

    thread = threading.Thread(target=hold)
    thread.start()
    holding.wait()
    tiny.run("2024-03-02")
    thread.join()
    (alone,), (waited,) = tiny.warehouse("SELECT lock_seconds FROM ledger.scorings ORDER BY scoring_id")
    assert 0 <= alone < waited and waited > 0.4
