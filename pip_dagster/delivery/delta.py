"""A Delta table as a target: a partition is one commit, which replaces the files of its former rows.

Which change is there is kept in the table's log, in the same commit, as Delta's transaction identifiers. They hold
numbers only, so a change and a declaration are several numbers.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from pip_dagster.delivery.digest import digest_of
from pip_dagster.delivery.target import ChangeRows, DeliveryChange, DeliveryError, Receipt, ShownChange, local_folder
from pip_dagster.quoted import of_server
from pip_dagster.sql.names import literal, quote
from pip_dagster.warehouse.arrow import arrow_rows, table_of
from pip_dagster.warehouse.connect import workspace

if TYPE_CHECKING:
    from collections.abc import Iterator

    from deltalake import DeltaTable

    from pip_dagster.declaration.deliver import DeclaredTarget
    from pip_dagster.declaration.pipeline import Pipeline

# Whose row it is. A row of somebody else has NULL there, and is never changed.
OWNER, KEY = "pip_pipeline", "partition_key"
_RACES = 10
_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")

# Types that Delta has no like of, or that delta-rs takes for one of half the range.
_CAST = {
    "UTINYINT": "SMALLINT",
    "USMALLINT": "INTEGER",
    "UINTEGER": "BIGINT",
    "UBIGINT": "DECIMAL(20,0)",
    "TIME": "VARCHAR",
    "TIME_NS": "VARCHAR",
    "UUID": "VARCHAR",
    "TIMESTAMP_NS": "TIMESTAMP",
}
_WIDER = {
    "byte": ("short", "integer", "long"),
    "short": ("integer", "long"),
    "integer": ("long",),
    "float": ("double",),
}

# The first part of a change's id, and how many digits of a declaration's digest one number takes.
_INSTANT, _EPOCH = "%Y%m%dT%H%M%S%f", datetime(1970, 1, 1)
_DIGITS, _PARTS = 15, 3


def open_delta(pipeline: Pipeline, name: str, declared: DeclaredTarget) -> DeltaTarget:
    """The table that is declared; it need not exist yet."""
    import deltalake  # noqa: F401 - the package is missing, or not, before anything is staged

    assert declared.delta
    on_s3 = declared.delta.startswith("s3://")
    place = declared.delta.rstrip("/") if on_s3 else str(local_folder(pipeline, name, declared.delta))
    options = _of_s3(declared.timeout.total_seconds()) if on_s3 else {}
    return DeltaTarget(pipeline.spec.name, name, place, options)


def _of_s3(timeout: float) -> dict[str, str]:
    """What delta-rs does not read from the environment by itself."""
    server = next((os.environ[name] for name in _ENDPOINTS if os.environ.get(name)), "")
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"
    seconds = {"timeout": timeout, "connect_timeout": timeout, "retry_timeout": timeout}
    options = {name: f"{value:g}s" for name, value in seconds.items()} | {"aws_region": region, "max_retries": "2"}
    if server:
        options |= {"aws_endpoint": server, "allow_http": str(server.startswith("http:")).lower()}
    return options


class DeltaTarget:
    """A Delta table, on a disk or in S3."""

    kind = "delta"
    can_read_back = True

    def __init__(self, pipeline: str, name: str, place: str, options: Mapping[str, str]) -> None:
        self._pipeline, self._name, self._place, self._options = pipeline, name, place, dict(options)
        self._where = f"Pipeline {pipeline}: target {name}"

    def deliver(self, change: DeliveryChange, rows: ChangeRows) -> Receipt:
        """Replace the rows of the partition in one commit; see `Target.deliver`."""
        from deltalake.exceptions import CommitFailedError

        self._where = f"Pipeline {change.pipeline}, partition {change.partition_key}: target {change.target}"
        if OWNER in map(str.lower, change.columns):
            raise DeliveryError(
                f"{self._where}: the column {OWNER} says whose a row is; give yours another name in `columns`"
            )
        for _ in range(_RACES):
            try:
                table = self._table() or self._create(change, rows)
                shown = _shown(table, self._pipeline, change.partition_key, change)
                if shown and not change.is_news(shown):
                    return self._receipt(shown, change.rows, change.digest, is_new=False)
                with self._of_delta():
                    self._write(table, change, rows)
            except CommitFailedError:  # another commit touched the partition, or created the table
                continue
            return self._receipt(ShownChange(change.change_id, change.declaration), change.rows, change.digest)
        raise DeliveryError(f"{self._where}: other commits to {self._place} get ahead all the time", again=True)

    def read_back(self, partition_key: str, columns: Mapping[str, str]) -> Receipt | None:
        """What the table has of the partition; see `Target.read_back`."""
        self._where = f"Pipeline {self._pipeline}, partition {partition_key}: target {self._name}"
        table = self._table()
        shown = _shown(table, self._pipeline, partition_key) if table else None
        if table is None or shown is None:
            return None
        there = {field.name for field in table.schema().fields}
        read = [name for name in columns if name in there]
        typed = ", ".join(
            f"{quote(name)}::{sql_type} AS {quote(name)}" if name in there else f"NULL::{sql_type} AS {quote(name)}"
            for name, sql_type in columns.items()
        )
        with self._of_delta(), workspace(threads=1) as con:
            scanned = table.scan(read, _predicate(self._pipeline, partition_key))
            with arrow_rows(con, "pip_delivered", scanned):
                count, digest = digest_of(con, f"(SELECT {typed} FROM pip_delivered)", columns)
        return self._receipt(shown, count, digest)

    def close(self) -> None:
        """Nothing is open. Files of former rows stay until the table's owner runs VACUUM, as after every commit."""

    def _table(self) -> DeltaTable | None:
        """The table as of now; None if there is none yet."""
        from deltalake import DeltaTable
        from deltalake.exceptions import TableNotFoundError

        with self._of_delta():
            try:
                return DeltaTable(self._place, storage_options=self._options)
            except TableNotFoundError:
                return None

    def _create(self, change: DeliveryChange, rows: ChangeRows) -> DeltaTable:
        """Create the table without rows: of two that create it with rows at once, one would append to the other's."""
        from deltalake import DeltaTable, Schema

        with self._of_delta(), workspace(threads=1) as con:
            schema = table_of(con, f"{_selected(change, rows)} LIMIT 0").schema
            return DeltaTable.create(
                self._place,
                Schema.from_arrow(schema),
                mode="ignore",
                partition_by=[OWNER, KEY],
                # As Spark's default: whoever opens the table reads the commits since the last checkpoint one by one.
                configuration={"delta.checkpointInterval": "10"},
                storage_options=self._options,
            )

    def _write(self, table: DeltaTable, change: DeliveryChange, rows: ChangeRows) -> None:
        from deltalake import CommitProperties, write_deltalake

        record = {"pip_dagster": {"pipeline": change.pipeline, "partition_key": change.partition_key}}
        record["pip_dagster"] |= {"target": change.target, "change_id": change.change_id, "digest": change.digest}
        with workspace(threads=1) as con:
            self._refuse_nanoseconds(con, change, _read(rows))
            reader = con.sql(_selected(change, rows)).to_arrow_reader()
            self._check_types(table, reader.schema)
            write_deltalake(
                table,
                reader,
                mode="overwrite",
                predicate=_predicate(change.pipeline, change.partition_key),
                schema_mode="merge",
                commit_properties=CommitProperties(custom_metadata=record, app_transactions=_transactions(change)),
            )

    def _refuse_nanoseconds(self, con: Any, change: DeliveryChange, read: str) -> None:
        for name in (name for name, sql_type in change.columns.items() if sql_type == "TIMESTAMP_NS"):
            if con.execute(f"SELECT 1 FROM {read} WHERE epoch_ns({quote(name)}) % 1000 <> 0 LIMIT 1").fetchall():
                raise DeliveryError(
                    f"{self._where}: column {name} has nanoseconds, and Delta has microseconds. Deliver it without, by "
                    "a cast in the feature SQL"
                )

    def _check_types(self, table: DeltaTable, schema: Any) -> None:
        """Check that the columns that are there have the rows' types: delta-rs would cast each value that it can.

        A table of somebody else gets the columns that the rows of a partition are found by.

        Raises:
            DeliveryError: names the first column of another type.
        """
        from deltalake import Field, Schema

        existing = {field.name: field.type for field in table.schema().fields}
        folded = {name.lower(): name for name in existing}
        for field in Schema.from_arrow(schema).fields:
            if (like := folded.get(field.name.lower(), field.name)) != field.name:
                raise DeliveryError(
                    f"{self._where}: column {field.name} is {like} in {self._place}, and no engine reads a table with "
                    f"both. Name it {like} in `columns`, or deliver to a new table"
                )
            there = existing.get(field.name, field.type)
            if there != field.type and getattr(there, "type", None) not in _WIDER.get(
                getattr(field.type, "type", ""), ()
            ):
                raise DeliveryError(
                    f"{self._where}: column {field.name} of {self._place} has the type {_named(there)}, and the rows "
                    f"have {_named(field.type)}. Deliver the values under another name in `columns`, or to a new table"
                )
        if lacking := [name for name in (OWNER, KEY) if name not in existing]:
            table.alter.add_columns([Field(name, "string") for name in lacking])  # type: ignore[arg-type]

    def _receipt(self, shown: ShownChange, rows: int, digest: str, *, is_new: bool = True) -> Receipt:
        return Receipt(shown, rows, digest, self._place, {}, is_new)

    @contextmanager
    def _of_delta(self) -> Iterator[None]:
        """Report an error of delta-rs as one of the delivery; a lost race passes.

        Raises:
            DeliveryError: with the first line of what delta-rs says.
        """
        from deltalake.exceptions import CommitFailedError

        try:
            yield
        except (CommitFailedError, DeliveryError):
            raise
        except Exception as error:  # delta-rs raises bare Exceptions too
            again = isinstance(error, OSError) and not isinstance(error, PermissionError)
            raise DeliveryError(
                f"{self._where}: {self._place} cannot be read or written. delta-rs says: "
                f"{of_server(str(error)) or type(error).__name__}",
                again=again,
            ) from None


def _read(rows: ChangeRows) -> str:
    return f"read_parquet({literal(str(rows.file))}, hive_partitioning = false)"


def _selected(change: DeliveryChange, rows: ChangeRows) -> str:
    """SQL of the rows, in types that Delta has."""
    listed = ", ".join(
        f"{quote(name)}::{_CAST[sql_type]} AS {quote(name)}" if sql_type in _CAST else quote(name)
        for name, sql_type in change.columns.items()
    )
    return f"SELECT {literal(change.pipeline)} AS {OWNER}, {listed} FROM {_read(rows)}"


def _predicate(pipeline: str, partition_key: str) -> str:
    return f"{OWNER} = {literal(pipeline)} AND {KEY} = {literal(partition_key)}"


def _named(delta_type: Any) -> str:
    return str(getattr(delta_type, "type", delta_type))


def _ids(pipeline: str, partition_key: str) -> list[str]:
    parts = ("change", "change/suffix", *(f"declaration/{i}" for i in range(_PARTS)))
    return [f"pip_dagster/{pipeline}/{partition_key}/{part}" for part in parts]


def _transactions(change: DeliveryChange) -> list[Any]:
    from deltalake import Transaction

    instant, _, suffix = change.change_id.partition("-")
    micros = (datetime.strptime(instant, _INSTANT) - _EPOCH) // timedelta(microseconds=1)
    parts = [change.declaration[i * _DIGITS : (i + 1) * _DIGITS] for i in range(_PARTS)]
    ids = _ids(change.pipeline, change.partition_key)
    return [Transaction(*each) for each in zip(ids, (micros, *map(_number, (suffix, *parts))), strict=True)]


def _shown(
    table: DeltaTable, pipeline: str, partition_key: str, change: DeliveryChange | None = None
) -> ShownChange | None:
    """The change of the partition that the table's log records last; None for none.

    Each number costs a pass over the log since its last checkpoint. The first alone says that `change` is newer.
    """
    first, *ids = _ids(pipeline, partition_key)
    micros = table.transaction_version(first)
    if micros is None:
        return None
    at = f"{_EPOCH + timedelta(microseconds=int(micros)):{_INSTANT}}"
    if change and at < change.change_id.partition("-")[0]:
        return ShownChange(at, "")
    suffix, *parts = (_digits(int(table.transaction_version(name) or 1)) for name in ids)
    return ShownChange(f"{at}-{suffix}", "".join(parts))


def _number(digits: str) -> int:
    """Hexadecimal digits, at most 15, as a number of 63 bits; the 1 before them keeps how many there are."""
    return int(f"1{digits}", 16)


def _digits(number: int) -> str:
    return f"{number:x}"[1:]
