"""The cost of a report of a year, and of 90 partitions of a long history."""

import time

import pytest

from pip_dagster.errors import DeclarationError
from pip_dagster.reporting.collect import collect
from pip_dagster.reporting.page import to_html, to_json

# The newest day's rows of the ledger, once for each day before it.
_DAY = "TIMESTAMPTZ '2024-03-24 00:00:00+00' - to_days(i::INTEGER)"
YEAR = """
INSERT INTO ledger.scorings SELECT s.* REPLACE (
  printf('2023%04d-%s', 9999 - i, s.scoring_id) AS scoring_id, strftime({day}, '%Y-%m-%d') AS partition_key,
  {day} AS partition_start, {day} + INTERVAL 1 DAY AS partition_end)
FROM ledger.scorings s, range(24, {days}) g(i) WHERE s.partition_key = '2024-03-24';
INSERT INTO ledger.live_changes SELECT c.* REPLACE (
  printf('2023%04d-%s', 9999 - i, c.change_id) AS change_id, strftime({day}, '%Y-%m-%d') AS partition_key,
  printf('2023%04d-%s', 9999 - i, c.scoring_id) AS scoring_id)
FROM ledger.live_changes c, range(24, {days}) g(i) WHERE c.partition_key = '2024-03-24';
INSERT INTO ledger.profiles SELECT p.* REPLACE (
  printf('2023%04d-%s', 9999 - i, p.scoring_id) AS scoring_id, strftime({day}, '%Y-%m-%d') AS partition_key)
FROM ledger.profiles p, range(24, {days}) g(i) WHERE p.partition_key = '2024-03-24';
"""


@pytest.mark.soak
@pytest.mark.parametrize(("days", "first", "seconds"), [(365, "2023-03-26", 2.0), (10_000, None, 4.0)])
def test_the_cost_is_bounded(reported, days, first, seconds):
    import pandas  # noqa: F401 - DuckDB imports it to bind a value, once in a process

    reported.declare(
        partitions={"start": "1990-01-01"}, monitoring={"history": 28}, decisions={"returned": "score >= 0.5"}
    )
    for statement in YEAR.format(day=_DAY, days=days).split(";\n"):
        if statement.strip():
            reported.tamper(statement)
    pipeline = reported.pipeline()
    collect(pipeline)
    began = time.process_time()
    content = collect(pipeline, first=first)
    page = to_html(content)
    assert time.process_time() - began < seconds
    assert content.period.partitions == (365 if first else 90) and len(content.columns) == 5
    assert len(page) < (1_000_000 if first else 300_000) and to_json(content)
    if not first:
        with pytest.raises(DeclarationError, match="more than 1,000 partitions from 2010-01-01 to the newest"):
            collect(pipeline, first="2010-01-01")
