"""The labels' SQL as it is read: with pseudonyms where features have them, and without suppressed subjects."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from pip_dagster.declaration.partition import Partition
from pip_dagster.flow.query import sql_bounds, without_end
from pip_dagster.privacy.suppressed import incoming

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from pip_dagster.declaration.pipeline import Pipeline

_ANY = Partition("", *[datetime(2000, 1, day, tzinfo=UTC) for day in (1, 2)])


def label_query(con: DuckDBPyConnection, pipeline: Pipeline) -> tuple[str, Mapping[str, Any]]:
    """The SELECT, and the values of its parameters that are not bounds, which must not be shown.

    Raises:
        DeclarationError: a secret is missing.
    """
    sql = without_end(con, pipeline.labels_sql or "")
    people = incoming(pipeline)
    if people is None or not people.changes_rows:
        return sql, {}
    wanted = con.extract_statements(sql)[0].named_parameters
    values = {name: value for name, value in sql_bounds([_ANY]).items() if name in wanted}
    columns = {row[0]: row[1] for row in con.execute(f"DESCRIBE {sql}", values).fetchall()}
    select = people.select(sql, columns)
    return select, people.values if select != sql else {}
