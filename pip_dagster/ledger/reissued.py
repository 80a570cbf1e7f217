"""Golden rows that erasures removed, in the audit: an entry `reissued` for each version that lost some."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal

from pip_dagster.errors import RegistryError
from pip_dagster.ledger import audit
from pip_dagster.ledger.fault import Fault
from pip_dagster.registry.reissue import Reissue
from pip_dagster.registry.store import Registry

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

ACTION: Literal["reissued"] = "reissued"
Known = dict[tuple[str, int], list[Reissue]]


def event(model: str, number: int, made: Reissue) -> audit.Event:
    """The entry of one version."""
    details: dict[str, Any] = made.model_dump(mode="json", exclude={"at", "by"})
    return audit.Event(ACTION, audit.micros(made.at), made.by, None, {"model": model, "version": number}, details)


def recorded(con: DuckDBPyConnection) -> Known:
    """What the audit has of each version, oldest first. The warehouse is the current catalog."""
    rows = con.execute(
        f"SELECT subject, details, actor, epoch_us(made_at) FROM ledger.audit WHERE action = '{ACTION}' ORDER BY seq"
    ).fetchall()
    found: Known = {}
    for subject, details, by, at in rows:
        of = json.loads(subject)
        made = Reissue(**json.loads(details), by=by, at=audit.instant(at))
        found.setdefault((of["model"], int(of["version"])), []).append(made)
    return found


def unrecorded(con: DuckDBPyConnection, registry: Registry) -> list[audit.Event]:
    """The entries that the audit lacks: an erasure was killed before them, or another ledger's removed the rows.

    Raises:
        RegistryError: the list of a version cannot be read.
    """
    known = recorded(con)
    return [
        event(model, number, made)
        for model, number, listed in _listed(registry)
        for made in listed
        if made not in known.get((model, number), [])
    ]


def reissue_faults(con: DuckDBPyConnection, registry: Registry) -> Iterator[Fault]:
    """Golden rows that are not those which the recorded erasures left."""
    known = recorded(con)
    for model in registry.models():
        for number in registry.numbers(model):
            name, entries = f"{model} v{number}", known.get((model, number), [])
            try:
                files = registry.get(model, number).golden_files
                listed, former = files.reissues, files.former()
            except RegistryError as error:
                if entries:
                    yield Fault(None, "registry", str(error))
                continue
            ids = [made.erasure_id for made in listed]
            strange = [made.erasure_id for made in listed if made not in entries]
            if strange:
                yield Fault(
                    None,
                    "registry",
                    f"{name}: golden rows were removed by the erasure {strange[0]}, which the audit does not have: it "
                    "was interrupted (repeat it), or somebody altered them, or another project that shares the "
                    "registry erased them (`pip-dagster audit accept --versions` accepts them)",
                )
            elif entries and (not listed or listed[-1] != entries[-1]):
                yield Fault(
                    None,
                    "registry",
                    f"{name}: its golden rows are those of before the erasure {entries[-1].erasure_id}: they came back "
                    f"from a backup. Repeat that erasure",
                )
            elif former and listed:
                yield Fault(
                    None,
                    "registry",
                    f"{name}: {former[0].name} has golden rows that the erasure {ids[-1]} removed: it was interrupted, "
                    "or they came back from a backup. Repeat that erasure",
                )


def _listed(registry: Registry) -> Iterator[tuple[str, int, tuple[Reissue, ...]]]:
    for model in registry.models():
        for number in registry.numbers(model):
            yield model, number, registry.get(model, number).golden_files.reissues
