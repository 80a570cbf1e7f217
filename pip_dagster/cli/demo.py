"""`pip-dagster demo`: a whole pipeline on real flights, with the commands a user would type."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from datetime import date, timedelta
from pathlib import Path

import click

from pip_dagster.cli.output import echo, show_table
from pip_dagster.cli.partition_status import partition_statuses
from pip_dagster.cli.published import open_published, rows_of
from pip_dagster.cli.status import show_partitions
from pip_dagster.declaration.find import find_pipeline
from pip_dagster.declaration.project import Project
from pip_dagster.errors import ProjectError
from pip_dagster.ledger.promotions import record_promotions
from pip_dagster.registry.store import Registry

_NAME = "flight_delay"
_FIRST, _LAST = date(2013, 8, 1), date(2013, 8, 31)

_NEXT = """
Next:
  make ui                                             open Dagster on http://127.0.0.1:3000
  data/report.html                                    open it in a browser: how the pipeline is doing
  .venv/bin/pip-dagster status flight_delay           the partitions
  .venv/bin/pip-dagster lineage flight_delay 2013-08-01   what produced one of them
  .venv/bin/pip-dagster models list flight_delay      the models
  .venv/bin/pip-dagster query "SELECT * FROM flight_delay.predictions ORDER BY score DESC LIMIT 5"
"""


@click.command()
@click.pass_obj
def demo(project: Project) -> None:
    """Load real flights, train and register two models, score August 2013, and show the result."""
    example, data = project.root / "examples" / _NAME, project.root / "data" / _NAME
    if not (example.is_dir() and data.is_dir()):
        raise ProjectError(f"{project.root} has no examples/{_NAME}: the demo runs in a clone of pip_dagster.")
    sources = project.root / "data" / "sources.duckdb"
    if _step(1, "the source tables, from the Parquet files in data/flight_delay", sources.is_file()):
        _python(example / "load_sources.py", data, sources)
    registry = Registry(project.registry)
    known = registry.versions(_NAME) if _NAME in registry.models() else []
    if _step(2, "two models, trained on January to June and registered", len(known) >= 2):
        _python(example / "train.py", sources, project.registry)
    if _step(3, "the alias champion, on the better one", registry.alias(_NAME, "champion") is not None):
        why = "the better of the demo's two models"
        move = registry.set_alias(_NAME, "champion", 2, by="pip-dagster demo", why=why)
        record_promotions(project, (_NAME, move))
    if _step(4, f"the Dagster run that scores {_FIRST} to {_LAST}", _is_scored(project)):
        _materialize(project)
    with open_published(project) as con:
        days = [each for each in partition_statuses(con, _NAME, 400) if each.partition_key in _days()]
        show_partitions(_NAME, days)
        top = rows_of(
            con,
            f"SELECT flight_key, flight_date, score, 'v' || model_version AS model FROM {_NAME}.predictions "
            "WHERE partition_key = $key ORDER BY score DESC, flight_key LIMIT 10",
            {"key": str(_LAST)},
        )
    show_table(f"The ten flights of {_LAST} most likely to be late", list(top[0]), [list(row.values()) for row in top])
    _report(project)
    echo(_NEXT)


def _report(project: Project) -> None:
    from pip_dagster.reporting.collect import collect
    from pip_dagster.reporting.files import write
    from pip_dagster.reporting.page import to_html

    content = collect(find_pipeline(project, _NAME))
    path = write(project.root / "data" / "report.html", to_html(content).encode())
    echo(f"How the pipeline is doing: {content.verdict.sentence} It is in {path}")


def _step(number: int, what: str, done: bool) -> bool:
    echo(f"[{number}/4] {what}" + (": already there" if done else " ..."))
    return not done


def _python(script: Path, *arguments: Path) -> None:
    _run([sys.executable, str(script), *map(str, arguments)], os.environ.copy())


def _is_scored(project: Project) -> bool:
    """Whether every partition of the demo is live, scored by the present champion."""
    champion = Registry(project.registry).alias(_NAME, "champion")
    if not project.published_database.is_file():
        return False
    with open_published(project) as con:
        live = {each.partition_key: each.model_version for each in partition_statuses(con, _NAME, 400)}
    return all(live.get(day) == champion for day in _days())


def _days() -> list[str]:
    return [str(_FIRST + timedelta(days=i)) for i in range((_LAST - _FIRST).days + 1)]


def _materialize(project: Project) -> None:
    """One Dagster run over the range, as `dagster asset materialize` does it; only its own messages are shown."""
    home = Path(os.environ.get("DAGSTER_HOME") or project.root / ".dagster_home")
    home.mkdir(exist_ok=True)
    if not (home / "dagster.yaml").is_file():
        shutil.copy(project.root / "dagster.yaml", home / "dagster.yaml")
    command = [
        *(sys.executable, "-m", "dagster", "asset", "materialize", "-m", "pip_dagster.definitions"),
        *("--select", f"{_NAME}/features,{_NAME}/predictions", "--partition-range", f"{_FIRST}...{_LAST}"),
    ]
    _run(command, os.environ | project.environment() | {"DAGSTER_HOME": str(home)}, cwd=project.root, show=" - INFO - ")


def _run(command: list[str], environment: dict[str, str], *, cwd: Path | None = None, show: str | None = None) -> None:
    """Run a command and print its lines as they come: those with `show`, or all; if it fails, the whole log."""
    began = time.monotonic()
    lines: list[str] = []
    with subprocess.Popen(
        command, env=environment, cwd=cwd, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:
        assert process.stdout
        for line in process.stdout:
            lines.append(line)
            if show is None or show in line:
                echo("      " + line.rsplit(" - ", 1)[-1].rstrip())
    if process.returncode:
        echo("".join(lines), err=True)
        raise click.ClickException(f"{' '.join(command[:6])} … failed with exit code {process.returncode}.")
    echo(f"      {time.monotonic() - began:.0f} s")
