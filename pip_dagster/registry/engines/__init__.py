"""The engines that models are scored by, by name. A new one is a package here that satisfies `protocol.Engine`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pip_dagster.registry.booster_signature import BoosterSignature
from pip_dagster.registry.engines.protocol import Engine, Objective
from pip_dagster.registry.engines.xgboost.engine import XGBoost
from pip_dagster.registry.errors import InvalidModel, UnsafeModelFile

DEFAULT = XGBoost.name
ENGINES: dict[str, Engine] = {DEFAULT: XGBoost()}


def engine_named(name: str) -> Engine:
    """The engine that a manifest names.

    Raises:
        InvalidModel: there is no such engine here.
    """
    if name not in ENGINES:
        raise InvalidModel(
            f"the model needs the engine {name!r}, which this pip-dagster does not have; it has {', '.join(ENGINES)}. "
            "Upgrade pip-dagster"
        )
    return ENGINES[name]


def objective_of(signature: BoosterSignature) -> Objective:
    """The properties of a model's objective. Raises as `engine_named` and `Engine.objective`."""
    return engine_named(signature.engine).objective(signature.objective)


def detect(data: bytes, path: Path) -> tuple[Engine, str]:
    """The engine that reads a model file, and the file's format.

    Raises:
        UnsafeModelFile: the bytes are not a model file of any engine; they were not opened.
    """
    refusals = []
    for engine in ENGINES.values():
        try:
            return engine, engine.detect(data, path)
        except UnsafeModelFile as error:
            refusals.append(str(error))
    raise UnsafeModelFile("\n".join(refusals))


def completed(signature: Any) -> Any:
    """A stored signature with `engine` and `task`; before they were recorded, every model was XGBoost's.

    Raises:
        SignatureMismatch: no task is known for its objective.
    """
    if not isinstance(signature, dict) or "task" in signature or "objective" not in signature:
        return signature
    return signature | {"engine": DEFAULT, "task": ENGINES[DEFAULT].objective(str(signature["objective"])).task}
