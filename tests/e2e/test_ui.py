"""Dagster's UI in a real browser: what an operator clicks in the first week, and what came of it."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def _tool():
    spec = importlib.util.spec_from_file_location("dagster_ui", ROOT / "tools" / "dagster_ui.py")
    assert spec and spec.loader
    sys.modules[spec.name] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


dagster_ui = _tool()
until, FINISHED = dagster_ui.until, dagster_ui.FINISHED

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(not importlib.util.find_spec("playwright"), reason="needs playwright: pip install -e '.[e2e]'"),
    pytest.mark.skipif(not dagster_ui.browser_path(), reason="needs Chromium: apt-get install chromium"),
]

FIRST, SECOND, THIRD, FOURTH = "2024-03-01", "2024-03-02", "2024-03-03", "2024-03-04"
PREDICTIONS, JOB, SENSOR = "orders/predictions", "locations/acme/jobs/orders_job", "orders_source_changes"
ONE = f"SELECT min(order_id) FROM raw.orders WHERE day = '{SECOND}'"
SUITE = """
sources:
  orders:
    - type: expect_table_row_count_to_be_between
      kwargs: { min_value: 10 }
      name: orders_were_loaded
features:
  - type: expect_column_values_to_be_between
    kwargs: { column: quantity, max_value: 20 }
    severity: warning
    name: quantities_are_usual
"""
WORKSPACE = "load_from: [{python_module: {module_name: acme.definitions, location_name: acme, working_directory: .}}]\n"


@pytest.fixture(scope="module")
def ui(template, helpers, tmp_path_factory):
    """A shop with four days of orders: one order of the second is unusual, the fourth was hardly loaded."""
    tiny = helpers.Tiny(template)
    (tiny.root / "workspace.yaml").write_text(WORKSPACE)
    (tiny.folder / "expectations.yaml").write_text(SUITE)
    tiny.declare(
        partitions={"end": "2024-03-05"},
        quality="expectations.yaml",
        monitoring={},
        schedule=None,
        sensors={"source_changes": {"interval": "5 seconds", "missing": "none"}},
    )
    tiny.source(
        f"UPDATE raw.orders SET quantity = 42 WHERE order_id = ({ONE})",
        f"DELETE FROM raw.orders WHERE day = '{FOURTH}' AND order_id % 50 > 3",
    )
    with dagster_ui.serving(tiny.root, tmp_path_factory.mktemp("home"), "acme") as found:
        found.tiny = tiny
        yield found


def test_a_partition_is_materialized_from_the_dialog_and_its_page_shows_rows_and_model(ui):
    ui.materialize(JOB, SECOND)
    [run] = ui.finished(1)
    assert run["status"] == "SUCCESS"
    assert ui.partitions(PREDICTIONS) == {SECOND: "MATERIALIZED"}
    ui.open(f"assets/{PREDICTIONS}?view=partitions&partition={SECOND}")
    ui.see(re.compile("mean.score", re.IGNORECASE))
    ui.see(re.compile(r"\breturns v1\b"))


def test_a_failing_check_says_how_many_rows_fail_it(ui):
    page = ui.open("assets/orders/features?view=checks")
    page.get_by_text("quantities_are_usual").first.click()
    page.get_by_text("Execution history").first.click()
    ui.see(re.compile("1 of 50 rows"))


def test_a_blocked_partition_has_failed_and_its_run_says_why(ui):
    ui.materialize(JOB, FOURTH)
    run = next(each for each in ui.finished(2) if each["tags"]["dagster/partition"] == FOURTH)
    assert run["status"] == "FAILURE"
    assert ui.partitions(PREDICTIONS) == {SECOND: "MATERIALIZED", FOURTH: "FAILED"}
    ui.open(f"assets/{PREDICTIONS}?view=partitions&partition={FOURTH}")
    ui.see(re.compile("did not materialize this asset"))
    ui.open(f"runs/{run['runId']}")
    ui.see(re.compile("blocked.*orders_were_loaded", re.DOTALL))


def test_a_sensor_that_is_turned_on_reruns_what_a_late_row_made_stale_with_the_reason(ui):
    ui.switch(SENSOR, "RUNNING")
    late = f"SELECT * REPLACE (9001 AS order_id) FROM raw.orders WHERE order_id = ({ONE})"
    ui.tiny.source(f"INSERT INTO raw.orders {late}")
    [run, *_] = ui.finished(1, **{"dagster/sensor_name": SENSOR})
    ui.switch(SENSOR, "STOPPED")
    assert run["status"] == "SUCCESS"
    assert rows_of(ui.tiny, SECOND) == 51
    ui.open(f"runs/{run['runId']}")
    ui.see(re.compile(r"source changed: orders 2024-03-02 \(\+1 row\)"))


def test_a_backfill_is_cancelled_and_its_partitions_are_not_scored(ui):
    with ui.tiny.locked():  # its run waits for the warehouse
        ui.materialize(JOB, f"[{FIRST}...{THIRD}]")
        backfill = until(lambda: next(iter(ui.backfills()), None))
        until(lambda: ui.runs(**{"dagster/backfill": backfill}))
        ui.cancel(backfill)
    assert {run["status"] for run in ui.runs(**{"dagster/backfill": backfill})} == {"CANCELED"}
    assert rows_of(ui.tiny, FIRST) == rows_of(ui.tiny, THIRD) == 0


def test_the_report_is_materialized_and_opened(ui):
    before = len(ui.runs())
    ui.materialize("assets/orders/report")
    [run, *_] = until(lambda: len(found := ui.runs()) > before and found[0]["status"] in FINISHED and found)
    assert run["status"] == "SUCCESS"
    page = ui.open("assets/orders/report")
    shown = page.get_by_text(re.compile(r"/report\.html$")).first
    shown.wait_for()
    path = shown.inner_text()
    page.goto(path if path.startswith("file:") else Path(path).as_uri())
    assert "orders" in page.title()
    assert "2024-03-04 blocked" in page.inner_text("body")


def rows_of(tiny, day):
    [(count,)] = tiny.published(f"SELECT count(*) FROM orders.predictions WHERE partition_key = '{day}'")
    return count
