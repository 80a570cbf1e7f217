"""The page of the Python API, which mkdocstrings fills from signatures and docstrings."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HEAD = """# Python API

For notebooks, training scripts and code locations: what may be imported, generated from the docstrings. What
is not on this page may change without notice.
"""
# Module → what of it is public, where it has no `__all__`.
MODULES = {"pip_dagster.api": (), "pip_dagster.components": (), "pip_dagster.errors": ()}


def page() -> str:
    """The page, with an instruction for mkdocstrings for each name."""
    parts = [HEAD]
    for module, names in public().items():
        parts.append(f"\n## {module}\n")
        parts += [f"\n::: {module}.{name}\n    options:\n      heading_level: 3\n" for name in names]
    return "".join(parts)


def public() -> dict[str, tuple[str, ...]]:
    """The public names of each module that there is."""
    found = {}
    for module in MODULES:
        base = ROOT / Path(*module.split("."))
        file = next((each for each in (base / "__init__.py", base.with_suffix(".py")) if each.exists()), None)
        if file:
            found[module] = _names(ast.parse(file.read_text(encoding="utf-8")))
    return found


def _names(tree: ast.Module) -> tuple[str, ...]:
    for node in tree.body:
        if isinstance(node, ast.Assign) and any(
            isinstance(each, ast.Name) and each.id == "__all__" for each in node.targets
        ):
            return tuple(ast.literal_eval(node.value))
    return tuple(node.name for node in tree.body if isinstance(node, ast.ClassDef) and not node.name.startswith("_"))
