"""Which tables a query reads, by its parse tree."""

import pytest

from pip_dagster.sql.expression import Refused
from pip_dagster.sql.tables import Readable, tables_read

NAMES = "raw.orders raw.visits raw.outcomes raw.a raw.b raw.c raw.ids raw.v main.orders"
SOURCES = Readable(frozenset(NAMES.split()))

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
    ("FROM memory.orders", {"main.orders"}),
    ("FROM raw.orders PIVOT (count(*) FOR shop IN ('a', 'b'))", {"raw.orders"}),
    ("UNPIVOT raw.orders ON amount, quantity", {"raw.orders"}),
    ("SELECT 'raw.outcomes' AS note -- FROM raw.outcomes\nFROM raw.orders, range(3)", {"raw.orders"}),
    ("SELECT x FROM raw.orders WHERE id IN (FROM raw.ids) QUALIFY 1 = (SELECT count(*) FROM raw.v)", None),
]


@pytest.mark.parametrize(("sql", "tables"), READS)
def test_the_tables_of_a_query(sql, tables):
    assert tables_read(sql, SOURCES) == (tables or {"raw.orders", "raw.ids", "raw.v"})


@pytest.mark.parametrize(
    ("sql", "says"),
    [
        ("FROM query_table('raw.' || 'orders')", r"query_table\(\) in FROM"),
        ("FROM query('FROM raw.orders')", r"query\(\) in FROM"),
        ("SUMMARIZE raw.orders", "DESCRIBE, SHOW or SUMMARIZE"),
        ("SELEC", "^cannot be parsed"),
        ("-- Zürich\nSELECT amount,\n  day\nFRM raw.orders", "^line 4: cannot be parsed: syntax error"),
        ("SELECT 1; SELECT 2", "2 statements; expected exactly one SELECT"),
        ("", "0 statements"),
        ("PIVOT raw.orders ON shop USING sum(amount)", r"list its values, as in `PIVOT t ON shop IN \('a', 'b'\)"),
        ("SELECT 1\nFROM\n  raw.secret", r"^line 3: reads 'raw.secret', which is not a declared source; declare it"),
        ("WITH RECURSIVE r AS (FROM r UNION ALL FROM r) FROM r", "reads 'r'"),
        ('WITH "K" AS (SELECT 1) FROM "\u212a"', "reads '\u212a'"),  # Python's lower() of the Kelvin sign is k
        ("FROM raw.orders WHERE $a > ?", "ixing named and positional parameters"),
    ],
)
def test_another_text_is_refused(sql, says):
    with pytest.raises(Refused, match=says):
        tables_read(sql, SOURCES)


def test_every_macro_of_duckdbs_own_is_judged_by_what_it_is_made_of():
    assert tables_read("SELECT json_group_array(amount), median(amount), ago(INTERVAL 1 DAY) FROM raw.orders", SOURCES)
    with pytest.raises(Refused, match="get_block_size"):
        tables_read("SELECT get_block_size('memory')", SOURCES)
