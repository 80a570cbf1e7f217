"""Where a query's columns come from: what is told is right, by changing each source column and looking what changes."""

import duckdb
import pytest

from pip_dagster.sql.column_sources import DIRECT, column_sources

TABLES = {
    "raw.o": "SELECT range AS k, range % 3 AS g, range * 1.5 AS a, 'n' || range AS n, {'f': range % 4} AS s, "
    "range % 7 AS q",
    "raw.c": "SELECT range % 8 AS k, range % 5 AS v, 'c' || (range % 6) AS m, range % 4 AS w",
}
COLUMNS = {"raw.o": ("k", "g", "a", "n", "s", "q"), "raw.c": ("k", "v", "m", "w")}
OTHER = {"n": "n || 'x'", "m": "m || 'x'", "s": "{'f': s.f + 9}"}

QUERIES = (
    "SELECT k, n, a / 60 AS hours, 'x' AS note FROM raw.o WHERE g >= 1",
    "SELECT * FROM raw.o",
    "SELECT * EXCLUDE (g) REPLACE (a + 1 AS a) RENAME (n AS label) FROM raw.o WHERE q < 6",
    "SELECT o.k, c.v, o.a * c.w AS p FROM raw.o o JOIN raw.c c ON o.k = c.k",
    "SELECT k, v, a FROM raw.o JOIN raw.c USING (k)",
    "SELECT o.*, c.v + 1 AS v1 FROM raw.o AS o LEFT JOIN raw.c AS c USING (k)",
    "SELECT k, o.a, c.v FROM raw.o o FULL JOIN raw.c c USING (k)",
    "SELECT k, c.v FROM raw.o o RIGHT JOIN raw.c c USING (k)",
    "SELECT o.k, o.a FROM raw.o o SEMI JOIN raw.c c ON o.k = c.k AND c.v > 2",
    "WITH s AS (SELECT k, sum(v) AS total, count(*) AS many FROM raw.c WHERE w > 0 GROUP BY k) "
    "SELECT o.k, s.total, s.many, o.n FROM raw.o o JOIN s USING (k)",
    "SELECT g, sum(a) AS total, max(n) FILTER (q > 2) AS newest FROM raw.o GROUP BY ALL",
    "SELECT g, avg(a) AS mean FROM raw.o GROUP BY 1 HAVING max(q) > 3",
    "SELECT k, lag(a) OVER (PARTITION BY g ORDER BY q, k) AS before FROM raw.o "
    "QUALIFY row_number() OVER (ORDER BY a) < 9",
    "SELECT CASE WHEN q > 3 THEN a ELSE g END AS x, coalesce(n, 'none') AS y, n.upper() AS z, s.f AS f FROM raw.o",
    "SELECT a + 1 AS b, b * 2 AS c, k FROM raw.o",
    "SELECT q AS g, g AS h FROM raw.o",
    "SELECT t.x, t.y FROM (SELECT k AS x, a AS y FROM raw.o UNION ALL SELECT v, w + 1 FROM raw.c) t WHERE t.y > 1",
    "SELECT k, (SELECT max(v) FROM raw.c c WHERE c.k = o.k) AS newest FROM raw.o o",
    "SELECT k FROM raw.o WHERE k IN (SELECT v FROM raw.c)",
    "SELECT o.k, s.m2 FROM raw.o o, LATERAL (SELECT g + max(c.v) AS m2 FROM raw.c c WHERE c.k = o.k) s",
    "SELECT o.k, s.b FROM raw.o o JOIN (SELECT k, q + v AS b FROM raw.c) s ON o.k = s.k",
    "SELECT list_transform([a], x -> x + q) AS l, k FROM raw.o",
    "SELECT k, v FROM raw.o NATURAL JOIN raw.c",
    "SELECT DISTINCT g FROM raw.o",
    "SELECT k, b FROM (SELECT k FROM raw.o), (SELECT v AS b FROM raw.c) WHERE b > 1",
    "SELECT a.k, b.a AS a FROM raw.o a JOIN raw.o b ON a.k = b.q",
    "SELECT DISTINCT ON (g) g, a FROM raw.o ORDER BY q, k",
    "SELECT k, a FROM raw.o ORDER BY q, k LIMIT 5",
    "SELECT -q AS q, k FROM raw.o ORDER BY q, k LIMIT 5",
    "WITH RECURSIVE r AS (SELECT 1 AS i UNION ALL SELECT i + 1 FROM r WHERE i < 4) "
    "SELECT r.i, o.a FROM r JOIN raw.o o ON o.k = r.i",
    "SELECT unnest(s), k FROM raw.o",
    "SELECT COLUMNS('[ka]') FROM raw.o",
    "SELECT u.i, o.k FROM raw.o o, unnest([o.q, o.g]) u(i)",
    "SELECT v.a, v.b FROM (VALUES (1, 2)) v(a, b), raw.o o WHERE o.k > 3",
    "WITH o AS (SELECT v AS k, w AS a FROM raw.c) SELECT k, a FROM o",
    "SELECT x.p AS k FROM raw.c AS x(p, r, t, u)",
    "SELECT arg_max(n, q) AS n, g FROM raw.o GROUP BY g",
)


@pytest.fixture(scope="module")
def con():
    with duckdb.connect(config={"threads": "1"}) as found:
        found.execute("CREATE SCHEMA raw")
        for name, select in TABLES.items():
            found.execute(f"CREATE TABLE {name} AS {select} FROM range(20)")
        yield found


def rows(con, sql, table=None, column=None):
    """Column → its values, in any order; with one source column's values replaced."""
    con.execute("BEGIN")
    try:
        if table:
            con.execute(f"UPDATE {table} SET {column} = {OTHER.get(column, f'({column} * 5 + 3) % 11')}")
        result = con.execute(sql)
        names = [each[0].lower() for each in result.description]
        return {name: sorted(map(str, values)) for name, *values in zip(names, *result.fetchall(), strict=True)}
    finally:
        con.execute("ROLLBACK")


@pytest.mark.parametrize("sql", QUERIES)
def test_a_column_changes_with_nothing_but_what_it_is_said_to_come_from(con, sql):
    found, before = column_sources(sql), rows(con, sql)
    for table, column in ((table, column) for table, columns in COLUMNS.items() for column in columns):
        after = rows(con, sql, table, column)
        for name in before:
            uses = found.of(name) if found else None
            if uses is not None and found.effects is not None and before[name] != after[name]:
                said = {(of, each.lower()) for of, each in (*uses, *found.effects)}
                assert (table, column) in said, name


def test_what_is_told_of_plain_queries():
    """That it is told at all: absent would be right too."""

    def told(sql, name):
        return {
            f"{table.removeprefix('raw.')}.{column}": sorted(how)
            for (table, column), how in column_sources(sql).of(name).items()
        }

    assert told(QUERIES[0], "hours") == {"o.a": ["TRANSFORMATION"]} and told(QUERIES[0], "note") == {}
    assert told(QUERIES[1], "anything") == {"o.anything": ["IDENTITY"]}
    assert told(QUERIES[2], "label") == {"o.n": ["IDENTITY"]} and column_sources(QUERIES[2]).of("g") is None
    assert told(QUERIES[3], "p") == {"o.a": ["TRANSFORMATION"], "c.w": ["TRANSFORMATION"]}
    assert told(QUERIES[9], "total") == {"c.v": ["AGGREGATION"]} and told(QUERIES[9], "k") == {"o.k": ["IDENTITY"]}
    assert told(QUERIES[12], "before") == {
        "o.a": ["TRANSFORMATION"],
        "o.g": ["WINDOW"],
        "o.q": ["WINDOW"],
        "o.k": ["WINDOW"],
    }
    assert told(QUERIES[13], "x") == {"o.q": ["CONDITIONAL"], "o.a": ["TRANSFORMATION"], "o.g": ["TRANSFORMATION"]}
    assert told(QUERIES[16], "y") == {"o.a": ["IDENTITY"], "c.w": ["TRANSFORMATION"]}
    effects = column_sources(QUERIES[9]).effects
    expected = {("raw.c", "w"): {"FILTER"}, ("raw.c", "k"): {"GROUP_BY", "JOIN"}, ("raw.o", "k"): {"JOIN"}}
    assert effects == expected
    assert {how for uses in effects.values() for how in uses}.isdisjoint(DIRECT)


@pytest.mark.parametrize(
    ("sql", "name"),
    [
        ("SELECT k, v FROM raw.o, raw.c", "k"),
        ("SELECT a + 1 AS b, b * 2 AS c FROM raw.o", "c"),
        ("SELECT (SELECT max(v) FROM raw.c) AS m FROM raw.o", "m"),
        ("SELECT list_transform([a], x -> x + 1) AS l FROM raw.o", "l"),
        ("SELECT s.b FROM raw.o o JOIN (SELECT k, q + v AS b FROM raw.c) s ON o.k = s.k", "b"),
        ("SELECT x.p FROM raw.c AS x(p, r, t, u)", "p"),
        ("SELECT u.i FROM raw.o o, unnest([o.q]) u(i)", "i"),
    ],
)
def test_what_the_tree_does_not_tell_is_absent(sql, name):
    assert column_sources(sql).of(name) is None


def test_what_is_no_query_has_no_columns():
    for sql in ("", "SELECT", "INSERT INTO t VALUES (1)", "SELECT 1; SELECT 2", "SELECT COLUMNS(*) FROM raw.o"):
        assert column_sources(sql) is None
