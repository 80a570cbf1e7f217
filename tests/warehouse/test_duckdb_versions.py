"""The same project under the DuckDB of another interpreter, which PIP_DAGSTER_DUCKDB2_PYTHON names."""

import json
import os
import subprocess
import sys
from pathlib import Path

import duckdb
import pytest

import pip_dagster
from pip_dagster.errors import SourceError

OTHER = os.environ.get("PIP_DAGSTER_DUCKDB2_PYTHON")
DAYS = ("2024-03-01", "2024-03-02")

RUN = """
import json, sys
from datetime import datetime, timedelta, timezone
import duckdb
from pip_dagster.flow.materialize import materialize
from pip_dagster.declaration.partition import Partition
from pip_dagster.ledger.record import RunInfo
from pip_dagster.declaration.pipeline import Pipeline
from pip_dagster.declaration.project import Project
from pip_dagster.declaration.spec import PipelineSpec

project = Project.find()
folder = project.root / "acme" / "defs" / "orders"
spec = PipelineSpec.model_validate(json.loads(sys.argv.pop()))
pipeline = Pipeline.load(spec, folder, project)
starts = [datetime.fromisoformat(key).replace(tzinfo=timezone.utc) for key in sys.argv[1:]]
partitions = [Partition(f"{start:%Y-%m-%d}", start, start + timedelta(days=1)) for start in starts]
results = list(materialize(pipeline, partitions, RunInfo("other", "a process")))
assert not any(result.error for result in results), results
with duckdb.connect(str(project.published_database), read_only=True) as con:
    scores = con.execute("SELECT order_id, score FROM orders.predictions ORDER BY order_id").fetchall()
print(json.dumps({
    "duckdb": duckdb.__version__,
    "scores": scores,
    "features": {r.partition.key: r.features.feature_digest for r in results},
    "sources": {r.partition.key: json.loads(r.features.source_digests) for r in results},
    "digests": {r.partition.key: r.scoring.score_digest for r in results},
}))
"""


def run(helpers, python, tiny, *keys):
    done = subprocess.run(
        [python, "-c", RUN, *keys, json.dumps(helpers.ATTRIBUTES)],
        cwd=tiny.root,
        env=os.environ
        | {"PIP_DAGSTER_PROJECT": str(tiny.root), "PYTHONPATH": str(Path(pip_dagster.__file__).parents[1])},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def rows(expected):
    return [[order, score] for order, score in expected.items()]


@pytest.mark.slice
@pytest.mark.skipif(not OTHER, reason="PIP_DAGSTER_DUCKDB2_PYTHON names no interpreter")
class TestAnotherDuckDB:
    def test_makes_the_same_scores_and_the_same_fingerprints(self, helpers, tiny):
        other = run(helpers, OTHER, tiny, *DAYS)
        assert other["scores"] == rows(tiny.expected(f"day <= '{DAYS[-1]}'"))
        tiny.begin_again()
        this = run(helpers, sys.executable, tiny, *DAYS)
        assert other["duckdb"] != this["duckdb"], "the same DuckDB shows nothing"
        del other["duckdb"], this["duckdb"]
        assert other == this

    def test_and_this_one_take_turns_on_one_warehouse(self, helpers, tiny):
        run(helpers, OTHER, tiny, DAYS[0])
        run(helpers, sys.executable, tiny, DAYS[1])
        tiny.source("UPDATE raw.orders SET quantity = quantity + 1")
        assert run(helpers, OTHER, tiny, *DAYS)["scores"] == rows(tiny.expected(f"day <= '{DAYS[-1]}'"))
        assert run(helpers, sys.executable, tiny, *DAYS)["scores"] == rows(tiny.expected(f"day <= '{DAYS[-1]}'"))
        assert tiny.warehouse("SELECT count(*) FROM orders.features") == [(200,)]

    def test_reads_a_source_in_its_own_format_which_this_one_names(self, helpers, tiny):
        expected = rows(tiny.expected(f"day = '{DAYS[0]}'"))
        copy = "ATTACH 'sources.duckdb' AS old; ATTACH 'new.duckdb' AS new; COPY FROM DATABASE old TO new"
        subprocess.run([OTHER, "-c", f"import duckdb; duckdb.connect().execute({copy!r})"], cwd=tiny.root, check=True)
        (tiny.root / "new.duckdb").rename(tiny.root / "sources.duckdb")
        assert run(helpers, OTHER, tiny, DAYS[0])["scores"] == expected
        with pytest.raises(SourceError, match=r"written by DuckDB v2.*STORAGE_VERSION 'v1\.5\.0'"):
            tiny.run(DAYS[0])


def test_files_are_written_in_a_format_that_the_oldest_supported_duckdb_opens(scored):
    rows = scored.project.published / "orders" / "rows-0001.duckdb"
    for file in (scored.project.warehouse, scored.project.published_database, rows):
        with duckdb.connect() as con:
            con.execute(f"ATTACH '{file}' AS f (READ_ONLY)")
            [(tags,)] = con.execute("SELECT tags FROM duckdb_databases() WHERE database_name = 'f'").fetchall()
        assert tags["storage_version"].startswith("v1.5")
