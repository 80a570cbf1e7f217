"""The benchmarks' rows as 24 numbers without gaps: a carrier or airport is its number, a missing value is -1."""

from __future__ import annotations

import tempfile
from pathlib import Path

import duckdb

from benchmarks import data
from pip_dagster.declaration.pipeline import Pipeline
from pip_dagster.registry.store import Registry


def registry() -> Path:
    """The benchmarks' registry with one more model: `plain`, 300 trees of depth 6 on 24 numbers."""
    folder = data.registry()
    known = Registry(folder)
    if "plain" not in known.models():
        _train(known)
        known.set_alias("plain", "champion", 1, by="benchmark", why="the only one")
    return folder


def pipeline(size: str, folder: Path) -> Pipeline:
    """`data.scale_pipeline` with the model `plain` and features that it takes."""
    registry()
    scale = data.scale_pipeline(size, folder)
    scoring = scale.spec.scoring.model_copy(update={"model_name": "plain"})
    spec = scale.spec.model_copy(update={"name": "plain", "scoring": scoring})
    sql = f"SELECT flight_id, day, {numbers()} FROM raw.flights WHERE day >= $start_date AND day < $end_date"
    return Pipeline(spec, sql, scale.project)


def numbers() -> str:
    """SQL of the features as numbers, over `feat.flights` and `raw.flights` alike."""
    listed = [
        f"(instr('{_ALPHABET}', {name}[1]) * 40 + instr('{_ALPHABET}', {name}[2]))::SMALLINT AS {name}"
        if name in data.CATEGORIES
        else f"coalesce({name}, -1) AS {name}"
        for name in data.FEATURES
    ]
    return ", ".join(listed)


_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def _train(known: Registry) -> None:
    import xgboost as xgb

    with duckdb.connect(str(data.features()), read_only=True) as con:
        frame = con.execute(
            f"SELECT {numbers()}, late15 FROM feat.flights JOIN feat.labels USING (flight_key) "
            "WHERE late15 IS NOT NULL ORDER BY flight_key"
        ).df()
    X = frame[list(data.FEATURES)]
    parameters = {"objective": "binary:logistic", "max_depth": data.DEPTH, "eta": 0.1, "nthread": 2, "seed": 7}
    booster = xgb.train(parameters, xgb.DMatrix(X, label=frame["late15"]), data.TREES)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.ubj"
        booster.save_model(file)
        known.register("plain", model=file, sample=X.iloc[::30], by="benchmark")
