"""Tables of servers whose rows a plan reads and hashes, since nothing cheaper vouches for them.

Postgres' `xmin` does not: a transaction that commits late has a smaller one than rows that were seen, the number wraps
around, and a restore gives rows other ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from pip_dagster.plural import plural
from pip_dagster.sql.names import among, literal

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from pip_dagster.declaration.source import Source

# From so many rows on, people are warned.
MANY = 100_000
HINT = "Declare its change_column, by which rows are counted instead (docs/sources.md#postgres)."
_SERVERS = ("postgres", "mysql")


def hashed_sources(sources: Mapping[str, Source]) -> list[str]:
    """The names of those that are tables of a server without a change column."""
    return [
        name
        for name, source in sources.items()
        if source.origin in _SERVERS and source.partition_column and not source.change_column
    ]


def rows_when_read(con: DuckDBPyConnection, pipeline: str, sources: Iterable[str]) -> dict[str, int]:
    """Source → how many rows runs have seen in it; the warehouse is the current catalog."""
    newest = (
        "SELECT source, arg_max(rows, made_at) AS n FROM ledger.source_buckets "
        f"WHERE pipeline = {literal(pipeline)} AND {among('source', list(sources))} GROUP BY source, bucket"
    )
    return {name: int(n) for name, n in con.execute(f"SELECT source, sum(n) FROM ({newest}) GROUP BY 1").fetchall()}


def hashes(place: str, rows: int) -> str:
    """What a plan does with a source, as the rest of a sentence."""
    return f"each plan reads {plural(rows, 'row')} of {place} and hashes them"
