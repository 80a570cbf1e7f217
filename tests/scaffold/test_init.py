"""`pip-dagster init` and `dg scaffold defs` write pipelines that load, train and score."""

from __future__ import annotations

import os
import runpy
import shlex
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import click
import duckdb
import pytest
from click.testing import CliRunner

from pip_dagster.cli.init import init
from pip_dagster.cli.main import cli
from pip_dagster.declaration.find import find_pipeline
from pip_dagster.declaration.grid import closed_partitions
from pip_dagster.declaration.project import Project

ROOT = Path(__file__).parents[2]


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*words: str, input: str | None = None):
    return CliRunner().invoke(init, list(words), input=input)


def source(folder: Path, columns: str, rows: int = 2000, table: str = "raw.trips") -> str:
    with duckdb.connect(str(folder / "own.duckdb")) as con:
        con.execute("SET TimeZone = 'UTC'")
        con.execute("CREATE SCHEMA IF NOT EXISTS raw")
        con.execute(f"CREATE TABLE {table} AS SELECT {columns} FROM range({rows}) AS r(i)")
    return str(folder / "own.duckdb")


def train(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run its training in this process, which has imported the libraries already."""
    monkeypatch.chdir(project)
    runpy.run_path("train.py", run_name="__main__")


COLUMNS = (
    "i AS trip_id, TIMESTAMP '2024-03-25 00:00:00' + to_minutes(i * 7) AS started_at, i % 13 AS km, i % 3 = 0 AS late"
)


def test_without_a_table_the_project_has_a_sample_and_loads(here):
    done = run("shop", "--yes")
    assert done.exit_code == 0, done.output
    pipeline = find_pipeline(Project.at(here / "shop"), "shop")
    assert pipeline.spec.labels is not None and pipeline.spec.monitoring is not None
    assert "pip-dagster models register shop --model data/model.ubj" in done.output
    assert sorted(path.name for path in here.iterdir()) == ["shop"]


@pytest.mark.parametrize(
    ("step", "rows", "first", "last"),
    [
        ("to_minutes(i)", 1300, "2024-03-25-00:00", "2024-03-25-23:00"),
        ("to_hours(i)", 1300, "2024-03-25", "2024-03-31"),
        ("to_days(i::INTEGER * 40)", 20, "2024-03-01", "2024-08-01"),
    ],
)
def test_the_partitions_that_it_prints_to_run_are_the_pipelines(here, step, rows, first, last):
    columns = f"i AS trip_id, TIMESTAMP '2024-03-25 00:00:00' + {step} AS started_at, i % 13 AS km"
    done = run("trips", "--from-table", source(here, columns, rows), "raw.trips", "--time-zone", "UTC")
    assert f"pip-dagster run trips --from {first} --to {last}\n" in done.output
    declared = find_pipeline(Project.at(here / "trips"), "trips").spec.partitions
    assert {first, last} <= {each.key for each in closed_partitions(declared, datetime.now(UTC))}


def test_an_outcome_of_several_words_is_one_argument_of_the_command_that_it_prints(here):
    database = source(here, f'{COLUMNS}, i % 2 AS "late, or $lost"')
    done = run("trips", "--from-table", database, "raw.trips", "--outcome", "late, or $lost")
    (line,) = [line for line in done.output.splitlines() if "models register" in line]
    words = shlex.split(line)
    assert words[words.index("--outcome") + 1] == "late, or $lost"


def test_of_hundreds_of_columns_it_names_the_first(here):
    many = ", ".join(f"i % {n} AS c{n}, 1 AS one{n}" for n in range(2, 302))
    done = run("trips", "--from-table", source(here, f"{COLUMNS}, {many}"), "raw.trips")
    assert "302 features: km, late, c2," in done.output and ", and 282 more" in done.output
    assert "not a feature: 280 more, each with its reason in features.sql" in done.output
    assert len(done.output) < 3000


def test_it_asks_for_nothing_where_there_is_no_terminal(here):
    assert run("trips", "--from-table", source(here, COLUMNS), "raw.trips", input="").exit_code == 0


@pytest.mark.parametrize("kind", ["DATE", "TIMESTAMP", "TIMESTAMPTZ", "TIMESTAMP_NS"])
def test_any_kind_of_time_is_a_partition_column(here, kind):
    columns = (
        f"i AS trip_id, (TIMESTAMP '2024-03-25 00:00:00' + to_hours(i))::{kind} AS at, i % 13 AS km, i % 3 = 0 AS late"
    )
    words = ["--from-table", source(here, columns), "raw.trips", "--outcome", "late", "--time-zone", "Europe/Berlin"]
    done = run("trips", *words)
    assert done.exit_code == 0, done.output


ODD = (
    'i AS "select", i AS "Über [1]", i % 5 AS "a ""quoted"" <name>", i % 13 AS "no", '
    'DATE \'2024-01-01\' + (i // 20)::INTEGER AS "order", i % 2 AS "group"'
)


@pytest.mark.slice
def test_names_that_sql_yaml_and_xgboost_reserve_are_written_so_that_they_load_and_train(here, monkeypatch):
    database = source(here, ODD, table='raw."two words"')
    words = ["--from-table", database, "raw.two words", "--key", "select", "--outcome", "group"]
    done = run("odd", *words)
    assert done.exit_code == 0, done.output
    train(here / "odd", monkeypatch)
    assert (here / "odd" / "data" / "model.ubj").is_file()


@pytest.mark.soak
def test_with_hundreds_of_features_training_warns_of_nothing(here):
    many = ", ".join(f"i % {n} AS c{n}" for n in range(2, 152))
    run("wide", "--from-table", source(here, f"{COLUMNS}, {many}", 500), "raw.trips", "--outcome", "late")
    done = subprocess.run([sys.executable, "train.py"], cwd=here / "wide", capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and "Warning" not in done.stderr, done.stderr


@pytest.mark.slice
def test_parquet_files_are_a_source_too(here, monkeypatch):
    with duckdb.connect() as con:
        con.execute(f"COPY (SELECT {COLUMNS} FROM range(500) AS r(i)) TO 'trips.parquet'")
    done = run("trips", "--from-parquet", "trips.parquet", "--outcome", "late")
    assert done.exit_code == 0, done.output
    train(here / "trips", monkeypatch)
    assert (here / "trips" / "data" / "model.ubj").is_file()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["Shop"], "lower-case"),
        (["class"], "not a keyword of Python"),
        (["ledger"], "the warehouse has a schema"),
        (["duckdb"], "is installed already"),
        (["full"], "exists and is not empty"),
        (["x", "--from-table", "nowhere.duckdb", "raw.t"], "There is no file"),
        (["x", "--from-table", "text.duckdb", "raw.t"], "is text"),
        (["x", "--from-table", "own.duckdb", "raw.nope"], "does not exist. "),
        (["x", "--from-table", "own.duckdb", "raw.nope"], "own.duckdb has raw.trips"),
        (["x", "--from-table", "own.duckdb", "a.b.c"], "expected SCHEMA.TABLE"),
        (["x", "--from-table", "own.duckdb", "raw.trips", "--time-zone", "Berlin"], "not an IANA time zone"),
        (["x", "--from-parquet", "none-*.parquet"], "cannot be read"),
        (["x", "--from-parquet", "p", "--from-table", "own.duckdb", "t"], "exclude each other"),
    ],
)
def test_what_is_refused_leaves_nothing_behind(here, words, message):
    source(here, COLUMNS)
    (here / "text.duckdb").write_text("a,b\n1,2\n" * 100)
    (here / "full").mkdir()
    (here / "full" / "file").touch()
    before = sorted(here.rglob("*"))
    done = run(*words)
    assert done.exit_code != 0
    assert message in (done.output if done.exception is None else f"{done.output}{done.exception}")
    assert sorted(here.rglob("*")) == before


def test_in_a_terminal_it_asks_for_what_the_data_propose(here, monkeypatch):
    database = source(here, COLUMNS)
    answers = iter([database, "raw.trips", "trip_id", "started_at", "late", "Europe/Berlin"])
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr(click, "prompt", lambda *args, **kwargs: next(answers))
    context = click.Context(init)
    with context:
        options = dict.fromkeys(("from_table", "from_parquet", "partition_column", "time_zone", "outcome"))
        context.invoke(init, name="trips", key=(), yes=False, **options)
    spec = find_pipeline(Project.at(here / "trips"), "trips").spec
    assert spec.partitions.time_zone == "Europe/Berlin"
    assert spec.labels is not None and spec.labels.outcome == "late"


def test_init_needs_no_project_around_it(here):
    assert CliRunner().invoke(cli, ["init", "shop", "--yes"]).exit_code == 0


def shell(folder: Path, command: str) -> str:
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    environment.pop("DAGSTER_HOME", None)
    done = subprocess.run(command, shell=True, cwd=folder, capture_output=True, text=True, timeout=600, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.soak
def test_the_commands_that_it_prints_train_score_and_report(here):
    words = ["--from-table", source(here, COLUMNS), "raw.trips", "--outcome", "late", "--time-zone", "Europe/Berlin"]
    done = run("trips", *words)
    commands = [line.strip() for line in done.output.split("Next:\n")[1].splitlines()]
    assert len(commands) <= 9 and commands[0] == "cd trips"
    for command in commands[1:]:
        shell(here / "trips", command)
    shell(here / "trips", "dg check defs && dg list defs")  # the first checks the YAML too
    count = shell(here / "trips", "pip-dagster query 'SELECT count(*) AS n FROM trips.predictions' --format csv")
    with duckdb.connect(str(here / "own.duckdb"), read_only=True) as con:
        expected = con.execute("SELECT count(*) FROM raw.trips WHERE started_at < TIMESTAMP '2024-04-01'").fetchall()
    assert count.split()[-1] == str(expected[0][0])


@pytest.mark.slice
def test_dg_scaffold_adds_a_pipeline_that_loads_and_one_that_cannot_be_leaves_nothing(here):
    run("shop", "--yes")
    scaffold = "dg scaffold defs pip_dagster.components.InferencePipeline"
    shell(here / "shop", f"{scaffold} second --database data/sources.duckdb --table raw.orders --outcome returned")
    with pytest.raises(AssertionError, match="no sample is written"):
        shell(here / "shop", f"{scaffold} third")
    assert sorted(path.name for path in (here / "shop" / "shop" / "defs").iterdir() if path.is_dir()) == [
        "second",
        "shop",
    ]
    shell(here / "shop", "dg check defs")
