"""The table of a Postgres target and the record beside it: created where they are absent, extended, never narrowed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from pip_dagster.delivery.postgres_types import takes, type_of
from pip_dagster.delivery.target import DeliveryError
from pip_dagster.sql.names import literal, quote

if TYPE_CHECKING:
    from psycopg2.extensions import cursor

# Whose row it is. A row of somebody else has NULL there, and is never changed.
OWNER = "pip_pipeline"
KEY = "partition_key"
RECORD = "pip_deliveries"
_NAME_BYTES = 63

_CREATE_RECORD = """
CREATE TABLE {record} (
    table_name text,
    pipeline text,
    partition_key text,
    target text NOT NULL,
    change_id text NOT NULL,
    declaration text NOT NULL,
    scoring_ids text[] NOT NULL,
    rows bigint NOT NULL,
    digest text NOT NULL,
    delivered_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (table_name, pipeline, partition_key)
)
"""
_COLUMNS = """
SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute
WHERE attrelid = to_regclass(%s) AND attnum > 0 AND NOT attisdropped ORDER BY attnum
"""


class DeliveredTable:
    """A table in a schema, as SQL."""

    def __init__(self, name: str) -> None:
        self.name = name
        schema, _, table = name.partition(".")
        self.schema, self.sql = quote(schema), f"{quote(schema)}.{quote(table)}"
        self.record = f"{self.schema}.{RECORD}"

    def __mod__(self, sql: str) -> str:
        """A statement with parameters, in which `{table}` and `{record}` stand for these."""
        return sql.format(table=self.sql.replace("%", "%%"), record=self.record.replace("%", "%%"))


def wanted_columns(where: str, columns: Mapping[str, str]) -> dict[str, str]:
    """The columns that the table must have, with Postgres's types.

    Raises:
        DeliveryError: Postgres cannot have a column of such a name.
    """
    for name in columns:
        if name == OWNER:
            raise DeliveryError(
                f"{where}: the column {OWNER} says whose a row is; give yours another name in `columns`"
            )
        if len(name.encode()) > _NAME_BYTES or "\0" in name:
            raise DeliveryError(
                f"{where}: the name of column {name} has more than {_NAME_BYTES} bytes, which Postgres would cut off; "
                "give it another name in `columns`"
            )
    return {name: type_of(sql_type) for name, sql_type in columns.items()} | {OWNER: "text"}


def columns_of(cursor: cursor, table: str) -> dict[str, str]:
    """The columns of a table in SQL with their types in Postgres's words; none if there is no such table."""
    cursor.execute(_COLUMNS, (table,))
    return dict(cursor.fetchall())


def check_types(where: str, table: DeliveredTable, existing: Mapping[str, str], wanted: Mapping[str, str]) -> None:
    """Check that each column that is there can store every value.

    Raises:
        DeliveryError: names the first that cannot.
    """
    for name, sql_type in wanted.items():
        if name in existing and not takes(existing[name], sql_type):
            raise DeliveryError(
                f"{where}: column {name} of {table.name} has the type {existing[name]}, and the rows have {sql_type}. "
                f"Change it by `ALTER TABLE {table.sql} ALTER {quote(name)} TYPE {sql_type}`, or deliver the values "
                "under another name in `columns`"
            )


def extend(cursor: cursor, where: str, table: DeliveredTable, wanted: Mapping[str, str]) -> bool:
    """Create what is absent: the schema, the record, the table or columns of it; whether the table was.

    Raises:
        DeliveryError: a column has another type, or one is gone by which delivered rows are found.
    """
    existing = columns_of(cursor, table.sql)
    if wanted.keys() <= existing.keys() and columns_of(cursor, table.record):
        return False
    # Two that create the same table at once would fail each other; this waits for the first to commit.
    cursor.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", (f"pip_dagster {table.schema}",))
    cursor.execute("SELECT to_regnamespace(%s)", (table.schema,))
    if cursor.fetchone() == (None,):
        cursor.execute(f"CREATE SCHEMA {table.schema}")
    if not columns_of(cursor, table.record):
        cursor.execute(_CREATE_RECORD.format(record=table.record))
    existing = columns_of(cursor, table.sql)
    check_types(where, table, existing, wanted)
    _check_found(cursor, where, table, existing)
    lacking = [f"{quote(name)} {sql_type}" for name, sql_type in wanted.items() if name not in existing]
    if not existing:
        cursor.execute(f"CREATE TABLE {table.sql} ({', '.join(lacking)})")
    elif lacking:
        cursor.execute(f"ALTER TABLE {table.sql} {', '.join(f'ADD COLUMN {each}' for each in lacking)}")
    if OWNER not in existing:
        cursor.execute(f"CREATE INDEX ON {table.sql} ({OWNER}, {KEY})")
    return not existing


def _check_found(cursor: cursor, where: str, table: DeliveredTable, existing: Mapping[str, str]) -> None:
    """Refuse a table in which delivered rows are not found any more: they would stay, beside those that replace them.

    Raises:
        DeliveryError: names the column that somebody dropped.
    """
    gone = [name for name in (OWNER, KEY) if existing and name not in existing]
    if not gone:
        return
    cursor.execute(f"SELECT 1 FROM {table.record} WHERE table_name = %s AND rows > 0 LIMIT 1", (table.name,))
    if cursor.fetchone():
        forget = f"DELETE FROM {table.record} WHERE table_name = {literal(table.name)}"
        raise DeliveryError(
            f"{where}: {table.name} has lost the column {gone[0]}, by which delivered rows are found. Remove the "
            f"delivered rows from it, run `{forget}`, and deliver all partitions again by their names"
        )
