"""Signed statements about what no evidence can prove: entries of the audit, verified whenever they count."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pip_dagster import clock
from pip_dagster.errors import PipelineError
from pip_dagster.evidence.signed import check_signature, signature, trusted_keys
from pip_dagster.ledger import audit
from pip_dagster.registry.signing import key_id, private_key
from pip_dagster.registry.store import whoami
from pip_dagster.scorecard.catalogue import STATEMENT_DAYS, ScoreTest
from pip_dagster.scorecard.records import Records, Row
from pip_dagster.warehouse.access import writing
from pip_dagster.warehouse.connect import workspace
from pip_dagster.warehouse.transaction import transaction

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    from pip_dagster.declaration.pipeline import Pipeline

ACTION: Literal["statement"] = "statement"
FORMAT = "pip_dagster statement 1"


class StatementError(PipelineError, ValueError):
    """A statement that cannot be recorded."""


@dataclass(frozen=True)
class SignedStatement:
    """What is signed.

    Attributes:
        ledger: The hash of the audit's first entry, so that it counts in this ledger only.
        pipeline: Of which pipeline.
        test: Of which test.
        why: What is stated.
        by: Who states it.
        made_at: When, in ISO 8601.
        until: Until when it holds.
        manifest: The sha256 of the manifest of the version that it is about; empty for one that is about no version.
        key: The id of the key that signs.
    """

    ledger: str
    pipeline: str
    test: str
    why: str
    by: str
    made_at: str
    until: str
    manifest: str
    key: str

    @property
    def content(self) -> dict[str, str]:
        """What the signature covers."""
        return {"format": FORMAT, **asdict(self)}


@dataclass(frozen=True)
class Stated:
    """A statement in the audit: entry `seq`, or why it does not count."""

    seq: int
    test: str
    statement: SignedStatement | None
    fault: str = ""


def trusted(pipeline: Pipeline) -> dict[str, Ed25519PublicKey]:
    """The keys whose statements count: the signers of anchors, and those that the pipeline requires of versions.

    Raises:
        InvalidKey: one of them is not a key.
        ProjectError: the declaration of the anchors is wrong.
    """
    project = pipeline.project
    signers = (*(project.anchors.signers if project.anchors else ()), *pipeline.spec.scoring.required_signers)
    return trusted_keys(project.root, signers)


def state(
    records: Records, test: ScoreTest, why: str, until: datetime | None, key_file: Path | None
) -> tuple[SignedStatement, str]:
    """A statement with its signature, ready to be recorded.

    Raises:
        InvalidKey: the key cannot be read.
        StatementError: names what is missing, or why it would not count.
    """
    pipeline, now = records.pipeline, records.now
    anchors = pipeline.project.anchors
    if key_file is None and anchors is None:
        raise StatementError(
            f"A statement is signed: name a private key with --key FILE. `pip-dagster models keygen PATH` creates one; "
            f"its public key belongs into `scoring.required_signers` of {records.name}, or into `signers` of "
            "[tool.pip_dagster.anchors]."
        )
    key = private_key(key_file or pipeline.project.root / (anchors.key if anchors else ""))
    identity = key_id(key.public_key())
    if identity not in trusted(pipeline):
        raise StatementError(
            f"The key {identity} is not trusted, so that the statement would count nothing. Add its public key to "
            f"`scoring.required_signers` of {records.name}, or to `signers` of [tool.pip_dagster.anchors]."
        )
    longest = now + timedelta(days=STATEMENT_DAYS)
    until = until or longest
    if not now < until <= longest:
        raise StatementError(
            f"--until is {until:%Y-%m-%d}; expected a date after today and at most {longest:%Y-%m-%d}: a statement "
            f"holds for {STATEMENT_DAYS} days at most."
        )
    if test.of_version and records.version is None:
        raise StatementError(
            f"A statement of {test.name} is about a version, and none can be read: {records.why_no_version}."
        )
    manifest = records.version.manifest_digest if test.of_version and records.version else ""
    times = now.isoformat(), until.isoformat()
    made = SignedStatement(records.ledger, records.name, test.name, why, whoami(), *times, manifest, identity)
    return made, signature(made.content, key)


def record(pipeline: Pipeline, test: ScoreTest, why: str, until: datetime | None, key_file: Path | None) -> int:
    """Sign a statement and add it to the audit; the number of its entry.

    Raises:
        InvalidKey: the key cannot be read.
        StatementError: as `state`.
        WarehouseError: the warehouse cannot be written.
    """
    purpose = f"{pipeline.spec.name}: recording a statement"
    with workspace(threads=1) as con, writing(con, pipeline.project, purpose=purpose), transaction(con):
        now = clock.now()
        made, signed = state(Records(con, pipeline, now), test, why, until, key_file)
        details = made.content | {"signature": signed}
        event = audit.Event(ACTION, audit.micros(now), made.by, made.pipeline, {ACTION: test.name}, details)
        audit.append(con, [event])
        found = con.execute("SELECT max(seq) FROM ledger.audit").fetchone()
    return found[0] if found else 0


def stated(records: Records) -> Iterator[Stated]:
    """The statements of the audit, newest first, each verified."""
    rows = [row for row in records.entries if row["action"] == ACTION]
    if not rows:
        return
    try:
        keys, why = trusted(records.pipeline), ""
    except PipelineError as error:
        keys, why = {}, str(error)
    for row in rows:
        yield _verified(records, row, keys, why)


def _verified(records: Records, row: Row, keys: dict[str, Ed25519PublicKey], why: str) -> Stated:
    seq, name, details = row["seq"], str(row["subject"].get(ACTION, "")), dict(row["details"])
    signed = details.pop("signature", None)
    wanted = {"format", *(field.name for field in fields(SignedStatement))}
    if details.keys() != wanted or not all(isinstance(each, str) for each in details.values()):
        return Stated(seq, name, None, "it is no statement that this version knows")
    try:
        check_signature(details, signed, details["key"], keys, trusted="trusted")
        if details.pop("format") != FORMAT:
            return Stated(seq, name, None, "its format is one that this version does not know")
        statement = SignedStatement(**details)
        until = datetime.fromisoformat(statement.until)
        longest = datetime.fromisoformat(statement.made_at) + timedelta(days=STATEMENT_DAYS)
        expired = min(until, longest) <= records.now
    except (ValueError, TypeError) as error:
        return Stated(seq, name, None, f"{error}{f' ({why})' if why else ''}")
    if (statement.ledger, statement.pipeline, statement.test) != (records.ledger, records.name, name):
        return Stated(seq, name, None, "it is of another ledger, pipeline or test")
    if expired:
        return Stated(seq, name, statement, f"it expired at {statement.until[:10]}")
    if statement.manifest and (records.version is None or records.version.manifest_digest != statement.manifest):
        return Stated(seq, name, statement, "it is about a version that is not live")
    return Stated(seq, name, statement)
