"""The tiny project with composites beside its two versions."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import xgboost as xgb  # isort: skip

SEGMENTS: dict[str, Any] = {
    "segments": [
        {"name": "far", "when": "shop IN ('Zürich', '東京') AND note <> 'x'", "model": "returns", "version": 2},
        {"name": "quoted", "when": "shop = 'O''Hare \"B\"'", "model": "small", "alias": "champion"},
        {"name": "rest", "otherwise": True, "model": "returns", "version": "v1"},
    ]
}


@pytest.fixture(scope="session")
def segments() -> dict[str, Any]:
    """What `returns` v3 was composed of."""
    return SEGMENTS


def feature_rows(helpers: Any, rows: int = 400) -> pd.DataFrame:
    """Rows as the feature SQL gives them, some without a shop."""
    frame = helpers.orders(rows, seed=4).assign(note="not a feature")
    frame.loc[::9, "shop"] = None
    return frame


@pytest.fixture(scope="session")
def sample(helpers: Any) -> pd.DataFrame:
    return feature_rows(helpers)


def register_small(tiny: Any, helpers: Any) -> None:
    """A model of one shop and two features, with a category list of its own, and in another order."""
    frame = helpers.orders(400, seed=6)
    codes = (frame["shop"] == 'O\'Hare "B"').astype(np.float32)
    label = (frame["quantity"] + codes > 4).astype(int)
    data = xgb.DMatrix(
        np.column_stack([codes, frame["quantity"]]).astype(np.float32),
        label=label,
        feature_names=["shop", "quantity"],
        feature_types=["c", "int"],
    )
    file = tiny.root / "small.ubj"
    xgb.train({"objective": "binary:logistic", "max_depth": 3, "nthread": 1}, data, 4).save_model(file)
    frame["shop"] = np.where(codes > 0, 'O\'Hare "B"', "plain")
    version = tiny.registry.register(
        "small", model=file, sample=frame, categories={"shop": ["plain", 'O\'Hare "B"']}, by="ada"
    )
    tiny.registry.set_alias("small", "champion", version.version, by="ada", why="the first")


@pytest.fixture(scope="session")
def composed_template(template: Path, helpers: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny project with a segmented composite, returns v3, and an ensemble of v1 and v2, returns v4."""

    def make(root: Path) -> None:
        shutil.copytree(template, root)
        tiny = helpers.Tiny(root)
        register_small(tiny, helpers)
        frame = feature_rows(helpers)
        assert tiny.registry.compose("returns", SEGMENTS, sample=frame, by="ada").version == 3
        ensemble = {"ensemble": [{"model": "returns", "version": v, "weight": w} for v, w in ((1, 0.7), (2, 0.3))]}
        assert tiny.registry.compose("returns", ensemble, sample=frame, by="ada").version == 4

    return helpers.shared(tmp_path_factory, "composed", make)


@pytest.fixture
def composed(composed_template: Path, helpers: Any, tmp_path: Path) -> Any:
    root = tmp_path / "shop"
    shutil.copytree(composed_template, root)
    return helpers.Tiny(root)
