"""Who waits for a lock is told what for, while the wait lasts."""

from __future__ import annotations

import time
from contextlib import ExitStack

import pytest

from pip_dagster.errors import WarehouseLockedError
from pip_dagster.warehouse import lock
from pip_dagster.warehouse.access import writing
from pip_dagster.warehouse.connect import workspace

HOLDS = (
    "import duckdb; con = duckdb.connect('state/warehouse.duckdb', read_only=True); print('open', flush=True); input()"
)


def waited(tiny):
    """What was said of a writer that waited for long, and how it ended."""
    said = []
    with ExitStack() as stack:
        stack.enter_context(lock.waits_said(said.append))
        stack.enter_context(lock.waiting_at_most(0.5))
        stopped = stack.enter_context(pytest.raises(WarehouseLockedError))
        con = stack.enter_context(workspace(threads=1))
        stack.enter_context(writing(con, tiny.project, purpose="a test"))
    return said, str(stopped.value)


def test_a_wait_for_a_reader_or_a_writer_is_said_once_and_a_short_one_is_not(tiny, monkeypatch):
    tiny.run("2024-03-01")
    path = tiny.project.warehouse
    with tiny.locked():
        assert not waited(tiny)[0]
    monkeypatch.setattr(lock, "_SAID_AFTER", 0.1)
    with tiny.locked():
        [said] = waited(tiny)[0]
    assert said.startswith(f"waiting for the warehouse's lock {path}.lock, up to 0.5 s.")
    with tiny.python(HOLDS, stdin=True) as reader:
        assert reader.stdout.readline() == "open\n"
        [said] = waited(tiny)[0]
        reader.communicate("\n")
    assert said.startswith(f"waiting for {path}, up to 0.5 s.") and f"PID {reader.pid}" in said
    with lock.waits_said(lambda text: pytest.fail(text)), lock.said_wait(lambda: "it is over"):
        pass
    time.sleep(0.2)
