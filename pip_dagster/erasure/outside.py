"""What is kept of an erasure or a hold beside the warehouse, so that a restored backup is recognized and corrected.

A person is known by keyed hashes of all that may stand for them in stored rows: pseudonyms are no way back to the list
of suppressed subjects, and without the secret nobody finds them. The same secret shows whether the file was altered.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeVar

from pip_dagster import clock
from pip_dagster.declaration.canonical import canonical
from pip_dagster.errors import ErasureError, StorageError
from pip_dagster.privacy.keys import keys_of
from pip_dagster.privacy.suppressed import stored_values, tokens
from pip_dagster.registry.files import sync_folder
from pip_dagster.warehouse.erased import certificate_file, hold_file, request_file
from pip_dagster.warehouse.faults import of_files
from pip_dagster.whole_file import replacing

if TYPE_CHECKING:
    from pathlib import Path

    from pip_dagster.declaration.pipeline import Pipeline
    from pip_dagster.declaration.project import Project
    from pip_dagster.privacy.pseudonym import PseudonymKey

FORMAT, HOLD_FORMAT = "pip_dagster erasure request 1", "pip_dagster legal hold 1"


@dataclass(frozen=True)
class KeptPipeline:
    """Of one pipeline: hashes of what may be stored, by the secret with this version and check value.

    `suppressed` are the hashes of the list of suppressed subjects, each with the version of its secret.
    """

    column: str
    key_version: str
    check: str
    stored: list[str]
    suppressed: list[list[str]]


@dataclass(frozen=True)
class KeptRequest:
    """An erasure as it was requested."""

    erasure_id: str
    why: str
    ground: str | None
    asked_by: str | None
    received_at: str | None
    pipelines: dict[str, KeptPipeline]

    @property
    def text(self) -> str:
        """What a secret signs."""
        return canonical({"format": FORMAT} | asdict(self))


@dataclass(frozen=True)
class KeptHold:
    """A legal hold that is on; `suppressed` of each pipeline are the hashes by which it knows the person."""

    hold_id: str
    why: str
    until: str | None
    made_by: str
    pipelines: dict[str, KeptPipeline]

    @property
    def text(self) -> str:
        """What a secret signs."""
        return canonical({"format": HOLD_FORMAT} | asdict(self))


def keep_hold(project: Project, pipelines: Sequence[Pipeline], kept: KeptHold) -> None:
    """Write the file of a hold.

    Raises:
        DeclarationError: a secret is missing.
        StorageError: it cannot be written.
    """
    _write(hold_file(project, kept.hold_id), _signed(pipelines, kept))


def kept_hold(project: Project, hold_id: str) -> tuple[KeptHold, Mapping[str, str]]:
    """A hold from its file, with what each pipeline's secret signed; see `key_of`.

    Raises:
        ErasureError: the file is not what was written.
    """
    return _kept(hold_file(project, hold_id), KeptHold, HOLD_FORMAT, f"the legal hold {hold_id}", hold_id=hold_id)


def keep_request(
    project: Project, pipelines: Sequence[Pipeline], erasure_id: str, subject: str, given: Mapping[str, Any]
) -> None:
    """Write the file of an erasure; `given`: why, ground, asked_by and received_at.

    Raises:
        DeclarationError: a secret is missing.
        StorageError: it cannot be written.
    """
    of = {}
    for pipeline in pipelines:
        key, privacy = keys_of(pipeline)[0], pipeline.spec.privacy
        assert privacy
        stored = sorted(key.suppressing.pseudonym(value) for value in {*stored_values(pipeline, subject)})
        suppressed = [[*pair] for pair in tokens(pipeline, subject)]
        of[pipeline.spec.name] = KeptPipeline(privacy.subject, key.version, key.check, stored, suppressed)
    kept = KeptRequest(erasure_id, pipelines=of, **given)
    _write(request_file(project, erasure_id), _signed(pipelines, kept))


def kept_request(project: Project, erasure_id: str) -> tuple[KeptRequest, Mapping[str, str]]:
    """An erasure from its file, with what each pipeline's secret signed; see `check_key`.

    Raises:
        ErasureError: the file is not what was written.
    """
    path, what = request_file(project, erasure_id), f"the request of the erasure {erasure_id}"
    return _kept(path, KeptRequest, FORMAT, what, erasure_id=erasure_id)


_Of = TypeVar("_Of", KeptRequest, KeptHold)


def _kept(path: Path, kind: type[_Of], form: str, what: str, **known_as: str) -> tuple[_Of, Mapping[str, str]]:
    """What a file of this format has, if it is of this id, and what was signed."""
    try:
        found: dict[str, Any] = json.loads(path.read_bytes())
        macs: dict[str, str] = found.pop("macs")
        of: dict[str, KeptPipeline] = {name: KeptPipeline(**each) for name, each in found.pop("pipelines").items()}
        if found.pop("format") != form or {*macs} != {*of} or any(found[name] != id_ for name, id_ in known_as.items()):
            raise ValueError
        return kind(pipelines=of, **found), macs
    except OSError as error:
        raise ErasureError(f"{path} cannot be read: {error.strerror}. {_RESTORE}") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ErasureError(f"{path} is not {what}: it was altered. {_RESTORE}") from None


_RESTORE = (
    "Restore the file from a backup; or move it away, and request the erasure again with `pip-dagster erase "
    "--subject`, or place the hold again with `pip-dagster hold place`."
)


def key_of(pipeline: Pipeline, kept: KeptRequest | KeptHold, macs: Mapping[str, str], path: Path) -> PseudonymKey:
    """The secret by which the person is known in the file.

    Raises:
        DeclarationError: a declared secret is missing.
        ErasureError: it is not declared or another one, or the file was altered.
    """
    name = pipeline.spec.name
    of = kept.pipelines[name]
    key = next((each for each in keys_of(pipeline) if each.version == of.key_version), None)
    if key is None or key.check != of.check:
        what = "is not declared" if key is None else "is of another value or domain"
        raise ErasureError(
            f"Pipeline {name}: the secret {of.key_version!r}, by which the person of {path} is known, {what}. "
            f"Restore it, or declare it under `privacy.pseudonymize.former`. If it is lost: {_RESTORE}"
        )
    if macs[name] != _mac(key, kept):
        raise ErasureError(f"{path} was altered: its secret {of.key_version!r} did not sign this. {_RESTORE}")
    return key


def keep_certificate(project: Project, certificate: Mapping[str, Any]) -> None:
    """Write the certificate beside the request; one that is there, of before a backup was restored, stays.

    Raises:
        StorageError: it cannot be written.
    """
    path, text = certificate_file(project, str(certificate["erasure_id"])), canonical(certificate) + "\n"
    if path.exists() and path.read_text("utf-8") != text:
        path = path.with_name(f"{certificate['erasure_id']}.again-{clock.now():%Y%m%dT%H%M%S%f}.json")
    if not path.exists():
        _write(path, text)


def instant(text: str | None) -> datetime | None:
    """The instant in ISO 8601 that a file has."""
    return datetime.fromisoformat(text) if text else None


def _signed(pipelines: Sequence[Pipeline], kept: KeptRequest | KeptHold) -> str:
    macs = {pipeline.spec.name: _mac(keys_of(pipeline)[0], kept) for pipeline in pipelines}
    return json.dumps(json.loads(kept.text) | {"macs": macs})


def _mac(key: PseudonymKey, kept: KeptRequest | KeptHold) -> str:
    return key.suppressing.pseudonym(f"request {kept.text}")


def _write(path: Path, text: str) -> None:
    """For its owner alone, and on the disk when this returns."""
    with of_files(f"The folder of erasures {path.parent}", StorageError):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with (
            replacing(path) as temporary,
            os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file,
        ):
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        sync_folder(path.parent)
