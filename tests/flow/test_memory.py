"""A run's memory: enough for the columns it has, more for what cannot do with it, and one sentence where it ends."""

import json
import os
import resource
import shutil
import sys
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pytest

from benchmarks import data, measure
from pip_dagster.cli.plan import plan_now
from pip_dagster.errors import MemoryLimitError
from pip_dagster.warehouse.connect import workspace
from pip_dagster.warehouse.memory import Room, make_room, rows_for, with_more

import xgboost as xgb  # isort: skip

GREEDY = """
SELECT o.order_id, o.day, o.gift, o.shop, o.quantity, o.amount, length(big.text) AS letters
FROM raw.orders o, (SELECT string_agg(repeat('x', 1000) || i, '') AS text FROM range(200_000) t(i)) big
WHERE o.day >= $start_date AND o.day < $end_date
"""
HUNGRY = "SELECT length(string_agg(repeat('x', 1000) || i, '')) FROM range(200_000) t(i)"


@pytest.mark.slice
def test_feature_sql_that_needs_more_memory_than_a_run_starts_with_gets_it(tiny):
    tiny.declare(GREEDY)
    results = tiny.run("2024-03-01", "2024-03-02")
    assert [result.error for result in results.values()] == [None, None]
    assert tiny.scores() == pytest.approx(tiny.expected("day < '2024-03-03'"))


def test_a_declared_limit_is_kept_to_and_the_error_names_it(tiny, monkeypatch):
    monkeypatch.setenv("PIP_DAGSTER_MEMORY_LIMIT", "192MB")
    (result,) = tiny.declare(GREEDY).run("2024-03-01").values()
    assert "PIP_DAGSTER_MEMORY_LIMIT is 192MB" in result.error
    assert "set PIP_DAGSTER_MEMORY_LIMIT=0.4GB or more" in result.error
    assert "\n" not in result.error


def test_a_raised_limit_is_lowered_again(monkeypatch):
    with workspace(threads=2, memory_limit="192MB") as con:
        before = Room.of(con)
        assert with_more(con, lambda: con.execute(HUNGRY).fetchall())
        assert Room.of(con) == before
        with pytest.raises(duckdb.OutOfMemoryException):
            con.execute(HUNGRY)


def test_work_that_fails_for_another_reason_is_not_retried():
    with workspace(threads=2) as con:
        tried = []

        def work():
            tried.append(1)
            return con.execute("SELECT error('no')").fetchall()

        with pytest.raises(duckdb.InvalidInputException):
            with_more(con, work)
        assert tried == [1]


def test_each_query_of_a_workspace_that_runs_out_of_memory_names_the_limit(monkeypatch):
    monkeypatch.setenv("PIP_DAGSTER_MEMORY_LIMIT", "100MB")
    sentence = r"PIP_DAGSTER_MEMORY_LIMIT is 100MB, which is not enough .*set PIP_DAGSTER_MEMORY_LIMIT=0\.2GB or more"
    with pytest.raises(MemoryLimitError, match=sentence), workspace(threads=1) as con:
        con.execute(HUNGRY)
    with pytest.raises(MemoryLimitError, match=sentence), workspace(threads=2) as con:
        with_more(con, lambda: con.execute(HUNGRY))
    with pytest.raises(MemoryLimitError, match="too little memory beside what DuckDB uses"), workspace(threads=1):
        raise MemoryError


@pytest.mark.parametrize(
    "text",
    [
        "Failed to commit: could not allocate block of size 256.0 KiB (572.2 MiB/572.2 MiB used)",
        "CHECKPOINT during DETACH failed: failed to pin block of size 256.0 KiB (572.1 MiB/572.2 MiB used)",
    ],
)
def test_a_commit_that_runs_out_of_memory_names_the_limit(text):
    with pytest.raises(MemoryLimitError, match="run fewer partitions at a time, or set"), workspace(threads=2):
        raise duckdb.TransactionException(f"TransactionContext Error: {text}")


def test_columns_take_memory_and_threads(monkeypatch):
    with workspace(threads=8) as con:
        make_room(con, 2_000, 8)
        assert 2e9 < Room.of(con).limit < 3.5e9 and Room.of(con).threads == 1
        make_room(con, 2_000, 8, small=True)
        assert Room.of(con).limit < 1.1e9 and Room.of(con).threads == 1
        make_room(con, 20, 8)
        assert Room.of(con).limit < 1e9 and Room.of(con).threads == 8
        monkeypatch.setenv("PIP_DAGSTER_MEMORY_LIMIT", "400MB")
        con.execute("SET memory_limit = '400MB'")
        make_room(con, 200, 8)
        assert round(Room.of(con).limit / 1e6) == 400 and Room.of(con).threads == 2
    assert (rows_for(200_000, 20), rows_for(200_000, 2_000), rows_for(10, 2_000)) == (200_000, 5_000, 1)


def widen(tiny, features, rows, days, **declared):
    """The project with a table and a model of so many features."""
    names = [f"f{i}" for i in range(features)]
    columns = ", ".join(f"(hash(i, {k}) % 1000)::DOUBLE / 7 AS {name}" for k, name in enumerate(names))
    tiny.source(
        f"CREATE TABLE raw.wide AS SELECT i AS id, DATE '2024-03-01' + (i // {rows})::INTEGER AS day, {columns} "
        f"FROM range({rows * days}) t(i)"
    )
    rng = np.random.default_rng(1)
    frame = pd.DataFrame(rng.uniform(0, 142, (100, features)), columns=names)
    label = (frame["f0"] + frame["f1"] > 140).astype(int)
    matrix = xgb.DMatrix(frame.to_numpy(np.float32), label, feature_names=names)
    booster = xgb.train({"objective": "binary:logistic", "max_depth": 3, "nthread": 1}, matrix, 10)
    booster.save_model(tiny.root / "wide.ubj")
    tiny.registry.register("wide", model=tiny.root / "wide.ubj", sample=frame, by="ada")
    tiny.registry.set_alias("wide", "champion", 1, by="ada", why="the first")
    tiny.declare(
        "SELECT * FROM raw.wide WHERE day >= $start_date AND day < $end_date",
        partitions={"start": "2024-03-01", "end": "2026-03-01"},
        sources={"wide": {"table": "raw.wide", "partition_column": "day"}},
        features={"key": ["id"]},
        scoring={"model_name": "wide"},
        explanations={"top": 3, "at_most": 2},
        **declared,
    )
    return booster


def days(count):
    return [f"{day:%Y-%m-%d}" for day in pd.date_range("2024-03-01", periods=count)]


@pytest.mark.slice
def test_a_wide_table_is_scored_judged_and_replayed_within_a_tight_limit(tiny, monkeypatch):
    """400 columns: one query over all of them takes more than this in any stage."""
    monkeypatch.setenv("PIP_DAGSTER_MEMORY_LIMIT", "100MB")
    monkeypatch.setattr("pip_dagster.flow.materialize.available_threads", lambda: 2)
    suite = [{"type": "expect_column_values_to_not_be_null", "kwargs": {"column": f"f{i}"}} for i in range(400)]
    (tiny.folder / "expectations.yaml").write_text(json.dumps({"features": suite}))
    booster = widen(tiny, 400, 600, 2, quality="expectations.yaml")
    results = tiny.run(*days(2))
    assert [result.error for result in results.values()] == [None, None]
    with duckdb.connect(str(tiny.root / "sources.duckdb"), read_only=True) as con:
        table = con.sql("SELECT * EXCLUDE (id, day) FROM raw.wide ORDER BY id").to_arrow_table()
    X = np.column_stack([column.to_numpy() for column in table.columns]).astype(np.float32)
    assert list(tiny.scores("id").values()) == booster.inplace_predict(X).tolist()
    assert tiny.published("SELECT count(*) FROM orders.reasons") == [(2 * 2 * 3,)]
    assert "identical" in tiny.shell("replay", "orders", "--all")
    assert "2 current" in tiny.shell("plan", "orders")


def test_a_limit_that_is_too_small_for_the_columns_is_named_with_one_that_is_enough(tiny, monkeypatch):
    widen(tiny, 400, 600, 2)
    monkeypatch.setenv("PIP_DAGSTER_MEMORY_LIMIT", "10MB")
    with pytest.raises(
        MemoryLimitError, match=r"is 10MB, which is not enough for .*PIP_DAGSTER_MEMORY_LIMIT=[\d.]+GB or more"
    ):
        tiny.run(*days(2))
    with pytest.raises(MemoryLimitError, match=r"PIP_DAGSTER_MEMORY_LIMIT=0\.6GB or more"):
        plan_now(tiny.project, "orders")


@pytest.mark.soak
@pytest.mark.parametrize(("features", "rows", "partitions"), [(1_000, 600, 1), (200, 600, 365), (2_000, 50, 365)])
def test_a_wide_table_passes_with_the_default_limit(tiny, features, rows, partitions):
    widen(tiny, features, rows, partitions)
    results = tiny.run(*days(partitions))
    assert {result.error for result in results.values()} == {None}
    assert tiny.published("SELECT count(*) FROM orders.predictions") == [(rows * partitions,)]
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < 4_000_000  # KB


@pytest.fixture
def container(request, monkeypatch, tmp_path):
    """Measures a command in a cgroup with one CPU and 1 GB, or the GB of the parameter; only root can create one."""
    name, memory, places = f"pip_dagster_{os.getpid()}", str(getattr(request, "param", 1) * 10**9), []
    base = Path("/sys/fs/cgroup")
    settings = (
        {"memory.max": memory, "memory.swap.max": "0", "cpu.max": "100000 100000"}
        if (base / "cgroup.subtree_control").exists()
        else {"memory/memory.limit_in_bytes": memory, "cpu/cpu.cfs_quota_us": "100000"}
    )
    try:
        for setting, value in settings.items():
            folder, file = (base / setting).parent / name, Path(setting).name
            folder.mkdir(exist_ok=True)
            places.append(folder)
            (folder / file).write_text(value)
    except OSError as error:
        pytest.skip(f"no cgroup can be created here: {error}")
    monkeypatch.setattr(measure, "FOLDER", tmp_path / "measured")
    enter = " && ".join(f"echo $$ > {folder}/cgroup.procs" for folder in dict.fromkeys(places))

    def run(*words: str, **options):
        return measure.command(["sh", "-c", f'{enter} && exec "$@"', "sh", *words], **options)

    yield run
    for folder in dict.fromkeys(places):
        folder.rmdir()


def backfill(container, tiny, count):
    command = [sys.executable, "-m", "pip_dagster.cli.main", "--project", str(tiny.root), "backfill", "orders"]
    run = container(*command, "--from", days(count)[0], "--to", days(count)[-1])
    print(f"{count} partitions: {run.cpu_seconds:.0f} CPU s, {run.peak_mb:.0f} MB")
    return run


@pytest.mark.soak
@pytest.mark.parametrize(
    ("features", "rows", "partitions", "container"),
    [(24, 10_000_000, 1, 1), (500, 50, 365, 1), (2_000, 50, 365, 1), (2_000, 10_000, 1, 1)],
    indirect=["container"],
)
def test_one_cpu_and_so_many_gb_are_enough(tiny, container, features, rows, partitions):
    widen(tiny, features, rows, partitions)
    backfill(container, tiny, partitions)
    assert tiny.published("SELECT count(*) FROM orders.predictions") == [(rows * partitions,)]
    threads = "SELECT DISTINCT threads FROM ledger.scorings"
    assert tiny.warehouse(threads) == [(1,)]


@pytest.mark.soak
def test_the_demo_runs_with_one_cpu_and_1_gb(container, tmp_path):
    """Loading, training two models, scoring a month and reporting, each in a process of its own."""
    root = tmp_path / "clone"
    left_out = shutil.ignore_patterns(".*", "build", "*.duckdb", "tests")
    shutil.copytree(data.REPOSITORY, root, ignore=left_out)
    paths = {"PYTHONPATH": str(root), "DAGSTER_HOME": str(root)}
    run = container(sys.executable, "-m", "pip_dagster.cli.main", "demo", cwd=root, environment=paths)
    print(f"demo: {run.cpu_seconds:.0f} CPU s, {run.peak_mb:.0f} MB")
    assert run.peak_mb < 1000
