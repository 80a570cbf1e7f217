"""The facts that scoring with one model needs beside its bytes."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    FiniteFloat,
    SerializerFunctionWrapHandler,
    ValidationInfo,
    model_serializer,
    model_validator,
)

# The kind of question that a model answers. Metrics, decisions and gates depend on it, not on the engine's objective.
Task = Literal["binary", "multiclass", "regression", "count", "ranking", "survival"]


# Fields that were added later, and are absent where nothing is declared.
_LATER = {"missing", "offset", "training_check", "quantiles", "tweedie_power", "held_out"}


class Record(BaseModel):
    """Something that the registry stores or reads: immutable, without unknown keys."""

    # A key this code does not know may change what the scores mean: refuse it rather than ignore it.
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class Feature(Record):
    """One model input. For a category, code i means `categories[i]`; other types have no categories."""

    name: str
    type: Literal["float", "int", "bool", "category"]
    categories: tuple[str, ...] | None = None

    @model_validator(mode="after")
    def _categories_iff_category(self) -> Feature:
        if (self.type == "category") != (self.categories is not None):
            raise ValueError(f"feature {self.name!r}: type 'category' requires `categories`; other types forbid it")
        return self


class BoosterSignature(Record):
    """The facts that scoring needs beside the model's bytes.

    `engine` loads and scores the model; `objective`, `booster` and `xgboost_version` are its words. `task` follows from
    the objective. `features` are in the model's order. `outputs` name the score columns. `classes` are the labels of a
    multi-class model (or of a binary one, if given). `iteration_range` is the half-open range of boosting rounds used,
    explicit because `Booster.predict` ignores early stopping while the scikit-learn wrapper honors it.
    `xgboost_version` is the version that scored the golden rows at registration. `missing` is a number that counts as a
    missing value, as NaN always does; `offset` is the column of the base margin. The matrix has it after the features.
    `quantiles` are those of a quantile objective, one for each output; `tweedie_power` is the variance's.
    """

    engine: str
    task: Task
    features: tuple[Feature, ...]
    objective: str
    booster: str
    outputs: tuple[str, ...]
    classes: tuple[str, ...] | None = None
    iteration_range: tuple[int, int]
    xgboost_version: str
    missing: FiniteFloat | None = None
    offset: str | None = None
    quantiles: tuple[FiniteFloat, ...] | None = None
    tweedie_power: FiniteFloat | None = None

    @model_validator(mode="before")
    @classmethod
    def _complete(cls, data: Any, info: ValidationInfo) -> Any:
        """A reader of stored manifests passes a function that adds `engine` and `task` if they are absent."""
        return info.context["complete"](data) if info.context else data

    @model_serializer(mode="wrap")
    def _declared(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without what was not declared, so that manifests without it are those of earlier versions."""
        found: dict[str, Any] = handler(self)
        return {name: value for name, value in found.items() if value is not None or name not in _LATER}
