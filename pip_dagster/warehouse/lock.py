"""One writer at a time: an flock on a file beside the warehouse, with a deadline for waiting."""

from __future__ import annotations

import fcntl
import json
import logging
import math
import os
import random
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from datetime import UTC, datetime
from pathlib import Path

from pip_dagster import clock
from pip_dagster.errors import WarehouseError, WarehouseLockedError
from pip_dagster.warehouse.lock_file import open_lock, pid_of
from pip_dagster.warehouse.queue import place_in

DEFAULT_DEADLINE = 120.0
VARIABLE = "PIP_DAGSTER_LOCK_DEADLINE"

_LOG = logging.getLogger(__name__)
_WORTH_A_LINE = 1.0  # seconds

_counting = threading.Lock()
_waited = 0.0  # seconds, of this process, that `take_waited` has not returned yet

_SAID_AFTER = 2.0  # seconds
_LISTENER: ContextVar[Callable[[str], object] | None] = ContextVar("lock_listener", default=None)
_WITHIN: ContextVar[float | None] = ContextVar("lock_deadline", default=None)


@contextmanager
def waiting_at_most(seconds: float) -> Iterator[None]:
    """Wait at most this long for locks requested inside, whatever is declared: for callers that can retry later."""
    token = _WITHIN.set(seconds)
    try:
        yield
    finally:
        _WITHIN.reset(token)


def declared_deadline() -> float:
    """Seconds to wait for a lock: `waiting_at_most`, or `PIP_DAGSTER_LOCK_DEADLINE`, or the default.

    Raises:
        WarehouseError: the variable is not a number of seconds.
    """
    if (within := _WITHIN.get()) is not None:
        return within
    text = os.environ.get(VARIABLE)
    if not text:
        return DEFAULT_DEADLINE
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not seconds >= 0:  # nor is NaN, with which the wait would not end
        raise WarehouseError(f"{VARIABLE} is {text!r}; expected seconds, such as 60.")
    return seconds


def take_waited() -> float:
    """Seconds that this process has waited for turns since it asked before."""
    global _waited
    with _counting:
        taken, _waited = _waited, 0.0
    return taken


@contextmanager
def waits_said(to: Callable[[str], object]) -> Iterator[None]:
    """Inside, `to` gets a line for each wait that takes longer than two seconds, while it lasts."""
    token = _LISTENER.set(to)
    try:
        yield
    finally:
        _LISTENER.reset(token)


@contextmanager
def said_wait(what: Callable[[], str]) -> Iterator[None]:
    """A wait: after two seconds, a thread reports what is waited for to whoever listens, if `what` is anything then."""
    listener = _LISTENER.get()
    if listener is None:
        yield
        return

    def say() -> None:
        if text := what():
            listener(f"waiting for {text}")

    timer = threading.Timer(_SAID_AFTER, say)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


@contextmanager
def reported_wait(what: str) -> Iterator[None]:
    """Log how long a turn was waited for, so that a run's log shows why it took long."""
    global _waited
    began = time.monotonic()
    yield
    waited = time.monotonic() - began
    with _counting:
        _waited += waited
    if waited >= _WORTH_A_LINE:
        _LOG.info("waited %.1f s for %s", waited, what)


@contextmanager
def exclusive(path: Path, *, purpose: str, deadline: float = DEFAULT_DEADLINE) -> Iterator[None]:
    """Hold the lock at `path`, after waiting at most `deadline` seconds in first-come order.

    The kernel releases an flock when its process dies, so a killed holder leaves nothing to clean up. Two openings of
    the file exclude each other within a process too, so threads need no second lock.

    Raises:
        WarehouseLockedError: another process held it until the deadline; names that process and its purpose.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = open_lock(path)
    try:
        name = f"the warehouse's lock {path}"
        with reported_wait(name), said_wait(lambda: f"{name}, up to {deadline:g} s. {holder_of(path)}"):
            _acquire(descriptor, path, deadline)
        # The last holder's time: this machine's clock may have been set back since.
        clock.seen(_modified_at(descriptor))
        holder = {"pid": os.getpid(), "purpose": purpose, "since": datetime.now(UTC).isoformat(timespec="seconds")}
        _note(descriptor, json.dumps(holder | {"command": " ".join(sys.argv[:4])[:200]}))
        try:
            yield
        finally:
            _note(descriptor, "")
    finally:
        os.close(descriptor)


def _modified_at(descriptor: int) -> datetime | None:
    try:
        return datetime.fromtimestamp(os.fstat(descriptor).st_mtime, UTC)
    except (OverflowError, ValueError):  # beyond the year 9999
        return None


def _note(descriptor: int, text: str) -> None:
    """Record who holds it. On a full disk this fails, which must not prevent reading."""
    with suppress(OSError):
        os.ftruncate(descriptor, 0)
        os.write(descriptor, text.encode())  # at the end, which is the beginning


def _acquire(descriptor: int, path: Path, deadline: float) -> None:
    until = time.monotonic() + deadline
    with place_in(path.with_name(path.name + ".queue")) as place:
        while not (place.may_try() and _taken(descriptor)):
            if time.monotonic() >= until:
                raise WarehouseLockedError(
                    f"The warehouse lock {path} was not free within {deadline:g} s. {holder_of(path)} "
                    "Wait for that process or end it; nothing was written."
                )
            # Jitter keeps several waiters from trying in step.
            time.sleep(random.uniform(0.005, 0.03))


def _taken(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def holder_of(path: Path) -> str:
    """Who holds the lock, in a sentence."""
    try:
        holder = json.loads(path.read_text(encoding="utf-8"))
        return f"It is held by PID {holder['pid']} ({holder['command']}) since {holder['since']}: {holder['purpose']}."
    except (OSError, ValueError, KeyError):
        pid = pid_of(path)
        return f"It is held by PID {pid}." if pid else "Its holder is not known."
