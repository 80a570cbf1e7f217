"""A subject is erased from a lake: no file, no inlined row, no statistic and no page of its catalog has it any more."""

import secrets
from pathlib import Path

import duckdb
import pytest
from byte_scan import needles, scan, scan_postgres

from pip_dagster.erasure.lake import LakePlace
from pip_dagster.erasure.place import ErasureRequest
from pip_dagster.errors import ErasureError
from pip_dagster.warehouse.access import reading, writing
from pip_dagster.warehouse.connect import workspace

pytestmark = pytest.mark.lake("only")

KEYS = ["aaaa_leaves", "zzzz_leaves", "mmmm_leaves"]  # the least, the greatest, one between
# With other capitals than the column: SQL reads it by either.
REQUEST = ErasureRequest("e1", "erase", "asked", {"people": "Customer"}, {"people": KEYS}, {"people": ["2024-03-01"]})


@pytest.fixture
def people(tiny):
    """A lake with large and small inserts, an update, and deletions of the subject as an erasure makes them."""
    with workspace(threads=2) as con, writing(con, tiny.project, purpose="test", publish=False):
        con.execute("CREATE SCHEMA people")
        for table in ("features__1", "scores__1"):
            con.execute(f"CREATE TABLE people.{table} (customer VARCHAR, partition_key VARCHAR, v DOUBLE)")
            rows = "SELECT 'cust' || i, '2024-03-01', i FROM range(3000) r(i)"
            con.execute(f"INSERT INTO people.{table} {rows} UNION ALL SELECT unnest($1), '2024-03-01', 1e9", [KEYS])
            con.execute(f"INSERT INTO people.{table} VALUES ('{KEYS[0]}', '2024-03-01', 5), ('stays', '2024-03-01', 1)")
            con.execute(f"UPDATE people.{table} SET v = v + 1 WHERE customer = 'stays'")
            con.execute(f"DELETE FROM people.{table} WHERE customer IN (SELECT unnest($1))", [KEYS])
    return tiny


def _found(tiny, backend):
    uri = tiny.project.warehouse.setting.removeprefix("ducklake:postgres:")
    wanted = needles("_leaves")
    return scan(Path(tiny.project.warehouse.data_path), wanted) + scan_postgres(
        uri, wanted, Path(backend.server.pgdata)
    )


@pytest.mark.slice
def test_nothing_of_the_subject_is_left_in_files_catalog_or_pages(people, backend):
    assert _found(people, backend)
    place = LakePlace(people.project)
    with pytest.raises(ErasureError, match="still in Parquet files"):
        place.verify(REQUEST)
    removed = place.remove(REQUEST)
    assert removed.rows_removed == removed.rows_before > 0 == removed.rows_after
    assert "no such value" in place.verify(REQUEST)
    assert _found(people, backend) == []
    assert place.remove(REQUEST).rows_before == 0  # again, as after a kill
    with workspace(threads=2) as con, reading(con, people.project, purpose="test"):
        assert con.execute("SELECT count(*), sum(v) FROM people.scores__1").fetchone() == (3001, 4498502)


@pytest.mark.soak
def test_a_file_that_a_killed_run_left_is_removed(people, backend):
    place = LakePlace(people.project)
    place.remove(REQUEST)
    folder = next(Path(people.project.warehouse.data_path).rglob("scores__1"))
    duckdb.execute(f"COPY (SELECT '{KEYS[0]}' AS customer) TO '{folder}/ducklake-{secrets.token_hex(8)}.parquet'")
    with pytest.raises(ErasureError, match="left a file"):
        place.verify(REQUEST)
    assert place.remove(REQUEST).rows_removed == 1
    assert place.verify(REQUEST)
