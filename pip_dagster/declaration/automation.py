"""What a pipeline may declare about running by itself: `schedule`, `sensors` and `alerts` of defs.yaml."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Literal
from zoneinfo import available_timezones

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator, model_validator

from pip_dagster.declaration.durations import Duration
from pip_dagster.declaration.reruns import Reach, Recent

Status = Literal["stopped", "running"]


class _Declared(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Schedule(_Declared):
    """When the partitions that closed are scored."""

    cron: str
    time_zone: str | None = Field(default=None, description="An IANA name; the partitions' when absent.")
    catch_up: int = Field(
        default=0, ge=0, le=1000, description="How many missed partitions before those that just closed are made up."
    )
    status: Status = Field(default="stopped", description="running: on from the first load, without the UI.")

    @field_validator("cron")
    @classmethod
    def _cron(cls, value: str) -> str:
        # Dagster's own parser judges the rest when the schedule is built; five fields are ours to ask for.
        if not value.startswith("@") and len(value.split()) != 5:
            raise ValueError(f"{value!r} is not cron; expected five fields such as '0 6 * * *'")
        return value

    @field_validator("time_zone")
    @classmethod
    def _known_zone(cls, value: str | None) -> str | None:
        if value is not None and value not in available_timezones():
            raise ValueError(f"{value!r} is not an IANA time zone; expected for example 'Europe/Berlin' or 'UTC'")
        return value


class Sensor(_Declared):
    """How one sensor looks and asks."""

    status: Status = Field(default="stopped", description="running: on from the first load, without the UI.")
    interval: Duration = Field(default=timedelta(minutes=1), description="The least time between two looks.")
    max_runs: int = Field(default=5, ge=1, le=100, description="The most runs that one look asks for.")
    max_partitions: int = Field(
        default=100, ge=1, le=1000, description="The most partitions in one of its runs; `max_per_run` holds too."
    )
    lock_deadline: float = Field(
        default=2.0, ge=0, le=30, description="Seconds to wait for a locked database before this look is skipped."
    )

    @field_validator("interval")
    @classmethod
    def _not_at_once(cls, value: timedelta) -> timedelta:
        if value < timedelta(seconds=5):
            raise ValueError(f"{value.total_seconds():g} s is too short; expected at least '5 seconds'")
        return value


class SourcesSensor(Sensor):
    """What the plan says but for promotions, asked for run by run."""

    missing: Reach = Field(
        default=Recent(last=7),
        description="Which partitions that were never made are asked for: history is a backfill's to make.",
    )


class LabelsSensor(Sensor):
    """What is run when labels arrive."""

    interval: Duration = timedelta(minutes=10)
    window: int = Field(default=60, ge=1, le=1000, description="How many of the newest partitions are watched.")
    assets: tuple[str, ...] = Field(
        default=(),
        description="Assets that labels feed, `a/b`, of the same partitions; arrivals are only told when empty.",
    )


class Sensors(_Declared):
    """The sensors of a pipeline; each exists, stopped, without being declared."""

    source_changes: SourcesSensor = SourcesSensor()
    model_promoted: Sensor = Sensor()
    labels_arrived: LabelsSensor = LabelsSensor()


class Webhook(_Declared):
    """Where an alert is posted; the address is often a secret, so only its environment variable is named."""

    env: str = Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", description="The environment variable that holds the URL.")
    bearer_env: str | None = Field(
        default=None,
        pattern=r"^[A-Za-z_][A-Za-z0-9_]*$",
        description="The environment variable that holds a token, sent as `Authorization: Bearer`.",
    )


class Alerts(_Declared):
    """Who is told of a failed run or a blocked partition."""

    webhook: Webhook | None = None
    command: tuple[Annotated[str, StringConstraints(min_length=1)], ...] = Field(
        default=(), description="A program with its arguments; the alert comes as JSON on its standard input."
    )
    on: tuple[Literal["run_failed", "partition_blocked", "drift"], ...] = Field(
        default=("run_failed", "partition_blocked", "drift"), min_length=1
    )
    attempts: int = Field(default=3, ge=1, le=5, description="How often an alert is tried.")
    timeout: float = Field(default=5.0, gt=0, le=10, description="Seconds for one try.")
    status: Status = Field(default="running", description="running: declaring alerts turns them on.")

    @field_validator("webhook", mode="before")
    @classmethod
    def _no_address(cls, value: object) -> object:
        if isinstance(value, str):
            raise ValueError(
                "takes no address, which may be a secret; expected {env: NAME}, the variable that holds it"
            )
        return value

    @field_validator("command", "on", mode="before")
    @classmethod
    def _a_list(cls, value: object) -> object:
        if isinstance(value, str):
            raise ValueError(f"{value!r} is no list; expected [{', '.join(value.split())}]")
        return value

    @model_validator(mode="after")
    def _somewhere(self) -> Alerts:
        if not self.webhook and not self.command:
            raise ValueError("go nowhere: give `webhook: {env: NAME}`, `command: [program, argument]` or both")
        return self
