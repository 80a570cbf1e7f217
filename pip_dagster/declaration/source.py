"""A declared source: a table that the feature SQL may read, and where it is."""

from __future__ import annotations

from datetime import timedelta
from typing import Literal

from pydantic import Field, field_validator, model_validator

from pip_dagster.declaration.durations import Duration
from pip_dagster.declaration.places import check_place, check_table_place, root_of
from pip_dagster.declaration.reruns import IgnoreAfter
from pip_dagster.declaration.server import Server, ServerKey, holds_connection
from pip_dagster.declaration.strict import StrictModel
from pip_dagster.declaration.text_columns import text_columns
from pip_dagster.sql.names import check_table_name, quote

# The keys that say where a source is; it has at most one. Without one it is a table of `source_database`.
ORIGINS = (
    *("database", "parquet", "csv", "json_files", "delta", "iceberg"),
    *("postgres", "mysql", "sqlite", "ducklake"),
)
_TEXT = ("csv", "json_files")
_WITHOUT_TABLES = ("parquet", *_TEXT, "delta", "iceberg")


class Source(StrictModel):
    """A table that the feature SQL may read, under the name declared here and no other."""

    table: str = Field(
        description="`schema.table`: its name in SQL and in the database; `main.orders` in DuckDB's default schema."
    )
    database: str | None = Field(default=None, description="Another DuckDB file than `source_database`.")
    parquet: str | None = Field(
        default=None,
        description="Parquet files instead of a table: a path or glob, relative to the project, or a URL, "
        "`s3://bucket/orders/*.parquet`. Folders such as `year=2024` add no column.",
    )
    csv: str | None = Field(
        default=None, description="CSV files with a line of column names, in the same way; plain or `.gz`."
    )
    json_files: str | None = Field(
        default=None,
        alias="json",  # pydantic's models have a method of that name
        description="JSON files, an object per line or an array of objects, in the same way.",
    )
    columns: dict[str, str] | None = Field(
        default=None,
        description="The columns of `csv` or `json` → SQL type: `{id: BIGINT, day: DATE}`. `VARCHAR optional`: files "
        "may lack it. Other columns are not read.",
    )
    delta: str | None = Field(
        default=None, description="A Delta table: its folder, relative to the project, or a URL, `s3://bucket/orders`."
    )
    iceberg: str | None = Field(
        default=None, description="An Iceberg table: its folder, or one of its `.metadata.json`, in the same way."
    )
    postgres: ServerKey | None = Field(
        default=None,
        description="A Postgres server: the environment variable that has its connection string, or a block.",
    )
    mysql: ServerKey | None = Field(default=None, description="A MySQL server, named in the same way.")
    sqlite: str | None = Field(default=None, description="A SQLite file, relative to the project.")
    ducklake: Server | str | None = Field(
        default=None,
        description="A DuckLake: the file of its catalog, relative to the project, or `url_env` or `url_file` of a "
        "catalog in Postgres.",
    )
    remote_table: str | None = Field(
        default=None,
        description="Its name at its origin, where that is not `table`: `Sales.Orders`, or `orders` in SQLite.",
    )
    partition_column: str | None = Field(
        default=None,
        description="The DATE or instant that assigns changed rows to partitions. When absent, the source is read "
        "whole.",
    )
    lookback: Duration = Field(
        default=timedelta(0),
        description="How far before a partition's start its feature SQL reads: `28 days`, `6 hours`.",
    )
    available_at: str | None = Field(
        default=None,
        description="SQL over its columns: the instant from which a row could be known; always, when absent. "
        "Used by `prove-point-in-time`.",
    )
    change_column: str | None = Field(
        default=None,
        description="A column that grows with every change of a row, such as `updated_at`. While a partition's row "
        "count and its newest value are the same, its rows are not hashed again.",
    )
    late_data: Literal["rerun", "report"] | IgnoreAfter = Field(
        default="rerun",
        description="What a change does after a partition was built: `rerun` makes it stale, `report` only reports it, "
        "`{ignore_after: 14 days}` ends the first after that time.",
    )
    complete_after: Duration | None = Field(
        default=None,
        description="How long after a partition's end, or its start with `end_offset: 1`, all its rows are there; "
        "partitions that are built earlier are provisional.",
    )
    description: str | None = Field(default=None, description="Shown in the UI.")
    asset_key: str | None = Field(
        default=None, description="The Dagster asset that builds this table, `a/b`; an external asset when absent."
    )

    @field_validator("table")
    @classmethod
    def _table(cls, value: str) -> str:
        return check_table_name(value)

    @field_validator("parquet", "csv", "json_files")
    @classmethod
    def _files(cls, value: str | None) -> str | None:
        return value and check_place(value)

    @field_validator("delta", "iceberg")
    @classmethod
    def _one_table(cls, value: str | None) -> str | None:
        return value and check_table_place(value)

    @field_validator("columns")
    @classmethod
    def _typed(cls, value: dict[str, str] | None) -> dict[str, str] | None:
        text_columns(value or {})
        return value

    @field_validator("sqlite", "ducklake")
    @classmethod
    def _path(cls, value: Server | str | None) -> Server | str | None:
        if isinstance(value, str) and holds_connection(value):
            raise ValueError("must be a path; name a variable that has the connection string: `{url_env: CATALOG_URL}`")
        return value

    @property
    def origin(self) -> str | None:
        """The key of `ORIGINS` that it declares; None of a table of `source_database`."""
        return next((key for key in ORIGINS if getattr(self, key) is not None), None)

    @property
    def origin_key(self) -> str:
        """The same as it is written; `duckdb` of a DuckDB file."""
        return "duckdb" if self.origin in (None, "database") else key_of(self.origin or "")

    def place(self, source_database: str | None) -> str:
        """Where it is, for people and in messages; never a secret."""
        found = getattr(self, self.origin) if self.origin else source_database
        return f"{self.origin} {found}" if isinstance(found, Server) else found or ""

    def remote_parts(self, schema: str) -> tuple[str, str]:
        """Schema and name of the table at its origin; in `schema`, where `remote_table` names none."""
        if self.remote_table is None:
            return tuple(self.table.split("."))  # type: ignore[return-value]
        first, dot, rest = self.remote_table.partition(".")
        return (first, rest) if dot else (schema, first)

    def remote(self, schema: str) -> str:
        """The same as SQL."""
        return ".".join(map(quote, self.remote_parts(schema)))

    @property
    def bucket(self) -> str | None:
        """The bucket or host of Parquet files on a server, as s3://bucket/."""
        return root_of(self.parquet or "")

    @model_validator(mode="after")
    def _one_place(self) -> Source:
        declared = [key for key in ORIGINS if getattr(self, key) is not None]
        if len(declared) > 1:
            raise ValueError(f"takes {' or '.join(f'`{key_of(key)}`' for key in declared)}, not both")
        if self.remote_table and self.origin in _WITHOUT_TABLES:
            raise ValueError(f"takes `remote_table` only for a table of a database, and {self.origin_key} has none")
        if self.origin in _TEXT and not self.columns:
            raise ValueError(
                f"needs `columns`, its columns with their SQL types: `{self.origin_key}` has no types of its own, and "
                "guessed ones change from file to file"
            )
        folded = {name.lower() for name in self.columns or {}}
        for key in ("partition_column", "change_column"):
            if folded and (name := getattr(self, key)) and name.lower() not in folded:
                raise ValueError(f"declares {key} {name!r}, which is not one of its `columns`")
        if self.columns is not None and self.origin not in _TEXT:
            raise ValueError("takes `columns` only with `csv` or `json`")
        if self.change_column and not self.partition_column:
            raise ValueError("takes `change_column` only with `partition_column`")
        return self


def key_of(origin: str) -> str:
    """An origin as it is written in a declaration."""
    return origin.removesuffix("_files")
