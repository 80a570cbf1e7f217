"""A model of 24 numbers, none of them missing, against the bare predictor: nothing hides what the pipeline itself costs."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

from benchmarks import data
from benchmarks.cases import run, time_floor
from benchmarks.measure import case, in_turns
from benchmarks.suite import Figure, Options, benchmark, note
from pip_dagster.declaration.pipeline import Pipeline
from pip_dagster.registry.store import Registry

_LETTERS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"


@benchmark("plain_numeric")
def plain_numeric(_: Options) -> list[Figure]:
    """Numbers without gaps: CPU seconds from stored features to committed scores, against the bare predictor."""
    registry()
    figures = []
    for size in ("1M", "10M"):
        note(f"plain numeric, {size} rows")
        data.scale(size)
        floors, ours = in_turns(
            3 if size == "1M" else 1,
            lambda size=size: case("benchmarks.groups.plain:floor", size),  # type: ignore[misc]
            lambda size=size: case("benchmarks.groups.plain:predictions", size),  # type: ignore[misc]
        )
        bare = min(each.cpu_seconds for each in floors)
        committed = min(each.cpu_seconds - each.reported["published"] for each in ours)
        detail = f"{bare:.1f} s → {committed:.1f} s of CPU, publishing excluded"
        figures.append(Figure(f"plain numeric, {size} rows", committed / bare, 1.25, "×", detail))
    return figures


def floor(size: str) -> None:
    """`Booster.inplace_predict` on a float32 array in memory."""
    import duckdb
    import numpy as np

    version = Registry(data.registry()).get("plain", 1)
    con = duckdb.connect(str(data.scale(size)), read_only=True)
    parts = con.sql(f"SELECT {numbers()} FROM raw.flights").to_arrow_reader(100_000)
    X = np.concatenate([np.column_stack([c.to_numpy().astype(np.float32) for c in part.columns]) for part in parts])
    con.close()
    time_floor(version, X)


def predictions(size: str) -> None:
    """From stored features to committed scores and ledger; reports as `published` the CPU seconds of publishing."""
    with data.scratch() as folder:
        rows, timed, publishing = run(pipeline(size, folder), "predictions")
    timed.report(rows=rows, published=sum(each.cpu_seconds for each in publishing))


def numbers() -> str:
    """SQL of the features as numbers: a carrier or airport is its first two letters', a missing value is -1."""
    listed = [
        f"(strpos('{_LETTERS}', {name}[1]) * 40 + strpos('{_LETTERS}', {name}[2]))::SMALLINT AS {name}"
        if name in data.CATEGORIES
        else f"coalesce({name}, -1) AS {name}"
        for name in data.FEATURES
    ]
    return ", ".join(listed)


def pipeline(size: str, folder: Path) -> Pipeline:
    """The pipeline of the other benchmarks, with the model `plain` and the features that it takes."""
    scale = data.scale_pipeline(size, folder)
    scoring = scale.spec.scoring.model_copy(update={"model_name": "plain"})
    spec = scale.spec.model_copy(update={"name": "plain", "scoring": scoring})
    where = "day >= $start_date AND day < $end_date"
    return replace(scale, spec=spec, sql=f"SELECT flight_id, day, {numbers()} FROM raw.flights WHERE {where}")


def registry() -> Path:
    """The benchmarks' registry with one more model: `plain`, 300 trees of depth 6."""
    known = Registry(data.registry())
    if "plain" not in known.models():
        _train(known)
        known.set_alias("plain", "champion", 1, by="benchmark", why="the only one")
    return data.registry()


def _train(known: Registry) -> None:
    import duckdb
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
