"""Compares the registry with what the ledger and the audit know of it: every version, and every alias's history."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from pip_dagster.errors import RegistryError
from pip_dagster.ledger import versions
from pip_dagster.ledger.fault import Fault
from pip_dagster.registry.errors import ModelNotFound

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from pip_dagster.registry.aliases import AliasChange
    from pip_dagster.registry.store import Registry
    from pip_dagster.registry.version import ModelVersion


def registry_faults(con: DuckDBPyConnection, registry: Registry) -> Iterator[Fault]:
    """What of the registry is not as it was recorded. The warehouse is the current catalog."""
    for known in versions.recorded(con):
        name = f"{known.model_name} v{known.model_version}"
        try:
            version = registry.get(known.model_name, known.model_version)
            version.verify()
        except ModelNotFound:
            yield Fault(None, "registry", f"{name} is gone from the registry; it was recorded {known.place}")
            continue
        except RegistryError as error:
            yield Fault(None, "registry", str(error))
            continue
        if text := known.differs(version):
            yield Fault(None, "registry", text)
        yield from _members(registry, version)
    for model, number, digests in versions.several(con):
        yield Fault(
            None,
            "registry",
            f"{model} v{number} scored as {len(digests)} different versions, with the manifests {', '.join(digests)}: "
            "it was replaced in the registry in between",
        )


def _members(registry: Registry, version: ModelVersion) -> Iterator[Fault]:
    """The members of a composite, which has copies of their models: a difference shows that they were replaced."""
    composite = version.manifest.composite
    for member in composite.members if composite else ():
        try:
            now = registry.get(member.model_name, member.version).manifest_digest
        except RegistryError as error:
            yield Fault(None, "registry", f"{version}: its member {member} cannot be read: {error}")
            continue
        if now != member.manifest_digest:
            yield Fault(
                None,
                "registry",
                f"{version}: its member {member} has the manifest {now}, but {member.manifest_digest} when it was "
                "composed: the member was replaced in the registry",
            )


def history_faults(moves: Mapping[str, Sequence[AliasChange]]) -> Iterator[Fault]:
    """Alias histories in which a move does not begin where the one before it ended: a line was removed or edited."""
    for model, listed in moves.items():
        at: dict[str, int] = {}
        for move in listed:
            if move.previous != at.get(move.alias):
                found, expected = (_version(number) for number in (move.previous, at.get(move.alias)))
                yield Fault(
                    None,
                    "registry",
                    f"{model}: the history of alias {move.alias!r} has a move from {found} to v{move.version} by "
                    f"{move.by} where the move before it ended at {expected}: it was edited or cut",
                )
            at[move.alias] = move.version


def _version(number: int | None) -> str:
    return "not set" if number is None else f"v{number}"
