"""The list of tables is complete, and what enumerates tables follows it."""

import duckdb
import pytest

from pip_dagster.warehouse import kinds
from pip_dagster.warehouse.connect import open_warehouse, workspace
from pip_dagster.warehouse.kinds import Kind, PublishedKind
from pip_dagster.warehouse.published import publish_pending
from pip_dagster.warehouse.tables import ensure_table

DAY = "2024-03-01"
COLUMNS = {"partition_key": "VARCHAR", "scoring_id": "VARCHAR", "bin": "BIGINT", "rows": "BIGINT"}


def relations(tiny, schema):
    """Name → whether it is a table or a view, of all that the warehouse has in a schema."""
    return dict(
        tiny.warehouse(
            f"SELECT table_name, 'table' FROM duckdb_tables() WHERE schema_name = '{schema}' "
            f"UNION ALL SELECT view_name, 'view' FROM duckdb_views() WHERE schema_name = '{schema}'"
        )
    )


@pytest.mark.lake
def test_every_table_and_view_is_in_the_list_and_the_other_way_round(tiny, tmp_path):
    (tiny.folder / "expectations.yaml").write_text(
        "features: [{type: expect_column_values_to_be_between, kwargs: {column: quantity, max_value: 7}}]"
    )
    quality = {"expectations": "expectations.yaml", "max_quarantined": 1}
    tiny.declare(quality=quality, explanations={"top": 1})
    assert tiny.run(DAY)[DAY].scoring.rows_quarantined
    of_ledger = {kind.name: kind.form for kind in kinds.KINDS if kind.schema}
    assert relations(tiny, "ledger") == of_ledger
    found = relations(tiny, "orders")
    views = {name for name, form in found.items() if form == "view"}
    assert views == {kind.name for kind in kinds.KINDS if not kind.schema}
    tables = {name.partition("__")[0] for name, form in found.items() if form == "table"}
    assert tables == {kind.name for kind in kinds.with_column_sets()}


def test_the_published_views_are_those_of_the_list(scored):
    found = set(scored.published("SELECT schema_name, view_name FROM duckdb_views() WHERE NOT internal"))
    listed = {kind: (kind.schema or "orders", kind.view or kind.name) for kind in kinds.published()}
    assert found == {name for kind, name in listed.items() if kind.always}, "no row was quarantined, checked, explained"


@pytest.mark.lake
def test_a_new_kind_gets_its_tables_view_files_and_published_view_from_the_list_alone(scored, monkeypatch):
    new = PublishedKind("profile", None, "column sets", "evidence", live="scoring")
    monkeypatch.setattr(kinds, "KINDS", (*kinds.KINDS, new))
    with workspace(threads=1) as con, open_warehouse(con, scored.project.warehouse, purpose="test"):
        for columns in (COLUMNS, COLUMNS | {"mean": "DOUBLE"}):
            table = ensure_table(con, "orders", "profile", columns)
            con.execute(
                f'INSERT INTO orders."{table}" BY NAME SELECT partition_key, scoring_id, 1 AS bin, 50 AS "rows" '
                "FROM ledger.live UNION ALL SELECT partition_key, 'of no live scoring', 2, 7 FROM ledger.live"
            )
        publish_pending(con, scored.project, everything=True)
        assert con.execute("SELECT count(*) FROM orders.profile").fetchone() == (16,)
    assert scored.published("SELECT DISTINCT bin, rows, mean FROM orders.profile") == [(1, 50, None)]
    assert scored.published("SELECT count(DISTINCT partition_key) FROM orders.profile") == [(4,)]


def test_a_kind_that_announces_makes_its_partitions_pending(scored, monkeypatch):
    monkeypatch.setattr(kinds, "KINDS", (*kinds.KINDS, Kind("corrections", "ledger", "table", "evidence", "id")))
    with workspace(threads=1) as con, open_warehouse(con, scored.project.warehouse, purpose="test"):
        con.execute("CREATE TABLE ledger.corrections (id VARCHAR, pipeline VARCHAR, partition_key VARCHAR)")
        assert publish_pending(con, scored.project) == 0
        con.execute(f"INSERT INTO ledger.corrections VALUES ('9', 'orders', '{DAY}')")
        assert publish_pending(con, scored.project) == 1
        assert publish_pending(con, scored.project) == 0


def test_a_table_that_is_not_in_the_list_is_refused():
    with duckdb.connect() as con, pytest.raises(ValueError, match="'profiles' is not a kind of table"):
        ensure_table(con, "orders", "profiles", COLUMNS)
