"""The project of years of hours that benchmarks read is the one that a backfill would have built."""

import re

import duckdb
import pytest

from benchmarks import hours

# Ids, instants and costs, which no two backfills share, and what covers when the model was registered.
OWN = re.compile(
    r"_id$|_at$|seconds$|^(revision|feature_revision|peak_memory|hash|previous_hash|seq|live_since|live_change|findings|manifest_digest|inputs_digest|nonce)$"
)
# Of these, what does not depend on ids and on the warehouse's secret.
SOME = {
    "audit": "actor, action, pipeline",
    "meta": "key",
    "published_digests": "pipeline, partition_key, table_name, file, rows, columns_digest",
}


def tables(database):
    """Schema and table → sorted rows without what is its own."""
    with duckdb.connect(str(database), read_only=True) as con:
        con.execute("SET TimeZone = 'UTC'")
        found = {}
        for schema, table in con.execute(
            "SELECT schema_name, table_name FROM duckdb_tables() UNION ALL "
            "SELECT schema_name, view_name FROM duckdb_views() WHERE NOT internal"
        ).fetchall():
            columns = [row[0] for row in con.execute(f'DESCRIBE {schema}."{table}"').fetchall()]
            kept = ", ".join(f'"{name}"' for name in columns if name == "alarm_id" or not OWN.search(name)) or "1"
            kept = SOME.get(table, kept)
            found[schema, table] = con.execute(f'SELECT {kept} FROM {schema}."{table}" ORDER BY ALL').fetchall()
        return found


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hours")
    return [hours.build(folder / name, 32, sources=2, real=real) for name, real in (("bulk", 25), ("real", 32))]


@pytest.mark.slice
@pytest.mark.parametrize("database", ["warehouse", "published_database"])
def test_is_equal_to_a_real_backfill(both, database):
    bulk, real = (tables(getattr(pipeline.project, database)) for pipeline in both)
    assert bulk.keys() == real.keys()
    for name in real:
        for ours, theirs in zip(bulk[name], real[name], strict=True):
            assert ours == theirs, name
    assert len(real["hours", "predictions"]) == 32 * hours.ROWS


@pytest.mark.slice
def test_is_intact_and_up_to_date(both):
    from click.testing import CliRunner

    from pip_dagster.cli.main import cli

    root = str(both[0].project.root)
    for words, expected in (
        (["audit", "verify"], "the chain is intact"),
        (["plan", "hours"], "0 stale"),
        (["replay", "hours", hours.key_of(30)], "equal"),
    ):
        result = CliRunner().invoke(cli, ["--project", root, *words])
        assert result.exit_code == 0 and expected in result.output, result.output
