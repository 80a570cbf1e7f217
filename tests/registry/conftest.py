"""Real Boosters on a small frame; most tests wrap one in this process, as the probe does in its own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import xgboost as xgb

from pip_dagster.registry import ModelVersion, Registry
from pip_dagster.registry.engines.protocol import SignatureClaims
from pip_dagster.registry.engines.xgboost.booster_facts import inspect
from pip_dagster.registry.engines.xgboost.model_file import written_by
from pip_dagster.registry.engines.xgboost.predictor import BoosterPredictor, load_booster
from pip_dagster.registry.engines.xgboost.signature import derive

Train = Callable[..., xgb.Booster]
Wrap = Callable[..., BoosterPredictor]


@pytest.fixture(scope="session")
def frame() -> pd.DataFrame:
    """Float with gaps, int, bool, and a category whose codes are not in alphabetical order."""
    rng = np.random.default_rng(7)
    rows = 300
    distance = rng.gamma(2.0, 500.0, rows)
    distance[::9] = np.nan
    carrier = rng.choice(["UA", "AA", "B6"], rows)
    return pd.DataFrame(
        {
            "distance": distance,
            "stops": rng.integers(0, 5, rows),
            "night": rng.random(rows) > 0.5,
            "carrier": pd.Categorical(carrier, categories=["UA", "AA", "ZZ", "B6"]),
        }
    )


@pytest.fixture(scope="session")
def label(frame: pd.DataFrame) -> np.ndarray:
    noise = np.random.default_rng(8).normal(size=len(frame))
    return (frame.stops + (frame.carrier == "UA") * 2 + frame.night + noise > 3.5).to_numpy().astype(np.float32)


@pytest.fixture(scope="session")
def train() -> Train:
    def _train(frame: pd.DataFrame, label: Any, rounds: int = 6, group: Any = None, **parameters: Any) -> xgb.Booster:
        data = xgb.DMatrix(frame, label=label, enable_categorical=True)
        if group is not None:
            data.set_group(group)
        defaults = {"max_depth": 3, "nthread": 1, "seed": 1, "verbosity": 0}
        return xgb.train(defaults | parameters, data, rounds)

    return _train


@pytest.fixture(scope="session")
def booster(train: Train, frame: pd.DataFrame, label: np.ndarray) -> xgb.Booster:
    return train(frame, label, objective="binary:logistic", max_cat_to_onehot=1)


@pytest.fixture(scope="session")
def model_file(booster: xgb.Booster, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "model.ubj"
    booster.save_model(path)
    return path


@pytest.fixture(scope="session")
def wrap() -> Wrap:
    """A BoosterPredictor the way the probe makes one, without its process."""

    def _wrap(booster: xgb.Booster, sample: pd.DataFrame | pa.Table, **claims: Any) -> BoosterPredictor:
        data = bytes(booster.save_raw("ubj"))
        loaded = load_booster(data, "test")
        table = sample if isinstance(sample, pa.Table) else pa.Table.from_pandas(sample, preserve_index=False)
        signature = derive(inspect(loaded, written_by(data)), table, SignatureClaims(**claims))
        return BoosterPredictor(loaded, signature, nthread=1, device="cpu", subject="test")

    return _wrap


@pytest.fixture(scope="session")
def _registered(model_file: Path, frame: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> ModelVersion:
    registry = Registry(tmp_path_factory.mktemp("registered"))
    return registry.register(
        "delay",
        model=model_file,
        sample=frame,
        by="ada",
        description="first",
        metrics={"auc": 0.72},
        training_window=("2013-01-01", "2013-07-01"),
        tags={"commit": "abc"},
    )


@pytest.fixture
def version(_registered: ModelVersion, tmp_path: Path) -> ModelVersion:
    """A registered version in a registry of the test's own: registering takes a second, copying does not."""
    import shutil

    root = tmp_path / "registry"
    shutil.copytree(_registered.path.parents[2], root)
    return Registry(root).get("delay", 1)


@pytest.fixture
def registry(version: ModelVersion) -> Registry:
    """Holds ``delay`` v1 only."""
    return Registry(version.path.parents[2])


@pytest.fixture
def two_versions(registry: Registry) -> Registry:
    """Holds ``delay`` v1 and v2; v2 is v1's model under another manifest."""
    from pip_dagster.registry.publish import publish, staging

    first = registry.get("delay", 1)
    with staging(registry.root / "delay") as staged:
        for file in first.manifest.files:
            (staged / file).write_bytes(first.file_bytes(file))
        other = {"iteration_range": (0, 2)}
        publish(
            registry.root / "delay",
            staged,
            lambda number, files: first.manifest.model_copy(update=other | {"version": number, "files": files}),
        )
    return registry
