"""What a pipeline may declare: the attributes of one `defs/<name>/defs.yaml`."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from os.path import normpath
from typing import Annotated
from zoneinfo import ZoneInfo

from pydantic import BeforeValidator, Field, field_validator, model_validator

from pip_dagster.declaration.automation import Alerts, Schedule, Sensors
from pip_dagster.declaration.clock_changes import unfit_change
from pip_dagster.declaration.deliver import DeclaredTarget
from pip_dagster.declaration.every import STEPS, Every
from pip_dagster.declaration.gates import Gates
from pip_dagster.declaration.labels import Labels
from pip_dagster.declaration.monitoring import Monitoring
from pip_dagster.declaration.privacy import Privacy
from pip_dagster.declaration.reruns import Reruns
from pip_dagster.declaration.scoring import Scoring
from pip_dagster.declaration.source import Source as Source
from pip_dagster.declaration.strict import Identifier, StrictModel, TimeZone
from pip_dagster.sql.names import (
    PREDICTION_COLUMNS,
    REASON_COLUMNS,
    RESERVED_COLUMNS,
    RESERVED_SCHEMAS,
)


class Partitions(StrictModel):
    """The grid of partitions: one scoring per hour, day, week or month of a time zone, or per 5 to 30 minutes."""

    every: Every = Field(
        default="day", description="The length of a partition. Weeks begin on Sunday; minutes divide an hour."
    )
    start: datetime | date = Field(
        description="The first partition: a date, or a date and time, in `time_zone`.", union_mode="left_to_right"
    )
    end: datetime | date | None = Field(default=None, description="Where the grid ends, exclusive; open when absent.")
    time_zone: TimeZone = Field(
        default="UTC", description="An IANA name, such as `Europe/Berlin`. Days of 23 and 25 hours are handled."
    )
    end_offset: int = Field(
        default=0,
        description="0: a partition can be built once it has ended. 1: once it begins, "
        "for predictions about the day that begins.",
    )
    max_per_run: int | None = Field(
        default=None, ge=1, description="The most partitions that one backfill run takes; all of them when absent."
    )

    @field_validator("start", "end")
    @classmethod
    def _local(cls, value: datetime | date | None) -> datetime | None:
        if value is None:
            return None
        if not isinstance(value, datetime):
            return datetime(value.year, value.month, value.day)
        if value.tzinfo is not None:
            offset = value.isoformat().removeprefix(value.replace(tzinfo=None).isoformat())
            raise ValueError(f"must not have a UTC offset; it is interpreted in `time_zone`. Remove `{offset}`")
        return value

    @model_validator(mode="after")
    def _fits_the_clocks(self) -> Partitions:
        start, end = (each if isinstance(each, datetime) else None for each in (self.start, self.end))
        if start and (why := unfit_change(self.every, self.time_zone, start, end)):
            raise ValueError(
                f"{self.time_zone} cannot have a partition for every {self.every} of this grid: {why}. Use "
                "`time_zone: UTC`, longer partitions, or a grid without that date"
            )
        return self

    @property
    def zone(self) -> ZoneInfo:
        """The time zone's rules."""
        return ZoneInfo(self.time_zone)

    @property
    def step(self) -> timedelta | None:
        """The length of partitions of an hour or less, each as long as the other; None for partitions of dates."""
        return STEPS.get(self.every)


class Features(StrictModel):
    """How the features of a range of partitions are built."""

    sql: str = Field(description="A file beside defs.yaml with one SELECT over the declared sources.")
    key: tuple[str, ...] = Field(
        min_length=1, description="Columns that together identify a row in its partition: not NULL, no duplicates."
    )
    partition_column: str = Field(description="The DATE or TIMESTAMPTZ column that assigns a row to its partition.")
    cutoff: str | None = Field(
        default=None,
        description="SQL over the feature columns: the latest instant whose data a row's features may use; "
        "the partition's end, or its start with `end_offset: 1`, when absent.",
    )

    @model_validator(mode="after")
    def _names(self) -> Features:
        for column in (*self.key, self.partition_column):
            if column.lower() in RESERVED_COLUMNS | PREDICTION_COLUMNS:
                raise ValueError(f"column {column!r} is reserved for the warehouse; rename it in the feature SQL")
        if len(set(self.key)) != len(self.key):
            raise ValueError(f"key {list(self.key)} names a column twice")
        return self


class Quality(StrictModel):
    """Which rows and partitions are good enough to be scored and published."""

    expectations: str = Field(description="A file beside defs.yaml of Great Expectations' expectations.")
    max_quarantined: float = Field(
        default=0.05,
        ge=0,
        le=1,
        description="The largest share of a partition's rows in quarantine; beyond it the partition is blocked.",
    )


class Explanations(StrictModel):
    """Which scored rows are stored with their reasons: the features that moved the score most."""

    top: int = Field(default=3, ge=1, description="Features stored per row.")
    where: str | None = Field(default=None, description="SQL over the scored row; every row when absent.")
    at_most: int = Field(default=1000, ge=1, description="Rows explained per partition, highest scores first.")


def _quality(value: object) -> object:
    return {"expectations": value} if isinstance(value, str) else value


def _schedule(value: object) -> object:
    return {"cron": value} if isinstance(value, str) else value


class PipelineSpec(StrictModel):
    """One inference pipeline: from source tables to a prediction table, partition by partition."""

    name: Identifier = Field(description="Lower case; also the schema of its tables and the prefix of its assets.")
    description: str | None = Field(default=None, description="Shown in the UI.")
    owners: tuple[str, ...] = Field(default=(), description="Shown in the UI: `team:name` or an e-mail address.")
    partitions: Partitions = Field(description="The grid of partitions.")
    source_database: str | None = Field(
        default=None, description="The DuckDB file that holds the source tables, relative to the project."
    )
    sources: dict[Identifier, Source] = Field(min_length=1, description="The tables that the feature SQL may read.")
    features: Features = Field(description="The feature SQL.")
    scoring: Scoring = Field(description="The model that scores.")
    decisions: dict[Identifier, str] = Field(
        default_factory=dict, description="Name → SQL over the scored row, such as `late: score >= 0.5`."
    )
    columns: dict[str, str] = Field(
        default_factory=dict, description="Column of the features or predictions → what it is, for the UI."
    )
    quality: Annotated[Quality | None, BeforeValidator(_quality, json_schema_input_type=str | Quality | None)] = Field(
        default=None, description="A file of expectations, or a block with `expectations` and more."
    )
    min_row_share: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description="A partition is blocked if fewer rows than this share of its live rows, or of those of the recent "
        "partitions, would be live; 0: any number may be.",
    )
    explanations: Explanations | None = Field(
        default=None, description="Exact SHAP contributions of selected rows; none when absent."
    )
    labels: Labels | None = Field(
        default=None, description="Where the outcomes are, for gates, experiments, sensors and monitoring."
    )
    gates: Gates | None = Field(default=None, description="What a model must show before the alias moves to it.")
    monitoring: Monitoring | None = Field(
        default=None, description="How distributions are watched; `{}` takes the defaults, nothing is when absent."
    )
    privacy: Privacy | None = Field(
        default=None, description="Whose rows they are: pseudonyms, erasure and retention; nothing when absent."
    )
    deliver: dict[Identifier, DeclaredTarget] = Field(
        default_factory=dict, description="Where the live rows of each partition are delivered to: name → target."
    )
    reruns: Reruns = Field(default_factory=Reruns, description="What a change makes stale.")
    schedule: Annotated[Schedule | None, BeforeValidator(_schedule, json_schema_input_type=str | Schedule | None)] = (
        Field(default=None, description="Cron, or a block with `cron` and more.")
    )
    sensors: Sensors = Field(
        default=Sensors(), description="How often the sensors tick, and whether they start by themselves."
    )
    alerts: Alerts | None = Field(
        default=None,
        description="Who is notified of failed runs and blocked partitions; the project's alerts when absent.",
    )

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

    @model_validator(mode="after")
    def _subject_is_no_time(self) -> PipelineSpec:
        if self.privacy and self.privacy.subject.lower() == self.features.partition_column.lower():
            raise ValueError(
                f"privacy.subject is {self.privacy.subject!r}, the partition column; expected the column that says "
                "whom a row is about"
            )
        return self

    @model_validator(mode="after")
    def _labels_decide_nothing(self) -> PipelineSpec:
        own = {f"{self.name}/features", f"{self.name}/predictions"} & {*(self.sensors.labels_arrived.assets or ())}
        if own:
            raise ValueError(
                f"sensors.labels_arrived.assets names {min(own)!r}: what was decided would be decided again, by the "
                "present model, once its outcome is known. Name assets that read labels"
            )
        return self

    @model_validator(mode="after")
    def _targets_have_their_own_place(self) -> PipelineSpec:
        places: dict[str, str] = {}
        for name, target in self.deliver.items():
            if target.kind in ("python", "webhook"):
                continue
            place = normpath(target.place)
            if place in places:
                raise ValueError(
                    f"targets {places[place]!r} and {name!r} have the same place {target.place!r}, and would replace "
                    "each other's rows; give one of them another"
                )
            places[place] = name
        return self

    @property
    def unit(self) -> tuple[str, ...]:
        """The columns by which rows are assigned to arms; none where there are no arms."""
        experiment = self.scoring.experiment
        return (experiment.unit or self.features.key) if experiment else ()

    @model_validator(mode="after")
    def _canary_has_labels(self) -> PipelineSpec:
        canary = self.scoring.canary
        if canary and canary.gate.labels and not self.declared_labels:
            raise ValueError(
                "`scoring.canary.gate.labels` judges by the declared labels, and there are none; declare `labels`, or "
                "remove it"
            )
        return self

    @property
    def declared_labels(self) -> Labels | None:
        """The labels, from either of the two places where they may be declared."""
        return self.labels or (self.gates.labels if self.gates else None)

    @model_validator(mode="after")
    def _labels_once(self) -> PipelineSpec:
        if self.labels and self.gates and self.gates.labels:
            raise ValueError(
                "`labels` and `gates.labels` are the same block, declared twice; keep `labels` and remove "
                "`gates.labels`"
            )
        if self.declared_labels and self.declared_labels.unit and self.gates and self.gates.unit:
            raise ValueError("the labels' `unit` is that of `gates` too; keep it there and remove `gates.unit`")
        return self

    @model_validator(mode="after")
    def _sources_have_a_location(self) -> PipelineSpec:
        tables: dict[str, str] = {}
        for name, source in self.sources.items():
            if not (self.source_database or source.origin):
                raise ValueError(
                    f"source {name!r} has no location: set `source_database`, or its own `database`, `parquet` or "
                    "`postgres`, or another origin"
                )
            folded = source.table.lower()  # SQL reads both by either name
            if folded in tables:
                raise ValueError(
                    f"sources {tables[folded]!r} and {name!r} have the same table {source.table!r}; declare a view "
                    "of one of them under another name"
                )
            tables[folded] = name
        return self
