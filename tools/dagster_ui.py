"""Dagster's UI of a project, in a real browser: for `make e2e` and for the pictures of the documents.

Clicks go through the browser; outcomes come from GraphQL, so that nothing sleeps for a run.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from playwright.sync_api import Page

SETTINGS = Path(__file__).parents[1] / "pip_dagster" / "scaffold" / "templates" / "dagster.yaml"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FINISHED = {"SUCCESS", "FAILURE", "CANCELED"}

RUNS = """query($tags: [ExecutionTag!]) { runsOrError(filter: {tags: $tags}) { ... on Runs { results {
  runId status tags { key value } } } } }"""
RANGES = """query($key: AssetKeyInput!) { assetNodeOrError(assetKey: $key) { ... on AssetNode { assetPartitionStatuses {
  ... on TimePartitionStatuses { ranges { startKey endKey status } } } } } }"""
SENSOR = """query($sensor: SensorSelector!) { sensorOrError(sensorSelector: $sensor) { ... on Sensor {
  sensorState { status } } } }"""
LOADED = """{ workspaceOrError { ... on Workspace { locationEntries { locationOrLoadError {
  ... on PythonError { message } } } } } }"""
BACKFILLS = """{ partitionBackfillsOrError(limit: 20) { ... on PartitionBackfills { results { id status } } } }"""


def browser_path() -> str | None:
    """The system's Chromium; none is downloaded."""
    return next(filter(None, map(shutil.which, BROWSERS)), None)


def until(what: Callable[[], Any], seconds: float = 120) -> Any:
    """The first true answer."""
    end = time.monotonic() + seconds
    while True:
        if answer := what():
            return answer
        if time.monotonic() > end:
            raise TimeoutError(f"waited {seconds} s")
        time.sleep(0.2)


class UI:
    """The UI of a project that `serving` has started; `location` is the name of its code location."""

    def __init__(self, url: str, location: str, page: Page) -> None:
        self.url, self.location, self.page = url, location, page

    def ask(self, query: str, **variables: object) -> Any:
        """The one field of a GraphQL answer."""
        found = _ask(self.url, query, variables)
        [data] = found.values()
        return data

    def open(self, path: str) -> Page:
        """A page of the UI, by its path."""
        self.page.goto(f"{self.url}/{path}")
        return self.page

    def see(self, text: str | Any) -> None:
        """Wait until a text, or what matches a pattern, is on the page."""
        self.page.get_by_text(text).first.wait_for(timeout=60_000)

    def materialize(self, path: str, partitions: str | None = None) -> None:
        """Materialize what a page is about by its button and dialog.

        Args:
            path: the page of a job, such as `locations/acme/jobs/orders_job`, or of an asset.
            partitions: such as `2024-03-01` or `[2024-03-01...2024-03-04]`, where there are partitions.
        """
        page = self.open(path)
        page.get_by_role("button", name="Materialize").first.click()
        if partitions:
            field = page.locator('input[placeholder^="ex: "]')
            field.fill(partitions)
            field.press("Enter")
            page.get_by_role("button", name="Launch").last.click()

    def switch(self, sensor: str, status: str) -> None:
        """Turn a sensor on (`RUNNING`) or off (`STOPPED`) on its page."""
        page = self.open(f"locations/{self.location}/sensors/{sensor}")
        label = page.locator('label[class*="formatSwitch"]').first
        # Until the page knows the sensor's state, its switch is off, and a click would turn on what is on.
        until(lambda: page.locator('input[type="checkbox"]').first.is_checked() == (status == "STOPPED"))
        label.click()
        until(lambda: self.sensor_status(sensor) == status)

    def cancel(self, backfill: str) -> None:
        """Cancel a backfill by the menu of its page."""
        page = self.open(f"runs/b/{backfill}")
        self.see("In progress")
        page.get_by_role("button").last.click()
        page.get_by_role("menuitem", name="Cancel backfill").click()
        page.get_by_role("button", name="Cancel backfill").last.click()
        until(lambda: self.backfills()[backfill] == "CANCELED")

    def partitions(self, asset: str) -> dict[str, str]:
        """First key of each range of partitions → MATERIALIZED, FAILED or MATERIALIZING."""
        found = self.ask(RANGES, key={"path": asset.split("/")})["assetPartitionStatuses"]["ranges"]
        return {each["startKey"]: each["status"] for each in found}

    def runs(self, **tags: str) -> list[dict[str, Any]]:
        """Runs with these tags, the newest first; `tags` of each is a dictionary."""
        asked = [{"key": key, "value": value} for key, value in tags.items()]
        found = self.ask(RUNS, tags=asked)["results"]
        return [run | {"tags": {tag["key"]: tag["value"] for tag in run["tags"]}} for run in found]

    def finished(self, count: int, **tags: str) -> list[dict[str, Any]]:
        """The runs with these tags, once so many have ended."""

        def ended() -> list[dict[str, Any]]:
            return [run for run in self.runs(**tags) if run["status"] in FINISHED]

        return until(lambda: found if len(found := ended()) >= count else None)  # type: ignore[no-any-return]

    def sensor_status(self, name: str) -> str:
        """RUNNING or STOPPED."""
        where = {"repositoryLocationName": self.location, "repositoryName": "__repository__", "sensorName": name}
        return str(self.ask(SENSOR, sensor=where)["sensorState"]["status"])

    def backfills(self) -> dict[str, str]:
        """Id of each backfill → its status, the newest first."""
        return {each["id"]: each["status"] for each in self.ask(BACKFILLS)["results"]}


@contextmanager
def serving(root: Path, home: Path, location: str, **environment: str) -> Iterator[UI]:
    """`dagster dev` of a project with a workspace.yaml, and a page of Chromium on it; both end with the block."""
    home.mkdir(exist_ok=True)
    if not (home / "dagster.yaml").exists():
        shutil.copy(SETTINGS, home / "dagster.yaml")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    url, log = f"http://127.0.0.1:{port}", home / "dev.log"
    command = [sys.executable, "-m", "dagster", "dev", "--host", "127.0.0.1", "--port", port]
    with log.open("w") as out:
        server = subprocess.Popen(
            command,
            cwd=root,
            env=os.environ | {"DAGSTER_HOME": str(home)} | environment,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        until(lambda: _answers(url, server, log), 300)
        with _chromium() as page:
            yield UI(url, location, page)
    finally:
        for each in (signal.SIGTERM, signal.SIGKILL):  # `dagster dev` does not always end on the first
            with suppress(ProcessLookupError):
                os.killpg(server.pid, each)
            with suppress(subprocess.TimeoutExpired):
                server.wait(10)


@contextmanager
def _chromium() -> Iterator[Page]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # Without its sandbox, which root may not use; it opens no pages but this server's and the report.
        browser = playwright.chromium.launch(executable_path=browser_path(), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1440, "height": 900})
        page.set_default_timeout(60_000)
        yield page
        browser.close()


def _answers(url: str, server: subprocess.Popen[bytes], log: Path) -> bool:
    if server.poll() is not None:
        raise RuntimeError(f"dagster dev ended with {server.returncode}:\n{log.read_text()[-3000:]}")
    with suppress(OSError):
        found = _ask(url, LOADED, {})["workspaceOrError"]["locationEntries"]
        errors = [each["locationOrLoadError"]["message"] for each in found if "message" in each["locationOrLoadError"]]
        if errors:
            raise RuntimeError(errors[0])
        return bool(found)
    return False


def _ask(url: str, query: str, variables: dict[str, Any]) -> dict[str, Any]:
    body = json.dumps({"query": query, "variables": variables}).encode()
    request = urllib.request.Request(f"{url}/graphql", body, {"Content-Type": "application/json"})  # noqa: S310
    with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310
        found = json.loads(answer.read())
    if found.get("errors"):
        raise RuntimeError(str(found["errors"]))
    return dict(found["data"])
