"""Many at once, each a process: writers, readers of what is published, a sensor. Says what each met, as JSON.

`python at_once.py ROWS IN_ONE_RUN PAUSE`, in a project: four writers share the partitions, two have all of them. The
processes are forked from one that has imported everything, since ten times importing would be most of the test.
"""

import json
import multiprocessing
import os
import sys
import time
import traceback

import dagster as dg
import duckdb
import yaml

from pip_dagster.declaration.pipeline import Pipeline
from pip_dagster.declaration.project import Project
from pip_dagster.declaration.spec import PipelineSpec
from pip_dagster.flow.materialize import materialize
from pip_dagster.flow.plan import make_plan
from pip_dagster.ledger.record import RunInfo
from pip_dagster.orchestration.definitions import build_definitions
from pip_dagster.orchestration.partitions import partitions_definition, partitions_of
from pip_dagster.warehouse import advisory, lock

import xgboost  # noqa: F401  # isort: skip

ROWS, IN_ONE_RUN, PAUSE = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
LOOK = (
    "SELECT partition_key, count(*), count(DISTINCT scoring_id), count(DISTINCT order_id) FROM orders.predictions "
    "GROUP BY ALL"
)
waits: list[float] = []


def timed(function):
    """The function, every call's seconds noted."""

    def waited(*arguments, **named):
        began = time.monotonic()
        try:
            return function(*arguments, **named)
        finally:
            waits.append(time.monotonic() - began)

    return waited


def load():
    """The project's pipeline."""
    project = Project.find()
    folder = project.root / "acme" / "defs" / "orders"
    spec = PipelineSpec.model_validate(yaml.safe_load((folder / "defs.yaml").read_text())["attributes"])
    return Pipeline.load(spec, folder, project)


def write(pipeline, first, step):
    """Make each `step`th partition from the `first` on, a few in each run."""
    definition = partitions_definition(pipeline.spec.partitions)
    keys = definition.get_partition_keys()[first::step]
    errors, stored = [], 0
    for at in range(0, len(keys), IN_ONE_RUN):
        chunk = partitions_of(definition, keys[at : at + IN_ONE_RUN])
        for result in materialize(pipeline, chunk, RunInfo(f"{os.getpid()}-{at}", "a test")):
            stored += result.error is None
            errors += [result.error] if result.error else []
    return {"stored": stored, "errors": errors, "waits": waits}


def read(pipeline, keeps_open, writing):
    """Every partition is whole whenever it is looked at, and none that was seen is lost."""
    database, reads, torn, seen, con = pipeline.project.published_database, 0, [], set(), None
    while writing.value:
        if con is None and database.exists():
            con = duckdb.connect(str(database), read_only=True)
        if con is not None:
            try:
                found = con.execute(LOOK).fetchall()
            except duckdb.CatalogException:  # opened before the first of the pipeline's partitions was there
                assert not reads
                con.close()
                con = None
                continue
            keys = {row[0] for row in found}
            torn += [list(row) for row in found if row[1:] != (ROWS, 1, ROWS)] + sorted(seen - keys)
            seen, reads = seen | keys, reads + 1
            if not keeps_open:
                con.close()
                con = None
        time.sleep(PAUSE)
    return {"reads": reads, "torn": torn}


def tick(pipeline, writing):
    """The sensor's look, which may skip, and a plan, which waits like everybody."""
    definitions = build_definitions(pipeline)
    sensor, repository = definitions.resolve_sensor_def("orders_source_changes"), definitions.get_repository_def()
    definition = partitions_definition(pipeline.spec.partitions)
    grid = partitions_of(definition, definition.get_partition_keys())
    looks, plans, skipped = 0, 0, []
    with dg.instance_for_test() as instance:
        while writing.value:
            found = sensor.evaluate_tick(dg.build_sensor_context(instance=instance, repository_def=repository))
            looks += 1
            if (found.skip_message or "").startswith("Skipped: "):
                skipped.append(found.skip_message)
            make_plan(pipeline, grid)
            plans += 1
            time.sleep(PAUSE)
    return {"looks": looks, "skipped": skipped, "plans": plans, "waits": waits}


def told(queue, start, name, function, *arguments):
    """Run it once all are there; what it returned, or the traceback."""
    start.wait()
    began = time.monotonic()
    try:
        found = function(*arguments)
    except BaseException:
        found = {"errors": [traceback.format_exc()]}
    queue.put((name, {"errors": [], "seconds": time.monotonic() - began, **found}))


def main():
    """Run all at once; the readers and the sensor until the last writer is done."""
    lock._acquire, advisory._lock = timed(lock._acquire), timed(advisory._lock)
    fork = multiprocessing.get_context("fork")
    queue, writing, pipeline = fork.Queue(), fork.Value("i", 1), load()
    works = {f"quarter {at}": (write, pipeline, at, 4) for at in range(4)}
    works |= {f"all {at}": (write, pipeline, 0, 1) for at in range(2)}
    others = {f"reader {at}": (read, pipeline, at == 0, writing) for at in range(3)}
    others |= {"sensor": (tick, pipeline, writing)}
    start = fork.Barrier(len(works) + len(others))
    for name, work in (works | others).items():
        fork.Process(target=told, args=(queue, start, name, *work), daemon=True).start()
    said: dict[str, dict] = {}
    while not works.keys() <= said.keys():
        name, found = queue.get()
        said[name] = found
        if found["errors"]:
            break
    writing.value = 0
    while not others.keys() <= said.keys():
        name, found = queue.get()
        said[name] = found
    print(json.dumps(said))


if __name__ == "__main__":
    main()
