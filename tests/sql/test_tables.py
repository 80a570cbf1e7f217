"""Which tables a query reads, by its parse tree."""

import pytest

from pip_dagster.sql.tables import tables_read

READS = [
    ("FROM raw.orders WHERE day >= $start_date", {"raw.orders"}),
    ('SELECT * FROM RAW."Orders" o, memory.raw.visits v', {"raw.orders", "raw.visits"}),
    ("SELECT (SELECT max(x) FROM raw.visits) FROM raw.orders", {"raw.orders", "raw.visits"}),
    ("FROM raw.orders SEMI JOIN raw.visits USING (id)", {"raw.orders", "raw.visits"}),
    ("FROM raw.orders o, LATERAL (FROM raw.visits v WHERE v.id = o.id)", {"raw.orders", "raw.visits"}),
    ("FROM raw.a UNION ALL (FROM raw.b EXCEPT FROM raw.c)", {"raw.a", "raw.b", "raw.c"}),
    ("WITH outcomes AS (FROM raw.orders) FROM outcomes", {"raw.orders"}),
    ("WITH a AS (FROM raw.orders), b AS (FROM a) FROM b", {"raw.orders"}),
    ("WITH orders AS (FROM orders) FROM orders", {"main.orders"}),
    ("WITH RECURSIVE r AS (SELECT 1 n UNION ALL SELECT n + 1 FROM r, raw.orders) FROM r", {"raw.orders"}),
    ("FROM (WITH orders AS (SELECT 1) FROM orders) x, orders", {"main.orders"}),
    ("FROM orders", {"main.orders"}),
    ("FROM memory.orders", {"main.orders", "memory.orders"}),
    ("FROM raw.orders PIVOT (count(*) FOR shop IN ('a', 'b'))", {"raw.orders"}),
    ("UNPIVOT raw.orders ON amount, quantity", {"raw.orders"}),
    ("SELECT 'raw.outcomes' AS note -- FROM raw.outcomes\nFROM raw.orders, range(3)", {"raw.orders"}),
    ("SELECT x FROM raw.orders WHERE id IN (FROM raw.ids) QUALIFY 1 = (SELECT count(*) FROM raw.v)", None),
]


@pytest.mark.parametrize(("sql", "tables"), READS)
def test_the_tables_of_a_query(sql, tables):
    assert tables_read(sql) == (tables or {"raw.orders", "raw.ids", "raw.v"})


@pytest.mark.parametrize(
    "sql",
    [
        "FROM query_table('raw.' || 'orders')",
        "FROM query('FROM raw.orders')",
        "SUMMARIZE raw.orders",
        "SELEC",
        "1; 2",
    ],
)
def test_a_query_that_names_its_tables_when_it_runs_is_not_judged(sql):
    assert tables_read(sql) is None
