"""One writer at a time: who waits, how long, and what the one who gives up is told."""

import json
import os
import signal
import threading
import time
from pathlib import Path

import pytest

from pip_dagster.errors import WarehouseError
from pip_dagster.warehouse.lock import exclusive

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
