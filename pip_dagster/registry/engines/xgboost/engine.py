"""XGBoost as an engine. The library is imported only when a method needs it."""

from __future__ import annotations

from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

from pip_dagster.registry.booster_signature import BoosterSignature
from pip_dagster.registry.engines.protocol import Objective, SignatureClaims
from pip_dagster.registry.engines.xgboost.model_file import detect, written_by
from pip_dagster.registry.engines.xgboost.objectives import objective_of
from pip_dagster.registry.manifest import Signature
from pip_dagster.registry.matrix import LARGEST_FLOAT32, MatrixRules

if TYPE_CHECKING:
    import pyarrow as pa

    from pip_dagster.registry.engines.xgboost.predictor import BoosterPredictor


class XGBoost:
    """The engine `xgboost`; see `protocol.Engine`."""

    name = "xgboost"
    suffix = ".ubj"
    matrix = MatrixRules(title="XGBoost", largest=LARGEST_FLOAT32, takes_infinite=False)

    def version(self) -> str:
        """XGBoost's version."""
        import xgboost

        return str(xgboost.__version__)

    def libraries(self) -> dict[str, str]:
        """XGBoost's distribution; the one without CUDA has another name."""
        return {"xgboost": _installed()}

    def preload(self) -> None:
        """Import XGBoost."""
        import xgboost  # noqa: F401

        from pip_dagster.registry.engines.xgboost import predictor  # noqa: F401

    def gpu_obstacle(self) -> str | None:
        """Why XGBoost cannot score on a GPU here."""
        from pip_dagster.registry.engines.xgboost.gpu import why_no_cuda

        return why_no_cuda()

    def objective(self, name: str) -> Objective:
        """The properties of an objective."""
        return objective_of(name)

    def detect(self, data: bytes, path: Path) -> str:
        """`ubj` or `json`."""
        return detect(data, path)

    def examine(self, data: bytes, sample: pa.Table, claims: SignatureClaims) -> tuple[bytes, Signature]:
        """The model as UBJ, and its signature."""
        from pip_dagster.registry.engines.xgboost.booster_facts import inspect
        from pip_dagster.registry.engines.xgboost.predictor import load_booster
        from pip_dagster.registry.engines.xgboost.signature import derive
        from pip_dagster.registry.engines.xgboost.trees import check_trees

        kind, data = detect(data, Path()), data.lstrip()
        writer = written_by(data)
        booster = load_booster(data, "the model")
        if kind != "ubj":
            data = bytes(booster.save_raw("ubj"))
            booster = load_booster(data, "the converted model")
        check_trees(booster)
        return data, derive(inspect(booster, writer), sample, claims)

    def load(
        self, data: bytes, signature: BoosterSignature, *, subject: str, nthread: int, device: str = "cpu"
    ) -> BoosterPredictor:
        """A verified Booster."""
        from pip_dagster.registry.engines.xgboost import predictor

        booster = predictor.load_booster(data, subject)
        return predictor.BoosterPredictor(booster, signature, nthread=nthread, device=device, subject=subject)


@cache
def _installed() -> str:
    for name in ("xgboost", "xgboost-cpu"):
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return "unknown"
