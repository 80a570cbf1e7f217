"""What scoring with one Booster needs to know beside its bytes."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, model_validator


class Record(BaseModel):
    """A part of a manifest."""

    # A key this code does not know may change what the scores mean: refuse it rather than ignore it.
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class Feature(Record):
    """One model input. For a category, code i means ``categories[i]``; other types have no categories."""

    name: str
    type: Literal["float", "int", "bool", "category"]
    categories: tuple[str, ...] | None = None

    @model_validator(mode="after")
    def _categories_iff_category(self) -> "Feature":
        if (self.type == "category") != (self.categories is not None):
            raise ValueError(f"feature {self.name!r}: categories belong to type 'category', and only there")
        return self


class BoosterSignature(Record):
    """What scoring needs to know beside the model's bytes.

    ``features`` are in the Booster's order. ``outputs`` name the score columns. ``classes`` are the labels of a
    multi-class model (or of a binary one, if given). ``iteration_range`` is the half-open range of boosting rounds
    used, explicit because ``Booster.predict`` ignores early stopping while the scikit-learn wrapper honours it.
    ``xgboost_version`` is the one that scored the golden rows at registration.
    """

    features: tuple[Feature, ...]
    objective: str
    booster: str
    outputs: tuple[str, ...]
    classes: tuple[str, ...] | None = None
    iteration_range: tuple[int, int]
    xgboost_version: str
