"""Ctrl-C while a command works: a KeyboardInterrupt, but never within an import or a finalizer.

Libraries that are interrupted while they are imported raise other errors, or print a traceback from C; what a finalizer
raises is printed and lost.
"""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from pip_dagster.cli.cancelled import end_at_once

_IMPORTS = "<frozen importlib._bootstrap"
_LATER = 0.05  # seconds
_OURS = (signal.default_int_handler, end_at_once)
_ignoring = False  # by this module, and not by the shell that started the process
_raised = False


def watch() -> None:
    """Begin, unless somebody else handles or ignores the signal."""
    if signal.getsignal(signal.SIGINT) in _OURS:
        signal.signal(signal.SIGINT, _interrupt)
        sys.unraisablehook = _unraisable


@contextmanager
def nothing_begun() -> Iterator[None]:
    """The imports of a command: Ctrl-C ends the process at once."""
    before = signal.getsignal(signal.SIGINT)
    if before is not _interrupt:
        yield
        return
    signal.signal(signal.SIGINT, end_at_once)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def ignore() -> None:
    """While the last message is printed."""
    global _ignoring
    if signal.getsignal(signal.SIGINT) in (*_OURS, _interrupt):
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        _ignoring = True


def leave() -> None:
    """What is left is Python's end, in which an exception would be printed: the signal ends the process."""
    if signal.getsignal(signal.SIGINT) in (*_OURS, _interrupt) or _ignoring:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


def _interrupt(signum: int, frame: FrameType | None) -> None:
    global _raised
    while frame is not None:
        if frame.f_code.co_filename.startswith(_IMPORTS):
            _again()
            return
        frame = frame.f_back
    _raised = True
    raise KeyboardInterrupt


def _again() -> None:
    """Send the signal once more, when the import may be done."""
    main = threading.main_thread().ident
    assert main is not None
    timer = threading.Timer(_LATER, signal.pthread_kill, (main, signal.SIGINT))
    timer.daemon = True
    timer.start()


def _unraisable(of: Any) -> None:
    # A generator that is interrupted between its `yield` and the body of its `with` is closed late: after what it used.
    if isinstance(of.exc_value, KeyboardInterrupt):
        _again()
    elif not _raised:
        sys.__unraisablehook__(of)
