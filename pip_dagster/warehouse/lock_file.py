"""Opening the file of a lock so that only those who may write beside it can hold it.

An flock and a shared record lock need no more than the right to read the file. A lock that everybody may read could
thus be held, and every run stopped, by anybody who may read the project.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path


def open_lock(path: Path) -> int:
    """The descriptor of a lock's file, which is created if it is absent; who may not write its folder may not read it.

    Raises:
        OSError: it cannot be created, or this user may not write it.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    with suppress(OSError):  # another user's file, or a file system without modes
        mode = mode_in(path.parent)
        if stat.S_IMODE(os.fstat(descriptor).st_mode) != mode:
            os.fchmod(descriptor, mode)
    return descriptor


def may_open(path: Path) -> bool:
    """Whether this user may open the lock's file, or create it."""
    if path.exists():
        return os.access(path, os.R_OK | os.W_OK)
    return os.access(path.parent, os.W_OK | os.X_OK)


def mode_in(folder: Path) -> int:
    """Read and write for the owner, and for the group and others where they may write the folder."""
    folders = folder.stat().st_mode
    return 0o600 | (0o060 if folders & stat.S_IWGRP else 0) | (0o006 if folders & stat.S_IWOTH else 0)


def pid_of(path: Path) -> int | None:
    """The process that holds an flock on the file, where the kernel lists it and it runs on this machine."""
    with suppress(OSError, ValueError):
        inode = path.stat().st_ino
        for line in Path("/proc/locks").read_text(encoding="ascii").splitlines():
            # 1: FLOCK  ADVISORY  WRITE 1234 08:02:5678 0 EOF
            fields = line.split()
            if fields[1] == "FLOCK" and fields[5].rpartition(":")[2] == str(inode):
                return int(fields[4])
    return None
