"""Files with wide rows have small blocks: the stage's, the warehouse's, and those of published rows."""

import json
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pytest

from pip_dagster.errors import MemoryLimitError
from pip_dagster.flow.stage import Stage
from pip_dagster.warehouse import blocks
from pip_dagster.warehouse.connect import workspace
from pip_dagster.warehouse.memory import limit_error, note_columns
from tests.erasure.anchoring import declare_anchors

import xgboost as xgb  # isort: skip

FEATURES, SMALL, LARGE = 420, 16_384, 262_144
# What `audit verify` says of the ledger; of alias moves that no command recorded, something else, with exit code 4.
INTACT = "the chain is intact and agrees with the ledger"


def block_size(file: Path) -> int:
    """As DuckDB itself says it."""
    with duckdb.connect(str(file), read_only=True) as con:
        return con.execute("PRAGMA database_size").fetchall()[0][2]


@pytest.mark.parametrize("size", [SMALL, LARGE])
def test_the_size_is_read_from_the_file(tmp_path, size):
    file = tmp_path / "x.duckdb"
    with duckdb.connect() as con:
        con.execute(f"ATTACH '{file}' AS x (BLOCK_SIZE {size}, STORAGE_VERSION 'v1.5.0')")
        con.execute("CREATE TABLE x.t AS SELECT 1 AS i")
        con.execute("DETACH x")
    assert block_size(file) == size
    assert blocks.fits(file, blocks.WIDE) == (size == SMALL) and blocks.fits(file, blocks.WIDE - 1)


def test_no_file_and_one_that_is_no_database_need_no_smaller_blocks(tmp_path):
    (tmp_path / "other").write_bytes(b"x" * 20_000)
    assert all(blocks.fits(tmp_path / name, 5_000) for name in ("none", "other", ""))


def test_wide_features_are_staged_in_small_blocks_once_the_sources_are_closed(tmp_path):
    wide = {f"f{i}": "DOUBLE" for i in range(blocks.WIDE)}
    with workspace(threads=1) as con, workspace(threads=1) as own:
        stage = Stage(con)
        stage.begin(wide)
        select = f"SELECT 'a' AS partition_key, {', '.join(f'{i}.5' for i in range(len(wide)))} FROM range(3)"
        stage.append(own, select, {})
        stage.append(own, select, {})
        with pytest.raises(duckdb.Error, match="no such row"):
            stage.append(own, select.replace("0.5", "error('no such row')", 1), {})
        assert con.execute(f"SELECT count(*) FROM {stage.features}").fetchone() == (0,)
        stage.arrive()
        stage.arrive()
        assert con.execute(f"SELECT count(*), sum(f399) FROM {stage.features}").fetchone() == (6, 6 * 399.5)
        sizes = {row[0]: row[2] for row in con.execute("PRAGMA database_size").fetchall()}
        assert sizes["pip_wide"] == SMALL
        stage.begin({"f0": "DOUBLE"})
        assert stage.features.startswith("memory.")


def widen(tiny, rows: int = 50, features: int = FEATURES) -> None:
    """A source and a model for as many features as need small blocks."""
    names = [f"f{i}" for i in range(features)]
    columns = ", ".join(f"(hash(i, {k}) % 1000)::DOUBLE / 7 AS {name}" for k, name in enumerate(names))
    tiny.source(
        f"CREATE TABLE raw.wide AS SELECT i AS id, DATE '2024-03-01' + (i // {rows})::INTEGER AS day, {columns} "
        f"FROM range({rows * 4}) t(i)"
    )
    frame = pd.DataFrame(np.random.default_rng(1).uniform(0, 142, (60, features)), columns=names)
    label = (frame["f0"] > 70).astype(int)
    matrix = xgb.DMatrix(frame.to_numpy(np.float32), label, feature_names=names)
    xgb.train({"objective": "binary:logistic", "max_depth": 2, "nthread": 1}, matrix, 3).save_model(tiny.root / "w.ubj")
    tiny.registry.register("wide", model=tiny.root / "w.ubj", sample=frame, by="ada")
    tiny.registry.set_alias("wide", "champion", 1, by="ada", why="the first")


WIDE_SQL = "SELECT * FROM raw.wide WHERE day >= $start_date AND day < $end_date"
DECLARED = {
    "sources": {"wide": {"table": "raw.wide", "partition_column": "day"}},
    "features": {"key": ["id"]},
    "scoring": {"model_name": "wide"},
}


@pytest.mark.slice
def test_a_new_warehouse_of_wide_features_and_what_is_published_of_their_quarantine(tiny):
    widen(tiny)
    suite = [{"type": "expect_column_values_to_be_between", "kwargs": {"column": "id", "min_value": 1}}]
    (tiny.folder / "expectations.yaml").write_text(json.dumps({"features": suite}))
    tiny.declare(WIDE_SQL, quality="expectations.yaml", **DECLARED)
    tiny.shell("backfill", "orders", "--from", "2024-03-01", "--to", "2024-03-02")
    assert tiny.warehouse("SELECT count(*), count(f419) FROM orders.features") == [(100, 100)]
    assert block_size(tiny.project.warehouse) == SMALL
    (rows,) = (tiny.project.published / "orders").glob("rows-*.duckdb")
    assert block_size(rows) == SMALL  # a row that is not scored is published whole
    assert tiny.published("SELECT count(*), max(f0) IS NOT NULL FROM orders.quarantine") == [(1, True)]


@pytest.mark.slice
def test_a_small_warehouse_gets_small_blocks_when_wide_features_come(scored):
    file = scored.project.warehouse
    assert block_size(file) == LARGE
    widen(scored)
    scored.declare(WIDE_SQL, **DECLARED)
    assert scored.run("2024-03-01")["2024-03-01"].error is None
    assert block_size(file) == SMALL
    assert INTACT in scored.shell("audit", "verify", code=4)


@pytest.mark.slice
def test_one_that_is_anchored_gets_them_when_told_and_the_key_vouches_for_it(scored):
    declare_anchors(scored)
    scored.shell("audit", "anchor")
    file = scored.project.warehouse
    widen(scored)
    scored.declare(WIDE_SQL, **DECLARED)
    assert scored.run("2024-03-01")["2024-03-01"].error is None
    assert block_size(file) == LARGE, "a run has no key"
    key = scored.root / "anchor.pem"
    key.rename(scored.root / "elsewhere")
    assert "No anchor in any place vouches for the new file" in scored.shell("maintain", "--small-blocks")
    assert block_size(file) == SMALL
    assert "blocks-" in scored.shell("audit", "verify", "--anchors", code=1), "nobody vouched for it"
    (scored.root / "elsewhere").rename(key)
    scored.shell("maintain", "--small-blocks")
    kinds = "SELECT details ->> 'kind' FROM ledger.audit WHERE action = 'rewritten'"
    assert scored.warehouse(kinds) == [("blocks",), ("blocks",)]
    found = scored.shell("audit", "verify", "--anchors", code=1)
    assert found.count("blocks-") == 1, "the key vouches for what it did, and for nothing else"


@pytest.mark.slice
def test_a_large_warehouse_stays_as_it_is_until_it_is_told(scored, monkeypatch):
    monkeypatch.setattr("pip_dagster.ledger.small_blocks._AT_ONCE", 1)
    file = scored.project.warehouse
    widen(scored)
    scored.declare(WIDE_SQL, **DECLARED)
    assert scored.run("2024-03-01")["2024-03-01"].error is None
    assert block_size(file) == LARGE
    with workspace(threads=1) as con:
        note_columns(con, FEATURES)
        con.execute(f"ATTACH '{file}' AS warehouse (READ_ONLY)")
        error = limit_error(con, duckdb.OutOfMemoryException("full"))
        assert isinstance(error, MemoryLimitError) and "`pip-dagster maintain --small-blocks`" in str(error)
    assert INTACT in scored.shell("audit", "verify", code=4)
    assert "has blocks of 16 KB" in scored.shell("maintain", "--small-blocks")
    assert block_size(file) == SMALL
    assert INTACT in scored.shell("audit", "verify", code=4)
    assert "1 current" in scored.shell("plan", "orders", "2024-03-01")
    with workspace(threads=1) as con:
        note_columns(con, FEATURES)
        con.execute(f"ATTACH '{file}' AS warehouse (READ_ONLY)")
        assert "maintain" not in str(limit_error(con, duckdb.OutOfMemoryException("full")))


@pytest.mark.soak
@pytest.mark.lake("only")
def test_a_lake_stores_rows_that_are_wider_than_a_table_of_its_postgres(tiny):
    widen(tiny, 2, 1_700)
    tiny.declare(WIDE_SQL, **DECLARED)
    for day in ("2024-03-01", "2024-03-02"):
        assert tiny.run(day)[day].error is None
    assert tiny.warehouse("SELECT count(*), count(f1699) FROM orders.features") == [(4, 4)]
    assert tiny.published("SELECT count(*) FROM orders.predictions") == [(4,)]
    assert "a lake's files have no blocks" in tiny.shell("maintain", "--small-blocks", code=1)
