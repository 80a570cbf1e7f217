"""Many at once: writers on different and on the same partitions, readers, a sensor; nobody meets a lock.

Each run records how long it waited for the warehouse each time, so that waiting is shown to be fair and bounded.
"""

import json
import statistics
import time
from datetime import date, timedelta

import pytest

from pip_dagster.ledger.promotions import alias_moves
from pip_dagster.ledger.verify import verify
from pip_dagster.warehouse.connect import open_warehouse, workspace

ROWS = 5  # a partition: what is tried is the waiting, not the scoring

# Begins when it is told to, so that all do at once; says how long each wait for the warehouse took.
PRELUDE = """
import json, sys, time
from datetime import date, datetime, timedelta, timezone
from pathlib import Path
import duckdb, xgboost, yaml
from pip_dagster.pipeline import Pipeline
from pip_dagster.project import Project
from pip_dagster.spec import PipelineSpec
from pip_dagster.warehouse import advisory, connect, lock

waits = []

def timed(function):
    def waited(*arguments, **named):
        began = time.monotonic()
        try:
            return function(*arguments, **named)
        finally:
            waits.append(time.monotonic() - began)
    return waited

lock._acquire, advisory._lock = timed(lock._acquire), timed(advisory._lock)
project = Project.find()
folder = project.root / "acme" / "defs" / "orders"
spec = PipelineSpec.model_validate(yaml.safe_load((folder / "defs.yaml").read_text())["attributes"])
pipeline = Pipeline.load(spec, folder, project)
done = project.root / "done"

def begin():
    print("ready", flush=True)
    sys.stdin.readline()
"""

# Makes each `step`th partition from `first` on, a few in each run.
WRITE = (
    PRELUDE
    + """
from pip_dagster.flow.materialize import materialize
from pip_dagster.ledger.record import RunInfo
from pip_dagster.orchestration.partitions import partitions_definition, partitions_of

name, first, step, in_one_run = sys.argv[1], *map(int, sys.argv[2:])
definition = partitions_definition(spec.partitions)
keys = definition.get_partition_keys()[first::step]
begin()
errors, stored, finished = [], 0, []
for at in range(0, len(keys), in_one_run):
    chunk = partitions_of(definition, keys[at : at + in_one_run])
    for result in materialize(pipeline, chunk, RunInfo(f"{name}-{at}", name)):
        stored += result.error is None
        errors += [result.error] if result.error else []
    finished.append(time.time())
print(json.dumps({"name": name, "stored": stored, "errors": errors, "waits": waits, "finished": finished}))
"""
)

# Everybody's queries: every partition is whole, whenever it is looked at.
READ = (
    PRELUDE
    + """
keeps_open, rows = sys.argv[1] == "keeps", int(sys.argv[2])
torn, reads, most = [], 0, 0
begin()
while not project.published_database.exists():
    time.sleep(0.05)
con = duckdb.connect(str(project.published_database), read_only=True)
while not done.exists():
    if not keeps_open:
        con.close()
        con = duckdb.connect(str(project.published_database), read_only=True)
    try:
        found = con.execute("SELECT partition_key, count(*), count(DISTINCT scoring_id) FROM orders.predictions "
                            "GROUP BY ALL").fetchall()
    except duckdb.CatalogException:  # opened before the first of the pipeline's partitions was there
        assert not reads
        con.close()
        con = duckdb.connect(str(project.published_database), read_only=True)
        continue
    torn += [row for row in found if row[1:] != (rows, 1)]
    assert len(found) >= most, "a partition was lost from sight"
    most, reads = len(found), reads + 1
    time.sleep(0.01)
print(json.dumps({"torn": torn, "reads": reads}))
"""
)

# The sensor's look, and the plan by itself.
TICK = (
    PRELUDE
    + """
import dagster as dg
from pip_dagster.flow.plan import make_plan
from pip_dagster.orchestration.definitions import build_definitions
from pip_dagster.orchestration.partitions import partitions_until

definitions = build_definitions(pipeline)
sensor, repository = definitions.resolve_sensor_def("orders_source_changes"), definitions.get_repository_def()
looks, skipped, plans = 0, [], 0
with dg.instance_for_test() as instance:
    begin()
    while not done.exists():
        tick = sensor.evaluate_tick(dg.build_sensor_context(instance=instance, repository_def=repository))
        looks += 1
        if (tick.skip_message or "").startswith("Looked at nothing"):
            skipped.append(tick.skip_message)
        make_plan(pipeline, partitions_until(spec.partitions, datetime.now(timezone.utc)))
        plans += 1
print(json.dumps({"looks": looks, "skipped": skipped, "plans": plans, "waits": waits}))
"""
)


def many_days(tiny, days):
    """The project with this many small partitions, ending before today."""
    start = date(2014, 1, 1)
    end = start + timedelta(days=days)
    tiny.source(
        f"CREATE OR REPLACE TABLE raw.orders AS SELECT o.* REPLACE (o.order_id + {ROWS} * d AS order_id, "
        f"DATE '{start}' + d::INT AS day) FROM raw.orders o, range({days}) t(d) WHERE o.order_id < {ROWS}"
    )
    tiny.declare(
        partitions={"start": start.isoformat(), "end": end.isoformat()},
        sensors={"source_changes": {"missing": "all"}},
    )
    return [(start + timedelta(days=day)).isoformat() for day in range(days)]


def run_at_once(tiny, in_one_run, *, timeout):
    """Four writers of a quarter each, two of everything, three readers and a sensor; what each said."""
    works = [(f"quarter {at}", at, 4) for at in range(4)] + [("all 1", 0, 1), ("all 2", 0, 1)]
    writers = [tiny.python(WRITE, *map(str, work), str(in_one_run), stdin=True) for work in works]
    readers = [tiny.python(READ, how, str(ROWS), stdin=True) for how in ("keeps", "opens", "opens")]
    others = [*readers, tiny.python(TICK, stdin=True)]
    try:
        for process in (*writers, *others):
            assert process.stdout.readline() == "ready\n", process.stdout.read()
        for process in (*others, *writers):
            process.stdin.write("go\n")
            process.stdin.flush()
        said = [process.communicate(timeout=timeout)[0] for process in writers]
        (tiny.root / "done").touch()
        said += [process.communicate(timeout=timeout)[0] for process in others]
    finally:
        for process in (*writers, *others):
            process.kill()
            process.wait()
    for process, text in zip((*writers, *others), said, strict=True):
        assert process.returncode == 0, text
    found = [json.loads(text.splitlines()[-1]) for text in said]
    return found[: len(writers)], found[len(writers) : -1], found[-1]


def assert_sound(tiny, days):
    """Every partition once, live by one scoring, whole, as plain XGBoost scores it; chain and publishing up to date."""
    live = tiny.warehouse("SELECT partition_key, count(*) FROM ledger.live GROUP BY 1 ORDER BY 1")
    assert live == [(day, 1) for day in days]
    each = "SELECT partition_key, count(*), count(DISTINCT order_id), count(DISTINCT scoring_id) FROM orders.predictions"
    for read in (tiny.warehouse, tiny.published):
        assert read(f"{each} GROUP BY 1 ORDER BY 1") == [(day, ROWS, ROWS, 1) for day in days]
    assert tiny.scores() == tiny.expected()
    torn = """SELECT s.scoring_id FROM ledger.scorings s LEFT JOIN orders.scores o USING (scoring_id)
      WHERE status = 'scored' GROUP BY ALL HAVING any_value(s.rows_scored) <> count(DISTINCT o.order_id)"""
    assert tiny.warehouse(torn) == []
    assert tiny.warehouse("SELECT count(*) FROM ledger.scorings WHERE status <> 'scored'") == [(0,)]
    again = "SELECT partition_key FROM ledger.extractions WHERE is_new GROUP BY ALL HAVING count(*) > 1"
    assert tiny.warehouse(again) == [], "equal content makes one revision"
    pending = "SELECT count(*) FROM ledger.live_changes c ANTI JOIN ledger.publications p ON p.change_id = c.change_id"
    assert tiny.warehouse(pending) == [(0,)]
    with workspace(threads=1) as con, open_warehouse(con, tiny.project.warehouse, purpose="test", read_only=True):
        assert verify(con, moves=alias_moves(tiny.registry)) is None


def at_once(tiny, days, in_one_run, *, timeout):
    keys = many_days(tiny, days)
    began = time.monotonic()
    writers, readers, sensor = run_at_once(tiny, in_one_run, timeout=timeout)
    seconds = time.monotonic() - began
    assert [(each["name"], each["errors"]) for each in writers] == [(each["name"], []) for each in writers]
    assert sum(each["stored"] for each in writers) == 3 * days
    for reader in readers:
        assert reader["torn"] == [] and reader["reads"] > 2
    assert sensor["plans"] > 0 and len(sensor["skipped"]) < sensor["looks"], sensor["skipped"]
    waits = sorted(wait for each in (*writers, sensor) for wait in each["waits"])
    report = {
        "seconds": round(seconds, 1),
        "windows": len(waits),
        "median": round(statistics.median(waits), 3),
        "p99": round(waits[int(0.99 * len(waits))], 3),
        "most": round(waits[-1], 3),
        "of each": {each.get("name", "sensor"): round(max(each["waits"]), 2) for each in (*writers, sensor)},
        "looks": (sensor["looks"], len(sensor["skipped"]), sensor["plans"]),
    }
    print(json.dumps(report))
    assert_sound(tiny, keys)
    return writers, sensor, report


def test_writers_readers_and_a_sensor(tiny):
    writers, sensor, report = at_once(tiny, 60, 5, timeout=600)
    print(report)
