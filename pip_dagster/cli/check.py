"""`pip-dagster check`: what is wrong with a pipeline, without scoring or writing anything."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pip_dagster.cli.options import json_option
from pip_dagster.cli.output import echo, show_json
from pip_dagster.cli.selection import Selection, partition_selection
from pip_dagster.declaration.project import Project
from pip_dagster.plural import plural

if TYPE_CHECKING:
    from pip_dagster.flow.check import Checked, Problem


@click.command()
@click.argument("pipeline", required=False)
@partition_selection("whose rows are read", bounds=False)
@json_option
@click.pass_obj
def check(project: Project, pipeline: str | None, as_json: bool, selected: Selection) -> None:
    """Check PIPELINE, or every pipeline of the project, against its real sources and model. Writes nothing.

    Declaration, sources, SQL, model, expectations and labels are checked by their names and types; then the rows of
    PARTITION, by default the newest that has closed, are read and judged by the model's guard.

    Exit code 0: no problem; there may be warnings. 1: at least one problem.
    """
    from pip_dagster.flow.check import check_project

    found = check_project(project, [pipeline] if pipeline else [], selected.one, datetime.now(UTC))
    ok = all(each.ok for each in found)
    if as_json:
        show_json({"ok": ok, "pipelines": [asdict(each) | {"ok": each.ok} for each in found]})
    else:
        _show(found, project.root)
    sys.exit(0 if ok else 1)


def _show(found: Sequence[Checked], root: Path) -> None:
    if not found:
        echo(f"{root} declares no pipeline.")
    for each in found:
        for problem in each.problems:
            echo(f"{each.pipeline}: {_line(problem, root)}")
        problems = sum(problem.level == "problem" for problem in each.problems)
        warnings = len(each.problems) - problems
        verdict = plural(problems, "problem") if problems else "ok"
        also = f", {plural(warnings, 'warning')}" if warnings else ""
        echo(f"{each.pipeline}: {verdict}{also}. Checked: {_checked(each)}.")
        if each.rows == 0:
            echo(f"To check rows, name a partition that has some: pip-dagster check {each.pipeline} PARTITION")


def _line(problem: Problem, root: Path) -> str:
    """As a compiler writes it: the level, the file with its line, and the sentence."""
    place = ""
    if problem.file:
        file = Path(problem.file)
        shown = file.relative_to(root) if file.is_relative_to(root) else file
        place = f"{shown}:{problem.line}: " if problem.line else f"{shown}: "
    return f"{problem.level}: {place}{'' if problem.file else problem.what + ': '}{problem.text}"


def _checked(found: Checked) -> str:
    parts = [plural(found.sources, "source")] if found.sources else ["the declaration"]
    if found.features:
        parts.append(plural(found.features, "column") + " of features")
    if found.model:
        parts.append(found.model)
    if found.partition:
        parts.append(f"{plural(found.rows or 0, 'row')} of {found.partition}")
    return ", ".join(parts)
