"""A subject report as one page or as JSON, written row by row."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pip_dagster import __version__, clock
from pip_dagster.ledger import audit
from pip_dagster.reporting.files import write_parts
from pip_dagster.reporting.page import environment
from pip_dagster.reporting.subject import SCHEMA, SubjectRows


@dataclass(frozen=True)
class Head:
    """What a report begins with.

    `token` names the person in the audit: a hash over the identifier and `nonce`, which only this file has. Whoever
    holds the file can prove whom it is about; the audit alone tells nobody.
    """

    subject: str
    asked_by: str
    written_at: str
    nonce: str
    token: str

    @classmethod
    def of(cls, subject: str, asked_by: str) -> Head:
        """The head of a report that is written now."""
        nonce = audit.new_nonce()
        token = hashlib.sha256(f"{nonce}|{subject}".encode()).hexdigest()[:32]
        return cls(subject, asked_by, clock.now().isoformat(), nonce, token)


def html_parts(head: Head, found: Sequence[SubjectRows]) -> Iterator[str]:
    """The page, piece by piece."""
    template = environment().get_template("subject.html")
    return template.generate(head=head, found=found, software=__version__)


def json_parts(head: Head, found: Sequence[SubjectRows]) -> Iterator[str]:
    """The same for machines; `schema` names the format."""
    opening = {
        "schema": SCHEMA,
        "subject": head.subject,
        "asked_by": head.asked_by,
        "written_at": head.written_at,
        "nonce": head.nonce,
        "token": head.token,
        "software": __version__,
    }
    yield _json(opening)[:-1] + ', "pipelines": ['
    for i, each in enumerate(found):
        of = {"pipeline": each.name, "column": each.column, "notes": each.notes, "erasures": each.erasures}
        of["restricted"] = each.held
        yield (", " if i else "") + _json(of | {"models": each.models()})[:-1] + ', "predictions": ['
        yield from _joined(each.predictions())
        yield '], "quarantined": ['
        yield from _joined(each.quarantine())
        yield "]}"
    yield "]}\n"


def write_private(path: Path, parts: Iterable[str]) -> tuple[Path, str, int]:
    """Replace a file that is about a person, which its owner alone may read; its path, sha256 and size.

    Raises:
        StorageError: the file cannot be written.
    """
    return write_parts(path, (part.encode("utf-8", "backslashreplace") for part in parts), mode=0o600)


def event(head: Head, found: Sequence[SubjectRows], sha256: str, why: str) -> audit.Event:
    """The audit's entry: who wrote a report about whom, by token, and when."""
    details = {"about": "subject", "token": head.token, "pipelines": [each.name for each in found], "why": why}
    return audit.Event("report", audit.micros(clock.now()), head.asked_by, None, {"report": sha256}, details)


def _joined(rows: Iterable[dict[str, Any]]) -> Iterator[str]:
    for i, row in enumerate(rows):
        yield (", " if i else "") + _json(row)


def _json(value: Any) -> str:
    return json.dumps(_plain(value), ensure_ascii=False, allow_nan=False, default=str)


def _plain(value: Any) -> Any:
    """What JSON holds: instants in ISO 8601, NaN and infinities as null."""
    if isinstance(value, dict):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, float) and value - value != 0:
        return None
    return value.isoformat() if hasattr(value, "isoformat") else value
