"""The compose file's services, started without Docker and killed in the middle of runs: nothing is lost."""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import duckdb
import pytest

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
import compose  # noqa: E402

ROWS, LACKING = 2000, compose.missing()
DAYS = [f"2024-{month:02}-{day:02}" for month, last in ((1, 31), (2, 17)) for day in range(1, last + 1)]
POSTGRES, KEY, SECRET = "Pg-S3cret/of+all", "pip-dagster-key", "S3-S3cret/of+all"
SETTINGS = {
    "POSTGRES_PASSWORD": POSTGRES,
    "AWS_ACCESS_KEY_ID": KEY,
    "AWS_SECRET_ACCESS_KEY": SECRET,
    "AWS_ENDPOINT_URL": "http://s3:8333",
    "DATA_PATH": "s3://lake/warehouse",
    "MODULE": "acme.definitions",
}
LIVE = (
    "SELECT partition_key, count(*) AS rows, count(DISTINCT order_id) AS keys, count(DISTINCT scoring_id) AS scorings, "
    "round(sum(score), 6) AS score FROM orders.predictions GROUP BY ALL ORDER BY ALL"
)
UPLOAD = """
import duckdb, os
from pip_dagster.errors import SourceError
from pip_dagster.warehouse import s3
con = duckdb.connect()
s3.reach(con, "s3://lake/", "the test", SourceError)
con.execute("COPY (FROM 'data/orders.parquet') TO 's3://lake/orders/all.parquet' (FORMAT parquet)")
"""


def make(tiny):
    """A project as a user would put it into the image: sources in S3, its registry on the shared volume."""
    tiny.source(
        f"CREATE OR REPLACE TABLE raw.orders AS SELECT o.* REPLACE (o.order_id + 200 * k + 1000000 * d AS order_id, "
        f"DATE '{DAYS[0]}' + d::INT AS day) FROM raw.orders o, range({len(DAYS)}) t(d), range({ROWS // 200}) u(k)",
        f"COPY (SELECT * FROM raw.orders) TO '{tiny.root}/orders.parquet'",
    )
    tiny.declare(
        partitions={"start": DAYS[0], "end": "2024-02-18", "max_per_run": 4},
        sources={"orders": {"table": "raw.orders", "parquet": "s3://lake/orders/*.parquet", "partition_column": "day"}},
        sensors={"source_changes": {"status": "running", "interval": "30 seconds", "missing": "all"}},
        reruns={"back_off": "0 minutes"},
        schedule=None,
    )
    (tiny.root / "data").mkdir()
    shutil.move(tiny.root / "orders.parquet", tiny.root / "data" / "orders.parquet")
    shutil.copytree(tiny.project.registry, tiny.root / "data" / "registry")


@pytest.fixture
def place():
    """A folder that the services' users can reach: pytest's own is closed to them."""
    folder = Path(tempfile.mkdtemp(prefix="pip_dagster_compose_"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def driven(place, project, name, **scenario):
    """What `drive.py` says in the end."""
    ask = {"live": ["pip-dagster", "query", "--json", LIVE], "audit": ["pip-dagster", "audit", "verify"]}
    ask |= {"plan": ["pip-dagster", "plan", "orders", "--json"]}
    setup = [["python", "-c", UPLOAD], ["pip-dagster", "audit", "accept", "--moves", "--why", "made by the test"]]
    given = {"scenario": name, "keys": DAYS, "profiles": ["s3"], "setup": setup, "ask": ask, "variables": SETTINGS}
    command = [sys.executable, str(HERE / "drive.py"), str(place), str(project), json.dumps(given | scenario)]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("AWS", "DAGSTER", "PIP_"))}
    with (place / "drive.log").open("w") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        try:
            code = process.wait(timeout=3000)
        finally:
            process.terminate()
            process.wait(60)
    said = (place / "drive.log").read_text()
    assert code == 0, said[-6000:]
    return json.loads(said.splitlines()[-1])


@pytest.mark.soak
@pytest.mark.lake("never")
@pytest.mark.skipif(LACKING is not None, reason=str(LACKING))
def test_every_service_is_killed_in_the_middle_of_runs_and_nothing_is_lost(tiny, place):
    make(tiny)
    said = driven(place, tiny.root, "kill_in_turn")
    assert said["outages"] == ["worker-1", "redis-1", "postgres-1", "s3-1", "code-1", "daemon-1"]
    assert "too late for" not in said, "every service was killed while runs were at work"
    assert {run["status"] for run in said["runs"]} <= {"SUCCESS", "FAILURE"}, "no run is stuck"
    with duckdb.connect() as con:
        frame = tiny.source_frame()
        scores = tiny.expected()
        frame["score"] = frame["order_id"].map(scores)
        expected = con.sql("SELECT day::VARCHAR, round(sum(score), 6) FROM frame GROUP BY 1 ORDER BY 1").fetchall()
    live = json.loads(said["live"]["out"])
    assert [(each["partition_key"], each["rows"], each["keys"], each["scorings"]) for each in live] == [
        (day, ROWS, ROWS, 1) for day in DAYS
    ]
    assert [each["score"] for each in live] == pytest.approx([score for _, score in expected], abs=1e-5)
    assert said["audit"]["rc"] == 0, said["audit"]
    assert json.loads(said["plan"]["out"])["stale"] == [], said["plan"]
    for path in place.rglob("*"):
        if path.is_file() and path.name != "postgres-password":
            held = path.read_bytes()
            assert POSTGRES.encode() not in held and SECRET.encode() not in held, path
    assert not re.search(r"Traceback", (place / "maintain-1.log").read_text())
