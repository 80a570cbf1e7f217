"""The request of an erasure, and its beginning: who must not return is noted before anything is removed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING

from pip_dagster import clock
from pip_dagster.erasure.opened import opened
from pip_dagster.ledger.record import new_id
from pip_dagster.ledger.rows import insert_rows
from pip_dagster.privacy.keys import keep_check, keys_of
from pip_dagster.privacy.suppressed import suppressed_in
from pip_dagster.sql.names import among, literal
from pip_dagster.warehouse.transaction import transaction

if TYPE_CHECKING:
    from pip_dagster.declaration.pipeline import Pipeline
    from pip_dagster.declaration.project import Project


@dataclass(frozen=True)
class Wish:
    """What a person requested: the erasure of a subject, and why. The subject is stored nowhere.

    With `absent`, a subject that nothing names is suppressed all the same.
    """

    subject: str = field(repr=False)
    why: str
    actor: str
    ground: str | None = None
    asked_by: str | None = None
    received_at: datetime | None = None
    absent: bool = False


@dataclass(frozen=True)
class _ErasureEntry:
    """One row of `ledger.erasures`."""

    erasure_id: str
    kind: str
    pipelines: list[str]
    state: str
    why: str
    ground: str | None
    asked_by: str | None
    received_at: datetime | None
    made_by: str
    made_at: datetime


@dataclass(frozen=True)
class _SuppressionEntry:
    """One row of `ledger.suppressions`."""

    erasure_id: str
    pipeline: str
    subject: str
    key_version: str
    made_at: datetime
    subject_column: str


def begin(
    project: Project,
    pipelines: Sequence[Pipeline],
    wish: Wish,
    of: Mapping[str, Sequence[tuple[str, str]]],
    known_as: str | None = None,
) -> tuple[str, bool]:
    """The id of the request, noted with who must not return, and whether it had begun before.

    `of`: pipeline → keyed hashes. `known_as`: its id, where it is repeated.
    """
    with opened(project) as con, transaction(con):
        running = [erasure_id for (erasure_id,) in con.execute(of_subject(of, "running")).fetchall()]
        found = [erasure_id for erasure_id in running if known_as in (None, erasure_id)]
        if found:
            return found[0], True
        for pipeline in pipelines:
            suppressed_in(con, pipeline)  # refused before anything is noted
        erasure_id, now = known_as or new_id(), clock.now()
        entry = _ErasureEntry(
            *(erasure_id, "erase", sorted(of), "running", wish.why, wish.ground, wish.asked_by, wish.received_at),
            *(wish.actor, now),
        )
        insert_rows(con, "erasures", [entry])
        for pipeline in pipelines:
            for key in keys_of(pipeline):
                keep_check(con, key)
        insert_rows(
            con,
            "suppressions",
            [
                _SuppressionEntry(erasure_id, each.spec.name, *pair, now, each.spec.privacy.subject)
                for each in pipelines
                if each.spec.privacy
                for pair in of[each.spec.name]
            ],
        )
    return erasure_id, False


def of_subject(of: Mapping[str, Sequence[tuple[str, str]]], state: str) -> str:
    """SQL of the erasures of a subject in this state, oldest first; `of`: each pipeline and its tokens."""
    listed = [token for pairs in of.values() for token, _ in pairs]
    return (
        f"SELECT erasure_id FROM ledger.suppressions WHERE {among('subject', listed)} AND erasure_id IN (SELECT "
        f"erasure_id FROM ledger.erasures GROUP BY 1 HAVING arg_max(state, made_at) = {literal(state)} "
        f"AND any_value(kind) = 'erase') GROUP BY 1 "
        f"HAVING list_sort(list_distinct(list(pipeline))) = [{', '.join(map(literal, sorted(of)))}] ORDER BY 1"
    )
