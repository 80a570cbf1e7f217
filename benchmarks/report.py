"""The figures, in benchmarks/results.json and as a table and a plot between the markers of docs/benchmarks.md.

The text of docs/benchmarks.md outside the markers is written by hand and does not change.
"""

from __future__ import annotations

import json
import os
import platform
from dataclasses import asdict
from datetime import UTC, datetime
from html import escape
from importlib.metadata import version
from pathlib import Path

from benchmarks.data import REPOSITORY
from benchmarks.suite import Figure

RESULTS = Path(__file__).parent / "results.json"
PAGE = REPOSITORY / "docs" / "benchmarks.md"
PLOT = REPOSITORY / "docs" / "images" / "benchmarks.svg"
BEGIN, END = "<!-- make bench: begin -->", "<!-- make bench: end -->"


def save(part: str, figures: list[Figure]) -> None:
    """Replace one part's figures in results.json, with the machine that they are of."""
    known = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}
    listed = [asdict(each) | {"figure": round(each.figure, 3), "holds": each.holds} for each in figures]
    known[part] = {"machine": machine(), "figures": listed}
    RESULTS.write_text(json.dumps(known, indent=1, ensure_ascii=False) + "\n")
    for each in figures:
        print(
            f"  {each.name}: {each.figure:.2f} {each.unit} (bound {each.bound}, holds: {each.holds}; {each.detail})",
            flush=True,
        )


def machine() -> dict[str, str]:
    """The machine and versions that the figures depend on."""
    from pip_dagster.flow.engine import available_threads

    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").is_file() else []
    cpu = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.processor())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    names = ("dagster", "duckdb", "xgboost", "numpy", "pandas", "ray", "mlflow-skinny", "dagster-duckdb-pandas")
    libraries = ", ".join(f"{name} {found}" for name in names if (found := _version(name)))
    return {
        "measured": f"{datetime.now(UTC):%Y-%m-%d}",
        "machine": f"{cpu}, {available_threads()} threads, {memory:.0f} GB, {platform.system()}",
        "versions": f"Python {platform.python_version()}, {libraries}",
    }


def _version(name: str) -> str | None:
    try:
        return version(name)
    except Exception:  # not installed: its part was not measured
        return None


def write(order: list[str]) -> None:
    """Write the page's part between the markers, and the plot, from results.json; the benchmarks in this order."""
    known = json.loads(RESULTS.read_text())
    tables: dict[str, list[dict]] = {}  # by machine: seconds of one say little about another
    for part in (known[name] for name in order if name in known):
        about = part["machine"]
        opening = f"Measured {about['measured']} on {about['machine']}.\n{about['versions']}."
        tables.setdefault(opening, []).extend(part["figures"])
    figures = [each for of_machine in tables.values() for each in of_machine]
    written = [f"{opening}\n\n{_table(of_machine)}" for opening, of_machine in tables.items()]
    plot = "![Each figure as a share of its bound](images/benchmarks.svg)"
    text = f"{BEGIN}\n" + "\n\n".join([*written, plot]) + f"\n{END}"
    page = PAGE.read_text(encoding="utf-8")
    before, rest = page.split(BEGIN, 1)
    PAGE.write_text(before + text + rest.split(END, 1)[1], encoding="utf-8")
    PLOT.write_text(_plot([each for each in figures if each["bound"] is not None]), encoding="utf-8")


def _table(figures: list[dict]) -> str:
    rows = ["| what | figure | bound | holds | measured |", "|---|---|---|---|---|"]
    for each in figures:
        bound = "" if each["bound"] is None else f"{'≥' if each['at_least'] else '≤'} {each['bound']:g}"
        holds = {True: "yes", False: "**no**", None: ""}[each["holds"]]
        rows.append(f"| {each['name']} | {each['figure']:.2f} {each['unit']} | {bound} | {holds} | {each['detail']} |")
    return "\n".join(rows)


def _plot(figures: list[dict]) -> str:
    """One bar per figure: its share of its bound; the line is the bound."""
    left, unit, height = 430, 260, 24
    width, tall = left + unit * 2 + 90, height * len(figures) + 40
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {tall}" font-family="sans-serif" font-size="12">',
        f'<rect width="{width}" height="{tall}" fill="white"/>',
    ]
    for i, each in enumerate(figures):
        share = each["bound"] / each["figure"] if each["at_least"] else each["figure"] / each["bound"]
        y, length = 10 + i * height, min(share, 2.0) * unit
        color = "#4c78a8" if each["holds"] else "#e45756"
        parts.append(f'<text x="{left - 8}" y="{y + 14}" text-anchor="end">{escape(each["name"])}</text>')
        parts.append(f'<rect x="{left}" y="{y + 3}" width="{length:.0f}" height="{height - 8}" fill="{color}"/>')
        parts.append(
            f'<text x="{left + length + 5:.0f}" y="{y + 14}">{each["figure"]:.2f} {escape(each["unit"])}</text>'
        )
    bottom = tall - 24
    parts.append(
        f'<line x1="{left + unit}" y1="6" x2="{left + unit}" y2="{bottom}" stroke="black" stroke-dasharray="4 3"/>'
    )
    parts.append(f'<text x="{left + unit}" y="{bottom + 16}" text-anchor="middle">bound</text></svg>\n')
    return "\n".join(parts)
