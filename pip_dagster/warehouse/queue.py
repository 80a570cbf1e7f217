"""The order of waiters: first come, first served, by tickets that the kernel takes back when a process dies.

A lock that is only polled goes to whoever tries in the right millisecond, and the process that has just released it
tries first: six that wanted it 0.1 s at a time were served 102, 18, 1, 1, 1 and 1 times in 12 s. So each takes a
ticket: the lock of one byte of a file, at the position of the current time. It tries the real lock when no earlier
byte is locked.

Tickets only order; the real lock excludes. Where the file system or platform has no tickets, waiting is unordered.
"""

from __future__ import annotations

import fcntl
import os
import struct
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pip_dagster.warehouse.lock_file import open_lock

# `struct flock` of 64-bit Linux: type, whence, start, length, pid.
_FLOCK = "hhqqi4x"
_HAS_TICKETS = sys.platform == "linux" and sys.maxsize > 2**32 and hasattr(fcntl, "F_OFD_SETLK")
# A waiter that is stopped (SIGSTOP, a debugger) must not block the others from a free lock.
_OUT_OF_TURN_EVERY = 2.0


class Place:
    """A place in the queue; without a file every waiter is first."""

    def __init__(self, descriptor: int | None, ticket: int = 0) -> None:
        self._descriptor, self._ticket = descriptor, ticket
        self._out_of_turn = time.monotonic() + _OUT_OF_TURN_EVERY

    def may_try(self) -> bool:
        """Whether no waiter came earlier, or it is time to try all the same, in case those who did are stopped."""
        if self._descriptor is None or not _locked_before(self._descriptor, self._ticket):
            return True
        if time.monotonic() >= self._out_of_turn:
            self._out_of_turn = time.monotonic() + _OUT_OF_TURN_EVERY
            return True
        return False


@contextmanager
def place_in(path: Path) -> Iterator[Place]:
    """A place at the end of the queue at `path`, given up at the end of the block, with or without the lock."""
    if not _HAS_TICKETS:
        yield Place(None)
        return
    try:
        descriptor = open_lock(path)
    except OSError:  # a full disk, which must not prevent reading
        yield Place(None)
        return
    try:
        yield _take_ticket(descriptor)
    finally:
        os.close(descriptor)  # and with it the ticket


def _take_ticket(descriptor: int) -> Place:
    while True:
        # The wall clock, which several hosts share about as well as they share a disk.
        ticket = time.time_ns()
        try:
            fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, ticket, 1, 0))
        except BlockingIOError:
            continue  # another waiter took this very nanosecond
        except OSError:
            return Place(None)
        return Place(descriptor, ticket)


def _locked_before(descriptor: int, ticket: int) -> bool:
    wanted = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, ticket, 0)
    found = struct.unpack(_FLOCK, fcntl.fcntl(descriptor, fcntl.F_OFD_GETLK, wanted))
    return bool(found[0] != fcntl.F_UNLCK)
