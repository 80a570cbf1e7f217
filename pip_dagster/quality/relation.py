"""The relation that is evaluated, and what is read from it: chunks of whole partitions, and example rows."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from pip_dagster.quality.frame import Columns, Use, series, sql_value, uses
from pip_dagster.quality.suite import Expectation
from pip_dagster.quality.verdict import Judgement, jsonable
from pip_dagster.sql.names import quote

if TYPE_CHECKING:
    import duckdb
    import numpy as np

# Of up to ten columns, and fewer of more: what pandas holds at once.
ROWS_IN_MEMORY = 2_000_000
COLUMNS_IN_MEMORY = 64

Numbered = tuple[int, Expectation]
"""An expectation with its number among those that are evaluated."""


@dataclass(frozen=True)
class Chunk:
    """Rows of whole partitions, ordered by partition and row id; `partitions` may have no rows."""

    partitions: Sequence[str]
    columns: Columns

    @cached_property
    def row_ids(self) -> np.ndarray[Any, Any]:
        """For every row, its id."""
        return self.columns.row_ids.to_numpy()

    @cached_property
    def slices(self) -> Mapping[str, slice]:
        """The rows of every partition."""
        import numpy as np
        import pandas as pd

        codes = pd.Categorical(self.columns.partitions, categories=list(self.partitions)).codes
        starts = np.searchsorted(codes, np.arange(len(self.partitions) + 1))
        return {p: slice(int(starts[i]), int(starts[i + 1])) for i, p in enumerate(self.partitions)}


@dataclass
class Tally:
    """The results so far: judgements by (partition, expectation), and the rows that broke an expectation."""

    judgements: dict[tuple[str, int], Judgement] = field(default_factory=dict)
    broken: list[tuple[int, np.ndarray[Any, Any], np.ndarray[Any, Any]]] = field(default_factory=list)
    """(expectation, indexes into the evaluated partitions, row ids)."""


def grouped(expectations: Iterable[Numbered]) -> Iterator[tuple[dict[str, Use], list[Numbered]]]:
    """Group expectations so that all members of a group use each column in the same way and can share one frame."""
    groups: list[tuple[dict[str, Use], list[Numbered]]] = []
    for i, expectation in expectations:
        own = uses(expectation)
        for shared, members in groups:
            if all(shared.get(column, use) == use for column, use in own.items()):
                shared.update(own)
                members.append((i, expectation))
                break
        else:
            groups.append((own, [(i, expectation)]))
    yield from groups


def narrow(expectations: Iterable[Numbered]) -> Iterator[tuple[list[Numbered], int]]:
    """The expectations in groups that need up to `COLUMNS_IN_MEMORY` columns together, and how many they need."""
    members: list[Numbered] = []
    wanted: set[tuple[str, Use]] = set()
    for i, expectation in expectations:
        own = set(uses(expectation).items())
        if members and len(wanted | own) > COLUMNS_IN_MEMORY:
            yield members, len(wanted)
            members, wanted = [], set()
        members.append((i, expectation))
        wanted |= own
    if members:
        yield members, len(wanted)


@dataclass(frozen=True)
class Relation:
    """A table or view with a partition key (VARCHAR), a row id (BIGINT, unique) and data, on one connection.

    Rows are judged in the order of their row id. `name` is quoted already; `types` are the DuckDB types by column.
    """

    con: duckdb.DuckDBPyConnection
    name: str
    partition_column: str
    row_id: str
    types: Mapping[str, str]

    @classmethod
    def of(cls, con: duckdb.DuckDBPyConnection, name: str, *, partition_column: str, row_id: str) -> Relation:
        """Read the relation's columns."""
        rows = con.execute(f"DESCRIBE SELECT * FROM {name}").fetchall()
        return cls(con, name, partition_column, row_id, {column: sql_type for column, sql_type, *_ in rows})

    @property
    def selected(self) -> str:
        """The rows of the partitions in the parameter `$partitions`, as a subquery."""
        p = quote(self.partition_column)
        return f"(SELECT * FROM {self.name} WHERE {p}::VARCHAR IN (SELECT unnest($partitions::VARCHAR[])))"

    @property
    def data_columns(self) -> tuple[str, ...]:
        """The columns other than the partition key and the row id."""
        return tuple(c for c in self.types if c not in (self.partition_column, self.row_id))

    def fetch(self, wanted: Iterable[tuple[str, Use]], partitions: Iterable[str]) -> Columns:
        """Fetch columns of some partitions, ordered by partition and row id."""
        import pandas as pd

        ordered = list(dict.fromkeys(wanted))
        projected = "".join(f", {sql_value(n, self.types[n], u)} AS c{i}" for i, (n, u) in enumerate(ordered))
        p, r = quote(self.partition_column), quote(self.row_id)
        table = self.con.execute(
            f"SELECT {p}::VARCHAR AS p, {r}::BIGINT AS r{projected} FROM {self.selected} ORDER BY p, r",
            {"partitions": list(partitions)},
        ).to_arrow_table()
        values = {(n, u): series(table[f"c{i}"], self.types[n], u) for i, (n, u) in enumerate(ordered)}
        return Columns(pd.Series(table["p"].to_pandas(), dtype="str"), table["r"], values)

    def chunk(self, expectations: Sequence[Numbered], partitions: Collection[str]) -> Chunk:
        """The columns that some expectations need, of some partitions."""
        wanted = {item for _, e in expectations for item in uses(e).items()}
        return Chunk(sorted(partitions), self.fetch(sorted(wanted), partitions))

    def chunks(self, partitions: Sequence[str], columns: int) -> Iterator[list[str]]:
        """Groups of whole partitions with up to `ROWS_IN_MEMORY` rows; a larger partition is a group of its own."""
        most = ROWS_IN_MEMORY * 10 // max(10, columns)
        p = quote(self.partition_column)
        rows = self.con.execute(
            f"SELECT {p}::VARCHAR, count(*) FROM {self.selected} GROUP BY 1", {"partitions": list(partitions)}
        ).fetchall()
        counts = dict(rows)
        together: list[str] = []
        total = 0
        for partition in partitions:
            n = counts.get(partition, 0)
            if together and total + n > most:
                yield together
                together, total = [], 0
            together.append(partition)
            total += n
        if together:
            yield together

    def rows(self, ids: Collection[int], columns: Sequence[str]) -> dict[int, dict[str, Any]]:
        """Some rows by row id, with JSON-compatible values."""
        if not ids:
            return {}
        listed = "".join(f", {quote(c)}" for c in columns)
        found = self.con.execute(
            f"SELECT {quote(self.row_id)}{listed} FROM {self.name} "
            f"WHERE {quote(self.row_id)} IN (SELECT unnest($ids::BIGINT[]))",
            {"ids": list(ids)},
        ).fetchall()
        return {row[0]: dict(zip(columns, map(jsonable, row[1:]), strict=True)) for row in found}
