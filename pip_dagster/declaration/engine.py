"""Where a partition is scored: in the process of the run, or by tasks on a Ray cluster."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator

from pip_dagster.declaration.strict import StrictModel


class RayEngine(StrictModel):
    """Tasks on a Ray cluster, each for a share of a partition's rows."""

    name: Literal["ray"] = Field(default="ray", description="`ray`, the only engine beside `local`.")
    exchange: str = Field(
        default="data/exchange",
        description="A folder that every node of the cluster sees under this path; relative to the project.",
    )
    address: str | None = Field(
        default=None,
        description="The cluster: `host:6379` from one of its nodes, `ray://host:10001` from elsewhere; the variable "
        "RAY_ADDRESS when absent.",
    )
    tasks: int | None = Field(
        default=None,
        ge=1,
        le=4096,
        description="Shares of a partition's rows, by a hash of the key, each a task; as many as the cluster can work "
        "on at once when absent.",
    )
    cpus: int | None = Field(
        default=None, ge=1, description="CPUs, and threads, of each task; those of the smallest node when absent."
    )

    @field_validator("exchange")
    @classmethod
    def _exchange(cls, value: str) -> str:
        if "://" in value:
            raise ValueError("expected a folder that every node mounts under one path, not a URL")
        return value

    @field_validator("address")
    @classmethod
    def _address(cls, value: str | None) -> str | None:
        if value is not None and (not value or value == "local"):
            raise ValueError("expected `host:port`, `ray://host:port` or `auto`; a run starts no cluster of its own")
        return value


def _block(value: Any) -> Any:
    if value == "ray":
        return {"name": value}
    if isinstance(value, str) and value != "local":
        raise ValueError(f"{value!r} is no engine; expected `local`, `ray`, or a block with `name: ray`")
    return value


ScoringEngine = Annotated[
    Literal["local"] | RayEngine,
    BeforeValidator(_block, json_schema_input_type=Literal["local", "ray"] | RayEngine),
]
