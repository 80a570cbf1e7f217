"""Sources in a SQLite file and in a DuckLake: scores as from a DuckDB file, and what is written late is stale."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys

import pytest

from pip_dagster.declaration.pipeline import sources_read
from pip_dagster.errors import DeclarationError, SourceAwayError, SourceError
from pip_dagster.flow import unchanged
from pip_dagster.flow.origins import ducklake
from pip_dagster.flow.plan import make_plan
from pip_dagster.flow.reader import sources_alone
from pip_dagster.flow.unchanged import state_of
from pip_dagster.sql.tables import _VALUES
from pip_dagster.warehouse.connect import workspace

from .conftest import DECLARED, Ducklake, Sqlite, needs_extensions

pytestmark = [pytest.mark.lake("never"), needs_extensions]

FIRST, SECOND, THIRD, FOURTH = DAYS = ("2024-03-01", "2024-03-02", "2024-03-03", "2024-03-04")


@pytest.fixture(params=[Sqlite, Ducklake], ids=["sqlite", "ducklake"])
def origin(request, tiny):
    return request.param(tiny)


def test_scores_are_those_of_the_file_and_a_late_row_makes_its_partition_stale(tiny, origin):
    tiny.run()
    assert tiny.scores() == tiny.expected()
    assert not make_plan(tiny.pipeline(), tiny.partitions()).stale
    origin.sql(f"UPDATE raw.orders SET quantity = 8 WHERE day = '{SECOND}'")
    assert [each.partition.key for each in make_plan(tiny.pipeline(), tiny.partitions()).stale] == [SECOND]


def test_a_table_that_is_not_there_names_those_that_are(tiny, origin):
    declared = {**DECLARED, "remote_table": "raw.ordres", **origin.declared}
    tiny.declare(source_database=None, sources={"orders": declared})
    with pytest.raises(SourceError, match=r"source 'orders' \(raw.orders\) cannot be read .*orders"):
        tiny.run(FIRST)
    assert "Did you mean" in tiny.shell("check", code=1)


@pytest.mark.parametrize("mode", ["wal", "delete"])
def test_reads_of_sqlite_see_one_state_and_hinder_no_writer(tiny, mode):
    lite = Sqlite(tiny)
    lite.sql(f"PRAGMA journal_mode = {mode}")
    count = "SELECT count(*), sum(order_id) FROM raw.orders"
    with workspace(threads=2) as outer, sources_alone(outer, tiny.pipeline().spec, tiny.root) as con:
        before = con.execute(count).fetchone()
        lite.sql("DELETE FROM orders WHERE order_id = 1")
        assert con.execute(count).fetchone() == before


def test_sql_reads_no_other_table(tiny, origin, helpers):
    origin.sql("CREATE TABLE secrets (a INTEGER)")
    for escape in ("secrets", "sqlite_scan('shop.db', 'secrets')", "duckdb_databases()", "ducklake_snapshots('x')"):
        tiny.declare(helpers.SQL.replace("FROM raw.orders", f"FROM raw.orders, {escape}"))
        declared = (
            {"sqlite": "shop.db"} if isinstance(origin, Sqlite) else {"ducklake": f"{origin.folder.name}/shop.ducklake"}
        )
        tiny.declare(source_database=None, sources={"orders": {**DECLARED, **declared}})
        with pytest.raises(Exception, match="declared source"):
            tiny.run(FIRST)


class TestSqlite:
    def test_a_file_that_a_writer_has_locked_is_away(self, tiny, monkeypatch):
        Sqlite(tiny).sql("PRAGMA journal_mode = DELETE")
        monkeypatch.setenv("PIP_DAGSTER_LOCK_DEADLINE", "0.1")
        with sqlite3.connect(tiny.root / "shop.db", isolation_level=None) as con:
            con.execute("BEGIN EXCLUSIVE")
            with pytest.raises(SourceAwayError, match="shop.db .*Another process writes it"):
                make_plan(tiny.pipeline(), tiny.partitions())

    def test_a_file_whose_writer_died_is_said(self, tiny):
        origin = Sqlite(tiny)
        origin.sql("PRAGMA journal_mode = DELETE")
        code = (
            f"import os, sqlite3\nc = sqlite3.connect({str(origin.file)!r}, isolation_level=None)\n"
            "c.execute('PRAGMA cache_size = 1')\nc.execute('BEGIN')\nc.execute('UPDATE orders SET shop = 1')\n"
            "c.execute('CREATE TABLE x AS SELECT hex(zeroblob(1000000))')\nos._exit(0)"
        )
        subprocess.run([sys.executable, "-c", code], check=True)
        with pytest.raises(SourceError, match=r"A writer died in its transaction\. Open the file once with sqlite3"):
            tiny.run(FIRST)

    def test_a_row_that_does_not_fit_its_column_is_explained(self, tiny):
        Sqlite(tiny).sql("UPDATE orders SET quantity = 'many' WHERE order_id = 3")
        with pytest.raises(
            SourceError, match="source 'orders' .*shop.db.*does not hold rows to.*column \"quantity\".*found …"
        ):
            tiny.run(FIRST)

    def test_what_is_no_database_is_said(self, tiny):
        Sqlite(tiny)
        (tiny.root / "shop.db").write_bytes(b"no database" * 100)
        with pytest.raises(SourceError, match="cannot be read as a SQLite file. It is no SQLite file"):
            tiny.run(FIRST)


def test_nothing_is_read_while_nothing_shows_a_change(tiny, origin, monkeypatch):
    tiny.run(FIRST)
    monkeypatch.setattr(unchanged, "_SETTLED_SECONDS", 0)
    before = state_of(tiny.pipeline(), tiny.partitions())
    assert before and before == state_of(tiny.pipeline(), tiny.partitions())
    origin.sql("DELETE FROM raw.orders WHERE order_id = 1")
    assert state_of(tiny.pipeline(), tiny.partitions()) != before


def test_a_lake_that_is_created_again_with_the_same_snapshots_is_another(tiny):
    lake = Ducklake(tiny)
    source = tiny.pipeline().spec.sources["orders"]
    before = ducklake.identity(tiny.root, source)
    shutil.rmtree(lake.folder)
    lake.folder.mkdir()
    lake.sql("CREATE SCHEMA lake.raw", "CREATE TABLE lake.raw.orders AS FROM src.raw.orders LIMIT 5", tiny=tiny)
    assert before and ducklake.identity(tiny.root, source) not in (None, before)


# With the extension loaded, DuckDB itself lets `sqlite_scan` read any file: what keeps SQL from it is the parse tree.
WAYS = (
    *(
        "FROM sqlite_scan({db}, 'secrets')",
        "FROM \"Sqlite_Scan\"({db}, 'secrets')",
        "FROM U&\"sqlite\\005Fscan\"({db}, 'secrets')",
    ),
    *("FROM main.sqlite_scan({db}, 'secrets')", "FROM system.main.sqlite_scan({db}, 'secrets')", "FROM {file}"),
    *(
        "FROM sqlite_query({db}, 'SELECT 1')",
        "CALL sqlite_attach({db})",
        "FROM sqlite_attach({db})",
        "PRAGMA sqlite_attach({db})",
    ),
    *(
        "FROM query('FROM sqlite_scan({quoted}, ''secrets'')')",
        "FROM query_table('secrets')",
        "FROM query_table([{db}])",
    ),
    *("PREPARE p AS FROM sqlite_scan($1, 'secrets')", "EXECUTE p({db})", "FROM sqlite_scan($start_date, 'secrets')"),
    *("CREATE MACRO m(x) AS TABLE FROM sqlite_scan(x, 'secrets')", "FROM m({db})", "SELECT m({db})"),
    *(
        "CREATE TEMP VIEW v AS FROM sqlite_scan({db}, 'secrets'); FROM v",
        "WITH m(x) AS (FROM sqlite_scan({db}, 'secrets')) FROM m",
    ),
    *(
        "EXPLAIN ANALYZE FROM sqlite_scan({db}, 'secrets')",
        "DESCRIBE FROM sqlite_scan({db}, 'secrets')",
        "ATTACH {db} (TYPE sqlite)",
    ),
    *(
        "SUMMARIZE FROM sqlite_scan({db}, 'secrets')",
        "COPY (FROM sqlite_scan({db}, 'secrets')) TO 'x'",
        "FROM json_execute_serialized_sql('x')",
    ),
    *(
        "PIVOT sqlite_scan({db}, 'secrets') ON a USING count(*)",
        "SELECT [x FOR x IN (SELECT [a] FROM sqlite_scan({db}, 'secrets'))]",
    ),
    *(
        "FROM raw.orders, LATERAL sqlite_scan({db}, 'secrets')",
        "FROM raw.orders POSITIONAL JOIN sqlite_scan({db}, 'secrets')",
    ),
    *("FROM sqlite_master", "FROM {catalog}.main.secrets", "FROM {catalog}.secrets", "FROM information_schema.tables"),
)


def test_nothing_passes_the_parse_tree_to_functions_of_the_extension(tiny):
    """Each function that DuckDB has with it, by each way of naming one, and the ways that people tried."""
    lite = Sqlite(tiny)
    lite.sql("CREATE TABLE secrets (a INTEGER)")
    spec = tiny.pipeline().spec

    def passes(sql):
        try:
            sources_read(spec, sql, "features.sql")
        except DeclarationError:
            return False
        return True

    with workspace(threads=1) as outer, sources_alone(outer, spec, tiny.root) as con:
        assert con.execute(f"SELECT count(*) FROM sqlite_scan('{lite.file}', 'secrets')").fetchone() == (0,), (
            "the reason"
        )
        functions = con.execute("SELECT DISTINCT function_name, function_type FROM duckdb_functions()").fetchall()
        [[catalog]] = con.execute("SELECT database_name FROM duckdb_databases() WHERE type = 'sqlite'").fetchall()
    values = dict.fromkeys(("db", "file"), f"'{lite.file}'") | {"quoted": f"''{lite.file}''", "catalog": catalog}
    assert [way for way in WAYS if passes(way.format(**values))] == []
    there = {name for name, kind in functions if "table" in kind or kind == "pragma"}
    assert {"sqlite_scan", "sqlite_attach", "read_csv", "query"} <= there and len(there) > 80
    forms = (
        "FROM {}()",
        "FROM {}('x', 't')",
        "FROM main.{}('x')",
        "FROM raw.orders o, {}(o.shop)",
        "FROM query('FROM {}()')",
    )
    passed = {name for name in there for form in forms if passes(form.format(f'"{name}"'))}
    assert passed == {name for name in _VALUES if name in there}, "functions of their arguments alone"
    assert not {name for name, _ in functions if "sqlite" in name and passes(f"SELECT {name}()")}
