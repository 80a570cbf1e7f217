"""What a pipeline may declare: the attributes of one `defs/<name>/defs.yaml`."""

from __future__ import annotations

import re
from datetime import date, datetime, timedelta
from typing import Annotated, Literal
from zoneinfo import ZoneInfo, available_timezones

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from pip_dagster.declaration.automation import Alerts, Schedule, Sensors
from pip_dagster.declaration.durations import Duration
from pip_dagster.declaration.gates import Gates
from pip_dagster.declaration.model_names import parse_models_uri
from pip_dagster.declaration.reruns import IgnoreAfter, Reruns
from pip_dagster.declaration.split import Canary, Split
from pip_dagster.errors import InvalidName
from pip_dagster.sql.names import (
    PREDICTION_COLUMNS,
    REASON_COLUMNS,
    RESERVED_COLUMNS,
    RESERVED_SCHEMAS,
    check_table_name,
)


def _identifier(value: str) -> str:
    if not re.fullmatch(r"[a-z][a-z0-9_]{0,62}", value):
        raise ValueError(f"{value!r} is not a name; expected lower-case letters, digits and _, starting with a letter")
    return value


Identifier = Annotated[str, AfterValidator(_identifier)]


class _Declared(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Partitions(_Declared):
    """The grid of partitions: one scoring an hour, day, week or month of a time zone."""

    every: Literal["hour", "day", "week", "month"] = "day"
    start: datetime | date = Field(description="The first partition, local time.", union_mode="left_to_right")
    end: datetime | date | None = Field(default=None, description="Where the grid ends, exclusive; open when absent.")
    time_zone: str = "UTC"
    end_offset: int = Field(
        default=0,
        description="0: a partition can be made once its time has passed. 1: from its beginning, "
        "for predictions about the day that begins.",
    )
    max_per_run: int | None = Field(
        default=None, ge=1, description="The most partitions one backfill run takes; all of them when absent."
    )

    @field_validator("time_zone")
    @classmethod
    def _known_zone(cls, value: str) -> str:
        if value not in available_timezones():
            raise ValueError(f"{value!r} is not an IANA time zone; expected for example 'Europe/Berlin' or 'UTC'")
        return value

    @field_validator("start", "end")
    @classmethod
    def _local(cls, value: datetime | date | None) -> datetime | None:
        if value is None:
            return None
        if not isinstance(value, datetime):
            return datetime(value.year, value.month, value.day)
        if value.tzinfo is not None:
            raise ValueError("is local to `time_zone`: leave the offset away")
        return value

    @property
    def zone(self) -> ZoneInfo:
        """The time zone's rules."""
        return ZoneInfo(self.time_zone)


class Source(_Declared):
    """A table that the feature SQL may read, under the name it declares here and no other."""

    table: str = Field(description="The name in SQL, `schema.table`; also its name in the source database.")
    database: str | None = Field(default=None, description="Another DuckDB file than the pipeline's.")
    parquet: str | None = Field(default=None, description="Parquet files instead of a database table: path or glob.")
    partition_column: str | None = Field(default=None, description="The date or instant by which rows are watched.")
    lookback: Duration = Field(default=timedelta(0), description="How far before its partition a row is read.")
    available_at: str | None = Field(
        default=None,
        description="SQL over its columns: the instant from which a row could be known; always, when absent. "
        "Used by `prove-point-in-time`.",
    )
    change_column: str | None = Field(
        default=None,
        description="A column that grows with every change of a row; with it a partition whose row count and newest "
        "change are as before is not read again to see whether it changed.",
    )
    late_data: Literal["rerun", "report"] | IgnoreAfter = Field(
        default="rerun", description="What a change after a partition was made does: make it due, or be told only."
    )
    complete_after: Duration | None = Field(
        default=None,
        description="How long after a partition's end, or its start with `end_offset: 1`, its rows are all there; "
        "what is made earlier is provisional.",
    )
    description: str | None = None
    asset_key: str | None = Field(
        default=None, description="The Dagster asset that makes this table, `a/b`; an external asset when absent."
    )

    @field_validator("table")
    @classmethod
    def _table(cls, value: str) -> str:
        return check_table_name(value)

    @model_validator(mode="after")
    def _one_place(self) -> Source:
        if self.database and self.parquet:
            raise ValueError("takes `database` or `parquet`, not both")
        if self.change_column and not self.partition_column:
            raise ValueError("takes `change_column` only with `partition_column`")
        return self


class Features(_Declared):
    """How a range of partitions' features are made."""

    sql: str = Field(description="A file beside defs.yaml holding one SELECT over the declared sources.")
    key: tuple[str, ...] = Field(min_length=1, description="Columns that together name a row within its partition.")
    partition_column: str = Field(description="The DATE or TIMESTAMPTZ column that puts a row into its partition.")
    cutoff: str | None = Field(
        default=None,
        description="SQL over the feature columns: the instant up to which a row's features may know the world; "
        "the partition's end, or its start with `end_offset: 1`, when absent.",
    )

    @model_validator(mode="after")
    def _names(self) -> Features:
        for column in (*self.key, self.partition_column):
            if column.lower() in RESERVED_COLUMNS | PREDICTION_COLUMNS:
                raise ValueError(f"column {column!r} is the warehouse's own; rename it in the feature SQL")
        if len(set(self.key)) != len(self.key):
            raise ValueError(f"key {list(self.key)} names a column twice")
        return self


def split_models_uri(scoring: dict[str, object]) -> dict[str, object]:
    """A declared `scoring` with `models:/name@alias` taken apart. Raises ValueError where it contradicts itself."""
    try:
        named = parse_models_uri(str(scoring.get("model_name", "")))
    except InvalidName as error:
        raise ValueError(str(error)) from error
    if named is None:
        return scoring
    name, alias = named
    if alias and scoring.get("alias", alias) != alias:
        raise ValueError(f"model_name says alias {alias!r}, `alias` {scoring['alias']!r}; leave one away")
    return scoring | {"model_name": name, "registry": "mlflow"} | ({"alias": alias} if alias else {})


class Scoring(_Declared):
    """Which model scores, on what, and what it does with what it has never seen."""

    model_name: str = Field(description="The model's name in the registry; `models:/name@alias` for one in MLflow.")
    registry: Literal["folder", "mlflow"] = Field(
        default="folder", description="Who says which version an alias names; `mlflow` for a name `models:/…`."
    )
    alias: str = Field(default="champion", description="The alias whose version is live.")
    challengers: tuple[str, ...] = Field(
        default=(), description="Aliases whose versions score the same rows in shadow, never live."
    )
    split: Split | None = Field(default=None, description="Arms whose versions are live for a share of the units.")
    canary: Canary | None = Field(default=None, description="The same with a gate that stops an arm by itself.")
    device: Literal["auto", "cpu", "cuda"] = "auto"
    on_unseen_category: Literal["missing", "error", "quarantine"] = Field(
        default="missing",
        description="missing: scored as NULL, counted. error: the partition fails. quarantine: the row is kept apart.",
    )
    batch_rows: int = Field(default=65_536, ge=2_048, description="Rows that are in Python at once.")
    required_signers: tuple[str, ...] = Field(
        default=(), description="Public keys, PEM files or base64: whoever must have signed a version before it scores."
    )

    @model_validator(mode="before")
    @classmethod
    def _in_mlflow(cls, value: object) -> object:
        return split_models_uri(value) if isinstance(value, dict) else value

    @model_validator(mode="after")
    def _one_experiment(self) -> Scoring:
        if self.split and self.canary:
            raise ValueError("takes `split` or `canary`, not both: a canary is a split with a gate")
        if taken := {self.alias, "champion"} & set(self.arms):
            raise ValueError(f"arm {min(taken)!r} is what the other rows are scored by; expected another alias")
        return self

    @property
    def experiment(self) -> Split | None:
        """The split or the canary, where one is declared."""
        return self.split or self.canary

    @property
    def arms(self) -> tuple[str, ...]:
        """Aliases whose versions are live for a share of the units."""
        return tuple(self.experiment.arms) if self.experiment else ()

    @property
    def compared(self) -> tuple[str, ...]:
        """Every alias whose version scores the champion's rows as well: the arms, then the challengers in shadow."""
        return tuple(dict.fromkeys((*self.arms, *self.challengers)))


class Quality(_Declared):
    """Which rows and partitions are sound enough to be scored and published."""

    expectations: str = Field(description="A file beside defs.yaml of Great Expectations' expectations.")
    max_quarantined: float = Field(
        default=0.05,
        ge=0,
        le=1,
        description="The share of a partition's rows in quarantine beyond which it is blocked.",
    )


class Explanations(_Declared):
    """Which scored rows are stored with their reason codes: the features that moved the score most."""

    top: int = Field(default=3, ge=1, description="Features kept of each row.")
    where: str | None = Field(default=None, description="SQL over the scored row; every row when absent.")
    at_most: int = Field(default=1000, ge=1, description="Rows explained of a partition, highest scores first.")


def _quality(value: object) -> object:
    return {"expectations": value} if isinstance(value, str) else value


def _schedule(value: object) -> object:
    return {"cron": value} if isinstance(value, str) else value


class PipelineSpec(_Declared):
    """One inference pipeline: from source tables to a prediction table, partition by partition."""

    name: Identifier = Field(description="Also the schema of its tables and the prefix of its assets.")
    description: str | None = None
    owners: tuple[str, ...] = ()
    partitions: Partitions
    source_database: str | None = Field(default=None, description="The DuckDB file that holds the source tables.")
    sources: dict[Identifier, Source] = Field(min_length=1)
    features: Features
    scoring: Scoring
    decisions: dict[Identifier, str] = Field(
        default_factory=dict, description="Name → SQL over the scored row: thresholds and business rules."
    )
    quality: Annotated[Quality | None, BeforeValidator(_quality)] = Field(
        default=None, description="A file of expectations, or the same with more to say."
    )
    explanations: Explanations | None = Field(
        default=None, description="Exact SHAP contributions of a selection of rows; none when absent."
    )
    gates: Gates | None = Field(default=None, description="What a model must show before the alias moves to it.")
    reruns: Reruns = Field(default_factory=Reruns, description="What a change makes due.")
    schedule: Annotated[Schedule | None, BeforeValidator(_schedule)] = Field(
        default=None, description="Cron, or the same with more to say."
    )
    sensors: Sensors = Field(
        default=Sensors(), description="How the sensors look, and whether they start by themselves."
    )
    alerts: Alerts | None = Field(
        default=None, description="Who is told of failed runs and blocked partitions; the project's when absent."
    )

    def is_provisional(self, close: datetime, at: datetime) -> bool:
        """Whether a source's rows for a partition that closes then are not declared to be all there yet at `at`."""
        waits = [source.complete_after for source in self.sources.values() if source.complete_after is not None]
        return bool(waits) and at < close + max(waits)

    @field_validator("name")
    @classmethod
    def _free_name(cls, value: str) -> str:
        if value in RESERVED_SCHEMAS:
            raise ValueError(f"{value!r} is a schema of the warehouse; expected another name")
        return value

    @model_validator(mode="after")
    def _reasons_have_a_key(self) -> PipelineSpec:
        taken = [name for name in self.features.key if name.lower() in REASON_COLUMNS]
        if self.explanations and taken:
            raise ValueError(
                f"key column {taken[0]!r} is a column of the reasons as well; rename it in the feature SQL"
            )
        return self

    @property
    def unit(self) -> tuple[str, ...]:
        """The columns by which rows are assigned to arms; none where there are no arms."""
        experiment = self.scoring.experiment
        return (experiment.unit or self.features.key) if experiment else ()

    @model_validator(mode="after")
    def _sources_have_a_place(self) -> PipelineSpec:
        tables: dict[str, str] = {}
        for name, source in self.sources.items():
            if not (self.source_database or source.database or source.parquet):
                raise ValueError(
                    f"source {name!r} has no place: give `source_database`, or its `database` or `parquet`"
                )
            if source.table in tables:
                raise ValueError(f"sources {tables[source.table]!r} and {name!r} both call themselves {source.table!r}")
            tables[source.table] = name
        return self
