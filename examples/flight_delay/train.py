"""Train the demo's two models and register them, as a training job does before a pipeline can score.

`train.py SOURCES REGISTRY` trains on January to June, uses July for early stopping, and registers the models. The
features come from the SQL that the pipeline scores with, so training and scoring cannot diverge.

July is held out only for the model that July decided nothing about: early stopping chose the other's number of trees by
it, so that July would flatter it. That one has no held-out rows: every month before it scores was used.
"""

import sys
import tempfile
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd

from pip_dagster.registry.store import Registry  # before xgboost: it stops OpenMP's threads from spinning

import xgboost as xgb  # isort: skip

PIPELINE = Path(__file__).parents[2] / "pip_dagster" / "defs" / "flight_delay"
MODEL = "flight_delay"
TRAIN, VALIDATE = (date(2013, 1, 1), date(2013, 7, 1)), (date(2013, 7, 1), date(2013, 8, 1))
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


def labelled(con: duckdb.DuckDBPyConnection, start: date, end: date) -> pd.DataFrame:
    """Features of flights that have a label, in key order, so that subsampling is the same in every run."""
    bounds = {"start_date": start, "end_date": end}
    features, labels = ((PIPELINE / name).read_text(encoding="utf-8") for name in ("features.sql", "labels.sql"))
    con.execute(f"CREATE OR REPLACE TEMP TABLE x AS {features}", bounds)
    con.execute(f"CREATE OR REPLACE TEMP TABLE y AS {labels}", bounds)
    return con.execute(
        "SELECT x.*, late15 FROM x JOIN y USING (flight_key) WHERE late15 IS NOT NULL ORDER BY flight_key"
    ).df()


def matrix(frame: pd.DataFrame, features: tuple[str, ...], categories: dict[str, list[str]]) -> xgb.DMatrix:
    """The named columns; training, validation and scoring encode categories with the same list."""
    X = frame[list(features)].copy()
    for name, values in categories.items():
        if name in X:
            X[name] = pd.Categorical(X[name].where(X[name].isin(values)), categories=values)
    return xgb.DMatrix(X, label=frame["late15"], enable_categorical=True)


def main(sources: Path, registry: Path) -> None:
    """Train, measure and register each recipe; a model that is already registered is recognized by its bytes."""
    con = duckdb.connect(str(sources), read_only=True)
    con.execute("SET TimeZone = 'UTC'")
    train, validate = labelled(con, *TRAIN), labelled(con, *VALIDATE)
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
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "model.ubj"
            booster.save_model(file)
            version = Registry(registry).register(
                MODEL,
                model=file,
                sample=sample,
                categories={name: values for name, values in categories.items() if name in recipe.features},
                description=recipe.description,
                metrics={f"july_{name}": round(values[best], 4) for name, values in history["july"].items()},
                training_window=(str(TRAIN[0]), str(TRAIN[1])),
                **({} if recipe.early_stopping else {"outcome": "late15", "held_out": validate}),
            )
        figures = ", ".join(f"{name} {value}" for name, value in version.manifest.metrics.items())
        print(
            f"{version}: {recipe.description}; {len(recipe.features)} features, {best + 1} trees, {figures}", flush=True
        )


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
