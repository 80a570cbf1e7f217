"""Where a person's SQL runs: it finds each declared source, wherever that lies, and shares the memory of the run."""

import duckdb
import pytest

from pip_dagster.declaration.spec import PipelineSpec
from pip_dagster.flow.reader import sources_alone
from pip_dagster.warehouse.connect import workspace

PARQUET = {
    "beside": "../data/x.parquet",
    "below": "../data/**/*.parquet",
    "brackets": "in/z[1].parquet",
    "linked": "link/*.parquet",
    "linked_file": "link/x.parquet",
    "star": "w*.parquet",
    "folder": "in/*.parquet",
}
VIEWS = {
    "relative": "read_parquet('in/z2.parquet')",
    "files": "read_parquet('../data/**/*.parquet', hive_partitioning = false)",
    "csv": "read_csv('t.csv')",
    "named": "'t.csv'",
    "other": "(SELECT * FROM raw.undeclared WHERE day = '2024-03-01')",
}


@pytest.fixture
def spec(tmp_path, monkeypatch):
    """Sources in a project whose path has brackets, beside it, behind a link, and in files that views name."""
    root = tmp_path / "a [b]" / "shop"
    for folder in (root / "in", root.parent / "data" / "year=2024"):
        folder.mkdir(parents=True)
    data = root.parent / "data"
    (root / "link").symlink_to(data)
    (root / "t.csv").write_text("id,day\n1,2024-03-01\n")
    monkeypatch.chdir(root)
    with duckdb.connect("s.duckdb") as con:
        for name in ("../data/x", "../data/year=2024/y", "in/z[1]", "in/z2", "w*"):
            con.execute(f"COPY (SELECT 1 AS id, DATE '2024-03-01' AS day) TO '{name}.parquet'")
        con.execute("CREATE SCHEMA raw; CREATE TABLE raw.undeclared AS SELECT 1 AS id, DATE '2024-03-01' AS day")
        for name, relation in VIEWS.items():
            con.execute(f"CREATE VIEW raw.{name} AS FROM {relation}")
    sources = {name: {"table": f"raw.{name}"} for name in VIEWS}
    sources |= {name: {"table": f"q.{name}", "parquet": path} for name, path in PARQUET.items()}
    return PipelineSpec.model_validate(
        {
            "name": "orders",
            "partitions": {"start": "2024-03-01"},
            "source_database": "s.duckdb",
            "sources": sources | {"absolute": {"table": "q.absolute", "parquet": str(data / "x.parquet")}},
            "features": {"sql": "features.sql", "key": ["id"], "partition_column": "day"},
            "scoring": {"model_name": "returns"},
        }
    )


def test_every_source_is_found_and_nothing_beside_it(spec, tmp_path):
    root = tmp_path / "a [b]" / "shop"
    (tmp_path / "secret.csv").write_text("a\n1\n")
    with workspace(threads=1) as con, sources_alone(con, spec, root) as own:
        for source in spec.sources.values():
            assert own.execute(f"SELECT min(id) FROM {source.table}").fetchone() == (1,), source.table
        for path in (tmp_path / "secret.csv", "../../secret.csv", "../data/../../secret.csv", "in/../../../secret.csv"):
            with pytest.raises(duckdb.Error, match="file system operations are disabled|Cannot access"):
                own.execute(f"FROM read_text('{path}')")


def test_it_takes_a_share_of_the_memory_and_gives_it_back(spec, tmp_path, monkeypatch):
    def limit(con):
        return con.execute("SELECT current_setting('memory_limit')").fetchone()[0]

    monkeypatch.setenv("PIP_DAGSTER_MEMORY_LIMIT", "512MiB")
    with workspace(threads=1) as con:
        with sources_alone(con, spec, tmp_path / "a [b]" / "shop") as own:
            assert limit(con) == limit(own) == "256.0 MiB"
        assert limit(con) == "512.0 MiB"
