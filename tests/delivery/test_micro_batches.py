"""examples/requests: an application inserts requests into its own Postgres table, and gets answers into another."""

from __future__ import annotations

import os
import runpy
import shutil
import signal
import subprocess
import sys
import uuid
from contextlib import suppress
from pathlib import Path

import dagster as dg
import duckdb
import pytest

from pip_dagster.cli.main import cli
from pip_dagster.declaration.find import find_pipeline
from pip_dagster.declaration.project import Project
from pip_dagster.orchestration.definitions import build_definitions

import xgboost as xgb  # isort: skip  # after pip_dagster: it keeps OpenMP's threads from spinning

pytestmark = [
    pytest.mark.slice,
    pytest.mark.lake("never"),
    pytest.mark.skipif(
        duckdb.__version__ != "1.5.5", reason="DuckDB's extension for Postgres is a package for 1.5.5 only"
    ),
]

EXAMPLE = Path(__file__).parents[2] / "examples" / "requests"
FIRST, SECOND = "2024-03-01-10:00", "2024-03-01-10:05"
INSERT = """
INSERT INTO app.requests (request_id, requested_at, amount, items, is_new_customer)
VALUES (%s, %s, %s, 2, true) ON CONFLICT (request_id) DO NOTHING
"""


class Desk:
    """The example in a folder of its own, its tables in a real server, and the answers as the application sees them."""

    def __init__(self, root, postgres, instance, invoke):
        self.root, self.sql, self._instance, self._invoke = root, postgres.sql, instance, invoke
        pipeline = find_pipeline(Project.at(root), "risk")
        self.repository = build_definitions(pipeline).get_repository_def()

    def ask(self, at, amount=50.0, request=None):
        """Insert a request at this time of 1 March; its id, which the application chose."""
        request = request or str(uuid.uuid4())
        self.sql(INSERT, request, f"2024-03-01 {at}+00", amount)
        return request

    def answers(self):
        return {row[0]: row[1:] for row in self.sql("SELECT request_id::text, risk, model_version FROM app.answers")}

    def run(self, request):
        """The job, for a run that a sensor requests."""
        job, key = self.repository.get_job("risk_job"), request.partition_key
        assert job.execute_in_process(instance=self._instance, partition_key=key, tags=request.tags).success

    def score(self, key):
        """The same without Dagster, which takes a fifth of the time."""
        self.shell("run", "risk", key, "--no-dagster")
        self.shell("deliver", "risk")

    def tick(self):
        context = dg.build_sensor_context(instance=self._instance, repository_def=self.repository)
        return self.repository.get_sensor_def("risk_source_changes").evaluate_tick(context)

    def shell(self, *words):
        result = self._invoke(cli, ["--project", str(self.root), *words])
        assert result.exit_code == 0, result.output


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    root = tmp_path_factory.mktemp("requests") / "desk"
    shutil.copytree(EXAMPLE, root, ignore=shutil.ignore_patterns("data", "__pycache__"))
    runpy.run_path(str(root / "train.py"), run_name="__main__")
    declared = root / "desk" / "defs" / "risk" / "defs.yaml"
    text = declared.read_text().replace("start: 2026-11-01", "start: 2024-03-01, end: 2024-03-02")
    declared.write_text(text.replace("missing: { last: 12 }", "missing: none"))
    return root


@pytest.fixture
def desk(trained, tmp_path, postgres, helpers, monkeypatch):
    root = Path(shutil.copytree(trained, tmp_path / "desk"))
    monkeypatch.setenv("APP_URL", postgres.owner_url)
    monkeypatch.setenv("PIP_DAGSTER_PROJECT", str(root))
    postgres.sql((root / "tables.sql").read_text())
    with dg.instance_for_test() as instance:
        found = Desk(root, postgres, instance, helpers.invoke)
        files = ("--model", str(root / "data" / "model.ubj"), "--sample", str(root / "data" / "sample.parquet"))
        found.shell("models", "register", "risk", *files, "--alias", "champion")
        yield found


def test_each_request_has_exactly_one_answer_however_late_often_or_rolled_back(desk):
    asked = [desk.ask("10:00:00"), desk.ask("10:04:59.999999"), desk.ask("10:02:00", amount=300.0)]
    later = desk.ask("10:05:00")
    desk.score(FIRST)
    assert set(desk.answers()) == set(asked)  # the next partition's request waits for its end
    desk.score(SECOND)
    first = desk.answers()
    assert set(first) == {*asked, later} and first[asked[2]][0] > first[asked[0]][0]

    # The application does not know whether its insert arrived, and asks again: the same id is the same request.
    desk.ask("10:03:00", request=asked[0])
    assert desk.tick().skip_message.startswith("Nothing is stale") and desk.answers() == first

    # A request whose transaction committed after its partition was scored.
    late = desk.ask("10:04:58")
    [request] = desk.tick().run_requests
    assert request.tags["pip_dagster/reason"] == "source changed: requests 2024-03-01 10:00 (+1 row)"
    desk.run(request)
    answered = desk.answers()
    assert set(answered) == {*first, late}
    assert {request: answered[request] for request in first} == first  # no other answer moved

    # A second version answers from now on, and again what is rerun; a rollback takes its answers back at once.
    data = desk.root / "data"
    xgb.Booster(model_file=str(data / "model.ubj"))[:10].save_model(data / "shorter.ubj")
    files = ("--model", str(data / "shorter.ubj"), "--sample", str(data / "sample.parquet"))
    desk.shell("models", "register", "risk", *files)
    desk.shell("models", "promote", "risk", "v2", "--override", "to see a rollback")
    desk.score(SECOND)
    versions = {request: version for request, (_, version) in desk.answers().items()}
    assert versions == {**dict.fromkeys((*asked, late), 1), later: 2}
    desk.shell("models", "rollback", "risk", "--why", "version 2 is wrong")
    assert desk.answers() == answered

    # A request that the application withdrew has no answer any more.
    desk.sql("DELETE FROM app.requests WHERE request_id = %s", asked[1])
    desk.score(FIRST)
    assert set(desk.answers()) == {asked[0], asked[2], late, later}
    assert desk.sql("SELECT count(*), count(DISTINCT request_id) FROM app.answers") == [(4, 4)]


@pytest.mark.soak
def test_answers_of_a_running_daemon_arrive_within_two_minutes_of_the_partitions_end(desk, monkeypatch):
    declared = EXAMPLE / "desk" / "defs" / "risk" / "defs.yaml"
    shutil.copy(declared, desk.root / "desk" / "defs" / "risk" / "defs.yaml")
    home = desk.root / "home"
    home.mkdir()
    shutil.copy(EXAMPLE.parents[1] / "pip_dagster" / "scaffold" / "templates" / "dagster.yaml", home)
    monkeypatch.setenv("DAGSTER_HOME", str(home))
    monkeypatch.setenv("PYTHONPATH", str(desk.root), prepend=os.pathsep)
    command = [sys.executable, "-m", "dagster._daemon", "run", "-m", "desk.definitions"]
    with subprocess.Popen(command, cwd=desk.root, start_new_session=True) as daemon:
        try:
            found = runpy.run_path(str(desk.root / "measure.py"))["main"]()
        finally:
            os.killpg(daemon.pid, signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                daemon.wait(60)
            with suppress(ProcessLookupError):
                os.killpg(daemon.pid, signal.SIGKILL)
    assert found["asked"] == found["answered"] > 50
    assert found["p99 from insert to answer (s)"] < 300 + 120
