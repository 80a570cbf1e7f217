"""The data of the benchmarks: the demo's real flights, once and repeated many times, and the models that score them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path

import duckdb
import pandas as pd

from pip_dagster.declaration.pipeline import Pipeline
from pip_dagster.declaration.project import Project
from pip_dagster.declaration.spec import PipelineSpec
from pip_dagster.registry.store import Registry

REPOSITORY = Path(__file__).parents[1]
FOLDER = Path(os.environ.get("PIP_DAGSTER_BENCHMARKS", REPOSITORY / "build" / "benchmarks"))
# Set in a measured process, which must find its data made: making them is neither its time nor its memory.
MEASURED = "PIP_DAGSTER_BENCHMARKS_MEASURED"
DEMO = REPOSITORY / "flights" / "defs" / "flight_delay"
INSTANCE = REPOSITORY / "pip_dagster" / "scaffold" / "templates" / "dagster.yaml"
# Rows in one partition, by the number of times that the year's 336,776 flights are repeated.
REPLICAS = {"1M": 3, "3M": 9, "4M": 12, "10M": 30, "30M": 89, "100M": 297}
FEATURES = (
    *("dow", "days_to_holiday", "sched_dep_min", "sched_block_min", "carrier", "origin", "distance", "n_origin_hour"),
    *("plane_age", "seats", "wx1_temp", "wx1_wind", "wx1_visib", "wx1_pressure", "wx1_humid", "sys_late_1d"),
    *("sys_late_7d", "carrier_late_7d", "origin_late_1d", "originhour_late_28d", "route_late_28d"),
    *("flightno_late_28d", "tail_delay_1d", "tail_delay_7d"),
)
CATEGORIES = ("carrier", "origin")
TREES, DEPTH = 300, 6
SCALE_SQL = (
    f"SELECT flight_id, day, {', '.join(FEATURES)} FROM raw.flights WHERE day >= $start_date AND day < $end_date"
)


def sources() -> Path:
    """The demo's source database, built by the demo's own script."""
    target = FOLDER / "sources.duckdb"
    if _is_missing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        script = REPOSITORY / "flights" / "load_sources.py"
        _python(script, REPOSITORY / "data" / "flight_delay", target)
    return target


def features() -> Path:
    """A year of the demo's features and labels, as `feat.flights` and `feat.labels`."""
    target = FOLDER / "features.duckdb"
    if _is_missing(target):
        with building(target) as con:
            con.execute(f"ATTACH '{sources()}' AS sources (READ_ONLY)")
            con.execute("CREATE SCHEMA built.feat")
            con.execute("USE sources")
            year = {"start_date": date(2013, 1, 1), "end_date": date(2014, 1, 1)}
            for name, file in (("flights", "features.sql"), ("labels", "labels.sql")):
                con.execute(f"CREATE TABLE built.feat.{name} AS {(DEMO / file).read_text(encoding='utf-8')}", year)
    return target


def scale(size: str) -> Path:
    """A source database with `raw.flights` of this size, all of one day."""
    target = FOLDER / f"scale_{size}.duckdb"
    if _is_missing(target):
        with building(target) as con:
            con.execute(f"ATTACH '{features()}' AS year (READ_ONLY)")
            con.execute("CREATE SCHEMA raw")
            sql = (Path(__file__).parent / "scale_features.sql").read_text(encoding="utf-8")
            con.execute(sql.replace("feat.flights", "year.feat.flights"), {"k": REPLICAS[size]})
    return target


def registry() -> Path:
    """Two models: `scale`, 300 trees of depth 6 on 24 features, and the demo's `flight_delay`, both champions."""
    target = FOLDER / "registry"
    known = Registry(target)
    if os.environ.get(MEASURED):
        return target
    if "scale" not in (known.models() if target.is_dir() else []):
        _train_scale(known)
        known.set_alias("scale", "champion", 1, by="benchmark", why="the only one")
    if "flight_delay" not in known.models():
        with _demo_project(target) as project:
            _python(REPOSITORY / "flights" / "train.py", project)
        known.set_alias("flight_delay", "champion", 2, by="benchmark", why="the better of two")
    return target


@contextmanager
def _demo_project(models: Path) -> Iterator[Path]:
    """A project with the demo's pipeline and sources, whose models go to a registry elsewhere."""
    with tempfile.TemporaryDirectory() as folder:
        project = Path(folder)
        (project / "pyproject.toml").write_text(f"[tool.pip_dagster]\nregistry = '{models}'\n", encoding="utf-8")
        shutil.copytree(DEMO, project / "defs")
        (project / "data").mkdir()
        (project / "data" / "sources.duckdb").symlink_to(sources())
        yield project


def _train_scale(known: Registry) -> None:
    import xgboost as xgb

    with duckdb.connect(str(features()), read_only=True) as con:
        frame = con.execute(
            f"SELECT {', '.join(FEATURES)}, late15 FROM feat.flights JOIN feat.labels USING (flight_key) "
            "WHERE late15 IS NOT NULL ORDER BY flight_key"
        ).df()
    X = frame[list(FEATURES)].copy()
    lists = {name: sorted(X[name].unique()) for name in CATEGORIES}
    for name, values in lists.items():
        X[name] = pd.Categorical(X[name], categories=values)
    data = xgb.DMatrix(X, label=frame["late15"], enable_categorical=True)
    parameters = {"objective": "binary:logistic", "max_depth": DEPTH, "eta": 0.1, "nthread": 2, "seed": 7}
    booster = xgb.train(parameters, data, TREES)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.ubj"
        booster.save_model(file)
        known.register("scale", model=file, sample=frame[list(FEATURES)].iloc[::30], categories=lists, by="benchmark")


def scale_pipeline(size: str, folder: Path, **scoring: object) -> Pipeline:
    """A pipeline that scores `scale(size)` into a warehouse in `folder`."""
    spec = PipelineSpec.model_validate(
        {
            "name": "scale",
            "partitions": {"every": "day", "start": "2014-01-01"},
            "source_database": str(scale(size)),
            "sources": {"flights": {"table": "raw.flights", "partition_column": "day"}},
            "features": {"sql": "features.sql", "key": ["flight_id"], "partition_column": "day"},
            "scoring": {"model_name": "scale", "device": "cpu", **scoring},
        }
    )
    project = Project(folder, folder / "warehouse.duckdb", registry(), folder / "published")
    return Pipeline(spec, SCALE_SQL, project)


def year_project(folder: Path) -> Path:
    """A separate project with the demo's declaration: its root. Its module is `bench_year`."""
    package = folder / "bench_year"
    shutil.copytree(DEMO, package / "defs" / "flight_delay")
    declaration = package / "defs" / "flight_delay" / "defs.yaml"
    declaration.write_text(declaration.read_text().replace("data/sources.duckdb", str(sources())))
    # The demo blocks 2013-12-31, which has no weather data; here all 365 dates are scored.
    expectations = package / "defs" / "flight_delay" / "expectations.yaml"
    expectations.write_text(expectations.read_text().replace("min_value: 24 ", "min_value: 0 "))
    (package / "__init__.py").touch()
    shutil.copy(REPOSITORY / "flights" / "definitions.py", package / "definitions.py")
    (folder / "pyproject.toml").write_text(
        '[tool.dg]\ndirectory_type = "project"\n[tool.dg.project]\nroot_module = "bench_year"\n'
        f'code_location_name = "bench_year"\n[tool.pip_dagster]\nregistry = "{registry()}"\n'
    )
    home = folder / "home"
    home.mkdir()
    shutil.copy(INSTANCE, home / "dagster.yaml")
    return folder


def declare(root: Path, before: str, after: str) -> None:
    """Replace a part of the declaration of a `year_project`."""
    file = root / "bench_year" / "defs" / "flight_delay" / "defs.yaml"
    text = file.read_text(encoding="utf-8")
    assert before in text, before
    file.write_text(text.replace(before, after), encoding="utf-8")


@contextmanager
def scratch() -> Iterator[Path]:
    """A temporary folder beside the benchmarks' data."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(dir=FOLDER))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def _is_missing(target: Path) -> bool:
    if target.is_file():
        return False
    assert not os.environ.get(MEASURED), f"{target} must be made before the process that is measured starts"
    return True


class building:
    """A connection whose database `built` becomes the file `target` if the block succeeds."""

    def __init__(self, target: Path) -> None:
        self.target = target
        self.temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")

    def __enter__(self) -> duckdb.DuckDBPyConnection:
        self.target.parent.mkdir(parents=True, exist_ok=True)
        self.temporary.unlink(missing_ok=True)
        self.con = duckdb.connect(":memory:", config={"memory_limit": "3GB", "temp_directory": str(FOLDER / "spill")})
        self.con.execute("SET TimeZone = 'UTC'")
        self.con.execute(f"ATTACH '{self.temporary}' AS built (STORAGE_VERSION 'v1.5.0')")
        self.con.execute("USE built")
        return self.con

    def __exit__(self, kind: object, *rest: object) -> None:
        if kind is None:
            self.con.execute("USE memory")
            self.con.execute("DETACH built")
            self.temporary.replace(self.target)
        self.con.close()
        self.temporary.unlink(missing_ok=True)


def _python(script: Path, *arguments: Path) -> None:
    subprocess.run([sys.executable, str(script), *map(str, arguments)], check=True, stdout=subprocess.DEVNULL)
