"""The record of a model version: how to score with it, and its distributions in training."""

from __future__ import annotations

from pydantic import AwareDatetime, Field, FiniteFloat, model_validator

from pip_dagster.plural import plural
from pip_dagster.registry.booster_signature import BoosterSignature, Feature, Record
from pip_dagster.registry.calibration import Calibration
from pip_dagster.registry.composite import Composite
from pip_dagster.registry.held_out import HeldOut

__all__ = ["BoosterSignature", "Description", "Feature", "HeldOut", "Histogram", "Manifest", "Signature"]

FORMAT = 1


class Histogram(Record):
    """How a feature or score was distributed in the training sample.

    Numeric: `edges` ascend and `counts` has one more entry: bin i holds `edges[i-1] < x <= edges[i]`, the first
    is open below, the last open above (so a value beyond the training range has a bin). This is DuckDB's own
    `histogram(x, edges)` convention. Categories: `edges` is empty and `counts[i]` belongs to `labels[i]`.
    NULL and NaN are counted in `missing` only. `mean` and `sd` (of the population) are of a number's other values.
    """

    edges: tuple[FiniteFloat, ...]
    counts: tuple[int, ...]
    missing: int
    labels: tuple[str, ...] | None = None
    mean: FiniteFloat | None = None
    sd: FiniteFloat | None = None

    @model_validator(mode="after")
    def _one_count_a_bin(self) -> Histogram:
        bins = len(self.labels) if self.labels is not None else len(self.edges) + 1
        if len(self.counts) != bins:
            raise ValueError(f"{len(self.counts)} counts for {bins} bins")
        return self


class Signature(BoosterSignature):
    """A version's signature: a single model's, or that of several which score together as `composite` defines.

    A composite's `features` are those of its members, each once: category lists are joined, a feature is a whole number
    only if it is for all members. `engine`, `task` and `objective` are the first member's.
    """

    composite: Composite | None = None

    @property
    def width(self) -> int:
        """The columns of the matrix: the features, the offset, and the number of a row's segment."""
        routes = self.composite is not None and self.composite.routes
        return len(self.features) + (self.offset is not None) + routes

    def scores_like(self, other: Signature) -> bool:
        """Whether the same model bytes give the same scores under both; library versions aside."""
        same = ("features", "outputs", "classes", "iteration_range", "composite", "missing", "offset")
        return all(getattr(self, field) == getattr(other, field) for field in same)


class Origin(Record):
    """The origin of a mirrored version: its name in MLflow, its run, and the sha256 of its file there."""

    uri: str
    run_id: str | None = None
    model_sha256: str


class TrainingCheck(Record):
    """The scores that training computed were compared: of so many rows, with this largest absolute difference."""

    rows: int
    largest_difference: FiniteFloat


class Manifest(Signature):
    """A version's `manifest.json`: its signature, its files' sha256, who registered it, and reference statistics."""

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
    origin: Origin | None = None
    training_check: TrainingCheck | None = None
    held_out: HeldOut | None = None

    @property
    def model_file(self) -> str:
        """The name of a single model's file; its suffix is the engine's."""
        return next((name for name in self.files if name.startswith("model.")), "model")

    @model_validator(mode="after")
    def _calibrates_one_output(self) -> Manifest:
        if self.calibration and len(self.outputs) > 1:
            raise ValueError(f"a calibration is for a model of one output; this one has {len(self.outputs)}")
        return self

    def scores_like(self, other: Signature) -> bool:
        """Whether the same bytes give the same scores under both, calibrated ones included."""
        return super().scores_like(other) and self.calibration == getattr(other, "calibration", None)

    @property
    def verified(self) -> str | None:
        """Whether the scores are those of training, in words; None for a composite, which was not trained."""
        if self.composite is not None:
            return None
        if self.training_check is None:
            return "not verified against training"
        checked = self.training_check
        return (
            f"verified against training on {plural(checked.rows, 'row')}, off by up to {checked.largest_difference:.3g}"
        )


class Description(Record):
    """The part of a manifest that only the person who registers a model knows."""

    registered_at: AwareDatetime
    registered_by: str
    description: str = ""
    metrics: dict[str, FiniteFloat] = {}
    training_window: tuple[str, str] | None = None
    tags: dict[str, str] = {}
    calibration: Calibration | None = None
    origin: Origin | None = None
