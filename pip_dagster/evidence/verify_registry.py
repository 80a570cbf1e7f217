"""Compares the registry with what the audit covered of it: every version since the first time, and the aliases."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from pip_dagster.errors import RegistryError
from pip_dagster.evidence.anchor import registry_state
from pip_dagster.ledger.covered import ACTION
from pip_dagster.ledger.fault import Fault
from pip_dagster.registry.store import Registry
from pip_dagster.sql.names import literal

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

State = Mapping[str, Any]
_NONE: State = {"versions": {}, "aliases": {}}


def registry_faults(con: DuckDBPyConnection, registry: Registry) -> Iterator[Fault]:
    """What of the registry is not as an entry covers it, and no later entry explains.

    A version must be as the first entry that knows it, since an anchor after a replacement does not make it right.
    """
    rows = con.execute(
        f"SELECT seq, details->>'models' FROM ledger.audit WHERE action = {literal(ACTION)} "
        "AND (details->>'models') IS NOT NULL ORDER BY seq"
    ).fetchall()
    first: dict[tuple[str, str], tuple[int, str]] = {}
    for seq, text in rows:
        for model, then in json.loads(text).items():
            for number, manifest in then["versions"].items():
                first.setdefault((model, number), (seq, manifest))
    now, accepted = registry_state(registry), _accepted(con)
    for (model, number), (seq, manifest) in first.items():
        found = now.get(model, _NONE)["versions"].get(number)
        if found not in (manifest, accepted.get((model, number), manifest)):
            what = "is gone since" if found is None else f"was replaced since: it has the manifest {found}"
            yield Fault(seq, "registry", f"{model} v{number} {what}; its manifest was {manifest}")
        elif found and (text := _damaged(registry, model, int(number))):
            yield Fault(seq, "registry", text)
    for seq, text in rows[-1:]:
        for model, then in json.loads(text).items():
            yield from _of_aliases(con, seq, model, then["aliases"], now.get(model, _NONE)["aliases"])


def _accepted(con: DuckDBPyConnection) -> dict[tuple[str, str], str]:
    """The manifests of the versions that people accepted after they were replaced."""
    accepted = con.execute(
        "SELECT subject->>'model', subject->>'version', details->>'manifest_digest' FROM ledger.audit "
        "WHERE action = 'accepted' AND (subject->>'model') IS NOT NULL ORDER BY seq"
    ).fetchall()
    return {(model, number): manifest for model, number, manifest in accepted}


def _of_aliases(
    con: DuckDBPyConnection, seq: int, model: str, then: Mapping[str, int], now: Mapping[str, int]
) -> Iterator[Fault]:
    for alias, version in then.items():
        at = now.get(alias)
        if at != version and not _moved(con, seq, model, alias, at):
            shown = "names nothing" if at is None else f"names v{at}"
            what = f"{shown}; it named v{version}, and no later entry records a move"
            yield Fault(seq, "registry", f"the alias {alias!r} of {model} {what}")


def _moved(con: DuckDBPyConnection, seq: int, model: str, alias: str, version: int | None) -> bool:
    """Whether a later entry moved the alias to this version."""
    of_alias = f"(subject->>'model') = {literal(model)} AND (subject->>'alias') = {literal(alias)}"
    row = con.execute(
        "SELECT (details->>'to')::INT FROM ledger.audit "
        f"WHERE action = 'promotion' AND seq > {seq} AND {of_alias} ORDER BY seq DESC LIMIT 1"
    ).fetchone()
    return row is not None and row[0] == version


def _damaged(registry: Registry, model: str, number: int) -> str | None:
    """What is wrong with the files of a version whose manifest is as it was."""
    try:
        registry.get(model, number).verify()
    except RegistryError as error:
        return str(error)
    return None
