"""From staging tables to the warehouse's, counted; and how many partitions go there together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, TypeVar

from pip_dagster.errors import PartitionError
from pip_dagster.sql.names import literal, quote, quote_all

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

T = TypeVar("T")

# What a transaction may hold. Each partition is whole in one, and a small one costs more by its statements than by its
# rows; this many take about a tenth of a second, so that others get in between and a kill costs little.
_PARTITIONS, _ROWS = 32, 100_000


def together(items: Sequence[T], rows: Callable[[T], int | None]) -> Iterator[list[T]]:
    """The items in order, as many in a list as may share a transaction; those without `rows` alone."""
    group: list[T] = []
    count = 0
    for item in items:
        its = rows(item)
        if group and (its is None or len(group) == _PARTITIONS or count + its > _ROWS):
            yield group
            group, count = [], 0
        if its is None:
            yield [item]
        else:
            group.append(item)
            count += its
    if group:
        yield group


def labelled(staged: str, labels: Mapping[str, str], columns: Iterable[str]) -> str:
    """The staged rows of these partitions: key, label (a revision, a scoring), then `columns`."""
    if len(labels) == 1:
        ((key, label),) = labels.items()
        return (
            f"SELECT partition_key, {literal(label)}, {quote_all(columns)} FROM {staged} "
            f"WHERE partition_key = {literal(key)}"
        )
    listed = ", ".join(f"({literal(key)}, {literal(label)})" for key, label in labels.items())
    return (
        f"SELECT s.partition_key, l.label, {', '.join('s.' + quote(name) for name in columns)} FROM {staged} s "
        f"JOIN (VALUES {listed}) l(partition_key, label) ON l.partition_key = s.partition_key"
    )


def named(pipeline: str, keys: Sequence[str]) -> str:
    """How an error names them."""
    return f"Pipeline {pipeline}, partition {keys[0]}" + (f" to {keys[-1]}" if len(keys) > 1 else "")


def insert_counted(con: DuckDBPyConnection, table: str, select: str, expected: int, what: str) -> None:
    """INSERT what is selected. Raises PartitionError, which says `what`, for any other number of rows; roll back."""
    counted = con.execute(f"INSERT INTO {table} {select}").fetchone()
    if counted is None or counted[0] != expected:
        raise PartitionError(
            f"{what}: {expected} rows were staged, {counted and counted[0]} arrived. Nothing was stored; "
            "this is a defect of pip_dagster, please report it."
        )
