"""A declared source: a table that the feature SQL may read, and where it is."""

from __future__ import annotations

from datetime import timedelta
from typing import Literal

from pydantic import Field, field_validator, model_validator

from pip_dagster.declaration.durations import Duration
from pip_dagster.declaration.reruns import IgnoreAfter
from pip_dagster.declaration.server import Server, ServerKey, holds_connection
from pip_dagster.declaration.strict import StrictModel
from pip_dagster.sql.names import check_table_name, quote

# The keys that say where a source is; it has at most one. Without one it is a table of `source_database`.
ORIGINS = ("database", "parquet", "postgres", "mysql", "sqlite", "ducklake")


class Source(StrictModel):
    """A table that the feature SQL may read, under the name declared here and no other."""

    table: str = Field(
        description="`schema.table`: its name in SQL and in the database; `main.orders` in DuckDB's default schema."
    )
    database: str | None = Field(default=None, description="Another DuckDB file than `source_database`.")
    parquet: str | None = Field(
        default=None,
        description="Parquet files instead of a table: a path or glob, relative to the project, or in S3, "
        "`s3://bucket/orders/*.parquet`. Folders such as `year=2024` add no column.",
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

    @field_validator("parquet")
    @classmethod
    def _without_secrets(cls, value: str | None) -> str | None:
        if value and value.startswith("s3://") and "s3_" in value.partition("?")[2]:
            raise ValueError("must hold no credentials or settings of S3; set AWS_ACCESS_KEY_ID and the like instead")
        if value and not value.startswith("s3://") and "://" in value:
            raise ValueError(f"cannot be {value.partition('://')[0]}://; expected a path or s3://bucket/path")
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
        """The bucket of Parquet files in S3, as s3://bucket/."""
        found = (self.parquet or "").partition("://")
        return f"s3://{found[2].split('/')[0]}/" if found[0] == "s3" else None

    @model_validator(mode="after")
    def _one_place(self) -> Source:
        declared = [key for key in ORIGINS if getattr(self, key) is not None]
        if len(declared) > 1:
            raise ValueError(f"takes {' or '.join(f'`{key}`' for key in declared)}, not both")
        if self.remote_table and self.origin in ("parquet",):
            raise ValueError(f"takes `remote_table` only for a table of a database, and {self.origin} has none")
        if self.change_column and not self.partition_column:
            raise ValueError("takes `change_column` only with `partition_column`")
        return self
