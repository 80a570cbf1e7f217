"""Take the pictures of the documents again: `python tools/pictures.py [PROJECT] [--out docs/images]`.

PROJECT is a folder with the demo, which gets late rows and a blocked day; by default the demo is run in a new one.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from dagster_ui import UI, serving, until

if TYPE_CHECKING:
    from playwright.sync_api import FloatRect, Page

NAME, SENSOR = "flight_delay", "flight_delay_source_changes"
JOB, PREDICTIONS = f"locations/flights/jobs/{NAME}_job", f"assets/{NAME}/predictions"
BLOCKED, LATE, SHOWN = "2013-12-31", "2013-08-30", "2013-08-22"
LATE_ROWS = f"""INSERT INTO raw.schedule
SELECT * REPLACE (flight_key || '-late' AS flight_key) FROM raw.schedule WHERE flight_date = '{LATE}' LIMIT 12"""
NAVIGATION = 240  # pixels at the left of every page


def main() -> None:
    """Run the demo where it is not there yet, and take every picture."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("project", nargs="?", type=Path)
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "docs" / "images")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = given.project or Path(folder)
        home = root / ".dagster_home"
        # A folder of its own: what the environment names is another project.
        clean = {name: text for name, text in os.environ.items() if not name.startswith(("DAGSTER", "PIP_DAGSTER"))}
        os.environ.clear()
        os.environ.update(clean)
        subprocess.run([Path(sys.executable).with_name("pip-dagster"), "demo"], cwd=root, check=True)
        with serving(root, home, "flights") as ui:
            pictures(ui, root, given.out)


def pictures(ui: UI, root: Path, out: Path) -> None:
    """From what needs nothing but the demo to what changes it."""
    page = ui.page
    _report(page, root, out)
    page.set_viewport_size({"width": 1600, "height": 1100})
    ui.open(f"locations/flights/asset-groups/{NAME}/lineage")
    ui.see("report")
    _take(page, out / "asset-graph.png")
    page.set_viewport_size({"width": 1400, "height": 1000})
    _check(ui, PREDICTIONS, "drift")
    _take(page, out / "check-drift.png")
    page.set_viewport_size({"width": 1500, "height": 900})
    _partition(ui, SHOWN)
    _take(page, out / "partition.png")
    ui.materialize(JOB, BLOCKED)
    until(lambda: ui.partitions(f"{NAME}/predictions").get(BLOCKED) == "FAILED", 300)
    _check(ui, f"assets/{NAME}/sources/weather", "weather_was_loaded")
    _take(page, out / "check.png")
    _sensor(ui, root, out)


def _report(page: Page, root: Path, out: Path) -> None:
    for name, width, height in (("report.png", 1120, 1130), ("report-phone.png", 500, 1420)):
        page.set_viewport_size({"width": width, "height": height})
        page.goto((root / "data" / "reports" / NAME / "report.html").resolve().as_uri())
        _take(page, out / name)


def _check(ui: UI, asset: str, name: str) -> None:
    page = ui.open(f"{asset}?view=checks")
    page.get_by_text(re.compile(rf"^{name}")).first.click()
    ui.see("Latest execution")


def _partition(ui: UI, day: str) -> None:
    ui.open(f"{PREDICTIONS}?view=partitions&partition={day}")
    ui.see(re.compile("mean.score", re.IGNORECASE))


def _sensor(ui: UI, root: Path, out: Path) -> None:
    """A late batch of one day: the sensor's ticks, the run that it requested, and the partition that was rerun."""
    import duckdb

    page = ui.page
    ui.switch(SENSOR, "RUNNING")
    with duckdb.connect(str(root / "data" / "sources.duckdb")) as con:
        con.execute(LATE_ROWS)
    [run, *_] = ui.finished(1, **{"dagster/sensor_name": SENSOR})
    page.set_viewport_size({"width": 940 + NAVIGATION, "height": 1050})
    ui.open(f"locations/flights/sensors/{SENSOR}")
    until(lambda: page.get_by_text(re.compile(r"runs? requested")).count() > 8, 240)  # four ticks, each twice
    _take(page, out / "sensor-ticks.png", {"x": NAVIGATION, "y": 0, "width": 940, "height": 1050})
    ui.switch(SENSOR, "STOPPED")
    page.set_viewport_size({"width": 1500, "height": 900})
    ui.open(f"runs/{run['runId']}")
    page.get_by_text(re.compile("^View tags")).first.click()
    title = page.get_by_text("Run configuration").first.bounding_box()
    assert title
    _take(page, out / "sensor-run.png", {"x": title["x"] - 20, "y": title["y"] - 15, "width": 990, "height": 200})
    _partition(ui, LATE)
    _take(page, out / "partition-why.png", {"x": 556, "y": 290, "width": 944, "height": 420})


def _take(page: Page, file: Path, clip: FloatRect | None = None) -> None:
    """A picture once the page has come to rest."""
    page.mouse.move(0, 0)
    pictures: list[bytes] = []
    for _ in range(20):
        pictures.append(page.screenshot(clip=clip, animations="disabled"))
        if pictures[-1] in pictures[-4:-1]:
            break
        page.wait_for_timeout(700)
    file.write_bytes(pictures[-1])
    print(file, flush=True)


if __name__ == "__main__":
    main()
