"""The places of anchors: how one is added, and how those that are there are read back."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from pip_dagster.alerts.deliver import UndeliveredError, post_to, run_command
from pip_dagster.declaration.anchors import AnchorPlace
from pip_dagster.evidence.statement import Statement
from pip_dagster.whole_file import is_unfinished

_TAGS = "pip-dagster/anchor"
# A tag needs somebody who made it; whoever runs the pipeline may have no git configuration.
_NOBODY = ("-c", "user.name=pip_dagster", "-c", "user.email=pip_dagster@localhost", "-c", "tag.gpgSign=false")


class PlaceError(Exception):
    """A place could not be written or read; the text holds no secret."""


def add(root: Path, place: AnchorPlace, statement: Statement, line: str, timeout: float) -> None:
    """Add an anchor to a place.

    Raises:
        PlaceError: why it could not be added.
    """
    try:
        if place.file:
            _append(root / place.file, line)
        elif place.git:
            name = f"{_TAGS}/{statement.ledger[:12]}/{statement.entry:09}"
            of = _git(root / place.git, "hash-object", "-w", "-t", "tree", os.devnull, timeout=timeout).strip()
            words = ("tag", "--annotate", "--force", "--message", line, name, of)  # of no commit: there may be none
            _git(root / place.git, *_NOBODY, *words, timeout=timeout)
        elif place.command:
            run_command(place.command, f"{line}\n".encode(), timeout)
        elif place.webhook:
            post_to(place.webhook, line.encode(), timeout)
    except (OSError, UndeliveredError) as error:
        raise PlaceError(getattr(error, "strerror", None) or str(error)) from None


def lines(root: Path, place: AnchorPlace, timeout: float) -> list[str]:
    """The anchors of a place, oldest first; none where it was never written.

    Raises:
        PlaceError: why it could not be read.
    """
    if place.file:
        try:
            return (root / place.file).read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            return []
        except (OSError, ValueError) as error:
            raise PlaceError(getattr(error, "strerror", None) or str(error)) from None
    text = _git(
        root / str(place.git), "for-each-ref", f"refs/tags/{_TAGS}/", "--format=%(contents:subject)", timeout=timeout
    )
    return text.splitlines()


def _append(file: Path, line: str) -> None:
    """Add a line in one write. What a loss of power left of another is ended first: it would join this one."""
    file.parent.mkdir(parents=True, exist_ok=True)
    ending = "\n" * is_unfinished(file)
    with file.open("ab") as out:
        out.write(f"{ending}{line}\n".encode())
        out.flush()
        os.fsync(out.fileno())


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
