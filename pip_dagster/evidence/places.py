"""The places of anchors: how one is added, and how those that are there are read back."""

from __future__ import annotations

import fcntl
import os
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from pip_dagster.alerts.deliver import UndeliveredError, post_to, run_command
from pip_dagster.declaration.anchors import AnchorPlace
from pip_dagster.evidence.statement import Statement, digest
from pip_dagster.whole_file import is_unfinished

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

_TAGS = "pip-dagster/anchor"
# A tag needs somebody who made it; whoever runs the pipeline may have no git configuration.
_NOBODY = ("-c", "user.name=pip_dagster", "-c", "user.email=pip_dagster@localhost", "-c", "tag.gpgSign=false")


class PlaceError(Exception):
    """A place could not be written or read; the text holds no secret."""


def add(root: Path, place: AnchorPlace, statement: Statement, key: Ed25519PrivateKey, timeout: float) -> None:
    """Sign a statement behind the newest line of a place, and add it there.

    Raises:
        PlaceError: why it could not be added.
    """
    try:
        if place.file:
            _append(root / place.file, statement, key)
        elif place.git:
            _tag(root / place.git, statement, key, timeout)
        elif place.command:
            run_command(place.command, f"{statement.line(key)}\n".encode(), timeout)
        elif place.webhook:
            post_to(place.webhook, statement.line(key).encode(), timeout)
    except (OSError, UndeliveredError) as error:
        raise PlaceError(getattr(error, "strerror", None) or str(error)) from None


def lines(root: Path, place: AnchorPlace, timeout: float) -> list[tuple[str, str]]:
    """The anchors of a place, oldest first, each with its tag's name in a git repository; none where there are none.

    Raises:
        PlaceError: why it could not be read.
    """
    if place.file:
        try:
            return [("", line) for line in (root / place.file).read_text(encoding="utf-8").splitlines() if line]
        except FileNotFoundError:
            return []
        except (OSError, ValueError) as error:
            raise PlaceError(getattr(error, "strerror", None) or str(error)) from None
    return _tags(root / str(place.git), "", timeout)


def tag_of(statement: Statement) -> str:
    """The name of the tag that has this anchor."""
    return f"{_TAGS}/{statement.ledger[:12]}/{statement.entry:09}"


def _append(file: Path, statement: Statement, key: Ed25519PrivateKey) -> None:
    """Add a line in one write. What a loss of power left of another is ended first: it would join this one.

    Several machines may add to the same file: each waits for the lock, and signs behind the line before it.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("ab+") as out:
        fcntl.flock(out, fcntl.LOCK_EX)
        last = _last_line(out)
        if statement.is_in(last):
            return
        line = replace(statement, previous=digest(last) if last else "").line(key)
        ending = "\n" * is_unfinished(file)
        out.write(f"{ending}{line}\n".encode())
        out.flush()
        os.fsync(out.fileno())


def _last_line(file: BinaryIO) -> str:
    """The last line of a file, however long the file has become."""
    end, read = file.seek(0, os.SEEK_END), 4096
    while True:
        file.seek(max(0, end - read))
        found = file.read().rstrip(b"\n").split(b"\n")
        if len(found) > 1 or read >= end:
            return found[-1].decode(errors="replace")
        read *= 4


def _tag(repository: Path, statement: Statement, key: Ed25519PrivateKey, timeout: float) -> None:
    """Add a tag, unless there is one of this entry or of a later one, which is never replaced but to accept more."""
    name = tag_of(statement)
    there = _tags(repository, statement.ledger[:12], timeout)
    if not statement.accepts and any(tag >= name for tag, _ in there):
        return
    before = [line for tag, line in there if tag < name]
    line = replace(statement, previous=digest(before[-1]) if before else "").line(key)
    of = _git(repository, "hash-object", "-w", "-t", "tree", os.devnull, timeout=timeout).strip()
    words = ("tag", "--annotate", "--force", "--message", line, name, of)  # of no commit: there may be none
    _git(repository, *_NOBODY, *words, timeout=timeout)


def _tags(repository: Path, ledger: str, timeout: float) -> list[tuple[str, str]]:
    """The tags of a ledger, or of all, in the order of their entries; each name with its anchor."""
    form = "--format=%(refname:lstrip=2)%09%(contents:subject)"
    text = _git(repository, "for-each-ref", f"refs/tags/{_TAGS}/{ledger}", form, timeout=timeout)
    return [(name, line) for name, _, line in (each.partition("\t") for each in text.splitlines())]


def _git(repository: Path, *words: str, timeout: float) -> str:
    try:
        done = subprocess.run(
            ("git", "-C", str(repository), *words), capture_output=True, text=True, timeout=timeout, check=False
        )
    except subprocess.TimeoutExpired:
        raise PlaceError(f"git did not answer within {timeout:g} s") from None
    except OSError as error:
        raise PlaceError(f"git cannot be started: {error.strerror}") from None
    if done.returncode:
        raise PlaceError(f"git says: {(done.stderr.strip() or 'nothing').splitlines()[-1]}")
    return done.stdout
