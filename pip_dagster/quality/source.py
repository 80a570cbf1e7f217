"""The relation that is evaluated, and what is read from it: whole partitions, and example rows."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pip_dagster.quality.chunk import Chunk, Numbered
from pip_dagster.quality.frame import columns_of, fetch, quoted, uses
from pip_dagster.quality.verdict import jsonable

if TYPE_CHECKING:
    import duckdb

ROWS_IN_MEMORY = 2_000_000


@dataclass(frozen=True)
class Source:
    """A relation with a partition key (VARCHAR), a row id (BIGINT, unique) and data, on one connection."""

    con: "duckdb.DuckDBPyConnection"
    relation: str
    partition_column: str
    row_id: str
    types: Mapping[str, str]

    @classmethod
    def of(cls, con: "duckdb.DuckDBPyConnection", relation: str, partition_column: str, row_id: str) -> "Source":
        """Read the relation's columns."""
        return cls(con, relation, partition_column, row_id, columns_of(con, relation))

    @property
    def asked(self) -> str:
        """The rows of the partitions in the parameter ``$partitions``, as a subquery."""
        p = quoted(self.partition_column)
        return f"(SELECT * FROM {self.relation} WHERE {p}::VARCHAR IN (SELECT unnest($partitions::VARCHAR[])))"

    @property
    def data_columns(self) -> tuple[str, ...]:
        """The columns but for the partition key and the row id."""
        return tuple(c for c in self.types if c not in (self.partition_column, self.row_id))

    def chunk(self, expectations: Sequence[Numbered], partitions: Collection[str]) -> Chunk:
        """The columns that some expectations need, of some partitions."""
        wanted = {item for _, e in expectations for item in uses(e).items()}
        ordered = sorted(partitions)
        columns = fetch(
            self.con,
            self.relation,
            sorted(wanted),
            types=self.types,
            partition_column=self.partition_column,
            row_id=self.row_id,
            partitions=ordered,
        )
        return Chunk(ordered, columns)

    def chunks(self, partitions: Sequence[str]) -> Iterator[list[str]]:
        """Whole partitions together, up to ``ROWS_IN_MEMORY`` rows; a larger one alone."""
        p = quoted(self.partition_column)
        rows = self.con.execute(
            f"SELECT {p}::VARCHAR, count(*) FROM {self.asked} GROUP BY 1", {"partitions": list(partitions)}
        ).fetchall()
        counts = dict(rows)
        together: list[str] = []
        total = 0
        for partition in partitions:
            n = counts.get(partition, 0)
            if together and total + n > ROWS_IN_MEMORY:
                yield together
                together, total = [], 0
            together.append(partition)
            total += n
        if together:
            yield together

    def rows(self, ids: Collection[int], columns: Sequence[str]) -> dict[int, dict[str, Any]]:
        """Some rows by row id, with values as JSON can hold them."""
        if not ids:
            return {}
        listed = "".join(f", {quoted(c)}" for c in columns)
        found = self.con.execute(
            f"SELECT {quoted(self.row_id)}{listed} FROM {self.relation} "
            f"WHERE {quoted(self.row_id)} IN (SELECT unnest($ids::BIGINT[]))",
            {"ids": list(ids)},
        ).fetchall()
        return {row[0]: dict(zip(columns, map(jsonable, row[1:]), strict=True)) for row in found}
