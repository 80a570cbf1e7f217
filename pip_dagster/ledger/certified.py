"""Certificates in the audit: an entry has the sha256 of each, so that one which was replaced is found."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Literal

from pip_dagster import clock
from pip_dagster.ledger import audit

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

ACTION: Literal["certified"] = "certified"


def record_certificate(con: DuckDBPyConnection, erasure_id: str, certificate: str, *, actor: str) -> None:
    """Add an entry, in the transaction that stores the certificate, which is the text of `ledger.erasures`."""
    subject, details = {"erasure_id": erasure_id}, {"sha256": _sha256(certificate)}
    audit.append(con, [audit.Event(ACTION, audit.micros(clock.now()), actor, None, subject, details)])


def certificate_digests(con: DuckDBPyConnection) -> dict[str, str]:
    """Erasure → the sha256 of its certificate as it is stored now."""
    select = (
        "SELECT erasure_id, arg_max(certificate, made_at) FROM ledger.erasures WHERE certificate IS NOT NULL GROUP BY 1"
    )
    return {erasure_id: _sha256(text) for erasure_id, text in con.execute(select).fetchall()}


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
