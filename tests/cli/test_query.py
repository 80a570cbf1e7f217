"""`pip-dagster query`: SQL from anywhere, rows to anywhere, and nothing but a SELECT of the project's tables."""

import csv
import io
import json
import os
import signal
import threading
import time

import duckdb
import pytest
from click.testing import CliRunner

from pip_dagster.cli.main import cli
from pip_dagster.cli.query_shell import QueryShell

SQL = "SELECT order_id, day, scoring_id, score FROM orders.predictions ORDER BY 1 LIMIT 3"
REFUSED = ("COPY (SELECT 1) TO 'x.csv'", "DELETE FROM orders.predictions", "FROM read_csv('/etc/passwd')")


@pytest.fixture
def query(scored):
    """Run `query`; its output."""

    def run(*words, code=0, stdin=None):
        result = CliRunner().invoke(cli, ["--project", str(scored.root), "query", *words], input=stdin)
        assert result.exit_code == code, result.output + repr(result.exception)
        return result.output

    return run


def test_sql_comes_from_an_argument_a_file_or_stdin(query, tmp_path):
    file = tmp_path / "q.sql"
    file.write_bytes(b"-- the first\r\n" + SQL.encode() + b";\r\n")
    expected = query(SQL, "--format", "csv")
    assert expected.count("\n") == 4
    ways = ((("-f", str(file)), None), (("-",), SQL), ((), SQL), (("-f", "-"), SQL))
    for words, stdin in ways:
        assert query(*words, "--format", "csv", stdin=stdin) == expected
    assert "use only one of them" in query(SQL, "-f", str(file), code=2)


@pytest.mark.parametrize("form", ["csv", "json", "jsonl", "parquet", "md"])
def test_a_file_holds_the_rows_in_the_format_that_it_names(query, scored, tmp_path, form):
    file = tmp_path / f"rows.{form}"
    assert f"{file}: " in query(SQL, "-o", str(file))
    rows = list(scored.expected("order_id < 3").items())
    text = file.read_bytes()
    if form == "parquet":
        found = duckdb.sql(f"SELECT order_id, score FROM '{file}'").fetchall()
        assert str(duckdb.sql(f"FROM '{file}'").types) == "[BIGINT, DATE, VARCHAR, FLOAT]"
    elif form == "csv":
        found = [(int(row["order_id"]), float(row["score"])) for row in csv.DictReader(io.StringIO(text.decode()))]
    elif form == "md":
        assert text.decode().splitlines()[1] == "|---:|---|---|---:|"
        cells = [line.split("|") for line in text.decode().splitlines()[2:]]
        found = [(int(each[1]), pytest.approx(float(each[-2]))) for each in cells]
    else:
        records = json.loads(text) if form == "json" else [json.loads(line) for line in text.splitlines()]
        found = [(row["order_id"], row["score"]) for row in records]
    assert found == rows


def test_a_file_is_replaced_whole_or_not_at_all(query, tmp_path):
    file = tmp_path / "out" / "rows.csv"
    file.parent.mkdir()
    query(SQL, "-o", str(file))
    before = file.read_bytes()
    assert "exists. Name another file, or replace it with --force." in query(SQL, "-o", str(file), code=1)
    late = "SELECT CASE WHEN range = 90000 THEN error('too late') ELSE range END FROM range(100000)"
    assert "too late" in query(late, "-o", str(file), "--force", code=1)
    assert file.read_bytes() == before and [*file.parent.iterdir()] == [file]
    query("SELECT 1 AS one", "-o", str(file), "--force")
    assert file.read_text() == "one\n1\n"
    assert "is not a file" in query(SQL, "-o", str(tmp_path), "--format", "csv", code=1)
    assert "does not exist" in query(SQL, "-o", str(tmp_path / "no" / "rows.csv"), code=1)
    assert "does not name a format" in query(SQL, "-o", str(tmp_path / "rows.xls"), code=2)
    assert "add -o FILE.parquet" in query(SQL, "--format", "parquet", code=2)


@pytest.mark.parametrize("sql", REFUSED)
def test_each_way_runs_a_select_of_the_projects_tables_alone(query, scored, tmp_path, monkeypatch, capsys, sql):
    file, out = tmp_path / "q.sql", tmp_path / "rows.csv"
    file.write_text(sql)
    for words, stdin in ((sql,), None), (("-f", str(file)), None), (("-",), sql), ((sql, "-o", str(out)), None):
        assert "A query reads the project's tables and writes nothing" in query(*words, stdin=stdin, code=1)
    typed(monkeypatch, sql + ";")
    QueryShell(scored.project).run()
    assert "Error: A query reads the project's tables and writes nothing" in capsys.readouterr().out
    assert [*tmp_path.glob("rows*")] == []


def test_parquet_has_the_values_of_types_that_it_lacks(query, tmp_path):
    file = tmp_path / "types.parquet"
    values = "INTERVAL 1 DAY AS i, sum(42) AS h, '101'::BIT AS b, union_value(a := 1) AS u, 2::UHUGEINT ** 0 AS d"
    sql = f"SELECT {values}, 340282366920938463463374607431768211455::UHUGEINT AS g -- ; no end\n;"
    query(sql, "-o", str(file))
    assert duckdb.sql(f"SELECT i, h, b, u, g FROM '{file}'").fetchall() == [
        ("1 day", 42, "101", "1", "340282366920938463463374607431768211455")
    ]
    too_large = "SELECT 170141183460469231731687303715884105727 AS h"
    assert "DECIMAL(38,0)" in query(too_large, "-o", str(file), "--force", code=1)
    assert "Give a SELECT" in query(stdin="", code=2)


def test_a_number_has_the_digits_that_it_has_and_an_identifier_no_separators(query):
    text = query("SELECT 1234567 AS id, 0.1::FLOAT AS f, 0.1234567890123 AS d, 'a|b' AS t", "--format", "markdown")
    assert text.splitlines()[2] == r"| 1234567 | 0.1 | 0.1234567890123 | a\|b |"
    assert query("SELECT 1234567 AS id, 0.1::FLOAT AS f").split() == ["id", "f", "1234567", "0.1"]


def typed(monkeypatch, *lines):
    """What a person types; then Ctrl-D. A KeyboardInterrupt is Ctrl-C."""
    given = iter(lines)

    def answer(prompt):
        line = next(given, EOFError())
        if isinstance(line, BaseException):
            raise line
        return line

    monkeypatch.setattr("builtins.input", answer)


def test_the_shell_goes_on_after_an_error_and_lists_what_there_is(scored, monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    typed(
        monkeypatch,
        *("SELECT 'a;b' AS text,", "  41 + 1 AS number -- ;", ";"),
        *("FROM predictions;", "SELECT 1 / 'x';", "SELECT 7 AS", KeyboardInterrupt(), "", ".nothing"),
        *(".tables", ".schema orders.predictons", ".schema orders.predictions", ".format parquet", ".format jsonl"),
        *("SELECT 3 AS three;", ".quit", "SELECT 'never' AS never;"),
    )
    QueryShell(scored.project).run()
    text = capsys.readouterr().out
    for expected in (
        *("a;b", "    42", "reads 'predictions', which is not a table", "Could not convert", "no command .nothing"),
        *("ledger.partitions", "Did you mean orders.predictions", "partition_key", "VARCHAR", "Expected one of table"),
        '{"three": 3}',
    ):
        assert expected in text, expected
    assert "7" not in text.split("no command")[0].split("Could not convert")[1] and "never" not in text


def test_the_words_that_other_shells_know_need_no_dot(scored, monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    typed(monkeypatch, "help", "SELECT 1 AS", "exit;", "EXIT;", "SELECT 'never' AS never;")
    QueryShell(scored.project).run()
    text = capsys.readouterr().out
    assert ".tables" in text and "exit" in text and "never" not in text


def test_ctrl_c_stops_a_query_and_the_shell_goes_on(scored, monkeypatch, capsys, tmp_path):
    """Interrupted, DuckDB's threads went on with the query, and closing the connection waited for them."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    typed(monkeypatch, "SELECT * FROM range(20_000_000_000) r WHERE r.range = -1;", "SELECT 40 + 2 AS number;")
    before, handler = time.process_time(), signal.signal(signal.SIGINT, signal.default_int_handler)
    timer = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    try:
        QueryShell(scored.project).run()
    finally:
        timer.join()
        signal.signal(signal.SIGINT, handler)
    text = capsys.readouterr().out
    assert text.index("Cancelled.") < text.index("42") and time.process_time() - before < 5
