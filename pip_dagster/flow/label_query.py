"""The labels' SQL as it is read: with pseudonyms where features have them, and without suppressed subjects."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from pip_dagster.declaration.partition import Partition
from pip_dagster.flow.query import sql_bounds, without_end
from pip_dagster.privacy.suppressed import incoming
from pip_dagster.sql.names import column_named

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from pip_dagster.declaration.pipeline import Pipeline

_ANY = Partition("", *[datetime(2000, 1, day, tzinfo=UTC) for day in (1, 2)])


class LabelQuery(NamedTuple):
    """The SELECT; the values of its parameters that are not bounds, which must not be shown; how often each row comes.

    It comes once for each secret that pseudonyms of stored rows may be by.
    """

    sql: str
    values: Mapping[str, Any] = {}
    copies: int = 1


def label_query(con: DuckDBPyConnection, pipeline: Pipeline, *, stored: bool = False) -> LabelQuery:
    """The labels' SQL as it is read; `stored`: for joining with stored rows, which may have former pseudonyms.

    Raises:
        DeclarationError: a secret is missing, or another than that of stored rows.
    """
    sql, privacy = without_end(con, pipeline.labels_sql or ""), pipeline.spec.privacy
    joined = stored and bool(privacy and column_named(pipeline.label_key, privacy.subject))
    people = incoming(pipeline, former=joined)
    if people is None or not people.changes_rows:
        return LabelQuery(sql)
    wanted = con.extract_statements(sql)[0].named_parameters
    values = {name: value for name, value in sql_bounds([_ANY]).items() if name in wanted}
    columns = {row[0]: row[1] for row in con.execute(f"DESCRIBE {sql}", values).fetchall()}
    select = people.select(sql, columns)
    return LabelQuery(select, people.values, 1 + len(people.former)) if select != sql else LabelQuery(sql)
