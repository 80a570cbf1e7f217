"""The facts that a Booster records about itself."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pip_dagster.registry.engines.xgboost.predictor import booster_name

if TYPE_CHECKING:
    import pyarrow as pa
    import xgboost as xgb

CategoryList = tuple[str, ...]


@dataclass(frozen=True)
class BoosterFacts:
    """Read from a loaded Booster; `categories` has an entry for each feature, None if the Booster has no list."""

    names: tuple[str, ...] | None
    types: tuple[str, ...] | None
    features: int
    objective: str
    booster: str
    classes: int
    outputs: int
    rounds: int
    best_iteration: int | None
    categories: tuple[CategoryList | None, ...]
    writer: tuple[int, int, int]
    xgboost_version: str
    quantiles: tuple[float, ...] | None = None
    tweedie_power: float | None = None

    def is_exact(self, categories: CategoryList) -> bool:
        """Whether the Booster's own list is correct.

        XGBoost before 3.4 garbles non-ASCII strings in training (it counts characters where it should count bytes). The
        damage is in the file, remains when a newer version loads it, and always leaves some non-ASCII byte.
        """
        if all(text.isascii() for text in categories):
            return True
        return self.writer >= (3, 4, 0) and not any("\ufffd" in text for text in categories)


def inspect(booster: xgb.Booster, writer: tuple[int, int, int] | None) -> BoosterFacts:
    """Read a Booster's features, outputs and rounds; `writer`, which saved it, counts as old if unknown."""
    import xgboost as xgb

    learner = json.loads(booster.save_config())["learner"]
    shape = learner["learner_model_param"]
    classes, targets = int(shape["num_class"]), int(shape.get("num_target", "1"))
    name, rounds = booster_name(booster), booster.num_boosted_rounds()
    best = booster.attr("best_iteration")
    return BoosterFacts(
        names=tuple(booster.feature_names) if booster.feature_names is not None else None,
        types=tuple(booster.feature_types) if booster.feature_types is not None else None,
        features=booster.num_features(),
        objective=learner["objective"]["name"],
        booster=name,
        classes=classes,
        outputs=max(classes, 1) * max(targets, 1),
        rounds=rounds,
        # gblinear has one set of weights, so an earlier round cannot be restored.
        best_iteration=int(best) if best is not None and name != "gblinear" else None,
        categories=_categories(booster) if name != "gblinear" else (None,) * booster.num_features(),
        writer=writer or (0, 0, 0),
        xgboost_version=xgb.__version__,
        **_parameters(learner["objective"]),
    )


def _parameters(objective: dict[str, Any]) -> dict[str, Any]:
    """What an objective was trained for, as numbers that float32 does not show its rounding in."""
    found: dict[str, Any] = {}
    if "quantile_loss_param" in objective:
        levels = json.loads(objective["quantile_loss_param"]["quantile_alpha"])
        found["quantiles"] = tuple(float(f"{level:.6g}") for level in levels)
    if "tweedie_regression_param" in objective:
        power = float(objective["tweedie_regression_param"]["tweedie_variance_power"])
        found["tweedie_power"] = float(f"{power:.6g}")
    return found


def _categories(booster: xgb.Booster) -> tuple[CategoryList | None, ...]:
    if "c" not in (booster.feature_types or []):
        return (None,) * booster.num_features()
    pairs = booster.get_categories(export_to_arrow=True).to_arrow()
    return tuple(None if values is None else _strings(values) for _, values in pairs)


def _strings(values: pa.Array) -> CategoryList:
    import pyarrow as pa

    if pa.types.is_string(values.type):
        # Through bytes: garbled strings are not valid UTF-8, and reading them as strings would raise.
        raw = values.view(pa.binary()).to_pylist()
        return tuple(text.decode(errors="replace") for text in raw)
    return tuple(str(value) for value in values.to_pylist())
