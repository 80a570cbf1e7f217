"""Cancelling reaches a long query: Ctrl-C, SIGTERM and Dagster's Terminate end it within a second.

Python runs a signal's handler between two of its own instructions. While DuckDB works on a query the main thread is not
in Python. Some calls check for signals now and then and raise a RuntimeError; others (reading Arrow batches) never
check. An exception inside a batch comes out as an error of the query. So the signal itself wakes a thread that
interrupts the connections, and whatever they raise becomes a KeyboardInterrupt.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_WATCHED = frozenset({signal.SIGINT, signal.SIGTERM})
# A query that begins just after an interrupt is not affected by it, so interrupts repeat until the work has ended.
_REPEAT_SECONDS = 0.5


class _Watch:
    """The process's one watch: connections to interrupt, and which signal came."""

    def __init__(self) -> None:
        self.connections: list[DuckDBPyConnection] = []
        self.received: int | None = None
        self.ended = threading.Event()
        self.reading, self.writing = socket.socketpair()
        self.writing.setblocking(False)
        self.before = signal.set_wakeup_fd(self.writing.fileno(), warn_on_full_buffer=False)
        self.thread = threading.Thread(target=self._watch, name="interrupts", daemon=True)
        self.thread.start()

    def _watch(self) -> None:
        while signals := self.reading.recv(64):
            if self.before >= 0:
                with suppress(OSError):
                    os.write(self.before, signals)
            if wanted := _WATCHED.intersection(signals):
                self.received = max(wanted)
                threading.Thread(target=self._interrupt, name="interrupting", daemon=True).start()

    def _interrupt(self) -> None:
        while not self.ended.is_set():
            for con in list(self.connections):
                with suppress(Exception):  # closed meanwhile
                    con.interrupt()
            self.ended.wait(_REPEAT_SECONDS)

    def close(self) -> None:
        signal.set_wakeup_fd(self.before)
        self.ended.set()
        self.writing.close()  # ends the thread's read
        self.thread.join()
        self.reading.close()


_watch: _Watch | None = None
_last: int | None = None


@contextmanager
def interruptible(con: DuckDBPyConnection) -> Iterator[None]:
    """SIGINT and SIGTERM interrupt the queries of `con`, if this is the main thread and they have handlers.

    Raises:
        KeyboardInterrupt: in place of the error that an interrupted query ended in.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # signals are the main thread's
        return
    _begin(con)
    try:
        yield
    except BaseException as error:
        # A query that DuckDB left for a signal still runs in its threads, and closing would wait for its end.
        con.interrupt()
        if isinstance(error, Exception):
            raise_if_interrupted(error)
        raise
    finally:
        _end(con)


@contextmanager
def idle(con: DuckDBPyConnection) -> Iterator[None]:
    """A generator within `interruptible` yields within this: a signal meanwhile is its caller's, who may keep it long.

    Otherwise the signal would interrupt all later work, for as long as the generator is neither read to its end nor
    dropped.
    """
    was_watched = _end(con)
    yield
    if was_watched and threading.current_thread() is threading.main_thread():
        _begin(con)


def _begin(con: DuckDBPyConnection) -> None:
    global _watch
    if _watch and not _watch.connections:  # its last work, a generator, ended in another thread
        _watch.close()
        _watch = None
    _watch = _watch or _Watch()
    _watch.connections.append(con)


def _end(con: DuckDBPyConnection) -> bool:
    """Watch a connection no longer; whether it was watched."""
    global _watch, _last
    if _watch is None or con not in _watch.connections:
        return False
    _watch.connections.remove(con)
    # Signals can be given back in the main thread only.
    if not _watch.connections and threading.current_thread() is threading.main_thread():
        ended, _watch = _watch, None
        _last = ended.received
        ended.close()
    return True


def last_signal() -> int | None:
    """The signal that ended the last piece of work; None where none did."""
    return _last


def raise_if_interrupted(error: BaseException) -> None:
    """Call it before an error of a query is treated as a fault of its rows.

    Raises:
        KeyboardInterrupt: a signal caused the error.
    """
    if (_watch and _watch.received) or _came_of_interrupt(error):
        raise KeyboardInterrupt from error


def _came_of_interrupt(error: BaseException | None) -> bool:
    """Whether the error replaced what a signal's handler raised."""
    while error is not None:
        if not isinstance(error, Exception | GeneratorExit):
            return True
        error = error.__cause__ or error.__context__
    return False
