"""The contract of an engine: it reads, describes and scores the model files of one library."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

from pydantic import FiniteFloat

from pip_dagster.registry.booster_signature import BoosterSignature, Record, Task
from pip_dagster.registry.manifest import Signature
from pip_dagster.registry.matrix import MatrixRules

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

Link = Literal["identity", "logistic", "exponential", "softmax"]


@dataclass(frozen=True)
class Objective:
    """The properties of an objective that the rest of the package needs.

    `link` is the function from margin to score, None where it is not known. Scores are comparable between models whose
    objectives have the same `meaning`.
    """

    task: Task
    link: Link | None
    meaning: str


class SignatureClaims(Record):
    """A user's statements about a model file, for facts that neither the file nor the sample need hold."""

    feature_names: tuple[str, ...] | None = None
    categories: dict[str, tuple[str, ...]] = {}
    classes: tuple[str, ...] | None = None
    missing: FiniteFloat | None = None
    offset: str | None = None


class Predictor(Protocol):
    """A verified model. Its matrix is float32 in the manifest's feature order, then the offset if it takes one.

    See `registry.matrix`. A value that the signature calls `missing` is NaN to the model.
    """

    @property
    def gpu_failure(self) -> Exception | None:
        """The error that ended scoring on the GPU, so that the partitions in progress must be scored again."""
        ...

    def predict(self, X: np.ndarray) -> np.ndarray:
        """The scores, float32: (rows,) for one output, else (rows, outputs)."""
        ...

    def contributions(self, X: np.ndarray) -> np.ndarray:
        """Exact SHAP contributions to the margin and, last, the base: (rows, [outputs,] features + 1)."""
        ...

    def gains(self) -> Mapping[str, float]:
        """Each feature's share of the total gain of all splits, if it has any; empty for a model without splits."""
        ...


class MarginPredictor(Predictor, Protocol):
    """A single model, which can be a member of a composite."""

    def margin(self, X: np.ndarray) -> np.ndarray:
        """The scores before the objective's link function, in the shape of `predict`."""
        ...


class Engine(Protocol):
    """One library that scores models. Loading this object imports nothing of the library."""

    name: str  # in manifests
    suffix: str  # of the stored model file
    matrix: MatrixRules

    def version(self) -> str:
        """The library's running version, as recorded with the golden rows."""
        ...

    def libraries(self) -> dict[str, str]:
        """The versions that a score depends on, by distribution."""
        ...

    def preload(self) -> None:
        """Import the library."""
        ...

    def gpu_obstacle(self) -> str | None:
        """Why the library cannot score on a GPU here; None if it can."""
        ...

    def objective(self, name: str) -> Objective:
        """An objective's properties. Raises SignatureMismatch for an unknown one."""
        ...

    def detect(self, data: bytes, path: Path) -> str:
        """The format of a model file, from its bytes alone: the stored one, or one that `examine` converts.

        Raises:
            UnsafeModelFile: the bytes are not a model file of this engine.
        """
        ...

    def examine(self, data: bytes, sample: pa.Table, claims: SignatureClaims) -> tuple[bytes, Signature]:
        """A foreign file in the stored format, and its signature. Runs only in the probe's process.

        Raises:
            InvalidModel: the library cannot load the file, or the file is damaged.
            SignatureMismatch: model, sample and claims contradict each other.
        """
        ...

    def load(
        self, data: bytes, signature: BoosterSignature, *, subject: str, nthread: int, device: str = "cpu"
    ) -> MarginPredictor:
        """A model whose bytes were verified; `subject` names it in errors.

        Raises:
            InvalidModel: the installed library cannot load it.
            SignatureMismatch: the model is not the one that the signature describes.
        """
        ...
