"""Files that their readers see whole: the former one or the new one, never a part. And files of whole lines."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A file beside `path` that takes its name if the block ends well, and is removed if not.

    Not synchronized to disk: a block for which a loss of power matters does so. A device or pipe is written itself: to
    replace `/dev/null` by a file would break the machine.
    """
    is_stream = path.is_symlink() and path.is_relative_to("/dev")  # /dev/stdout, whatever it is
    if is_stream or (path.exists() and not (path.is_file() or path.is_dir())):
        yield path
        return
    temporary = path.with_name(f".{path.name[:100]}.{secrets.token_hex(6)}.tmp")  # a name has 255 bytes at most
    try:
        yield temporary
        temporary.replace(path)
    finally:
        with suppress(OSError, ValueError):
            temporary.unlink(missing_ok=True)


def is_unfinished(path: Path) -> bool:
    """Whether a kill or a full disk left a part of a line at the end of a file, which the next one would join."""
    if not path.is_file() or not path.stat().st_size:
        return False
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) != b"\n"
