"""The audit's entries and the live changes while they are verified: read some at a time, since they may be many."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from pip_dagster.ledger import audit
from pip_dagster.ledger.record import dicts
from pip_dagster.ledger.rewrite import ACTION as REWRITTEN
from pip_dagster.sql.names import literal

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

Row = Mapping[str, Any]

_ENTRIES, _CHANGES = "temp.main.pip_verified_entries", "temp.main.pip_verified_changes"
_AT_ONCE = 8192
# Of an entry about one; a forged one may not be JSON, which is reported with it.
_CHANGE = "CASE WHEN json_valid(subject) THEN subject->>'change_id' END"


class Laid:
    """Both in temporary tables, each read once from the warehouse, which is the current catalog.

    `changes`: the live changes that the entries read last are about, by id.
    """

    def __init__(self, con: DuckDBPyConnection) -> None:
        self._con = con
        self.changes: dict[str, Row] = {}
        con.execute(
            "CREATE OR REPLACE TEMP TABLE pip_verified_entries AS SELECT row_number() OVER (ORDER BY seq, hash) "
            "AS place, * REPLACE (epoch_us(made_at) AS made_at) FROM ledger.audit"
        )
        con.execute(f"CREATE OR REPLACE TEMP TABLE pip_verified_changes AS {audit.LIVE_CHANGES} ORDER BY c.change_id")

    def entries(self) -> Iterator[Row]:
        """All entries, by number and hash."""
        first = 1
        while found := self._rows(f"SELECT * EXCLUDE (place) FROM {_ENTRIES} WHERE {_at(first)} ORDER BY place"):
            self.changes = self._of(f"SELECT {_CHANGE} FROM {_ENTRIES} WHERE action = 'live' AND {_at(first)}")
            yield from found
            first += _AT_ONCE

    def accepted_histories(self) -> dict[str, int]:
        """By subject (model and alias), the entry in which somebody accepted its history without the moves before."""
        where = "action = 'promotion' AND contains(details, '\"accepted_history\"')"
        found = self._con.execute(f"SELECT subject, seq - 1 FROM {_ENTRIES} WHERE {where} ORDER BY place").fetchall()
        return dict(found)

    def rewrite_ids(self) -> Iterator[str]:
        """The rewrites that entries are about."""
        where = f"action = {literal(REWRITTEN)}"
        for (subject,) in self._con.execute(f"SELECT subject FROM {_ENTRIES} WHERE {where} ORDER BY place").fetchall():
            with suppress(ValueError, KeyError, TypeError):  # which is reported with the entry
                yield json.loads(subject)["rewrite_id"]

    def changes_until(self, last: str) -> list[Row]:
        """The live changes up to this id."""
        found = self._rows(f"FROM {_CHANGES} WHERE change_id <= {literal(last)} ORDER BY change_id")
        return [*{row["change_id"]: row for row in found}.values()]

    def changes_but_for(self, seen: Collection[str]) -> Iterator[Row]:
        """The live changes that are not among these."""
        ids = [each for (each,) in self._con.execute(f"SELECT change_id FROM {_CHANGES} ORDER BY 1").fetchall()]
        missing = [each for each in dict.fromkeys(ids) if each not in seen]
        for first in range(0, len(missing), _AT_ONCE):
            listed = ", ".join(map(literal, missing[first : first + _AT_ONCE]))
            yield from self._of(f"SELECT unnest([{listed}])").values()

    def _of(self, ids: str) -> dict[str, Row]:
        select = f"FROM {_CHANGES} WHERE change_id IN ({ids}) ORDER BY change_id"
        return {row["change_id"]: row for row in self._rows(select)}

    def _rows(self, select: str) -> Sequence[Row]:
        return dicts(self._con.execute(select))


def _at(first: int) -> str:
    return f"place >= {first} AND place < {first + _AT_ONCE}"
