"""What a pipeline may declare about running by itself: `schedule`, `sensors` and `alerts` of defs.yaml."""

from __future__ import annotations

from datetime import time, timedelta
from typing import Annotated, Literal, get_args

from pydantic import BeforeValidator, ConfigDict, Field, StringConstraints, field_validator, model_validator

from pip_dagster.declaration.durations import Duration
from pip_dagster.declaration.reruns import Reach, Recent
from pip_dagster.declaration.strict import StrictModel, TimeZone

Status = Literal["stopped", "running"]
Event = Literal[
    "run_failed",
    "partition_blocked",
    "drift",
    "performance",
    "labels",
    "estimate",
    "freshness",
    "operations",
    "delivery",
]
STATUS = "`running`: on from the first load, without the UI."


class Schedule(StrictModel):
    """When closed partitions are scored."""

    cron: str = Field(description='Five fields, or `@daily` and the like. `schedule: "0 6 * * *"` is short for it.')
    time_zone: TimeZone | None = Field(default=None, description="An IANA name; by default the partitions' time zone.")
    catch_up: int = Field(
        default=0, ge=0, le=1000, description="How many missed partitions before the newest closed ones are scored too."
    )
    status: Status = Field(default="stopped", description=STATUS)

    @field_validator("cron")
    @classmethod
    def _cron(cls, value: str) -> str:
        # Dagster's own parser checks the rest when the schedule is built. It would accept more than five fields.
        if not value.startswith("@") and len(value.split()) != 5:
            raise ValueError(f"{value!r} is not cron; expected five fields such as '0 6 * * *'")
        return value


class Sensor(StrictModel):
    """How often one sensor ticks, and how much it requests."""

    status: Status = Field(default="stopped", description=STATUS)
    interval: Duration = Field(
        default=timedelta(minutes=1), description="The minimum time between two ticks, from `5 seconds`."
    )
    max_runs: int = Field(default=5, ge=1, le=100, description="The most runs that one tick requests.")
    max_partitions: int = Field(
        default=100, ge=1, le=1000, description="The most partitions in one of its runs; `max_per_run` applies too."
    )
    lock_deadline: float = Field(
        default=2.0, ge=0, le=30, description="Seconds to wait for a locked database before the tick is skipped."
    )

    @field_validator("interval")
    @classmethod
    def _long_enough(cls, value: timedelta) -> timedelta:
        if value < timedelta(seconds=5):
            raise ValueError(f"{value.total_seconds():g} s is too short; expected at least '5 seconds'")
        return value


class SourcesSensor(Sensor):
    """The sensor that requests runs for stale partitions, except those that are stale by a promotion only."""

    missing: Reach = Field(
        default=Recent(last=7),
        description="Which partitions that were never built are requested: `none`, `all`, `{last: N}` or "
        "`{since: DATE}`.",
    )


class LabelsSensor(Sensor):
    """The sensor that runs assets when labels arrive."""

    interval: Duration = Field(default=timedelta(minutes=10), description="The minimum time between two ticks.")
    window: int = Field(default=60, ge=1, le=1000, description="How many of the newest partitions are watched.")
    assets: tuple[str, ...] | None = Field(
        default=None,
        description="Assets that read labels, `a/b`, with the same partitions; if empty, arrivals are only reported. "
        "When absent, the pipeline's `performance` if it is monitored.",
    )


class Sensors(StrictModel):
    """The sensors of a pipeline; each exists, stopped, without being declared."""

    source_changes: SourcesSensor = Field(
        default=SourcesSensor(), description="Requests runs for partitions whose sources or declaration changed."
    )
    model_promoted: Sensor = Field(
        default=Sensor(), description="Requests runs for partitions that `reruns.promotion` reaches."
    )
    labels_arrived: LabelsSensor = Field(
        default=LabelsSensor(), description="Reports new labels and requests runs of assets that read them."
    )


class Webhook(StrictModel):
    """Where an alert is posted; the address is often a secret, so only its environment variable is named."""

    env: str = Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", description="The environment variable that holds the URL.")
    bearer_env: str | None = Field(
        default=None,
        pattern=r"^[A-Za-z_][A-Za-z0-9_]*$",
        description="The environment variable that holds a token, sent as `Authorization: Bearer`.",
    )


def _digest(value: object) -> object:
    """A time of day; YAML reads an unquoted 10:30 as the number 630, and `off` as false."""
    if value is None or value is False or value == "off":
        return None
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 24 * 60:
        return time(*divmod(value, 60))
    try:
        found = value if isinstance(value, time) else time.fromisoformat(str(value))
    except ValueError:
        found = None
    if found is None or found.tzinfo:
        raise ValueError(f"{value!r} is not a time of day; expected for example '08:00', or off")
    return found


class Alerts(StrictModel):
    """Who is notified of failed runs, blocked partitions and alarms."""

    # The former key `on`, which YAML reads as true: a schema has text keys only, so any key may hold a list of events.
    model_config = ConfigDict(
        json_schema_extra={"additionalProperties": {"type": "array", "items": {"enum": [*get_args(Event)]}}}
    )

    webhook: Webhook | None = Field(default=None, description="Where alerts are posted.")
    command: tuple[Annotated[str, StringConstraints(min_length=1)], ...] = Field(
        default=(), description="A program with its arguments; it reads the alert as JSON from its standard input."
    )
    events: tuple[Event, ...] = Field(
        default=get_args(Event),
        min_length=1,
        description="Which events are reported: failed runs, blocked partitions, and the alarms of monitoring.",
    )
    digest: Annotated[time | None, BeforeValidator(_digest, json_schema_input_type=str | Literal[False] | None)] = (
        Field(
            default=time(8),
            description="When warnings are reported, once a day in the pipeline's time zone; `off` for never.",
        )
    )
    attempts: int = Field(default=3, ge=1, le=5, description="How often the delivery of an alert is tried.")
    timeout: float = Field(default=5.0, gt=0, le=10, description="Seconds for one attempt.")
    status: Status = Field(default="running", description="`running`: declaring alerts turns them on.")

    @field_validator("webhook", mode="before")
    @classmethod
    def _no_address(cls, value: object) -> object:
        if isinstance(value, str):
            raise ValueError(
                "must not be an address, which may be a secret; expected {env: NAME}, the variable that holds it"
            )
        return value

    @model_validator(mode="before")
    @classmethod
    def _former_key(cls, value: object) -> object:
        """`on` was the name of `events`; YAML reads it as true unless it is in quotes."""
        named = [key for key in ("events", "on", "true", True) if isinstance(value, dict) and key in value]
        if len(named) > 1:
            raise ValueError("`on` is the former name of `events`; use only `events`")
        if isinstance(value, dict) and named:
            return {"events" if key == named[0] else key: each for key, each in value.items()}
        return value

    @field_validator("command", "events", mode="before")
    @classmethod
    def _a_list(cls, value: object) -> object:
        if isinstance(value, str):
            raise ValueError("expected a list such as [program, argument] or [drift], not a text")
        return value

    @model_validator(mode="after")
    def _has_a_destination(self) -> Alerts:
        if not self.webhook and not self.command:
            raise ValueError(
                "no destination configured; set `webhook: {env: NAME}`, `command: [program, argument]` or both"
            )
        return self
