"""SQL whose rows depend on the order in which threads read them."""

from __future__ import annotations

import pytest

from pip_dagster.sql.repeatable import depends_on_order


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT a, row_number() OVER (ORDER BY b) AS n FROM raw.t",
        "SELECT * FROM raw.t QUALIFY rank() OVER (PARTITION BY a ORDER BY b) = 1",
        "SELECT sum(a) OVER (ORDER BY b ROWS 3 PRECEDING) FROM raw.t",
        "SELECT a FROM raw.t LIMIT 3",
        "SELECT a FROM raw.t ORDER BY a LIMIT 10%",
        "SELECT a FROM raw.t OFFSET 3",
        "SELECT DISTINCT ON (a) a, b FROM raw.t",
        "SELECT * FROM raw.t ASOF JOIN raw.u ON t.a >= u.a",
        "SELECT * FROM raw.t POSITIONAL JOIN raw.u",
        "SELECT FIRST(a) FROM raw.t GROUP BY b",
        "SELECT b, a.any_value() FROM raw.t GROUP BY b",
        "SELECT arg_max(a, b), string_agg(c ORDER BY d) FROM raw.t",
        "WITH x AS (SELECT mode(a) AS a FROM raw.t) SELECT * FROM x",
        "SELECT (SELECT a FROM raw.u WHERE u.b = t.b LIMIT 1) FROM raw.t",
    ],
)
def test_it_may_choose_others(sql):
    assert depends_on_order(sql)


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT DISTINCT a, 'LIMIT 3' AS note FROM raw.t ORDER BY a",
        "SELECT a, sum(b), avg(c), count(*), median(d), max(e) FILTER (WHERE f) FROM raw.t GROUP BY ALL",
        "SELECT * FROM raw.t LEFT JOIN raw.u USING (a) WHERE list_aggregate(b, 'first') > 0",
        "SELECT a FROM raw.t UNION SELECT a FROM raw.u EXCEPT SELECT a FROM raw.v",
    ],
)
def test_it_has_the_same_rows_always(sql):
    assert not depends_on_order(sql)


def test_every_aggregate_of_sets_is_one_of_duckdb():
    from pip_dagster.sql.repeatable import _OF_SETS
    from pip_dagster.sql.row_sql import core_functions

    assert all(any(kind == "aggregate" for kind, *_ in core_functions()[name]) for name in _OF_SETS)
