"""From temporary tables to the warehouse's: counted, and several partitions in one transaction."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol, TypeVar

from pip_dagster.errors import PartitionError, PipelineError
from pip_dagster.flow.run import Run
from pip_dagster.sql.names import literal, quote, quote_all
from pip_dagster.warehouse.memory import rows_for
from pip_dagster.warehouse.windows import in_windows

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

T = TypeVar("T")
R = TypeVar("R")

# What a transaction may hold. Each partition is whole in one, and a small one costs more by its statements than by its
# rows; this many take about a tenth of a second, so that others get in between and a kill costs little.
_PARTITIONS, _ROWS = 32, 100_000


def together(items: Sequence[T], rows: Callable[[T], int | None], columns: int = 0) -> Iterator[list[T]]:
    """The items in order, as many in a list as may share a transaction; those without `rows` alone.

    Args:
        items: what is to be stored.
        rows: how many an item has.
        columns: how many a row has.
    """
    most = rows_for(_ROWS, columns)
    group: list[T] = []
    count = 0
    for item in items:
        its = rows(item)
        if group and (its is None or len(group) == _PARTITIONS or count + its > most):
            yield group
            group, count = [], 0
        if its is None:
            yield [item]
        else:
            group.append(item)
            count += its
    if group:
        yield group


class Storing(Protocol[T, R]):
    """How the partitions of a chunk are stored."""

    errors: type[PipelineError]

    def rows(self, item: T) -> int | None:
        """The rows that a partition stores; None: it has nothing to `store`."""
        ...

    def store(self, items: list[T]) -> list[R]:
        """Commit these in one transaction of their own, or raise one of `errors`."""
        ...

    def alone(self, item: T, error: PipelineError | None) -> R:
        """Record a partition that has nothing to store, or that cannot be stored."""
        ...


def store_in_groups(run: Run, items: Sequence[T], how: Storing[T, R], *, purpose: str) -> list[R]:
    """Store as many items as may share a transaction; if one of them fails, each in its own."""

    def store(group: list[T]) -> list[R]:
        error: PipelineError | None = None
        if how.rows(group[0]) is not None:
            try:
                return how.store(group)
            except how.errors as failed:
                if len(group) > 1:
                    return [result for item in group for result in store([item])]
                error = failed
        return [how.alone(group[0], error)]

    groups = list(together(items, how.rows))
    stored = in_windows(run.con, run.pipeline.project, groups, store, purpose=purpose)
    return [result for group in stored for result in group]


def labelled(staged: str, labels: Mapping[str, str], columns: Iterable[str]) -> str:
    """The staged rows of these partitions: key, label (a revision, a scoring), then `columns`."""
    if len(labels) == 1:
        ((key, label),) = labels.items()
        return (
            f"SELECT {literal(key)}, {literal(label)}, {quote_all(columns)} FROM {staged} "
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


def insert_counted(
    con: DuckDBPyConnection, table: str, select: str, expected: int, what: str, rows: str = "rows"
) -> None:
    """INSERT what is selected.

    Raises:
        PartitionError: another number of rows arrived, of `what`; roll the transaction back.
    """
    counted = con.execute(f"INSERT INTO {table} {select}").fetchone()
    if counted is None or counted[0] != expected:
        raise PartitionError(
            f"{what}: {expected} {rows} were staged, {counted and counted[0]} arrived. Nothing was stored; "
            "this is a defect of pip_dagster, please report it."
        )
