"""Lists of values as SQL."""

from __future__ import annotations

import duckdb
from hypothesis import given
from hypothesis import strategies as st

from pip_dagster.sql.names import among, but_for

TEXTS = st.sampled_from(["a", "b", "it's", "", "2024-03-01"])


@given(st.lists(TEXTS, max_size=9), st.lists(TEXTS, max_size=5, unique=True))
def test_a_value_is_either_among_them_or_among_the_others(values, listed):
    with duckdb.connect() as con:
        rows = "(SELECT unnest($values::VARCHAR[]) AS v)"
        for of, wanted in ((among, lambda v: v in listed), (but_for, lambda v: v not in listed)):
            found = con.execute(f"SELECT v FROM {rows} WHERE {of('v', listed)}", {"values": values}).fetchall()
            assert sorted(found) == sorted((v,) for v in values if wanted(v))


def test_the_others_of_many_values_are_found_by_a_join():
    """Each of 94,000 rows compared with each of 88,000 values took minutes."""
    with duckdb.connect() as con:
        con.execute("CREATE TABLE t AS SELECT i::VARCHAR AS v FROM range(9000) r(i)")
        where = but_for("v", map(str, range(2000)))
        ((_, plan),) = con.execute(f"EXPLAIN SELECT count(*) FROM t WHERE {where}").fetchall()
        assert "HASH_JOIN" in plan
        assert con.execute(f"SELECT count(*) FROM t WHERE {where}").fetchone() == (7000,)
