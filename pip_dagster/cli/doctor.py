"""`pip-dagster doctor`: whether this machine and project can run pipelines, and what to do where not."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import click

from pip_dagster.cli.diagnoses import diagnose
from pip_dagster.cli.diagnosis import Diagnosis
from pip_dagster.cli.options import json_option
from pip_dagster.cli.output import echo, show_json, show_table
from pip_dagster.cli.ports import PORT
from pip_dagster.declaration.project import Project
from pip_dagster.errors import PipelineError
from pip_dagster.plural import plural

_MARKS = {"ok": "ok", "warning": "WARNING", "problem": "PROBLEM"}


@click.command()
@click.option("--port", default=PORT, show_default=True, type=click.IntRange(1, 65535), help="Of Dagster's UI.")
@json_option
@click.pass_obj
def doctor(root: Path | None, port: int, as_json: bool) -> None:
    """Look at versions, DAGSTER_HOME, port, device, memory, disk, locks, registry and warehouse. Writes nothing.

    Exit code 0: no problem; there may be warnings. 1: at least one problem.
    """
    project, missing = None, None
    try:
        project = Project.at(root) if root else Project.find()
    except PipelineError as error:
        missing = str(error)
    found = diagnose(project, missing, port)
    problems = sum(each.level == "problem" for each in found)
    if as_json:
        show_json({"ok": not problems, "lines": [asdict(each) for each in found]})
        sys.exit(1 if problems else 0)
    _show(found)
    warnings = sum(each.level == "warning" for each in found)
    echo(f"{plural(problems, 'problem')}, {plural(warnings, 'warning')}.")
    sys.exit(1 if problems else 0)


def _show(found: Sequence[Diagnosis]) -> None:
    rows = [
        [_MARKS[each.level], each.what, each.text + (f"\n-> {each.remedy}" if each.remedy else "")] for each in found
    ]
    show_table(None, ["", "", ""], rows)
