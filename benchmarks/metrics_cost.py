"""The cost of `pip-dagster metrics` with a year and with five years of hours, its start included.

`python benchmarks/metrics_cost.py` fills ledgers in which every hour is live, publishes them, and prints the CPU seconds
of the command, the best of three.
"""

import os
import resource
import shutil
import subprocess
import sys
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import yaml

from pip_dagster.declaration.find import find_pipeline
from pip_dagster.declaration.grid import closed_partitions
from pip_dagster.declaration.project import Project
from pip_dagster.warehouse.connect import open_warehouse, workspace
from pip_dagster.warehouse.published import publish_pending
from pip_dagster.warehouse.transaction import transaction

BOUND = 1.5
SCORINGS = """
  INSERT INTO ledger.scorings BY NAME SELECT 's' || key AS scoring_id, 'bench' AS pipeline, key AS partition_key,
    start AS partition_start, "end" AS partition_end, 'scored' AS status, 'champion' AS role, 'm' AS model_name,
    1 AS model_version, md5('1') AS model_digest, md5('2') AS manifest_digest, md5(key) AS feature_digest,
    '{"o": "' || md5(key) || '"}' AS source_digests, '{"xgboost": "3.2"}' AS engine, 'cpu' AS device, 1 AS threads,
    100 AS rows_in, 98 AS rows_scored, 2 AS rows_quarantined, '{}' AS findings, 0.5 AS mean_score, 0.1 AS seconds,
    0.1 AS cpu_seconds, 300000000 AS peak_memory, now() AS made_at FROM of
"""
LIVE = """
  INSERT INTO ledger.live_changes BY NAME SELECT 'c' || key AS change_id, 'bench' AS pipeline, key AS partition_key,
    's' || key AS scoring_id, 'scored' AS why, 'scored' AS kind, now() AS made_at FROM of
"""


def build(root: Path, hours: int) -> Project:
    """A project with so many hours live and published, up to now."""
    folder = root / "defs" / "bench"
    folder.mkdir(parents=True)
    (root / "pyproject.toml").write_text("[tool.pip_dagster]\n")
    (folder / "features.sql").write_text("SELECT k, t, a FROM shop.orders")
    attributes = {
        "name": "bench",
        "partitions": {"every": "hour", "start": f"{datetime.now(UTC) - timedelta(hours=hours):%Y-%m-%dT%H:00:00}"},
        "sources": {"o": {"table": "shop.orders", "parquet": "o.parquet", "partition_column": "t"}},
        "features": {"sql": "features.sql", "key": ["k"], "partition_column": "t"},
        "scoring": {"model_name": "m"},
        "schedule": "5 * * * *",
        "monitoring": {},
    }
    document = {"type": "pip_dagster.components.InferencePipeline", "attributes": attributes}
    (folder / "defs.yaml").write_text(yaml.safe_dump(document))
    project = Project.at(root)
    partitions = closed_partitions(find_pipeline(project, "bench").spec.partitions, datetime.now(UTC))
    rows = ", ".join(f"('{p.key}', TIMESTAMPTZ '{p.start}', TIMESTAMPTZ '{p.end}')" for p in partitions)
    with workspace(threads=2) as con:
        con.execute(f'CREATE TEMP VIEW of AS FROM (VALUES {rows}) t(key, start, "end")')
        with open_warehouse(con, project.warehouse, purpose="benchmark"):
            with transaction(con):
                con.execute(SCORINGS)
                con.execute(LIVE)
            assert publish_pending(con, project) == len(partitions)
    return project


def cost(project: Project) -> float:
    """CPU seconds of the command in a process of its own, the best of three."""
    best = 1e9
    command = [sys.executable, "-m", "pip_dagster.cli.main", "--project", str(project.root), "metrics"]
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        text = subprocess.run(command, check=True, capture_output=True, text=True, env={**os.environ}).stdout
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert "pip_dagster_partitions_live" in text
        best = min(best, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return best


def main() -> None:
    """Measure both."""
    folder = Path(tempfile.mkdtemp())
    try:
        for hours in (8_736, 43_800):
            spent = cost(build(folder / str(hours), hours))
            print(f"{hours:,} partitions: {spent:.2f} s of CPU; bound {BOUND} s; holds: {spent <= BOUND}")
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
