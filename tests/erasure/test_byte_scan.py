"""The scan for many keys at once finds what a search for each of them finds."""

from __future__ import annotations

from byte_scan import among, needles
from hypothesis import given
from hypothesis import strategies as st

KEYS = needles(*range(7_700_000_000_000, 7_700_000_000_300), *(f"cust-{i}" for i in range(300)), 0.5, 0.25, b"abc", 12)


@given(st.lists(st.sampled_from(KEYS) | st.binary(max_size=9) | st.integers(1, 8).map(lambda n: KEYS[0][:n])))
def test_many_at_once_as_one_by_one(parts):
    data = b"".join(parts)
    assert among(data, KEYS) == {key for key in KEYS if key in data}
