"""A Postgres table as a target: a partition is one transaction, in which its former rows are replaced by the new ones.

The rows are copied to a temporary table first. So the locks of the target's table are held for the replacement only,
and a connection that is lost while rows travel has changed nothing. `pip_deliveries`, in the schema of the table,
records in the same transaction which change is there.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from pip_dagster.delivery.address import address_of
from pip_dagster.delivery.digest import digest_of
from pip_dagster.delivery.postgres_connection import PostgresSession
from pip_dagster.delivery.postgres_table import (
    KEY,
    OWNER,
    DeliveredTable,
    check_types,
    columns_of,
    extend,
    wanted_columns,
)
from pip_dagster.delivery.postgres_types import csv_value, type_of, typed_value
from pip_dagster.delivery.target import ChangeRows, DeliveryChange, DeliveryError, Receipt, ShownChange
from pip_dagster.sql.names import literal, quote, quote_all
from pip_dagster.warehouse.connect import workspace

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection
    from psycopg2.extensions import cursor

    from pip_dagster.declaration.deliver import DeclaredTarget
    from pip_dagster.declaration.pipeline import Pipeline

# In CSV: an empty text is quoted, so that it is not taken for this.
_NULL = "\\N"
_STAGE = "pip_delivery"

_LOCK = """
INSERT INTO {record} (table_name, pipeline, partition_key, target, change_id, declaration, scoring_ids, rows, digest)
VALUES (%s, %s, %s, %s, '', '', '{{}}', 0, '') ON CONFLICT DO NOTHING
"""
_SHOWN = """
SELECT target, change_id, declaration, rows, digest FROM {record}
WHERE table_name = %s AND pipeline = %s AND partition_key = %s
"""
_RECORD = """
UPDATE {record} SET target = %s, change_id = %s, declaration = %s, scoring_ids = %s, rows = %s, digest = %s,
delivered_at = now() WHERE table_name = %s AND pipeline = %s AND partition_key = %s
"""
_DELETE = "DELETE FROM {table} WHERE pip_pipeline = %s AND partition_key = %s"


def open_postgres(pipeline: Pipeline, name: str, declared: DeclaredTarget) -> PostgresTarget:
    """The table that is declared, connected to.

    Raises:
        DeliveryError: its server is away or refuses, or its address is not set.
    """
    assert declared.postgres
    where = f"Pipeline {pipeline.spec.name}: target {name}"
    address = address_of(declared.postgres, pipeline.project.root, where)
    session = PostgresSession(where, declared.postgres.shown, address, declared.timeout.total_seconds())
    return PostgresTarget(pipeline.spec.name, declared.postgres.table, session)


class PostgresTarget:
    """A table of a Postgres database."""

    kind = "postgres"
    can_read_back = True

    def __init__(self, pipeline: str, table: str, session: PostgresSession) -> None:
        self._pipeline, self._table, self._session = pipeline, DeliveredTable(table), session

    def deliver(self, change: DeliveryChange, rows: ChangeRows) -> Receipt:
        """Replace the rows of the partition; see `Target.deliver`."""
        where = f"Pipeline {change.pipeline}, partition {change.partition_key}: target {change.target}"
        self._session.where = where
        wanted = wanted_columns(where, change.columns)
        with self._session.transaction(only_read=True) as cursor:
            check_types(where, self._table, columns_of(cursor, self._table.sql), wanted)
            if receipt := self._delivered(cursor, change):
                return receipt
        with TemporaryDirectory(dir=rows.file.parent) as folder:
            file = Path(folder) / "rows.csv"
            _write_csv(where, change.columns, rows.file, file)
            with self._session.transaction() as cursor:
                self._stage(cursor, change, file)
                is_new = extend(cursor, where, self._table, wanted)  # then the record is of one that was dropped
                self._session.execute(cursor, self._table % _LOCK, (*self._at(change.partition_key), change.target))
                if not is_new and (receipt := self._delivered(cursor, change, lock=True)):
                    return receipt
                self._replace(cursor, where, change)
        return self._receipt(ShownChange(change.change_id, change.declaration), change.rows, change.digest)

    def read_back(self, partition_key: str, columns: Mapping[str, str]) -> Receipt | None:
        """What the table has of the partition; see `Target.read_back`."""
        self._session.where = f"Pipeline {self._pipeline}, partition {partition_key}: reading back {self._table.name}"
        with TemporaryDirectory() as folder:
            file = Path(folder) / "rows.csv"
            with self._session.transaction(only_read=True) as cursor:
                if not (known := self._known(cursor, partition_key)):
                    return None
                there = columns_of(cursor, self._table.sql)
                self._copy_out(cursor, partition_key, [name for name in columns if name in there], file)
            with workspace(threads=1) as con:
                count, digest = _digest(con, file, columns, there)
        return self._receipt(ShownChange(known[1], known[2]), count, digest)

    def close(self) -> None:
        """Close the connection."""
        self._session.close()

    def _at(self, partition_key: str) -> tuple[str, str, str]:
        return self._table.name, self._pipeline, partition_key

    def _receipt(self, shown: ShownChange, rows: int, digest: str, *, is_new: bool = True) -> Receipt:
        return Receipt(shown, rows, digest, self._table.name, {}, is_new)

    def _known(self, cursor: cursor, partition_key: str, *, lock: bool = False) -> tuple[Any, ...] | None:
        """The record of the partition: target, change, declaration, rows, digest."""
        if not lock and not (columns_of(cursor, self._table.record) and columns_of(cursor, self._table.sql)):
            return None
        sql = self._table % _SHOWN + (" FOR UPDATE" if lock else "")
        self._session.execute(cursor, sql, self._at(partition_key))
        found = cursor.fetchone()
        return found if found and found[1] else None

    def _delivered(self, cursor: cursor, change: DeliveryChange, *, lock: bool = False) -> Receipt | None:
        """The receipt of a change that is there already; None if it must be written.

        Raises:
            NewerChangeError: a newer one is there.
            DeliveryError: another target delivered the partition to this table.
        """
        known = self._known(cursor, change.partition_key, lock=lock)
        if known and known[0] != change.target and not change.force:
            raise DeliveryError(
                f"{self._session.where}: target {known[0]} has delivered this partition to {self._table.name}. Give "
                f"each target a table of its own; if {known[0]} is its former name, run `UPDATE {self._table.record} "
                f"SET target = {literal(change.target)} WHERE target = {literal(known[0])}`"
            )
        if not known or change.is_news(ShownChange(known[1], known[2])):
            return None
        return self._receipt(ShownChange(known[1], known[2]), known[3], known[4], is_new=False)

    def _stage(self, cursor: cursor, change: DeliveryChange, file: Path) -> None:
        """Copy the rows to a temporary table, for which the server may take as long as rows arrive."""
        columns = ", ".join(f"{quote(name)} {type_of(sql_type)}" for name, sql_type in change.columns.items())
        self._session.execute(cursor, f"CREATE TEMPORARY TABLE {_STAGE} ({columns}) ON COMMIT DROP")
        self._session.set_local(cursor, statement_timeout=0)
        copy = f"COPY {_STAGE} ({quote_all(change.columns)}) FROM STDIN (FORMAT csv, NULL {literal(_NULL)})"
        with file.open("rb") as opened:
            cursor.copy_expert(copy, self._session.watched(opened), 1 << 16)
        self._session.set_local(cursor, statement_timeout=self._session.timeout)

    def _replace(self, cursor: cursor, where: str, change: DeliveryChange) -> None:
        names = quote_all(change.columns)
        self._session.execute(cursor, self._table % _DELETE, (change.pipeline, change.partition_key))
        insert = f"INSERT INTO {self._table.sql} ({names}, {OWNER}) SELECT {names}, {literal(change.pipeline)}"
        self._session.execute(cursor, f"{insert} FROM {_STAGE}")
        if cursor.rowcount != change.rows:
            raise DeliveryError(
                f"{where}: {self._table.name} took {cursor.rowcount} of {change.rows} rows; is there a trigger or a "
                "policy that leaves some out?"
            )
        record = (change.target, change.change_id, change.declaration, list(change.scoring_ids))
        of_rows = (change.rows, change.digest, *self._at(change.partition_key))
        self._session.execute(cursor, self._table % _RECORD, (*record, *of_rows))

    def _copy_out(self, cursor: cursor, partition_key: str, names: list[str], file: Path) -> None:
        self._session.set_local(cursor, statement_timeout=0)
        where = f"{OWNER} = {literal(self._pipeline)} AND {KEY} = {literal(partition_key)}"
        select = f"SELECT {quote_all(names)} FROM {self._table.sql} WHERE {where}"
        with file.open("wb") as opened:
            copy = f"COPY ({select}) TO STDOUT (FORMAT csv, NULL {literal(_NULL)})"
            cursor.copy_expert(copy, self._session.watched(opened), 1 << 16)


def _write_csv(where: str, columns: Mapping[str, str], rows: Path, file: Path) -> None:
    """Write the rows as Postgres reads them.

    Raises:
        DeliveryError: a column has nanoseconds.
    """
    read = f"read_parquet({literal(str(rows))})"
    with workspace(threads=1) as con:
        for name in (name for name, sql_type in columns.items() if sql_type == "TIMESTAMP_NS"):
            if con.execute(f"SELECT 1 FROM {read} WHERE epoch_ns({quote(name)}) % 1000 <> 0 LIMIT 1").fetchone():
                raise DeliveryError(
                    f"{where}: column {name} has nanoseconds, and Postgres has microseconds. Deliver it without, by a "
                    "cast in the feature SQL"
                )
        texts = quote_all(name for name, sql_type in columns.items() if type_of(sql_type) in {"text", "jsonb"})
        values = ", ".join(csv_value(name, sql_type) for name, sql_type in columns.items())
        quoted = f", FORCE_QUOTE ({texts})" if texts else ""
        options = f"FORMAT csv, HEADER false, NULLSTR {literal(_NULL)}{quoted}"
        con.execute(f"COPY (SELECT {values} FROM {read}) TO {literal(str(file))} ({options})")


def _digest(
    con: DuckDBPyConnection, file: Path, columns: Mapping[str, str], there: Mapping[str, str]
) -> tuple[int, str]:
    """ChangeRows and digest of what was copied out; a column that the table has lost reads NULL."""
    read = {name: "VARCHAR" for name in columns if name in there}
    options = {
        "header": "false",
        "auto_detect": "false",
        "nullstr": literal(_NULL),
        "allow_quoted_nulls": "false",
        "quote": "'\"'",
        "escape": "'\"'",
        "sep": "','",
        "max_line_size": "1000000000",
    }
    listed = ", ".join(f"{literal(name)}: 'VARCHAR'" for name in read)
    typed = ", ".join(
        typed_value(name, sql_type) if name in there else f"NULL::{sql_type} AS {quote(name)}"
        for name, sql_type in columns.items()
    )
    named = ", ".join(f"{name} = {value}" for name, value in options.items())
    relation = f"read_csv({literal(str(file))}, columns = {{{listed}}}, {named})"
    return digest_of(con, f"(SELECT {typed} FROM {relation})", columns)
