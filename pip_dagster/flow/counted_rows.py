"""Which rows of a source count: not those of suppressed subjects, whether or not the source has them still."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from pip_dagster.flow.sources import rows_of, view_of
from pip_dagster.sql.names import column_named, quote
from pip_dagster.warehouse.buckets import unit_kind

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from pip_dagster.declaration.spec import PipelineSpec, Source
    from pip_dagster.privacy.suppressed import Incoming

_VALUES = "pip_suppressed"


def counted(
    con: DuckDBPyConnection,
    spec: PipelineSpec,
    name: str,
    columns: Mapping[str, str],
    people: Incoming | None,
    where: str = "true",
) -> str | None:
    """The condition that a row of a source counts; None where all do, or the source has no column of the subject.

    `where`: the rows that are asked about. It holds for SQL that runs before the next source is asked about: which
    values are suppressed is in a temporary table, so that each is hashed once and no other SQL has the secret.
    """
    source: Source = spec.sources[name]
    column = column_named(columns, people.subject) if people and (people.suppressed or people.named) else None
    if people is None or column is None or unit_kind(columns[column]) is None:
        return None
    values = f"SELECT DISTINCT {quote(column)} AS subject FROM {view_of(source)} WHERE {where}"
    found = f"SELECT subject FROM ({values}) WHERE {people.is_suppressed('subject')}"
    with rows_of(spec, name, source):
        con.execute(f"CREATE OR REPLACE TEMP TABLE {_VALUES} AS {found}", people.suppressing)
    if con.execute(f"SELECT 1 FROM temp.main.{_VALUES} LIMIT 1").fetchone() is None:
        return None
    return f"({quote(column)} IN (SELECT subject FROM temp.main.{_VALUES})) IS NOT TRUE"
