"""Run as a script: roll back again and again, killed each time at another point, and finish it by the same call.

`kill_rollback.py PROJECT TIMES SEED`. A process of its own, since forking is safe only while DuckDB is not loaded. Half
of the kills are at a random line of the code, half after a random time, which reaches into DuckDB itself. Prints how
often the kill came before the alias moved, between alias and live pointers, and after; a state that must not be raises.
"""

import json
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pip_dagster.declaration.find  # noqa: F401 - imported by the work otherwise, and most kills would hit that
from pip_dagster.declaration.project import Project
from pip_dagster.ledger.promotions import alias_moves
from pip_dagster.ledger.rollback import rollback
from pip_dagster.ledger.verify import verify
from pip_dagster.registry.store import Registry
from pip_dagster.warehouse.connect import open_warehouse, workspace

TRACED = ("pip_dagster/ledger", "pip_dagster/warehouse", "pip_dagster/registry")


def in_child(work: Callable[[int], object], *, kill_after: float | None = None) -> str:
    """What the work wrote to its pipe, in a process that is killed so many seconds after it says `ready`."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.close(reading)
        try:
            import duckdb  # noqa: F401 - its import is not what is to be killed

            os.write(writing, b"ready\n")
            work(writing)
        except BaseException as error:
            os.write(writing, f"FAILED {type(error).__name__}: {error}".encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        pipe.readline()
        if kill_after is not None:
            time.sleep(kill_after)
            os.kill(child, signal.SIGKILL)
        said = pipe.read().decode()
    os.waitpid(child, 0)
    assert not said.startswith("FAILED"), said
    return said


def roll_back(root: Path, line: int | None = None) -> Callable[[int], object]:
    """The rollback, killed at that line of the code; writes how many lines and seconds there were."""

    def work(pipe: int) -> None:
        seen = 0

        def count(_frame, event, _argument):
            nonlocal seen
            seen += event == "line"
            if seen == line:
                os.kill(os.getpid(), signal.SIGKILL)
            return count

        if line is not None:
            sys.settrace(lambda frame, *_: count if any(part in frame.f_code.co_filename for part in TRACED) else None)
        began = time.monotonic()
        rollback(Project.at(root), "orders", why="worse", by="eve")
        sys.settrace(None)
        os.write(pipe, f"{seen} {time.monotonic() - began}".encode())

    return work


def state(root: Path) -> dict:
    """What is live, in the warehouse and as published, what the alias names, and whether the audit holds."""
    project = Project.at(root)

    def look(pipe: int) -> None:
        import duckdb

        registry = Registry(project.registry)
        with workspace(threads=1) as con, open_warehouse(con, project.warehouse, purpose="look", read_only=True):
            live = con.execute(
                "SELECT partition_key, model_version, score_digest FROM ledger.partitions WHERE is_live ORDER BY 1"
            ).fetchall()
            fault = verify(con, moves=alias_moves(registry))
        with duckdb.connect(str(project.published_database), read_only=True) as con:
            published = con.execute(
                "SELECT partition_key, max(model_version) FROM orders.predictions GROUP BY ALL ORDER BY 1"
            ).fetchall()
        answer = {"live": [list(row[:2]) for row in live], "published": [list(row) for row in published]}
        answer |= {"alias": registry.alias("returns", "champion"), "fault": fault and str(fault)}
        os.write(pipe, json.dumps(answer).encode())

    return json.loads(in_child(look))


def main(template: Path, times: int, seed: int) -> None:
    """Kill, look, finish, look."""
    chance = random.Random(seed)
    root = template.with_name("killed")

    def fresh() -> None:
        shutil.rmtree(root, ignore_errors=True)
        shutil.copytree(template, root)

    fresh()
    lines = int(in_child(roll_back(root, line=-1)).split()[0])
    fresh()
    seconds = float(in_child(roll_back(root)).split()[1])
    outcomes = {"before": 0, "between": 0, "after": 0}
    for i in range(times):
        fresh()
        if i % 2:
            in_child(roll_back(root), kill_after=chance.uniform(0, seconds))
        else:
            in_child(roll_back(root, line=chance.randint(1, lines)))
        found = state(root)
        versions = {version for _, version in found["live"]}
        assert len(versions) == 1, found  # one transaction: all or none
        assert len(found["live"]) == 4 and found["fault"] is None, found
        assert (versions, found["alias"]) in (({2}, 2), ({2}, 1), ({1}, 1)), found
        outcomes["after" if versions == {1} else "between" if found["alias"] == 1 else "before"] += 1
        in_child(roll_back(root))
        found = state(root)
        assert found["alias"] == 1 and found["fault"] is None, found
        assert found["live"] == found["published"] == [[key, 1] for key, _ in found["live"]], found
    print(*outcomes.values())


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
