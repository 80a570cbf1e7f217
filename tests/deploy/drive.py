"""Runs a deployment in a network of its own, kills its services in the middle of runs, and prints what came of it.

`python drive.py PLACE PROJECT SCENARIO`: JSON in the last line. See `compose.py` for what it needs.
"""

from __future__ import annotations

import json
import signal
import sys
import time
import urllib.request
from collections import Counter
from contextlib import suppress
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from compose import Compose, build_image, enter  # noqa: E402

HOSTS = ["postgres", "redis", "code", "s3"]
ENDED = {"SUCCESS", "FAILURE", "CANCELED"}
LAUNCH = """mutation ($params: LaunchBackfillParams!) { launchPartitionBackfill(backfillParams: $params) {
  __typename ... on LaunchBackfillSuccess { backfillId } ... on PythonError { message } } }"""
RUNS = "{ runsOrError(limit: 1000) { ... on Runs { results { runId status tags { key value } startTime endTime } } } }"
BACKFILL = "query ($id: String!) { partitionBackfillOrError(backfillId: $id) { ... on PartitionBackfill { status } } }"


def ask(query: str, **variables: object) -> dict:
    """What the web server answers; it may be away."""
    body = json.dumps({"query": query, "variables": variables}).encode()
    request = urllib.request.Request("http://127.0.0.1:3000/graphql", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        found = json.loads(answer.read())
    if found.get("errors"):
        raise OSError(str(found["errors"])[:2000])
    [data] = found["data"].values()
    return data


def until(what, seconds: float, pause: float = 0.5):
    """The first true answer; errors of a server that is away count as none."""
    end = time.monotonic() + seconds
    while True:
        with suppress(OSError, KeyError, ValueError):
            if answer := what():
                return answer
        if time.monotonic() > end:
            raise TimeoutError(f"waited {seconds:.0f} s for {what}")
        time.sleep(pause)


def runs() -> list[dict]:
    found = ask(RUNS)["results"]
    return [run | {"tags": {tag["key"]: tag["value"] for tag in run["tags"]}} for run in found]


def started() -> list[dict]:
    return [run for run in runs() if run["status"] == "STARTED"]


def launch(keys: list[str]) -> str:
    """A backfill of these partitions, as the UI launches it."""
    paths = [{"path": ["orders", name]} for name in ("features", "predictions")]
    found = ask(LAUNCH, params={"assetSelection": paths, "partitionNames": keys})
    if found["__typename"] != "LaunchBackfillSuccess":
        raise OSError(str(found))
    return found["backfillId"]


def asked(compose: Compose, keys: list[str]) -> dict:
    """Nothing but what is asked of a worker afterwards."""
    return {}


def undisturbed(compose: Compose, keys: list[str]) -> dict:
    """A backfill that nothing disturbs, and what it costs."""
    began, before = time.monotonic(), {each.host: each.cpu_seconds() for each in compose.services}
    backfill = until(lambda: launch(keys), 120)
    until(lambda: ask(BACKFILL, id=backfill)["status"] not in ("REQUESTED",), 1200, 1)
    seconds = time.monotonic() - began
    cpu = {each.host: round(each.cpu_seconds() - before[each.host], 1) for each in compose.services}
    return {"backfill": ask(BACKFILL, id=backfill)["status"], "seconds": round(seconds, 1), "cpu": cpu}


def kill_in_turn(compose: Compose, keys: list[str]) -> dict:
    """A backfill, and each service killed in the middle of it."""
    said: dict = {"outages": []}
    backfill = until(lambda: launch(keys), 120)
    for host, away in OUTAGES:
        with suppress(TimeoutError):
            until(started, 240)
        if not [run for run in until(runs, 60) if run["status"] not in ENDED] and said["outages"]:
            said.setdefault("too late for", []).append(host)
        time.sleep(2)
        print("killing", host, Counter(run["status"] for run in until(runs, 60)), flush=True)
        compose.outage(host, away)
        said["outages"].append(host)
        time.sleep(5)
    until(lambda: ask(BACKFILL, id=backfill)["status"] not in ("REQUESTED",), 1200, 3)
    until(lambda: all(run["status"] in ENDED for run in runs()), 1200, 3)
    said["backfill"] = ask(BACKFILL, id=backfill)["status"]
    return said


OUTAGES = [("worker-1", 5), ("redis-1", 8), ("postgres-1", 8), ("s3-1", 8), ("code-1", 8), ("daemon-1", 8)]


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended from outside"))  # with all that it started
    place, project, scenario = Path(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3])
    image = place / "image"
    build_image(image, project if project.name != "none" else None)
    enter(image, HOSTS, place)
    compose = Compose(place, scenario["variables"], tuple(scenario.get("profiles", ())))
    try:
        compose.up()
        print("up", flush=True)
        until(lambda: ask("{ version }"), 120)
        for words in scenario.get("setup", []):
            said = until(
                lambda words=words: done if not (done := compose["worker-1"].run(*words)).returncode else None, 90
            )
            print(said.stdout[-2000:], said.stderr[-2000:], flush=True)
        said = globals()[scenario["scenario"]](compose, scenario["keys"])
        said["runs"] = [{k: run[k] for k in ("runId", "status", "startTime", "endTime")} for run in until(runs, 60)]
        for name, words in scenario.get("ask", {}).items():
            done = compose["worker-1"].run(*words)
            said[name] = {"rc": done.returncode, "out": done.stdout, "err": done.stderr}
        said["restarts"] = {each.host: each.restarts for each in compose.services if each.restarts}
    finally:
        compose.stop()
    print(json.dumps(said))


if __name__ == "__main__":
    main()
