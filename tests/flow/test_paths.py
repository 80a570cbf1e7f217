"""Where files lie is no data: no part of a path becomes a column, a value or part of a digest."""

import glob
import shutil

import duckdb
import pytest

from pip_dagster.cli.main import cli
from pip_dagster.declaration.project import Project
from pip_dagster.errors import ProjectError
from pip_dagster.ledger.promotions import alias_moves
from pip_dagster.ledger.verify import verify
from pip_dagster.replay import recall
from pip_dagster.replay.replay import replay
from pip_dagster.warehouse.connect import open_warehouse, workspace

pytestmark = pytest.mark.lake

FIRST, SECOND, THIRD, FOURTH = DAYS = ("2024-03-01", "2024-03-02", "2024-03-03", "2024-03-04")
# Hive's folders, named as columns that there are and are not; and what globs, SQL, URLs and shells treat specially.
PLACES = (
    "region=eu/year=2024/day=1999-01-01/score=7/order_id=1",
    'it\'s "quoted"/100% {a,b} [0-9] **/東京 ü $HOME ; -- #',
    "partition_key=x/pipeline=y/~",
)


def columns(tiny, relation):
    return [row[0] for row in tiny.published(f"DESCRIBE {relation}")]


def digests(tiny):
    query = "SELECT partition_key, feature_digest, score_digest, code_digest FROM ledger.scorings"
    sources = "SELECT partition_key, source_digests, sql_digest FROM ledger.extractions"
    return tiny.warehouse(f"{query} ORDER BY ALL"), tiny.warehouse(f"{sources} ORDER BY ALL")


@pytest.mark.slice
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.lake
def test_a_project_that_lies_elsewhere_is_the_same_project(scored, backend, tmp_path, place, monkeypatch, helpers):
    there = type(scored)(backend.copied(scored.root, tmp_path / place / "shop"))
    before = digests(scored)
    monkeypatch.setenv("PIP_DAGSTER_PROJECT", str(there.root))
    planned = helpers.invoke(cli, ["plan", "orders", "--from", FIRST, "--to", FOURTH])
    assert planned.output == "orders: 0 stale partitions, 0 on hold, 4 current\n"
    pipeline = there.pipeline()
    with workspace(threads=1) as con:
        entries = recall.find(con, pipeline)
        with open_warehouse(con, there.project.warehouse, purpose="test", read_only=True):
            assert verify(con, moves=alias_moves(there.registry)) is None
    assert [each.verdict for each in replay(pipeline, entries)] == ["identical"] * 4
    there.source(f"UPDATE raw.orders SET quantity = quantity + 1 WHERE day = '{SECOND}'")
    assert there.run(SECOND)[SECOND].error is None
    assert there.scores() == there.expected()
    for relation in ("orders.predictions", "ledger.partitions"):
        assert columns(there, relation) == columns(scored, relation)
    assert digests(scored) == before


@pytest.mark.parametrize("place", PLACES)
def test_a_parquet_source_has_the_columns_of_its_files(tiny, place, tmp_path):
    """A folder on the way to them is a column of nobody's."""
    with duckdb.connect(str(tiny.root / "sources.duckdb"), read_only=True) as con:
        for number in (1, 2):
            con.execute(f"COPY (FROM raw.orders WHERE order_id % 2 = {number - 1}) TO '{tmp_path}/plain.parquet'")
            folder = tiny.root / "data" / place / f"part=0{number}"
            folder.mkdir(parents=True)
            shutil.move(tmp_path / "plain.parquet", folder / "some orders.parquet")
    plain = tiny.run()
    source = {"table": "raw.orders", "partition_column": "day"}
    pattern = f"data/{glob.escape(place)}/part=0*/*.parquet"
    sql = "SELECT * FROM raw.orders WHERE day >= $start_date AND day < $end_date"
    tiny.declare(sql, source_database=None, sources={"orders": source | {"parquet": pattern}})
    results = tiny.run()
    assert {key: each.error for key, each in results.items()} == dict.fromkeys(DAYS)
    assert tiny.scores() == tiny.expected()
    ((names,),) = tiny.warehouse(
        "SELECT list(column_name ORDER BY column_name) FROM (DESCRIBE orders.features) "
        "WHERE column_name NOT IN ('partition_key', 'revision', 'note')"
    )
    assert names == ["amount", "day", "gift", "order_id", "quantity", "shop"]
    known = {key: each.scoring.score_digest for key, each in plain.items()}
    assert {key: each.scoring.score_digest for key, each in results.items()} == known


@pytest.mark.parametrize("name", ["orders[1].parquet", "a*?.parquet", "order's {x}.parquet"])
def test_a_parquet_file_with_the_name_of_a_pattern_is_itself(tiny, name):
    with duckdb.connect(str(tiny.root / "sources.duckdb"), read_only=True) as con:
        con.execute(f"COPY raw.orders TO '{tiny.root}/plain.parquet'")
    shutil.copy(tiny.root / "plain.parquet", tiny.root / name)
    source = {"table": "raw.orders", "partition_column": "day", "parquet": name}
    tiny.declare(source_database=None, sources={"orders": source})
    tiny.run(FIRST)
    assert tiny.scores() == tiny.expected(f"day = '{FIRST}'")


@pytest.mark.lake("never")
def test_a_folder_in_which_duckdb_cannot_write_is_refused(tiny, tmp_path):
    """DuckDB puts `.wal` before the first question mark of a path."""
    shutil.copytree(tiny.root, tmp_path / "what?" / "shop")
    with pytest.raises(ProjectError, match=r"with `\?` in its name.*Rename the folder"):
        Project.at(tmp_path / "what?" / "shop")
    (tiny.root / "pyproject.toml").write_text('[tool.pip_dagster]\npublished = "what?/published"\n')
    with pytest.raises(ProjectError, match=r"`published` is in a folder with `\?` in its name"):
        Project.at(tiny.root)
