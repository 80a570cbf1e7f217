"""A command that goes on after its starter has ended, and what became of it.

Its folder says so: `INPUT` is its input, `started` exists once it runs, `exit` holds its exit code, `output` what
it wrote. It holds a lock on `lock`, which the kernel releases when it dies. So whoever finds the folder of a starter
that was killed knows whether the command was started.
"""

from __future__ import annotations

import fcntl
import os
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

INPUT = "alarms.json"
_SCRIPT = f"""
: > "$0/started"
"$@" < "$0/{INPUT}" > "$0/output" 2>&1
echo $? > "$0/exit.new"
mv "$0/exit.new" "$0/exit"
"""


@dataclass(frozen=True)
class CommandOutcome:
    """`absent`: it was never started. `killed`: it has ended without an exit code."""

    state: Literal["absent", "running", "ended", "killed"]
    exit_code: int | None = None


def start(folder: Path, command: Sequence[str], *, cwd: Path) -> None:
    """Start a command that reads the input in this folder.

    Raises:
        OSError: the folder is not there or cannot be written, or there is no shell.
    """
    descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        subprocess.Popen(
            ["sh", "-c", _SCRIPT, str(folder), *command],
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # it outlives its starter
            pass_fds=(descriptor,),
        )
    finally:
        os.close(descriptor)


def outcome(folder: Path) -> CommandOutcome:
    """What became of the command of this folder."""
    with suppress(OSError, ValueError):
        return CommandOutcome("ended", int((folder / "exit").read_text(encoding="ascii")))
    if _is_locked(folder / "lock"):
        return CommandOutcome("running")
    with suppress(OSError, ValueError):  # it may have ended meanwhile
        return CommandOutcome("ended", int((folder / "exit").read_text(encoding="ascii")))
    return CommandOutcome("killed" if (folder / "started").exists() else "absent")


def _is_locked(path: Path) -> bool:
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False
