"""The facts that scoring with one model needs beside its bytes."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationInfo, model_validator

# The kind of question that a model answers. Metrics, decisions and gates depend on it, not on the engine's objective.
Task = Literal["binary", "multiclass", "regression", "count", "ranking", "survival"]


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
    explicit because `Booster.predict` ignores early stopping while the scikit-learn wrapper honours it.
    `xgboost_version` is the version that scored the golden rows at registration.
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

    @model_validator(mode="before")
    @classmethod
    def _complete(cls, data: Any, info: ValidationInfo) -> Any:
        """A reader of stored manifests passes a function that adds `engine` and `task` if they are absent."""
        return info.context["complete"](data) if info.context else data
