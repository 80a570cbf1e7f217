"""Anchors the audit: covers the ledger's tables and the registry in an entry, signs its head, and stores that."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pip_dagster import clock
from pip_dagster.declaration.canonical import canonical
from pip_dagster.errors import NoWarehouseError, PipelineError, RegistryError
from pip_dagster.evidence.places import PlaceError, add, lines
from pip_dagster.evidence.statement import Statement
from pip_dagster.ledger import audit, covered
from pip_dagster.registry.signing import key_id, private_key
from pip_dagster.registry.store import Registry, whoami
from pip_dagster.sql.names import literal
from pip_dagster.warehouse.access import reading, writing
from pip_dagster.warehouse.connect import workspace
from pip_dagster.warehouse.stamp import newest_entry
from pip_dagster.warehouse.transaction import transaction

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from pip_dagster.declaration.project import Project

# Actions of which nobody can tell by warehouse and registry alone whether they are forged.
VOUCHED = "('accepted', 'rewritten', 'reissued')"


@dataclass(frozen=True)
class Anchored:
    """The entry that was anchored, the places that have it, and why others have not."""

    entry: int
    hash: str
    places: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)


def anchor(project: Project, *, accepts: bool = False, rewritten_by: str | None = None) -> Anchored | None:
    """Anchor the audit as it is now; None where no anchors are declared.

    Nothing is recorded where nothing came since the last anchor; places that lack the head get it. With `accepts`, who
    signs vouches for all that the audit says was accepted or rewritten: whoever writes to the warehouse could add that.
    With `rewritten_by`, the id of an erasure or of another rewrite, for what that rewrote alone.

    Raises:
        InvalidKey: the private key cannot be read.
        NoWarehouseError: there is no warehouse yet.
        ProjectError: the declaration is wrong.
        WarehouseError: it cannot be written.
    """
    declared = project.anchors
    if declared is None:
        return None
    key = private_key(project.root / declared.key)
    if not (isinstance(project.warehouse, Path) and project.warehouse.exists()):  # which takes 15 ms
        with workspace(threads=1) as con, reading(con, project, purpose="anchoring the audit"):
            pass  # a warehouse that does not exist is not created
    with (
        workspace(threads=1) as con,
        writing(con, project, purpose="anchoring the audit", publish=False),
        transaction(con),
    ):
        head = _cover(con, project)
        (ledger,) = con.execute("SELECT hash FROM ledger.audit WHERE seq = 1").fetchone() or ("",)
        vouched = tuple(accepted(con, rewritten_by)) if accepts or rewritten_by else ()
    statement = Statement(ledger, *head, clock.now().isoformat(), key_id(key.public_key()), accepts=vouched)
    done = Anchored(*head)
    for name, place in declared.places.items():
        try:
            add(project.root, place, statement, key, declared.timeout)
            done.places.append(name)
        except PlaceError as error:
            done.failed[name] = str(error)
    return done


def anchor_after(
    project: Project, warn: Callable[[str], object], *, accepts: bool = False, erasure_id: str | None = None
) -> bool:
    """Anchor after something was done, as `anchor`; whether no declared place lacks it.

    It is done already, so what fails is only reported.
    """
    try:
        done = anchor(project, accepts=accepts, rewritten_by=erasure_id)
    except NoWarehouseError:
        return True
    except PipelineError as error:
        again = "repeat the erasure" if erasure_id else "run `pip-dagster audit anchor`"
        warn(f"The audit was not anchored: {error} Correct that and {again}.")
        return False
    covers = "Repeat the erasure to vouch for it there" if erasure_id else "The next anchor covers this one too"
    for name, why in done.failed.items() if done else ():
        warn(f"The audit was not anchored in {name}: {why}. {covers}.")
    return not (done and done.failed)


def accepted(con: DuckDBPyConnection, rewritten_by: str | None = None) -> list[int]:
    """The numbers of the entries that somebody must vouch for: what a person accepted as it is, or was rewritten.

    Of an erasure or another rewrite, only of its own.
    """
    of = f"action IN {VOUCHED}"
    if rewritten_by:
        rewrites = f"starts_with((subject->>'rewrite_id') || '/', {literal(f'{rewritten_by}/')})"
        golden = f"(details->>'erasure_id') = {literal(rewritten_by)}"
        of = f"(action = 'rewritten' AND {rewrites} OR action = 'reissued' AND {golden})"
    return [seq for (seq,) in con.execute(f"SELECT seq FROM ledger.audit WHERE {of} ORDER BY seq").fetchall()]


def anchored_lines(project: Project) -> dict[str, list[tuple[str, str]] | PlaceError]:
    """Of each place that can be read, its tags and lines, oldest first, or why they cannot be read."""
    found: dict[str, list[tuple[str, str]] | PlaceError] = {}
    if declared := project.anchors:
        for name, place in declared.places.items():
            if place.can_be_read:
                try:
                    found[name] = lines(project.root, place, declared.timeout)
                except PlaceError as error:
                    found[name] = error
    return found


def registry_state(registry: Registry) -> dict[str, Any]:
    """Model → the digest of each version's manifest, and the version that each alias names."""
    return {
        model: {
            "versions": {str(number): _manifest(registry, model, number) for number in registry.numbers(model)},
            "aliases": dict(sorted(registry.aliases(model).items())),
        }
        for model in registry.models()
    }


def _manifest(registry: Registry, model: str, number: int) -> str:
    try:
        return registry.get(model, number).manifest_digest
    except RegistryError:  # which must not keep the rest from being anchored
        return "unreadable"


def _cover(con: DuckDBPyConnection, project: Project) -> tuple[int, str]:
    """Add an entry that covers what came since the last one; the number and hash of the newest entry."""
    last = covered.last_covered(con) or {}
    upto = covered.newest_rows(con)
    state = registry_state(Registry(project.registry))
    digest = hashlib.sha256(canonical(state).encode()).hexdigest()
    nonce = audit.new_nonce()
    tables = covered.cover(con, last.get("upto", {}), upto, nonce)
    if tables or digest != last.get("registry"):
        details: dict[str, Any] = {"upto": upto, "tables": tables, "registry": digest, "keyed": True}
        if digest != last.get("registry"):
            details["models"] = state
        now = audit.micros(clock.now())
        audit.append(con, [audit.Event(covered.ACTION, now, whoami(), None, {"anchor": digest[:16]}, details)])
        covered.keep_nonce(con, nonce)
    head = newest_entry(con)
    assert head, "its migration wrote the first entry"
    return head
