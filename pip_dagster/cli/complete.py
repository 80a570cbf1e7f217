"""What a shell completes of arguments: pipelines, partitions, models, versions and aliases, from the project's files.

It is quick, since it runs at each press of a key, and silent: without a project or with damaged files it proposes
nothing.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, suppress
from pathlib import Path

import click
from click.shell_completion import CompletionItem

from pip_dagster.declaration.project import Project

_MOST = 100
_DEPTH = 8  # of folders below the project's
_SKIPPED = {"node_modules", "site-packages", "build", "dist", "data"}
_NEWEST = """
  SELECT partition_key FROM ledger.partitions WHERE pipeline = $pipeline AND starts_with(partition_key, $start)
  GROUP BY partition_key ORDER BY max(partition_start) DESC LIMIT {most}
"""
_Values = Callable[[Project, click.Context, str], Iterator[str]]


def with_completion(command: click.Command, group: str) -> None:
    """Have the parameters of a command of this group completed that name something of the project."""
    for parameter in command.params:
        values = _values_of(parameter, f"{group} {command.name}")
        if values is not None:
            parameter.shell_complete = _completing(values)  # type: ignore[method-assign, assignment]


def _values_of(parameter: click.Parameter, command: str) -> _Values | None:
    if isinstance(parameter.type, click.types.IntParamType | click.Path):
        return None
    match parameter.name:
        case "pipeline":
            return _pipelines
        case "partition" | "partitions" | "first" | "last" | "until":
            return _partitions
        case "key" if command.strip() in ("monitor", "performance"):
            return _partitions
        case "name" if command.startswith("models "):
            return _models
        case "ref" | "version" | "to":
            return _versions
        case "alias":
            return _aliases
    return None


def _completing(values: _Values) -> Callable[[click.Context, str], list[CompletionItem]]:
    def complete(ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        found: list[str] = []
        with suppress(Exception), redirect_stderr(io.StringIO()):
            root = ctx.find_root().params.get("project")
            project = Project.at(Path(root)) if root else Project.find()
            found = [value for value in values(project, ctx, incomplete) if value.startswith(incomplete)]
        return [CompletionItem(value) for value in found[:_MOST]]

    return complete


def _pipelines(project: Project, ctx: click.Context, incomplete: str) -> Iterator[str]:
    """Those whose declarations are below the project's folder; read as text, which is enough for a name."""
    names = set()
    for folder, folders, files in os.walk(project.root):
        depth = len(Path(folder).relative_to(project.root).parts)
        nested = depth and "pyproject.toml" in files and "[tool.pip_dagster]" in _text(Path(folder, "pyproject.toml"))
        folders[:] = [each for each in folders if not (each.startswith(".") or each in _SKIPPED)]
        if depth >= _DEPTH or nested:
            folders.clear()
        if "defs.yaml" in files and not nested:
            for document in re.split(r"^---", _text(Path(folder, "defs.yaml")), flags=re.M):
                indent = re.search(r"^attributes:.*\n(?:\s*#.*\n)*(\s+)\w", document, re.M)
                name = indent and re.search(rf"^{indent[1]}name:\s*[\"']?([\w-]+)", document, re.M)
                if name and "InferencePipeline" in document:
                    names.add(name[1])
    yield from sorted(names)


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace")


def _partitions(project: Project, ctx: click.Context, incomplete: str) -> Iterator[str]:
    """The newest ones that are published, newest first; of `A..B` the second."""
    from pip_dagster.cli.published import rows_of
    from pip_dagster.warehouse.published_views import opened

    if not (project.publishes and isinstance(project.published_database, Path)):
        return
    before, dots, start = incomplete.rpartition("..")
    with opened(project) as con:
        values = {"pipeline": _first(ctx, "pipeline") or "", "start": start}
        for row in rows_of(con, _NEWEST.format(most=_MOST), values):
            yield before + dots + row["partition_key"]


def _models(project: Project, ctx: click.Context, incomplete: str) -> Iterator[str]:
    yield from sorted(path.name for path in project.registry.iterdir() if (path / "versions").is_dir())


def _versions(project: Project, ctx: click.Context, incomplete: str) -> Iterator[str]:
    """The versions, newest first, then the aliases."""
    for model in _named_models(project, ctx):
        numbers = (int(path.name) for path in (model / "versions").iterdir() if path.name.isdecimal())
        yield from (f"v{number}" for number in sorted(numbers, reverse=True))
    yield from _aliases(project, ctx, incomplete)


def _aliases(project: Project, ctx: click.Context, incomplete: str) -> Iterator[str]:
    for model in _named_models(project, ctx):
        yield from sorted(path.stem for path in (model / "aliases").glob("*.json"))


def _named_models(project: Project, ctx: click.Context) -> list[Path]:
    """The model that the command names, or whose pipeline it names, where both have one name; else all of them."""
    models = [project.registry / name for name in _models(project, ctx, "")]
    name = _first(ctx, "name") or _first(ctx, "pipeline")
    return [model for model in models if model.name == name] or models


def _first(ctx: click.Context, name: str) -> str | None:
    """The value of the first argument; after an option without its value, click has not assigned the arguments."""
    return ctx.params.get(name) or next(iter(ctx.args), None)
