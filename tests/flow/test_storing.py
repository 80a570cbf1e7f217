"""How many partitions share a transaction."""

from hypothesis import given
from hypothesis import strategies as st

from pip_dagster.flow import storing


@given(st.lists(st.one_of(st.none(), st.integers(0, 2 * storing._ROWS))))
def test_groups_hold_everything_in_order_and_no_more_than_may_be(rows):
    groups = list(storing.together(rows, lambda each: each))
    assert [each for group in groups for each in group] == rows
    for group in groups:
        assert 1 <= len(group) <= storing._PARTITIONS
        assert len(group) == 1 or None not in group
        assert len(group) == 1 or sum(group) <= storing._ROWS


def test_small_ones_go_together():
    assert [len(group) for group in storing.together([10] * 70, lambda each: each)] == [32, 32, 6]
