"""What may be declared of delivery: where the live rows of each partition are delivered to."""

from __future__ import annotations

import hashlib
import re
from datetime import timedelta
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, StringConstraints, field_validator, model_validator

from pip_dagster.declaration.canonical import canonical
from pip_dagster.declaration.durations import Duration
from pip_dagster.declaration.server import Server
from pip_dagster.declaration.strict import StrictModel
from pip_dagster.errors import DeclarationError
from pip_dagster.sql.names import check_table_name
from pip_dagster.sql.row_sql import check_row_sql

Variable = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]

# The key of each kind of target.
KINDS = ("parquet", "delta", "postgres", "webhook", "python")
_SHELL = re.compile(r"^~|\$[A-Za-z_{]")
_REMOTE = re.compile(r"^[a-z0-9+.-]+://")


class PostgresTable(Server):
    """A table of a Postgres database."""

    table: str = Field(description="`schema.table`. It is created where it is absent, and gets columns that it lacks.")

    @field_validator("table")
    @classmethod
    def _table(cls, value: str) -> str:
        return check_table_name(value)


class WebhookReceiver(Server):
    """A service that is notified of each partition: a CloudEvent with a manifest, without rows."""

    secret_env: Variable | None = Field(
        default=None, description="The environment variable that holds the secret by which the body is signed."
    )


def _named(value: object) -> object:
    """Columns without new names, as a list."""
    return {str(each): str(each) for each in value} if isinstance(value, list | tuple) else value


class DeclaredTarget(StrictModel):
    """One target: its place, the rows and columns that it gets, and how long it may lag."""

    parquet: str | None = Field(
        default=None, description="A folder of Parquet files: a path, relative to the project, or `s3://bucket/path`."
    )
    delta: str | None = Field(
        default=None, description="A Delta table: a path, relative to the project, or `s3://bucket/path`."
    )
    postgres: PostgresTable | None = Field(default=None, description="A table of a Postgres database.")
    webhook: WebhookReceiver | None = Field(default=None, description="A service that is notified of each partition.")
    python: str | None = Field(
        default=None,
        pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$",
        description="A function of yours, `module:function`, which is called with the change and its rows.",
    )
    columns: Annotated[
        dict[str, str] | None, BeforeValidator(_named, json_schema_input_type=list[str] | dict[str, str] | None)
    ] = Field(
        default=None,
        min_length=1,
        description="Name at the target → column of the predictions, such as `{prediction: score}`, or a list of "
        "columns; all when absent. `partition_key` is always among them.",
    )
    where: str | None = Field(
        default=None, description="SQL over a row of the predictions: which rows are delivered; all when absent."
    )
    retries: int = Field(default=3, ge=0, le=20, description="How often a failed delivery is tried again in a run.")
    timeout: Duration = Field(default=timedelta(seconds=30), description="How long the target may take to answer.")
    alarm_after: Duration | None = Field(
        default=timedelta(hours=1),
        description="How long a live change may stay undelivered before there is an alarm; `null` for never.",
    )

    @field_validator("postgres", "webhook", mode="before")
    @classmethod
    def _no_address(cls, value: object) -> object:
        if isinstance(value, str):
            raise ValueError(
                "must not be an address, which may hold a secret; expected {url_env: NAME}, the variable that holds "
                "it, or {url_file: PATH}"
            )
        return value

    @field_validator("parquet", "delta")
    @classmethod
    def _place(cls, value: str | None) -> str | None:
        if value is not None and not value.strip("/ "):
            raise ValueError("is empty; expected a folder")
        if value and _SHELL.search(value):
            raise ValueError("has ~ or a variable, which only a shell replaces; write the whole path")
        if value and _REMOTE.match(value) and not value.startswith("s3://"):
            raise ValueError(f"cannot be {value.partition('://')[0]}://; expected a path or s3://bucket/path")
        if value and value.startswith("s3://") and ("?" in value or "@" in value):
            raise ValueError("must hold no credentials or settings of S3; set AWS_ACCESS_KEY_ID and the like instead")
        return value

    @field_validator("columns")
    @classmethod
    def _names(cls, value: dict[str, str] | None) -> dict[str, str] | None:
        folded = [name.lower() for name in value or ()]
        if doubled := sorted({name for name in folded if folded.count(name) > 1}):
            raise ValueError(f"name {doubled[0]!r} is given twice; names that differ in case only are one in SQL")
        for name, source in (value or {}).items():
            if name.lower() == "partition_key" and (name, source) != ("partition_key", "partition_key"):
                raise ValueError(
                    f"{name!r} would be a second `partition_key`, the partition's key, which is always there; give the "
                    "other column another name"
                )
        if any(not name.strip() for name in (*folded, *(value or {}).values())):
            raise ValueError("a name is empty; expected `{name: column}`")
        return value

    @field_validator("where")
    @classmethod
    def _row_sql(cls, value: str | None) -> str | None:
        if value is not None:
            try:
                check_row_sql(value)
            except DeclarationError as error:
                raise ValueError(str(error)) from error
        return value

    @model_validator(mode="after")
    def _one_place(self) -> DeclaredTarget:
        named = [kind for kind in KINDS if getattr(self, kind) is not None]
        if len(named) != 1:
            has = " and ".join(f"`{kind}`" for kind in named) or "none"
            raise ValueError(f"takes one of {', '.join(f'`{kind}`' for kind in KINDS)}; it has {has}")
        if self.timeout < timedelta(seconds=1):
            raise ValueError("`timeout` is too short; expected at least '1 second'")
        return self

    @property
    def kind(self) -> str:
        """The key that says what it is."""
        return next(kind for kind in KINDS if getattr(self, kind) is not None)

    @property
    def place(self) -> str:
        """Where it is, for people. No secret is in it."""
        declared: Any = getattr(self, self.kind)
        if isinstance(declared, PostgresTable):
            return f"{declared.table} in {declared.shown}"
        return declared.shown if isinstance(declared, WebhookReceiver) else str(declared)

    @property
    def digest(self) -> str:
        """A digest of what is delivered to where; retries, time-outs, alarms and signatures change nothing of that."""
        others: dict[str, Any] = {"retries": True, "timeout": True, "alarm_after": True, "webhook": {"secret_env"}}
        declared = self.model_dump(mode="json", exclude=others, exclude_defaults=True)
        return hashlib.sha256(canonical(declared).encode()).hexdigest()[:32]
