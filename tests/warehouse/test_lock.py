"""One writer at a time: who waits, how long, and what the one who gives up is told."""

import json
import os
import signal
import threading
import time

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
