"""Backfilling and terminating by GraphQL, as the UI does: a real webserver, daemon, code server and run workers."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager, suppress
from pathlib import Path

import dagster as dg
import pytest

pytestmark = [pytest.mark.slow, pytest.mark.slice]  # one server for all: half a minute

FIRST, SECOND, THIRD, FOURTH = DAYS = ("2024-03-01", "2024-03-02", "2024-03-03", "2024-03-04")
ROOT = Path(__file__).parents[2]
FINISHED = {"SUCCESS", "FAILURE", "CANCELED"}

# The tiny project's code location. Each partition is scored and committed alone, from the third on slowly, batch by
# batch, while there is a file `hold`.
LOCATION = """
import itertools, pathlib, time
import pip_dagster.flow.materialize
from acme.definitions import defs
from pip_dagster.registry.engines.xgboost.predictor import BoosterPredictor

pip_dagster.flow.materialize.CHUNK_ROWS = 1
fast, calls = BoosterPredictor.predict, itertools.count(1)

def predict(self, X):
    if next(calls) >= 3 and pathlib.Path("hold").exists():
        pathlib.Path("held").touch()
        time.sleep(2)
    return fast(self, X)

BoosterPredictor.predict = predict
"""
# It would count for hours from the third day on.
ENDLESS = """
SELECT order_id, day, gift, shop, quantity, amount FROM raw.orders
WHERE day >= $start_date AND day < $end_date AND (
  SELECT count(*) FROM (SELECT range FROM range(10000000) WHERE $start_date >= '2024-03-03') a,
    range(10000000) b WHERE a.range * b.range = -1) = 0
"""
LAUNCH = """
mutation ($params: LaunchBackfillParams!) { launchPartitionBackfill(backfillParams: $params) {
  __typename ... on LaunchBackfillSuccess { backfillId } ... on PythonError { message } } }
"""
TERMINATE = "mutation ($id: String!) { terminateRun(runId: $id) { __typename } }"
BACKFILL = """
query ($id: String!) { partitionBackfillOrError(backfillId: $id) { ... on PartitionBackfill {
  status runs { runId status tags { key value } } } } }
"""


class Server:
    """`dagster dev` of a project, and what a client asks of it."""

    def __init__(self, tiny, home, port):
        self.tiny, self.home, self.url = tiny, home, f"http://127.0.0.1:{port}/graphql"
        self.log = home / "dev.log"

    def ask(self, query, **variables):
        body = json.dumps({"query": query, "variables": variables}).encode()
        request = urllib.request.Request(self.url, body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            found = json.loads(answer.read())
        assert not found.get("errors"), found
        [data] = found["data"].values()
        return data

    def answers(self):
        with suppress(OSError):
            return self.ask("{ version }")

    def backfill(self, *days, **tags):
        """Launch one over these days; its id."""
        params = {
            "assetSelection": [{"path": ["orders", name]} for name in ("features", "predictions")],
            "partitionNames": list(days),
            "tags": [{"key": f"pip_dagster/{key}", "value": value} for key, value in tags.items()],
        }
        found = self.ask(LAUNCH, params=params)
        assert found["__typename"] == "LaunchBackfillSuccess", found
        return found["backfillId"]

    def runs(self, backfill):
        """First partition → run, of those that were launched by now."""
        found = self.ask(BACKFILL, id=backfill)["runs"]
        runs = [run | {"tags": {tag["key"]: tag["value"] for tag in run["tags"]}} for run in found]
        return {run["tags"]["dagster/asset_partition_range_start"]: run for run in runs}

    def ended(self, backfill, count):
        """The runs, once so many have ended."""

        def look():
            runs = self.runs(backfill)
            return runs if len(runs) == count and all(run["status"] in FINISHED for run in runs.values()) else None

        return until(look)

    @contextmanager
    def instance(self):
        with pytest.MonkeyPatch.context() as patch:  # the shipped settings ask for it
            patch.setenv("DAGSTER_HOME", str(self.home))
            with dg.DagsterInstance.from_config(str(self.home)) as found:
                yield found

    def terminate(self, run):
        """Seconds until it had ended, and its status then."""
        began = time.monotonic()
        assert self.ask(TERMINATE, id=run["runId"])["__typename"] == "TerminateRunSuccess"
        with self.instance() as instance:
            ended = until(lambda: (r := instance.get_run_by_id(run["runId"])).is_finished and r)
        return time.monotonic() - began, ended.status.value

    def said(self, run):
        """The messages in a run's log."""
        with self.instance() as instance:
            return " ".join(entry.user_message for entry in instance.all_logs(run["runId"]))

    def materialized(self):
        with self.instance() as instance:
            return set(instance.get_materialized_partitions(dg.AssetKey(["orders", "predictions"])))


def until(what, seconds=240):
    """The first true answer."""
    end = time.monotonic() + seconds
    while True:
        if answer := what():
            return answer
        assert time.monotonic() < end, f"waited {seconds} s"
        time.sleep(0.2)


@pytest.fixture(scope="module")
def server(template, helpers, tmp_path_factory):
    """One for all tests here: it takes longer to start than they take. Two partitions a run."""
    folder = tmp_path_factory.mktemp("graphql")
    shutil.copytree(template, folder / "shop")
    tiny, home = helpers.Tiny(folder / "shop"), folder / "home"
    home.mkdir()
    shutil.copy(ROOT / "pip_dagster/scaffold/templates/dagster.yaml", home)
    (tiny.root / "location.py").write_text(LOCATION)
    tiny.declare(helpers.SQL, partitions={"max_per_run": 2}, schedule=None)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    found = Server(tiny, home, port)
    environment = os.environ | {
        "DAGSTER_HOME": str(home),
        "PYTHONPATH": f"{tiny.root}{os.pathsep}{os.environ.get('PYTHONPATH', '')}",
        "PIP_DAGSTER_PROJECT": str(tiny.root),
    }
    with found.log.open("w") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "dagster", "dev", "-m", "location", "--host", "127.0.0.1", "--port", port],
            cwd=tiny.root,
            env=environment,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        until(found.answers)
        yield found
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                process.wait(20)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        print(found.log.read_text()[-4000:])


@pytest.fixture
def tiny(server):
    """The server's project without anything made in it."""
    shutil.rmtree(server.tiny.project.warehouse.parent / "published", ignore_errors=True)
    for file in server.tiny.project.warehouse.parent.glob(f"{server.tiny.project.warehouse.name}*"):
        file.unlink()
    return server.tiny


def live_versions(tiny):
    return dict(tiny.warehouse("SELECT partition_key, model_version FROM ledger.partitions WHERE is_live ORDER BY 1"))


def test_a_backfill_is_made_in_the_declared_chunks_with_what_its_tags_ask_for(server, tiny):
    tiny.source(f"UPDATE raw.orders SET amount = 'inf' WHERE day = '{SECOND}'")
    backfill = server.backfill(*DAYS, model_version="2", why="as a trial")
    runs = server.ended(backfill, 2)
    tiny.source(f"UPDATE raw.orders SET amount = 1 WHERE day = '{SECOND}'")
    ends = {run["tags"]["dagster/asset_partition_range_end"] for run in runs.values()}
    assert set(runs) == {FIRST, THIRD} and ends == {SECOND, FOURTH}, "two days a run, by max_per_run"
    assert {day: run["status"] for day, run in runs.items()} == {FIRST: "FAILURE", THIRD: "SUCCESS"}
    assert {run["tags"]["pip_dagster/model_version"] for run in runs.values()} == {"2"}
    assert live_versions(tiny) == {FIRST: 2, THIRD: 2, FOURTH: 2}, "the failing day failed alone"
    assert server.materialized() == {FIRST, THIRD, FOURTH}
    assert tiny.warehouse("SELECT DISTINCT why FROM ledger.live_changes") == [("pinned to v2: as a trial",)]
    assert tiny.scores() == tiny.expected(f"day <> '{SECOND}'", version=2)


@pytest.mark.soak
def test_a_terminated_run_keeps_what_it_had_committed(server, tiny):
    more = "SELECT o.* REPLACE (order_id + 1000 * i AS order_id) FROM raw.orders o, range(1, 4000) t(i)"
    tiny.source(f"INSERT INTO raw.orders {more} WHERE day = '{THIRD}'")
    (tiny.root / "hold").touch()
    tiny.declare(partitions={"max_per_run": None}, scoring={"batch_rows": 2048})
    server.ask('mutation { reloadRepositoryLocation(repositoryLocationName: "location") { __typename } }')
    backfill = server.backfill(*DAYS)
    [run] = until(lambda: list(server.runs(backfill).values()))
    until((tiny.root / "held").exists)
    seconds, status = server.terminate(run)
    (tiny.root / "hold").unlink()
    tiny.source("DELETE FROM raw.orders WHERE order_id >= 1000")
    assert status == "CANCELED" and seconds < 30
    assert tiny.warehouse("SELECT partition_key, status FROM ledger.scorings ORDER BY 1") == [
        (FIRST, "scored"),
        (SECOND, "scored"),
    ]
    assert tiny.scores() == tiny.expected(f"day <= '{SECOND}'")


@pytest.mark.soak
def test_a_run_is_terminated_in_a_long_query_and_the_other_chunk_stays(server, tiny, helpers):
    tiny.declare(ENDLESS, partitions={"max_per_run": 2})
    server.ask('mutation { reloadRepositoryLocation(repositoryLocationName: "location") { __typename } }')
    backfill = server.backfill(*DAYS)
    run = until(lambda: server.runs(backfill).get(THIRD))
    until(lambda: "extracting the features" in server.said(run))
    seconds, status = server.terminate(run)
    assert status == "CANCELED" and seconds < 30
    assert server.ended(backfill, 2)[FIRST]["status"] == "SUCCESS"
    assert live_versions(tiny) == {FIRST: 1, SECOND: 1}
    assert tiny.warehouse("SELECT count(DISTINCT partition_key) FROM ledger.extractions") == [(2,)]


EXECUTE = """
mutation ($params: ExecutionParams!) { launchPipelineExecution(executionParams: $params) {
  __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message } } }
"""


def test_execute_on_the_checks_page_judges_the_newest_partition(server, tiny, helpers):
    small = {"type": "expect_column_values_to_be_between", "kwargs": {"column": "quantity", "max_value": 2}}
    score = {"type": "expect_column_values_to_be_between", "kwargs": {"column": "score", "max_value": 1}}
    suite = {"features": [small | {"severity": "warning"}], "predictions": [score]}
    (tiny.folder / "expectations.yaml").write_text(json.dumps(suite))
    tiny.declare(helpers.SQL, quality="expectations.yaml").run(FIRST, SECOND)
    server.ask('mutation { reloadRepositoryLocation(repositoryLocationName: "location") { __typename } }')
    checks = [(["orders", "features"], "quantity_values_to_be_between")]
    checks.append((["orders", "predictions"], "score_values_to_be_between"))
    selector = {
        "repositoryLocationName": "location",
        "repositoryName": "__repository__",
        "pipelineName": "__ASSET_JOB",
        "assetSelection": [],
        "assetCheckSelection": [{"assetKey": {"path": path}, "name": name} for path, name in checks],
    }
    params = {"selector": selector, "mode": "default", "runConfigData": "{}"}
    found = server.ask(EXECUTE, params=params)
    assert found["__typename"] == "LaunchRunSuccess", found
    with server.instance() as instance:
        run = until(lambda: (r := instance.get_run_by_id(found["run"]["runId"])).is_finished and r)
    assert run.status.value == "SUCCESS", server.said({"runId": run.run_id})
    with server.instance() as instance:
        newest = {
            key.asset_key.path[-1]: record.event.asset_check_evaluation
            for key, record in instance.event_log_storage.get_latest_asset_check_execution_by_key(
                [dg.AssetCheckKey(dg.AssetKey(path), name) for path, name in checks]
            ).items()
        }
    assert {name: each.passed for name, each in newest.items()} == {"features": False, "predictions": True}
    assert all(SECOND in each.description for each in newest.values())
