"""The columns of a query without its tables: as DuckDB names them, or unknown."""

import duckdb
import pytest

from pip_dagster.sql.output_columns import UNNAMED, output_columns

KNOWN = [
    'SELECT a, t.b AS x, s.f, "Straße" FROM raw.orders t',
    "FROM raw.orders SELECT a, b AS x",
    "(FROM raw.orders SELECT a)",
    "WITH c AS (SELECT a, b AS x FROM raw.orders) FROM c",
    "WITH c AS (SELECT a FROM raw.orders), d AS (SELECT *, a + 1 AS n FROM c) SELECT *, n * 2 AS m FROM d",
    "WITH c(p, q) AS (SELECT a, b FROM raw.orders) SELECT * FROM c",
    "WITH c AS (SELECT a, b FROM raw.orders) SELECT * EXCLUDE (a) REPLACE (b + 1 AS b) FROM c",
    "WITH c AS (SELECT a, b FROM raw.orders) SELECT z.*, o.b AS ob FROM c z JOIN raw.orders o ON o.a = z.a",
    "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < 3) SELECT * FROM c",
    "SELECT * FROM (SELECT a, b FROM raw.orders) t(p)",
    "SELECT * FROM (SELECT a FROM raw.orders) l LEFT JOIN (SELECT a, b AS y FROM raw.orders) r USING (a)",
    "SELECT * FROM (SELECT a FROM raw.orders) l SEMI JOIN raw.orders r USING (a)",
    "SELECT a, b FROM raw.orders UNION ALL SELECT b, a FROM raw.orders",
    "SELECT a FROM raw.orders UNION ALL BY NAME SELECT b FROM raw.orders",
    "WITH c AS (WITH d AS (SELECT a FROM raw.orders) SELECT * FROM d) SELECT *, row_number() OVER () AS n FROM c",
    "SELECT a, (SELECT max(b) AS inner_name FROM raw.orders) AS m FROM raw.orders -- SELECT nothing",
]
UNKNOWN = [
    "SELECT * FROM raw.orders",
    "FROM raw.orders",
    "WITH c AS (SELECT * FROM raw.orders) SELECT *, 1 AS x FROM c",
    "SELECT COLUMNS('a|b') FROM raw.orders",
    "SELECT o.* FROM raw.orders o",
    "SELECT unnest(s) FROM raw.orders",
    "PIVOT raw.orders ON a USING sum(b)",
    "SELECT * FROM range(3)",
    "SELEC a",
    "SELECT a FROM raw.orders; SELECT b FROM raw.orders; DROP TABLE x",
]


@pytest.fixture(scope="module")
def con():
    with duckdb.connect() as con:
        con.execute('CREATE SCHEMA raw; CREATE TABLE raw.orders (a INT, b INT, s STRUCT(f INT, g INT), "Straße" TEXT)')
        yield con


@pytest.mark.parametrize("sql", KNOWN)
def test_the_columns_are_those_that_duckdb_gives(con, sql):
    names = {row[0].lower() for row in con.execute(f"DESCRIBE {sql}").fetchall()}
    assert output_columns(sql) == names


@pytest.mark.parametrize("sql", UNKNOWN)
def test_columns_that_depend_on_a_table_are_unknown(sql):
    assert output_columns(sql) is None


@pytest.mark.parametrize("expression", ["a + 1", "a::BIGINT", "current_date", "CASE WHEN a > 1 THEN 2 END", "s['f']"])
def test_an_expression_without_a_name_is_named_by_its_text(con, expression):
    [name] = [row[0] for row in con.execute(f"DESCRIBE SELECT {expression} FROM raw.orders").fetchall()]
    found = output_columns(f"SELECT {expression} FROM raw.orders")
    assert name in found or (UNNAMED in found and not name.isidentifier())
