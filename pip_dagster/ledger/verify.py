"""Verifies that the audit's chain is complete and that the ledger still matches what the audit recorded."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

from pip_dagster.declaration.canonical import canonical
from pip_dagster.ledger import alarms, audit, canary, silences
from pip_dagster.ledger.certified import ACTION as CERTIFIED
from pip_dagster.ledger.certified import certificate_digests
from pip_dagster.ledger.fault import Fault
from pip_dagster.ledger.reissued import reissue_faults
from pip_dagster.ledger.rewrite import ACTION as REWRITTEN
from pip_dagster.ledger.rewrite import Rewrites
from pip_dagster.ledger.verify_registry import history_faults, registry_faults
from pip_dagster.ledger.verify_rows import Laid
from pip_dagster.registry.aliases import rollback_of
from pip_dagster.warehouse.stamp import Stamp, unknown

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from pip_dagster.registry.aliases import AliasChange
    from pip_dagster.registry.store import Registry

__all__ = ["Fault", "verify"]

Row = Mapping[str, Any]


@dataclass
class _Experiments:
    """Rows of `ledger.arms` by change, of `ledger.canaries` by id; each is removed when its entry is found.

    So are what people did with alarms: acknowledgments and silences by id, as the entry that each must have, and
    `certificates`: erasure → sha256. `digests`: the digest that each rewritten scoring must have.
    """

    arms: dict[str, list[Row]]
    canaries: dict[str, Mapping[str, Any]]
    of_alarms: dict[str, audit.Event]
    rewrites: Rewrites
    digests: Mapping[str, str]
    certificates: dict[str, str]


def verify(
    con: DuckDBPyConnection,
    *,
    moves: Mapping[str, Sequence[AliasChange]] | None = None,
    expect: str | None = None,
    registry: Registry | None = None,
    stamps: Sequence[Stamp] = (),
) -> Fault | None:
    """Recompute the chain, compare it with the ledger; the first fault in the chain's order, or None.

    `moves`, the alias histories by model, are compared as well where given. `expect` is the hash of an entry that was
    noted elsewhere; `stamps` are those beside the published files and in the registry. Only these reveal a chain that
    was rewritten from some entry on, or cut off at its end. The versions in the `registry` are compared with those that
    scored. The warehouse is the current catalog.
    """
    laid = Laid(con)
    of_alarms = alarms.acknowledgments_by_id(con) | silences.silences_by_id(con)
    rewrites = Rewrites.read(con)
    digests = rewrites.newest(laid.rewrite_ids())
    arms, canaries = audit.arms_by_change(con), canary.events_by_id(con)
    split = _Experiments(arms, canaries, of_alarms, rewrites, digests, certificate_digests(con))
    found = [_faults(laid, moves, expect, split), _stamp_faults(con, stamps), history_faults(moves or {})]
    if registry is not None:
        found += [registry_faults(con, registry), reissue_faults(con, registry)]
    return next(chain(*found), None)


def _stamp_faults(con: DuckDBPyConnection, stamps: Sequence[Stamp]) -> Iterator[Fault]:
    for each in unknown(con, stamps):
        yield Fault(
            None,
            "head",
            f"{each.text} with the hash {each.hash}, which the audit has not: it was rewritten or cut off, or this "
            "is another warehouse, or one from an older backup",
        )


def _faults(
    laid: Laid,
    moves: Mapping[str, Sequence[AliasChange]] | None,
    expect: str | None,
    split: _Experiments,
) -> Iterator[Fault]:
    seen: set[str] = set()
    accepted = laid.accepted_histories()
    previous, last, has_expected = "", None, False
    for row in laid.entries():
        seq, last = row["seq"], last or 0
        has_expected |= row["hash"] == expect
        if seq != last + 1:
            yield Fault(seq, "gap", f"comes after entry {last}; entry {last + 1} is missing or its number was changed")
        if row["hash"] != audit.hash_of(row):
            yield Fault(seq, "content", "a column was changed: its sha256 is not the one it was written with")
        if row["previous_hash"] != previous:
            yield Fault(seq, "link", f"does not follow entry {last}: that entry, or this one, was rewritten")
        previous, last = row["hash"], seq
        try:
            subject, details = json.loads(row["subject"]), json.loads(row["details"])
        except ValueError as error:
            yield Fault(seq, "content", f"its subject or details are not valid JSON: {error}")
            continue
        known = moves if seq > accepted.get(row["subject"], 0) else None
        try:
            yield from _of_entry(row, subject, details, laid, known, split, seen)
        except (KeyError, TypeError, AttributeError) as error:
            yield Fault(seq, "content", f"its subject or details lack what its action needs: {error}")
    if last is None:
        yield Fault(None, "gap", "the audit has no entry, not even the first, which its migration wrote")
        return
    for change in laid.changes_but_for(seen):
        yield Fault(None, "ledger", f"live change {_describe(change)} has no entry in the audit")
    for change_id in split.arms:
        yield Fault(
            None, "ledger", f"ledger.arms has rows of a live change {change_id} that the audit did not see split"
        )
    for event_id in split.canaries:
        yield Fault(None, "ledger", f"ledger.canaries {event_id} has no entry in the audit")
    for rewrite_id in split.rewrites.of:
        yield Fault(None, "ledger", f"ledger.rewrites {rewrite_id} has no entry in the audit")
    for erasure_id in split.certificates:
        yield Fault(None, "ledger", f"the certificate of erasure {erasure_id} has no entry in the audit")
    for row_id, entry in split.of_alarms.items():
        table = "silences" if "silence_id" in entry.subject else "alarms"
        yield Fault(None, "ledger", f"ledger.{table} {row_id} has no entry in the audit")
    if expect and not has_expected:
        yield Fault(
            None,
            "head",
            f"no entry has the hash {expect} that was noted: the audit was rewritten, or cut off before it",
        )


def _of_entry(
    row: Row,
    subject: Row,
    details: dict[str, Any],
    laid: Laid,
    moves: Mapping[str, Sequence[AliasChange]] | None,
    split: _Experiments,
    seen: set[str],
) -> Iterator[Fault]:
    """The faults of what the entry says; `seen` gets the live changes that it is about."""
    seq = row["seq"]
    if seq == 1:
        yield from _before_the_chain(row, details, laid, seen)
    elif row["action"] == "live":
        change_id = subject["change_id"]
        if change_id in seen:
            yield Fault(seq, "ledger", f"live change {change_id} has an entry already")
        seen.add(change_id)
        arms = split.arms.pop(change_id, [])
        yield from _differences(row, subject, details, laid.changes.get(change_id), arms, split.digests)
    elif row["action"] == REWRITTEN:
        rewrite_id = subject["rewrite_id"]
        if not split.rewrites.is_as(rewrite_id, details):
            yield Fault(seq, "ledger", f"ledger.rewrites {rewrite_id} was changed, or is gone")
        split.rewrites.of.pop(rewrite_id, None)
    elif row["action"] == CERTIFIED:
        erasure_id = subject["erasure_id"]
        if split.certificates.pop(erasure_id, None) != details["sha256"]:
            yield Fault(seq, "ledger", f"the certificate of erasure {erasure_id} was replaced, or is gone")
    elif row["action"] == "canary":
        now = split.canaries.pop(subject["event_id"], None)
        if now != {
            "made_at": row["made_at"],
            "actor": row["actor"],
            "pipeline": row["pipeline"],
            **subject,
            **details,
        }:
            yield Fault(seq, "ledger", f"ledger.canaries {subject['event_id']} is gone or was changed")
    elif row["action"] == "alarm":
        row_id = subject.get("silence_id") or subject["event_id"]
        entry = split.of_alarms.pop(row_id, None)
        if entry is None or _flat(entry) != (row["made_at"], row["actor"], row["pipeline"], subject, details):
            table = "silences" if "silence_id" in subject else "alarms"
            yield Fault(seq, "ledger", f"ledger.{table} {row_id} is gone or was changed")
    elif row["action"] == "promotion" and moves is not None and not _is_in(moves, subject, details, row):
        yield Fault(
            seq,
            "registry",
            f"{subject['model']}: the history of alias {subject['alias']!r} has no move from "
            f"{details['from']} to {details['to']} by {row['actor']} any more",
        )


def _flat(entry: audit.Event) -> tuple[Any, ...]:
    """An entry as it is read back."""
    subject, details = (json.loads(canonical(each)) for each in (entry.subject, entry.details))
    return entry.made_at, entry.actor, entry.pipeline, subject, details


def _before_the_chain(row: Row, details: Row, laid: Laid, seen: set[str]) -> Iterator[Fault]:
    """The live changes older than the chain are those that its first entry counted."""
    if row["action"] != "audit started":
        yield Fault(row["seq"], "content", f"is {row['action']!r}; expected the audit's start")
        return
    older = laid.changes_until(details["last_change_id"])
    seen.update(change["change_id"] for change in older)
    names = ("change_id", "change_pipeline", "change_partition", "change_scoring")
    lines = "\n".join("|".join(str(change[name]) for name in names) for change in older)
    if len(older) != details["live_changes"] or hashlib.sha256(lines.encode()).hexdigest() != details["sha256"]:
        yield Fault(
            row["seq"],
            "ledger",
            f"the {details['live_changes']} live changes older than the audit are not those in ledger.live_changes "
            f"now ({len(older)})",
        )


def _differences(
    row: Row,
    subject: Row,
    details: dict[str, Any],
    change: Row | None,
    arms: Sequence[Row],
    rewritten: Mapping[str, str],
) -> Iterator[Fault]:
    """The differences between this entry and the ledger."""
    seq = row["seq"]
    if change is None:
        yield Fault(
            seq,
            "ledger",
            f"live change {subject['change_id']} of partition {subject['partition_key']} is gone from the ledger",
        )
        return
    now = audit.live_event(change, arms)
    if change["scoring_id"] is None:
        yield Fault(seq, "ledger", f"scoring {subject['scoring_id']} is gone from ledger.scorings")
        return
    scored: Iterator[tuple[Any, dict[str, Any], Row]] = zip(
        [subject["scoring_id"], *(each["scoring_id"] for each in details.get("arms", ()))],
        [details, *details.get("arms", ())],
        [now.details, *now.details.get("arms", ())],
        strict=False,
    )
    for scoring_id, then, of_now in scored:
        if scoring_id in rewritten:
            # What the entry saw was replaced in the open: the row must be as its newest rewrite left it.
            if rewritten[scoring_id] != of_now["entry_digest"]:
                yield Fault(
                    seq,
                    "ledger",
                    f"ledger.scorings {scoring_id} (partition {subject['partition_key']}) was changed since it was "
                    "rewritten: its digest differs",
                )
            then |= {name: of_now[name] for name in (*audit.COMMITTED, "entry_digest") if name in then}
    written = {name: row[name] for name in ("made_at", "actor", "pipeline")} | {**subject, **details}
    found = {"made_at": now.made_at, "actor": now.actor, "pipeline": now.pipeline, **now.subject, **now.details}
    for name in audit.NAMED:
        if written.get(name) != found[name]:
            yield Fault(
                seq,
                "ledger",
                f"ledger.scorings {subject['scoring_id']} (partition {subject['partition_key']}) has {name} "
                f"{found[name]!r}; the audit saw {written.get(name)!r}",
            )
    if written.pop("arms", None) != found.pop("arms", None):
        yield Fault(
            seq,
            "ledger",
            f"ledger.arms of live change {subject['change_id']} (partition {subject['partition_key']}), or a scoring "
            "that they name, is not as the audit saw it",
        )
    for name in written:
        if written[name] != found.get(name):
            what = (
                f"another column of ledger.scorings {subject['scoring_id']} (partition {subject['partition_key']}) "
                "was changed: its digest differs"
                if name == "entry_digest"
                else f"ledger.live_changes {subject['change_id']} has {name} {found.get(name)!r}; "
                f"the audit saw {written[name]!r}"
            )
            yield Fault(seq, "ledger", what)


def _is_in(moves: Mapping[str, Sequence[AliasChange]], subject: Row, details: Row, row: Row) -> bool:
    wanted = (subject["alias"], details["from"], details["to"], row["actor"], row["made_at"], details["why"])
    return any(
        (move.alias, move.previous, move.version, move.by, audit.micros(move.at), move.why) == wanted
        and move.rollback_id in (details.get("rollback_id"), rollback_of(move.why))  # older entries lack it
        for move in moves.get(subject["model"], ())
    )


def _describe(change: Row) -> str:
    return (
        f"{change['change_id']} ({change['change_pipeline']}, partition {change['change_partition']}, "
        f"by {change['change_by']}: {change['why']})"
    )
