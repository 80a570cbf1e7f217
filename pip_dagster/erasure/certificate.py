"""The certificate of an erasure or a purge: what was removed where, how that was verified, and what remains.

It names people by the tokens of the list of suppressed subjects, and contents by digests with a nonce only: by plain
ones of today, whoever has the certificate could look for what a later erasure removes.
"""

from __future__ import annotations

import calendar
import json
import platform
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from pip_dagster import __version__, clock
from pip_dagster.declaration.canonical import canonical
from pip_dagster.errors import ErasureError, NotFoundError
from pip_dagster.evidence.signed import check_signature, signature
from pip_dagster.ledger.certified import record_certificate
from pip_dagster.ledger.record import dicts
from pip_dagster.registry.signing import key_id, private_key
from pip_dagster.registry.store import whoami
from pip_dagster.warehouse.access import reading, writing
from pip_dagster.warehouse.connect import workspace
from pip_dagster.warehouse.transaction import transaction

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
    from duckdb import DuckDBPyConnection

    from pip_dagster.declaration.project import Project

FORMAT = "pip_dagster erasure certificate 1"
_CERTIFIED = ("erase", "purge")
_OF_ID = "WHERE erasure_id = $id"
_STEPS = f"""
  SELECT pipeline, place, method, rows_before, rows_removed, rows_after, verified, remains, remains_until, made_at
  FROM ledger.erasure_steps {_OF_ID}
  QUALIFY row_number() OVER (PARTITION BY pipeline, place ORDER BY made_at DESC) = 1 ORDER BY made_at, place, pipeline
"""
_PARTITIONS = f"""
  SELECT pipeline, partition_key, scoring_id, feature_revision, max(rows_removed) AS rows_removed
  FROM ledger.erased_partitions {_OF_ID} GROUP BY ALL ORDER BY ALL
"""
_HELD = f"""
  SELECT r.pipeline, r.hold_id, max(h.held_until) AS held_until, count(*) AS rows
  FROM (FROM ledger.held_rows {_OF_ID}) r
  LEFT JOIN ledger.erasures h ON h.erasure_id = r.hold_id AND h.state = 'held' GROUP BY 1, 2 ORDER BY ALL
"""
_REWRITTEN = """
  SELECT seq, hash, made_at, actor, subject->>'rewrite_id' AS rewrite_id, details->>'sha256' AS sha256
  FROM ledger.audit WHERE action = 'rewritten'
    AND starts_with((subject->>'rewrite_id') || '/', $id || '/') ORDER BY seq
"""
_DIGESTS = """
  SELECT rewrite_id, scoring_id, entry_digest FROM ledger.rewrites
  WHERE rewrite_id = $id OR starts_with(rewrite_id, $id || '/') ORDER BY ALL
"""


def certify(project: Project, erasure_id: str, places: Sequence[str] = ()) -> dict[str, Any]:
    """Record that an erasure is done, with its certificate; the certificate that it has already, if it has one.

    It is signed with the key of the anchors, and says so where it is not. Anchor the audit afterwards, accepting what
    was rewritten.

    Args:
        project: whose warehouse has the erasure.
        erasure_id: of `ledger.erasures`.
        places: the names of all that must have been emptied.

    Raises:
        ErasureError: a place is missing.
        NotFoundError: there is no such erasure.
        WarehouseError: the warehouse cannot be written.
    """
    key, unsigned = _key(project)
    with (
        workspace(threads=1) as con,
        writing(con, project, purpose=f"the certificate of {erasure_id}", publish=False),
        transaction(con),
    ):
        if made := _stored(con, erasure_id):
            return made
        content = _content(con, erasure_id, places)
        content |= {"key": key_id(key.public_key()) if key else None, "unsigned": unsigned}
        made = content | {"signature": signature(content, key) if key else None}
        text = canonical(made)
        con.execute(
            "INSERT INTO ledger.erasures BY NAME SELECT * REPLACE ('done' AS state, $certificate AS certificate, "
            "$by AS made_by, greatest($at, made_at + INTERVAL 1 MICROSECOND) AS made_at) "
            f"FROM ledger.erasures {_OF_ID} ORDER BY made_at DESC LIMIT 1",
            {"id": erasure_id, "certificate": text, "by": whoami(), "at": clock.now()},
        )
        record_certificate(con, erasure_id, text, actor=whoami())
    return made


def certificate_of(project: Project, erasure_id: str) -> dict[str, Any]:
    """The stored certificate.

    Raises:
        ErasureError: the erasure is not done.
        NotFoundError: there is no such erasure.
        WarehouseError: the warehouse cannot be read.
    """
    with workspace(threads=1) as con, reading(con, project, purpose=f"the certificate of {erasure_id}"):
        if made := _stored(con, erasure_id):
            return made
        _content(con, erasure_id, ())  # says what is missing
    raise ErasureError(f"Erasure {erasure_id} has no certificate yet: resume it, and it gets one at its end.")


def verify_certificate(text: str, signers: Mapping[str, Ed25519PublicKey]) -> dict[str, Any]:
    """The content of a certificate that one of `signers`, public keys by id, signed. Needs no warehouse.

    Raises:
        ValueError: it is none, is not signed, or was edited.
    """
    try:
        found = json.loads(text, object_pairs_hook=_no_twice)
        signed, kind, key = found.pop("signature"), found["format"], found["key"]
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ValueError("it is no certificate in JSON") from None
    if kind != FORMAT:
        raise ValueError(f"its format is {kind!r}, which this version does not know")
    if not signed:
        raise ValueError(f"it is not signed: {found.get('unsigned')}")
    check_signature(found, signed, key, signers, trusted="the given signer")
    return dict(found)


def to_html(certificate: Mapping[str, Any]) -> str:
    """The certificate as a page."""
    from pip_dagster.reporting.page import environment

    return environment().get_template("certificate.html").render(c=certificate)


def _no_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object whose names are given once: of two, people may read the other one."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError
    return found


def _stored(con: DuckDBPyConnection, erasure_id: str) -> dict[str, Any] | None:
    select = f"SELECT certificate FROM ledger.erasures {_OF_ID} AND certificate IS NOT NULL ORDER BY made_at DESC"
    row = con.execute(select, {"id": erasure_id}).fetchone()
    return json.loads(row[0]) if row else None


def _key(project: Project) -> tuple[Ed25519PrivateKey | None, str | None]:
    """The key that signs, or why there is none."""
    if project.anchors is None:
        return None, "the project declares no key: [tool.pip_dagster.anchors] has one"
    file = project.root / project.anchors.key
    return (private_key(file), None) if file.exists() else (None, f"the key {project.anchors.key} is not there")


def _content(con: DuckDBPyConnection, erasure_id: str, places: Sequence[str]) -> dict[str, Any]:
    """What the rows of an erasure say; those of one that is not done are refused."""
    given = {"id": erasure_id}
    rows = dicts(con.execute(f"SELECT * FROM ledger.erasures {_OF_ID} ORDER BY made_at", given))
    if not rows:
        known = [
            name for (name,) in con.execute("SELECT DISTINCT erasure_id FROM ledger.erasures ORDER BY 1").fetchall()
        ]
        names = ", ".join(known[-5:]) or "none"
        raise NotFoundError(f"There is no erasure {erasure_id!r}; the last are {names}.", name=erasure_id, known=known)
    newest, steps = rows[-1], dicts(con.execute(_STEPS, given))
    if newest["kind"] not in _CERTIFIED:
        raise ErasureError(f"{erasure_id} is a {newest['kind']}: nothing was removed that a certificate could state.")
    _check_done(newest, steps, places)
    completed = next((row["made_at"] for row in rows if row["state"] == "done"), None) or clock.now()
    return {
        "format": FORMAT,
        "erasure_id": erasure_id,
        "kind": newest["kind"],
        "pipelines": newest["pipelines"],
        "why": newest["why"],
        "ground": newest["ground"],
        "asked_by": newest["asked_by"],
        "run_by": sorted({row["made_by"] for row in rows if row["made_by"]} | {whoami()}),
        "content_before": _text(newest["content_before"]),
        "received_at": _text(newest["received_at"]),
        "completed_at": _text(completed),
        **_deadline(newest, completed),
        "subjects": _rows(
            con,
            f"SELECT DISTINCT pipeline, subject AS token, key_version FROM ledger.suppressions {_OF_ID} ORDER BY ALL",
            given,
        ),
        "places": [{name: _text(value) for name, value in step.items()} for step in steps],
        "partitions": _rows(con, _PARTITIONS, given),
        "restricted": _rows(con, _HELD, given),
        "audit": _rows(con, _REWRITTEN, given),
        "digests_after": _rows(con, _DIGESTS, given),
        "software": _software(),
        "certified_at": _text(clock.now()),
    }


def _check_done(newest: Mapping[str, Any], steps: Sequence[Mapping[str, Any]], places: Sequence[str]) -> None:
    """Refuse an erasure of which a place is missing, or of which the engine does not say that all are there."""
    verified = {step["place"] for step in steps if step["verified"]}
    lacking = {
        f"{step['place']} of {step['pipeline']}" if step["pipeline"] else step["place"]
        for step in steps
        if not step["verified"]
    }
    missing = sorted(lacking | {*places} - {step["place"] for step in steps})
    state = newest["state"]
    if missing or not verified or (state != "done" and not places):
        done = f"verified: {', '.join(sorted(verified)) or 'no place'}"
        what = f"missing: {', '.join(missing)}" if missing else "the others are missing"
        raise ErasureError(
            f"Erasure {newest['erasure_id']} is {state}, and cannot be certified; {done}; {what}. Resume the erasure."
        )


def _deadline(newest: Mapping[str, Any], completed: datetime) -> dict[str, Any]:
    """Whether a person's request was answered within a month, whose last day counts whole; purges have none."""
    if newest["kind"] != "erase" or newest["received_at"] is None:
        return {"due": None, "in_time": None}
    received = newest["received_at"].astimezone(UTC)
    year, month = received.year + received.month // 12, received.month % 12 + 1
    day = min(received.day, calendar.monthrange(year, month)[1])
    due = datetime(year, month, day, tzinfo=UTC)
    return {"due": due.date().isoformat(), "in_time": completed < due + timedelta(days=1)}


def _rows(con: DuckDBPyConnection, select: str, given: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [{name: _text(value) for name, value in row.items()} for row in dicts(con.execute(select, given))]


def _text(value: Any) -> Any:
    """An instant in ISO 8601 and UTC; other values as they are."""
    return value.astimezone(UTC).isoformat() if isinstance(value, datetime) else value


def _software() -> dict[str, str]:
    found = {"pip_dagster": __version__, "python": platform.python_version()}
    for name in ("duckdb", "dagster"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
