"""The component in somebody else's project, the demo's asset graph, and what a wrong declaration is told."""

import difflib
import importlib.metadata
import os
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
SNAPSHOT = HERE / "flight_delay_graph.txt"
HEAVY = ("xgboost", "pandas", "great_expectations", "pyarrow", "numpy")  # DuckDB parses the SQL when a pipeline loads

LOAD = "from acme.definitions import defs\n"


def load(tiny, code="defs = defs()\n", **environment):
    """Load the third party's definitions in a process of their own, as Dagster does."""
    process = tiny.python(LOAD + code, PYTHONPATH=str(tiny.root), **environment)
    text = process.communicate(timeout=120)[0]
    return process.returncode, text


@pytest.mark.slice
def test_a_third_partys_project_loads(tiny):
    code, text = load(
        tiny,
        """
defs = defs()
repository = defs.get_repository_def()
print(sorted(key.to_user_string() for key in repository.asset_graph.get_all_asset_keys()))
print(sorted(job.name for job in repository.get_all_jobs()), [s.name for s in repository.schedule_defs])
""",
    )
    assert code == 0, text
    keys, jobs = text.splitlines()[-2:]
    assert keys == "['orders/features', 'orders/model', 'orders/predictions', 'orders/sources/orders']"
    assert "orders_job" in jobs and "['orders_schedule']" in jobs


@pytest.mark.slice
def test_loading_definitions_imports_nothing_heavy(tiny):
    code, text = load(tiny, f"defs()\nimport sys\nprint([m for m in {HEAVY} if m in sys.modules])\n")
    assert code == 0 and text.splitlines()[-1] == "[]", text


def graph_text():
    """The demo's whole graph as text."""
    from flights.definitions import defs

    repository = defs().get_repository_def()
    graph = repository.asset_graph
    lines = []
    for key in sorted(graph.get_all_asset_keys()):
        node = graph.get(key)
        lines.append(key.to_user_string())
        lines.append("  kinds: " + ", ".join(sorted(node.kinds)))
        lines.append(f"  group: {node.group_name}; owners: {', '.join(sorted(node.owners))}")
        lines.append(f"  description: {node.description.splitlines()[0]}")
        lines.append("  needs: " + (", ".join(sorted(each.to_user_string() for each in node.parent_keys)) or "nothing"))
        does = [name for name in ("observable", "materializable", "executable") if getattr(node, f"is_{name}")]
        lines.append("  " + ", ".join(does))
        if node.partitions_def:
            grid = node.partitions_def
            lines.append(
                f"  partitions: {type(grid).__name__} {grid.start:%Y-%m-%d %Z} to {grid.end:%Y-%m-%d}, "
                f"{grid.timezone}, end_offset {grid.end_offset}; backfill: {node.backfill_policy.policy_type.value}"
            )
        lines.append("  metadata: " + ", ".join(sorted({*node.metadata} - {"report"})))  # there after a demo
    for job in sorted(repository.get_all_jobs(), key=lambda job: job.name):
        if not job.name.startswith("__"):
            selected = sorted(key.to_user_string() for key in job.asset_layer.selected_asset_keys)
            lines.append(f"job {job.name}: {', '.join(selected)}; executor {job.executor_def.name}")
    for schedule in repository.schedule_defs:
        when = f"{schedule.cron_schedule} {schedule.execution_timezone}"
        lines.append(f"schedule {schedule.name}: {when}, {schedule.job_name}, {schedule.default_status.value}")
    for sensor in sorted(repository.sensor_defs, key=lambda sensor: sensor.name):
        every = f"every {sensor.minimum_interval_seconds} s"
        lines.append(f"sensor {sensor.name}: {every}, {sensor.default_status.value}")
    return "\n".join(lines) + "\n"


def test_the_demos_asset_graph_is_the_one_in_the_snapshot():
    """Made anew by `UPDATE_SNAPSHOTS=1 pytest <this file>`; read the change before committing it."""
    found = graph_text()
    if os.environ.get("UPDATE_SNAPSHOTS"):
        SNAPSHOT.write_text(found)
    expected = SNAPSHOT.read_text()
    difference = difflib.unified_diff(expected.splitlines(), found.splitlines(), "snapshot", "found", lineterm="")
    assert found == expected, "\n".join(difference)


GOOD = """\
type: pip_dagster.components.InferencePipeline

attributes:
  name: orders
  partitions: {every: day, start: 2024-03-01}
  source_database: sources.duckdb
  sources:
    orders: {table: raw.orders, partition_column: day, lookback: 1 day}
  features: {sql: features.sql, key: [order_id], partition_column: day}
  scoring:
    model_name: returns
"""

# what is wrong → (text replaced, by what, the words that the message must have)
WRONG = {
    "unknown key": ("  scoring:", "  scheduel: '0 6 * * *'\n  scoring:", ["scheduel", ":10", "Extra inputs"]),
    "unknown nested key": (
        "model_name: returns",
        "model_name: returns\n    devise: cpu",
        ["devise", ":12", "Extra inputs"],
    ),
    "bad duration": ("1 day}", "1 dya}", ["lookback", ":8", "'1 dya' is not a duration", "28 days"]),
    "bad zone": ("2024-03-01}", "2024-03-01, time_zone: Europe/Berln}", ["time_zone", ":5", "not an IANA time zone"]),
    "bad cadence": ("every: day", "every: fortnight", ["every", ":5", "'hour', 'day', 'week' or 'month'"]),
    "bad table": ("raw.orders", "orders", ["table", ":8", "expected `schema.table`"]),
    "two sources of one table": (
        "lookback: 1 day}",
        "lookback: 1 day}\n    again: {table: raw.orders}",
        ["'orders' and 'again' have the same table 'raw.orders'"],
    ),
    "two sources of one table in other capitals": (
        "lookback: 1 day}",
        "lookback: 1 day}\n    again: {table: RAW.Orders}",
        ["'orders' and 'again' have the same table 'RAW.Orders'"],
    ),
    "no place": ("  source_database: sources.duckdb\n", "", ["source 'orders' has no location", "source_database"]),
    "reserved name": ("name: orders", "name: ledger", ["name", ":4", "'ledger' is a schema of the warehouse"]),
    "unkind name": ("name: orders", "name: Orders!", ["name", ":4", "lower-case letters"]),
    "reserved key": ("[order_id]", "[revision]", ["features", ":9", "'revision' is reserved for the warehouse"]),
    "key of the predictions": (
        "[order_id]",
        "[Model_Version]",
        ["features", ":9", "'Model_Version' is reserved for the warehouse"],
    ),
    "key twice": ("[order_id]", "[order_id, order_id]", ["features", ":9", "twice"]),
    "no key": ("[order_id]", "[]", ["key", ":9", "at least 1 item"]),
    "cron of four": ("  scoring:", "  schedule: '0 6 * *'\n  scoring:", ["schedule", ":10", "five fields"]),
    "missing scoring": ("  scoring:\n    model_name: returns\n", "", ["scoring", "required"]),
    "an offset": (
        "2024-03-01}",
        "2024-03-01T00:00:00+02:00}",
        ["start", ":5", "must not have a UTC offset", "Remove `+02:00`"],
    ),
    "missing sql": ("features.sql", "feature.sql", ["'feature.sql'", "defs.yaml", "there is features.sql"]),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_declaration_is_told_where_and_what_was_expected(tiny, what):
    old, new, words = WRONG[what]
    assert old in GOOD
    assert_refused(tiny, GOOD.replace(old, new, 1), words)


def test_a_declaration_without_attributes_says_what_it_needs(tiny):
    assert_refused(tiny, GOOD.split("attributes:")[0], ["defs.yaml", "attributes"])


def assert_refused(tiny, text, words):
    import dagster as dg

    (tiny.folder / "defs.yaml").write_text(text)
    with pytest.raises(Exception) as caught, ProjectOnPath(tiny):
        dg.load_from_defs_folder(path_within_project=tiny.root / "acme").get_repository_def()
    message = "\n".join(chain(caught.value))
    for word in ["defs.yaml", *words]:
        assert word in message, message


def chain(error):
    while error:
        yield str(error)
        error = error.__cause__ or error.__context__


class ProjectOnPath:
    """The third party's package importable, and gone again."""

    def __init__(self, tiny):
        self.root = str(tiny.root)

    def __enter__(self):
        sys.path.insert(0, self.root)

    def __exit__(self, *_):
        sys.path.remove(self.root)
        for name in [name for name in sys.modules if name.split(".")[0] == "acme"]:
            del sys.modules[name]


@pytest.mark.slice
def test_good_is_good(tiny):
    (tiny.folder / "defs.yaml").write_text(GOOD)
    code, text = load(tiny, "defs().get_repository_def()\n")
    assert code == 0, text


def test_dg_finds_the_component():
    points = importlib.metadata.entry_points(group="dagster_dg_cli.registry_modules")
    assert "pip_dagster.components" in [point.value for point in points]


@pytest.mark.slice
def test_a_source_that_another_asset_makes_is_that_asset(tiny):
    text = GOOD.replace("lookback: 1 day}", "asset_key: warehouse/raw/orders}")
    (tiny.folder / "defs.yaml").write_text(text)
    code, found = load(
        tiny,
        """
graph = defs().get_repository_def().asset_graph
import dagster as dg
print(sorted(key.to_user_string() for key in graph.get(dg.AssetKey(["orders", "features"])).parent_keys))
print(sorted(key.to_user_string() for key in graph.get_all_asset_keys()))
""",
    )
    assert code == 0, found
    parents, keys = found.splitlines()[-2:]
    assert parents == "['warehouse/raw/orders']" and "sources" not in keys
