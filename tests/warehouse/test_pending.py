"""What is pending is found at the ledger's end, and is what a look at all of it finds."""

from datetime import UTC, datetime

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pip_dagster.warehouse import pending
from pip_dagster.warehouse.kinds import announcing


@pytest.mark.slice
@given(
    kinds=st.lists(st.sampled_from([kind.name for kind in announcing()]), max_size=40),
    unpublished=st.sets(st.integers(0, 39), max_size=12),
    named=st.sampled_from(["20260301T0500{:02}000000-ab", "{:04}"]),  # by their instant, or otherwise
    late=st.integers(0, 50),
)
@settings(max_examples=60, deadline=None)
def test_the_quick_look_and_the_whole_one_agree(kinds, unpublished, named, late):
    with duckdb.connect() as con:
        con.execute("CREATE SCHEMA ledger")
        for kind in announcing():
            con.execute(f"CREATE TABLE ledger.{kind.name} ({kind.pending_id} TEXT, pipeline TEXT, partition_key TEXT)")
        con.execute("CREATE TABLE ledger.publications (change_id VARCHAR, made_at TIMESTAMPTZ)")
        for number, table in enumerate(kinds):
            con.execute(f"INSERT INTO ledger.{table} VALUES ('{named.format(number)}', 'p', 'day {number % 5}')")
            if number not in unpublished:
                at = datetime(2026, 3, 1, 5, 0, number, late, tzinfo=UTC)
                con.execute("INSERT INTO ledger.publications VALUES (?, ?)", [named.format(number), at])
        whole = pending._all(con, pending._UNPUBLISHED)
        found = pending.pending_of(con)
        assert [(*of, sorted(ids)) for *of, ids in found] == [(*of, sorted(ids)) for *of, ids in whole]
        if kinds and unpublished <= {len(kinds) - 1}:
            assert pending._among_newest(con) is not None, "then the end is enough"
