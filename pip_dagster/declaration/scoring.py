"""Which model scores: the `scoring` block of defs.yaml."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from pip_dagster.declaration.engine import RayEngine, ScoringEngine
from pip_dagster.declaration.model_names import parse_models_uri
from pip_dagster.declaration.split import Canary, Split
from pip_dagster.declaration.strict import StrictModel
from pip_dagster.errors import InvalidName


def split_models_uri(scoring: dict[str, object]) -> dict[str, object]:
    """A declared `scoring` in which `models:/name@alias` is split into its parts.

    Raises:
        ValueError: the URI is malformed, or `alias` contradicts it.
    """
    try:
        named = parse_models_uri(str(scoring.get("model_name", "")))
    except InvalidName as error:
        raise ValueError(str(error)) from error
    if named is None:
        return scoring
    name, alias = named
    if alias and scoring.get("alias", alias) != alias:
        raise ValueError(f"`model_name` has alias {alias!r}, `alias` is {scoring['alias']!r}; use only one of them")
    return scoring | {"model_name": name, "registry": "mlflow"} | ({"alias": alias} if alias else {})


class Scoring(StrictModel):
    """Which model scores, on what device, and what it does with categories that it has never seen."""

    model_name: str = Field(description="The model's name in the registry; `models:/name@alias` for one in MLflow.")
    registry: Literal["folder", "mlflow"] = Field(
        default="folder", description="Where aliases are resolved; `mlflow` if model_name is `models:/…`."
    )
    alias: str = Field(default="champion", description="The alias whose version is live.")
    challengers: tuple[str, ...] = Field(
        default=(), description="Aliases whose versions score the same rows in shadow, never live."
    )
    split: Split | None = Field(default=None, description="Arms whose versions are live for a share of the units.")
    canary: Canary | None = Field(
        default=None, description="A split with a gate that stops an arm by itself; one of the two."
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        default="auto",
        description="`auto`: a GPU that has scored a probe, else the CPU; why is recorded. `cuda`: an error without a "
        "GPU.",
    )
    on_unseen_category: Literal["missing", "error", "quarantine"] = Field(
        default="missing",
        description="A category that the model has never seen. `missing`: scored as NULL and counted. `error`: the "
        "partition fails. `quarantine`: the row is quarantined.",
    )
    batch_rows: int = Field(default=65_536, ge=2_048, description="Rows in Python's memory at once.")
    engine: ScoringEngine = Field(
        default="local",
        description="`local`: the process of the run. `ray`, or a block with `name: ray`: tasks on a Ray cluster.",
    )
    required_signers: tuple[str, ...] = Field(
        default=(), description="Public keys, PEM files or base64, of all who must have signed a version that scores."
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
            raise ValueError(f"arm {min(taken)!r} is the alias that scores the other rows; expected another alias")
        return self

    @model_validator(mode="after")
    def _engine_has_cpus(self) -> Scoring:
        if self.ray and self.device == "cuda":
            raise ValueError("`engine: ray` scores on CPUs; remove `device: cuda`, or use `engine: local`")
        return self

    @property
    def ray(self) -> RayEngine | None:
        """The cluster that scores, where one is declared."""
        return self.engine if isinstance(self.engine, RayEngine) else None

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
