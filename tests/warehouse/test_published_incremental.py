"""What is published by one change after another is what is published from nothing."""

import duckdb
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pip_dagster.warehouse import published_change
from pip_dagster.warehouse.access import writing
from pip_dagster.warehouse.connect import workspace
from pip_dagster.warehouse.published import publish_pending

DAYS = ["2024-03-01", "2024-03-02", "2024-03-03", "2024-03-04"]


def published(project):
    """Table → its rows, in some order."""
    with duckdb.connect(str(project.published_database), read_only=True) as con:
        con.execute("SET TimeZone = 'UTC'")
        views = con.execute("SELECT schema_name, view_name FROM duckdb_views() WHERE NOT internal").fetchall()
        return {view: con.execute("SELECT * FROM {}.{} ORDER BY ALL".format(*view)).fetchall() for view in views}


def everything(project):
    with workspace(threads=1) as con, writing(con, project, purpose="test", publish=False):
        publish_pending(con, project, everything=True)


@pytest.mark.slice
@settings(max_examples=4, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    steps=st.lists(
        st.tuples(
            st.sets(st.sampled_from(DAYS), min_size=1, max_size=2),
            st.booleans(),  # whether its source changed
            st.sampled_from([0, 100]),  # row groups that are merged
            st.sampled_from([1, 10**9]),  # one change in so many writes the file whole
        ),
        min_size=1,
        max_size=4,
    )
)
def test_changes_one_after_another_publish_what_all_at_once_publishes(tiny, monkeypatch, steps):
    for days, changed, merged, whole_every in steps:
        monkeypatch.setattr(published_change, "merges", lambda merged=merged: merged)
        monkeypatch.setattr(published_change, "_WHOLE_EVERY", whole_every)
        for day in days if changed else ():
            tiny.source(f"UPDATE raw.orders SET quantity = 1 + quantity % 8 WHERE day = '{day}'")
        tiny.run(*sorted(days))
    one_by_one = published(tiny.project)
    everything(tiny.project)
    assert one_by_one == published(tiny.project)
    assert one_by_one["orders", "predictions"]
