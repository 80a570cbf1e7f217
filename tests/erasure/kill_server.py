"""Run as a script: does what each line of standard input says in a process that is killed, and answers in a line.

A process of its own, since forking is safe only while DuckDB is not loaded. A line is JSON: `root`, `do` (`erase` with
`subject`, or `run` with `days` of `orders`), and where the kill comes: at a `line` of the code, or of the files `among`
it; after so many `seconds`; `before` or `after` a call (`module:name`, the `nth` time with `of` in its arguments).
Without any, it runs to its end.
"""

import importlib
import json
import os
import signal
import sys
import threading
import time
from pathlib import Path

from pip_dagster.declaration.find import find_declarations, find_pipeline
from pip_dagster.declaration.project import Project
from pip_dagster.erasure.erase import erase
from pip_dagster.erasure.wish import Wish
from pip_dagster.flow.materialize import materialize
from pip_dagster.ledger.record import RunInfo
from pip_dagster.orchestration.partitions import partitions_definition, partitions_of

TRACED = tuple(f"/pip_dagster/{room}/" for room in ("erasure", "warehouse", "ledger", "evidence", "delivery", "flow"))


def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)


def at_line(line, among):
    """Count the lines of the code, and die at that one; the counter."""
    seen = [0]

    def count(_frame, event, _argument):
        seen[0] += event == "line"
        if seen[0] == line:
            die()
        return count

    sys.settrace(lambda frame, *_: count if any(part in frame.f_code.co_filename for part in among) else None)
    return seen


def at_call(place, nth, of, *, after):
    """Die before or after the nth call of a function or method, named as `module:function` or `module:Class.method`."""
    module, _, name = place.partition(":")
    *outer, name = name.split(".")
    owner = importlib.import_module(module)
    for each in outer:
        owner = getattr(owner, each)
    original, calls = getattr(owner, name), []

    def called(*args, **kwargs):
        if of not in str(args):
            return original(*args, **kwargs)
        calls.append(name)
        if len(calls) == nth and not after:
            die()
        found = original(*args, **kwargs)
        if len(calls) == nth:
            die()
        return found

    setattr(owner, name, called)


def work(wanted):
    project = Project.at(Path(wanted["root"]))
    if wanted["do"] == "erase":
        pipelines = [find_pipeline(project, name) for name in find_declarations(project)]
        pipelines = [each for each in pipelines if each.spec.privacy]
        done = erase(project, pipelines, Wish(wanted["subject"], "request 17", "ada"))
        return {"resumed": done.resumed, "steps": [name for name, *_ in done.steps]}
    pipeline = find_pipeline(project, "orders")
    partitions = partitions_of(partitions_definition(pipeline.spec.partitions), wanted["days"])
    errors = [each.error for each in materialize(pipeline, partitions, RunInfo("killed", "a test"))]
    return {"errors": errors}


def child(wanted, pipe):
    import duckdb  # noqa: F401 - its import is not what is to be killed

    seen = [0]
    try:
        for when in ("before", "after"):
            if place := wanted.get(when):
                at_call(place, wanted.get("nth", 1), wanted.get("of", ""), after=when == "after")
        if seconds := wanted.get("seconds"):
            threading.Timer(seconds, die).start()
        began = time.monotonic()
        if "line" in wanted:
            seen = at_line(wanted["line"], wanted.get("among", TRACED))
        answer = work(wanted)
        sys.settrace(None)
        answer |= {"lines": seen[0], "seconds": time.monotonic() - began}
    except BaseException as error:
        sys.settrace(None)
        answer = {"failed": f"{type(error).__name__}: {error}"}
    os.write(pipe, json.dumps(answer).encode())
    os._exit(0)


def main():
    for line in sys.stdin:
        wanted = json.loads(line)
        reading, writing = os.pipe()
        pid = os.fork()
        if not pid:
            os.close(reading)
            child(wanted, writing)
        os.close(writing)
        with os.fdopen(reading, "rb") as pipe:
            said = pipe.read()
        os.waitpid(pid, 0)
        print(said.decode() or json.dumps({"killed": True}), flush=True)


if __name__ == "__main__":
    assert "duckdb" not in sys.modules
    main()
