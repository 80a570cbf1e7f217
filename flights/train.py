"""Train the demo's two models and register them, as a training job does before a pipeline can score.

`train.py [PROJECT]` trains on January to June, uses July for early stopping, and registers the models. The features
come from the SQL that the pipeline scores with, so training and scoring cannot diverge.

July is held out only for the model that July decided nothing about: early stopping chose the other's number of trees by
it, so that July would flatter it. That one has no held-out rows: every month before it scores was used.
"""

import sys
from dataclasses import dataclass
from typing import Any

import pandas as pd

import pip_dagster  # before xgboost: it stops OpenMP's threads from spinning

import xgboost as xgb  # isort: skip

MODEL = "flight_delay"
TRAIN, VALIDATE = ("2013-01-01", "2013-06-30"), ("2013-07-01", "2013-07-31")
COMMON = {
    "objective": "binary:logistic",
    "eval_metric": ["logloss", "auc"],
    "tree_method": "hist",
    "max_bin": 64,
    "nthread": 2,
    "seed": 7,
}


@dataclass(frozen=True)
class Recipe:
    """One model: its features and how it is trained."""

    description: str
    features: tuple[str, ...]
    parameters: dict[str, Any]
    rounds: int
    early_stopping: int | None = None


RECIPES = (
    Recipe(
        "the schedule alone",
        ("dow", "sched_dep_min", "distance", "carrier", "origin"),
        {"max_depth": 3, "eta": 0.3},
        rounds=40,
    ),
    Recipe(
        "schedule, plane, weather and recent delays",
        (
            *("dow", "days_to_holiday", "sched_dep_min", "sched_block_min", "carrier", "origin", "dest", "distance"),
            *("n_origin_hour", "plane_age", "seats", "plane_known"),
            *("wx1_temp", "wx1_wind", "wx1_precip", "wx1_visib", "wx1_pressure", "wx1_humid", "wx1_gust"),
            *("sys_late_1d", "sys_late_7d", "sys_canc_1d", "carrier_late_1d", "carrier_late_7d", "carrier_late_28d"),
            *("origin_late_1d", "origin_late_7d", "originhour_late_28d", "route_late_7d", "route_late_28d"),
            *("flightno_late_28d", "flightno_delay_28d", "tail_delay_1d", "tail_delay_7d"),
        ),
        {
            **{"max_depth": 4, "eta": 0.08, "min_child_weight": 100, "subsample": 0.7, "colsample_bytree": 0.4},
            **{"lambda": 20, "max_cat_to_onehot": 4},
        },
        rounds=200,
        early_stopping=40,
    ),
)


def matrix(frame: pd.DataFrame, features: tuple[str, ...], categories: dict[str, list[str]]) -> xgb.DMatrix:
    """The named columns; training, validation and scoring encode categories with the same list."""
    X = frame[list(features)].copy()
    for name, values in categories.items():
        if name in X:
            X[name] = pd.Categorical(X[name].where(X[name].isin(values)), categories=values)
    return xgb.DMatrix(X, label=frame["late15"], enable_categorical=True)


def main(project: str | None) -> None:
    """Train, measure and register each recipe; a model that is already registered is recognized by its bytes."""
    opened = pip_dagster.open(project)
    january_to_june = opened[MODEL].training_set(*TRAIN, labelled_only=True)
    july = opened[MODEL].training_set(*VALIDATE, labelled_only=True, prove=0)  # the same SQL, proven already
    # In the order of the key, so that subsampling is the same in every run.
    train, validate = (rows.df().sort_values("flight_key") for rows in (january_to_june, july))
    categories = {name: sorted(train[name].dropna().unique()) for name in ("carrier", "origin", "dest")}
    sample = train.iloc[:: max(1, len(train) // 10_000)].copy()
    for recipe in RECIPES:
        dtrain, dvalid = (matrix(frame, recipe.features, categories) for frame in (train, validate))
        history: dict[str, dict[str, list[float]]] = {}
        booster = xgb.train(
            COMMON | recipe.parameters,
            dtrain,
            recipe.rounds,
            evals=[(dvalid, "july")],
            early_stopping_rounds=recipe.early_stopping,
            evals_result=history,
            verbose_eval=False,
        )
        best = booster.best_iteration if recipe.early_stopping else recipe.rounds - 1
        version = opened.models.register(
            MODEL,
            model=booster,
            sample=sample,
            training_set=january_to_june,
            categories={name: values for name, values in categories.items() if name in recipe.features},
            description=recipe.description,
            metrics={f"july_{name}": round(values[best], 4) for name, values in history["july"].items()},
            **({} if recipe.early_stopping else {"outcome": "late15", "held_out": validate}),
        )
        figures = ", ".join(f"{name} {value}" for name, value in version.manifest.metrics.items())
        print(
            f"{version}: {recipe.description}; {len(recipe.features)} features, {best + 1} trees, {figures}", flush=True
        )


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else None)
