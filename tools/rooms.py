"""Print the rooms of the package, their imports, and what breaks their order: imports upward and circles.

    python tools/rooms.py

The order is the layers contract in pyproject.toml, which `make check` enforces. Exit code 1 if anything breaks it.
"""

from __future__ import annotations

import sys
import tomllib
from collections import Counter
from pathlib import Path
from typing import Any

import grimp

ROOT = Path(__file__).resolve().parents[1]


def main() -> int:
    """Print the map; return the exit code."""
    graph = grimp.build_graph("pip_dagster", cache_dir=None)
    contract = _contract()
    for ignored in contract.get("ignore_imports", ()):
        importer, imported = ignored.split(" -> ")
        graph.remove_import(importer=importer, imported=imported)
    floors = [[room.strip() for room in layer.split("|")] for layer in contract["layers"]]
    floor_of = {room: floor for floor, rooms in enumerate(floors) for room in rooms}
    arrows: Counter[tuple[str, str]] = Counter()
    upward: list[str] = []
    for importer in graph.modules:
        for imported in graph.find_modules_directly_imported_by(importer):
            a, b = _room(importer), _room(imported)
            if a == b or a not in floor_of or b not in floor_of:
                continue
            arrows[a, b] += 1
            if floor_of[b] <= floor_of[a]:
                upward.append(f"{importer} imports {imported}")
    for rooms in floors:
        for room in rooms:
            to = ", ".join(f"{b} {count}" for (a, b), count in sorted(arrows.items()) if a == room)
            print(f"{room:<14} {len(_files(graph, room)):>3} files  -> {to or 'nothing'}")
    circles = _circles(graph)
    print(f"\n{len(arrows)} arrows, {len(upward)} against the direction, {len(circles)} circles")
    for problem in (*upward, *(" <-> ".join(circle) for circle in circles)):
        print(f"  {problem}")
    return 1 if upward or circles else 0


def _contract() -> dict[str, Any]:
    """The layers from top to bottom; rooms on one floor do not import each other."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    return next(contract for contract in contracts if contract["type"] == "layers")


def _room(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def _files(graph: grimp.ImportGraph, room: str) -> list[str]:
    return [module for module in graph.modules if _room(module) == room]


def _circles(graph: grimp.ImportGraph) -> list[list[str]]:
    """The groups of files that import each other, directly or through others (Tarjan's algorithm)."""
    order: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    circles: list[list[str]] = []

    def visit(module: str) -> None:
        order[module] = low[module] = len(order)
        stack.append(module)
        for imported in graph.find_modules_directly_imported_by(module):
            if imported not in order:
                visit(imported)
                low[module] = min(low[module], low[imported])
            elif imported in stack:
                low[module] = min(low[module], order[imported])
        if low[module] == order[module]:
            at = stack.index(module)
            group, stack[at:] = stack[at:], []
            if len(group) > 1:
                circles.append(sorted(group))

    for module in sorted(graph.modules):
        if module not in order:
            visit(module)
    return circles


if __name__ == "__main__":
    sys.exit(main())
