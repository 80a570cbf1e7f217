"""What is recorded about a model version: how to score with it, and what it looked like in training."""

from typing import Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, FiniteFloat, model_validator

from pip_dagster.registry.calibration import Calibration

FORMAT = 1


class _Record(BaseModel):
    # A key this code does not know may change what the scores mean: refuse it rather than ignore it.
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class Feature(_Record):
    """One model input. For a category, code i means ``categories[i]``; other types have no categories."""

    name: str
    type: Literal["float", "int", "bool", "category"]
    categories: tuple[str, ...] | None = None

    @model_validator(mode="after")
    def _categories_iff_category(self) -> "Feature":
        if (self.type == "category") != (self.categories is not None):
            raise ValueError(f"feature {self.name!r}: categories belong to type 'category', and only there")
        return self


class Histogram(_Record):
    """How a feature or score was distributed in the training sample.

    Numeric: ``edges`` ascend and ``counts`` has one more entry: bin i holds ``edges[i-1] < x <= edges[i]``, the first
    is open below, the last open above (so a value beyond the training range has a bin). This is DuckDB's own
    ``histogram(x, edges)`` convention. Categories: ``edges`` is empty and ``counts[i]`` belongs to ``labels[i]``.
    NULL and NaN are counted in ``missing`` only.
    """

    edges: tuple[FiniteFloat, ...]
    counts: tuple[int, ...]
    missing: int
    labels: tuple[str, ...] | None = None
    mean: FiniteFloat | None = None

    @model_validator(mode="after")
    def _one_count_a_bin(self) -> "Histogram":
        bins = len(self.labels) if self.labels is not None else len(self.edges) + 1
        if len(self.counts) != bins:
            raise ValueError(f"{len(self.counts)} counts for {bins} bins")
        return self


class Signature(_Record):
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

    def scores_like(self, other: "Signature") -> bool:
        """Whether the same model bytes mean the same scores under both; library versions aside."""
        same = ("features", "outputs", "classes", "iteration_range")
        return all(getattr(self, field) == getattr(other, field) for field in same)


class Manifest(Signature):
    """A version's ``manifest.json``: its signature, its files' sha256, who registered it, and reference statistics."""

    format: int = Field(default=FORMAT, ge=1, le=FORMAT)
    model_name: str
    version: int
    registered_at: AwareDatetime
    registered_by: str
    files: dict[str, str]
    description: str = ""
    metrics: dict[str, FiniteFloat] = {}
    training_window: tuple[str, str] | None = None
    tags: dict[str, str] = {}
    feature_reference: dict[str, Histogram] = {}
    score_reference: dict[str, Histogram] = {}
    calibration: Calibration | None = None

    @model_validator(mode="after")
    def _calibrates_one_output(self) -> "Manifest":
        if self.calibration and len(self.outputs) > 1:
            raise ValueError(f"a calibration is for a model of one output; this one has {len(self.outputs)}")
        return self

    def scores_like(self, other: Signature) -> bool:
        """Whether the same bytes mean the same scores under both, calibrated ones included."""
        return super().scores_like(other) and self.calibration == getattr(other, "calibration", None)


class Description(_Record):
    """What only the person who registers a model can say about it."""

    registered_at: AwareDatetime
    registered_by: str
    description: str = ""
    metrics: dict[str, FiniteFloat] = {}
    training_window: tuple[str, str] | None = None
    tags: dict[str, str] = {}
    calibration: Calibration | None = None
