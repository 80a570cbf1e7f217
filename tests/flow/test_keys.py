"""Unique keys: exact however the rows are divided, and in memory that does not grow with the rows."""

import subprocess
import sys
from pathlib import Path

import duckdb
import pytest

from pip_dagster.flow import keys
from pip_dagster.flow.keys import check_keys, repeated
from pip_dagster.flow.stage import Stage
from pip_dagster.warehouse.connect import workspace

ROWS = 300_000
# Duplicates far apart; in 'b' a key that also occurs in 'a', which is none.
SELECT = f"""
SELECT CASE WHEN i < {ROWS} THEN 'a' ELSE 'b' END AS partition_key, i % {ROWS} AS id, 'shop ' || (i % 7) AS shop
FROM range({ROWS + 1000}) t(i)
UNION ALL VALUES ('a', 0, 'shop 0'), ('a', {ROWS - 1}, 'shop {(ROWS - 1) % 7}'), ('a', 5, 'shop 6'), ('b', 3, 'other')
"""


@pytest.fixture
def stage():
    with workspace(threads=2, memory_limit="100MB") as con:
        stage = Stage(con)
        stage.begin({"id": "BIGINT", "shop": "VARCHAR"})
        con.execute(f"INSERT INTO {stage.features} {SELECT}")
        yield stage


@pytest.mark.parametrize("hashed", ["hash", "pip_weak", "pip_constant"])
@pytest.mark.parametrize("parts", [1, 2, 7])
def test_each_repeated_key_is_found_once_whatever_its_hash(stage, parts, hashed):
    stage.con.execute("CREATE MACRO memory.pip_weak(a, b := 0) AS hash(a) % 3")
    stage.con.execute("CREATE MACRO memory.pip_constant(a, b := 0) AS 4")
    found = repeated(stage, ["id"], parts, hashed)
    assert {key: count for key, (count, _) in found.items()} == {"a": 3, "b": 1}
    assert (found["a"][1], found["b"][1]) == (6, 2)
    assert repeated(stage, ["id", "shop"], parts).keys() == {"a"}
    assert repeated(stage, ["id", "shop"], parts)["a"][0] == 2


def test_a_key_with_a_null_is_reported_as_such_in_parts_too(stage, monkeypatch):
    stage.con.execute(f"INSERT INTO {stage.features} VALUES ('b', NULL, 'x'), ('b', NULL, 'x'), ('c', 1, NULL)")
    whole = check_keys(stage, ["id", "shop"])
    monkeypatch.setattr(keys, "_BYTES_A_NUMBER", 2_000)
    assert check_keys(stage, ["id", "shop"]).keys() == whole.keys() == {"a", "b", "c"}
    assert whole["b"].startswith("2 rows with a NULL in the key") and whole["c"].startswith("1 row with a NULL")
    assert whole["a"].startswith("2 keys (id, shop) occur more than once")


def test_more_rows_or_texts_are_grouped_in_more_parts(stage, monkeypatch):
    assert keys._parts(stage, ["id"]) == 1
    monkeypatch.setattr(keys, "_BYTES_A_NUMBER", 1_000)
    assert (keys._parts(stage, ["id"]), keys._parts(stage, ["id", "shop"])) == (4, 16)


FLAT = """
import sys
from pip_dagster.flow.keys import check_keys
from pip_dagster.flow.stage import Stage
from pip_dagster.warehouse.connect import workspace
columns = {"id": "BIGINT"} | {f"f{i}": "DOUBLE" for i in range(24)}
values = ", ".join(f"i / {i + 3} AS f{i}" for i in range(24))
with workspace(threads=2, memory_limit="96MB") as own, workspace(threads=2, memory_limit="96MB") as con:
    stage = Stage(con)
    stage.begin(columns)
    stage.append(own, f"SELECT 'a' AS partition_key, i AS id, {values} FROM range({sys.argv[1]}) t(i)", {})
    assert check_keys(stage, ["id"]) == {}
    print(con.execute(f"SELECT count(*) FROM {stage.features}").fetchone()[0])
status = open("/proc/self/status").read()
print(int(status.split("VmHWM:")[1].split()[0]) // 1024)
"""


@pytest.mark.slice
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak is read from /proc")
@pytest.mark.skipif(not duckdb.__version__.startswith("1."), reason="DuckDB 2 holds the result of execute() whole")
def test_staging_takes_the_same_memory_for_many_rows():
    """1.5 million rows are 310 MB. Through pyarrow.dataset, they peaked at 513 MB, and 100,000 rows at 262 MB."""
    peaks = {}
    for rows in (100_000, 1_500_000):
        output = subprocess.run([sys.executable, "-c", FLAT, str(rows)], capture_output=True, text=True, check=True)
        staged, peaks[rows] = map(int, output.stdout.split())
        assert staged == rows
    assert peaks[1_500_000] < 340 and peaks[1_500_000] < peaks[100_000] + 150, peaks


def test_what_a_batch_raises_while_it_is_inserted_is_in_the_error():
    import pyarrow as pa

    schema = pa.schema([("id", pa.int64())])

    def batches():
        yield pa.record_batch([pa.array([1])], schema=schema)
        raise ValueError("the second batch is broken")

    with workspace(threads=2) as con:
        stage = Stage(con)
        stage.create(stage.scores, {"id": "BIGINT"})
        with pytest.raises(duckdb.Error, match="the second batch is broken"):
            stage.insert(stage.scores, pa.RecordBatchReader.from_batches(schema, batches()))
        assert con.execute(f"SELECT count(*) FROM {stage.scores}").fetchone() == (0,)
