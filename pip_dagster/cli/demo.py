"""`pip-dagster demo`: a whole pipeline on real flights, with the commands a user would type."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from contextlib import nullcontext, redirect_stdout
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import click

from pip_dagster.cli.cells import figure
from pip_dagster.cli.dagster_home import checked_home
from pip_dagster.cli.options import json_option
from pip_dagster.cli.output import echo, near, show_json, show_pairs
from pip_dagster.cli.partition_status import partition_statuses
from pip_dagster.cli.published import open_published, rows_of
from pip_dagster.cli.report import report
from pip_dagster.cli.unforeseen import debugging
from pip_dagster.declaration.find import find_pipeline
from pip_dagster.declaration.project import ROOT_VARIABLE, Project
from pip_dagster.ledger.promotions import record_promotions
from pip_dagster.plural import plural
from pip_dagster.registry.store import Registry, whoami
from pip_dagster.scaffold.demo import PACKAGE, is_demo, write_demo

_NAME = "flight_delay"
_FIRST, _LAST = date(2013, 8, 1), date(2013, 8, 31)

_LABELS = "August's labels: how good scores and estimates were"

# Fits 80 columns.
_NEXT = """
Next:
  {ui:<37}Dagster on http://127.0.0.1:3000
  {command} ...
    status flight_delay                  the partitions
    lineage flight_delay 2013-08-01      what produced one of them
    models list flight_delay             the models
    monitor flight_delay                 whether features and scores drift
    performance flight_delay             how good the scores were, by labels
    estimate flight_delay --last 7       how good they were expected to be
    alarms                               what is in alarm, and what to do
    query "SELECT * FROM flight_delay.predictions ORDER BY score DESC LIMIT 5"
"""


@click.command()
@json_option
@click.pass_context
def demo(ctx: click.Context, as_json: bool) -> None:
    """Load real flights, train two models, score August 2013, compare with the labels, and report.

    In an empty folder it writes its project first. What is there already, it does not do a second time.
    """
    with redirect_stdout(sys.stderr) if as_json else nullcontext():
        _demo(ctx)
    if as_json:
        page = ctx.obj.reports / _NAME / "report.html"
        show_json({"pipeline": _NAME, "project": str(ctx.obj.root), "partitions": _days(), "report": str(page)})


def _demo(ctx: click.Context) -> None:
    project = ctx.obj = _project(ctx.find_root().params.get("project"))
    scripts, data = project.root / PACKAGE, project.root / "data" / _NAME
    sources = project.root / "data" / "sources.duckdb"
    if _step(1, "the source tables, from data/flight_delay", sources.is_file()):
        _python(scripts / "load_sources.py", data, sources)
    registry = Registry(project.registry)
    known = registry.versions(_NAME) if _NAME in registry.models() else []
    if _step(2, "two models, trained on January to June and registered", len(known) >= 2):
        _python(scripts / "train.py", project.root)
    if _step(3, "the alias champion, on the better one", registry.alias(_NAME, "champion") is not None):
        why = "the better of the demo's two models"
        move = registry.set_alias(_NAME, "champion", 2, by="pip-dagster demo", why=why)
        record_promotions(project, (_NAME, move))
    if _step(4, f"the Dagster run that scores {_FIRST} to {_LAST}", _is_scored(project)):
        _materialize(project)
    if _step(5, _LABELS, _is_evaluated(project)):
        _evaluate(project)
    page = project.reports / _NAME / "report.html"
    if _step(6, "the report", _is_newest(page, project)):
        ctx.invoke(report, pipeline=_NAME, why="")
    _summarize(project)
    in_clone = (project.root / "Makefile").is_file()
    words = (".venv/bin/pip-dagster", "make ui") if in_clone else ("pip-dagster", "pip-dagster ui")
    echo(_NEXT.format(command=words[0], ui=words[1]))
    echo(f"open {near(page)}")


def _project(named: Path | None) -> Project:
    """The folder with the demo's project, which is written if the folder is empty.

    Without a name: the project around the working directory if it is the demo's, else the working directory.
    """
    if named is None and ROOT_VARIABLE not in os.environ:
        here = Path.cwd()
        named = next((folder for folder in (here, *here.parents) if is_demo(folder)), here)
    root = named or Project.find().root
    if not is_demo(root):
        echo(f"The project is written to {root}")
        write_demo(root)
    return Project.at(root)


_SUMMARY = f"""
  SELECT sum(rows_scored) AS rows, sum(rows_quarantined) AS quarantined, count(*) AS days,
         string_agg(DISTINCT 'v' || model_version, ', ') AS models, max(mean_score) AS most,
         arg_max(partition_key, mean_score) AS worst, count(*) FILTER (findings <> '{{}}') AS remarkable
  FROM ledger.partitions WHERE pipeline = '{_NAME}' AND is_live AND partition_key BETWEEN '{_FIRST}' AND '{_LAST}'
"""
_LATEST = f"""
  SELECT flight_key, score FROM {_NAME}.predictions WHERE partition_key = '{_LAST}'
  ORDER BY score DESC, flight_key LIMIT 3
"""


def _summarize(project: Project) -> None:
    """A few lines on what there is now."""
    with open_published(project) as con:
        [of] = rows_of(con, _SUMMARY)
        latest = rows_of(con, _LATEST)
    _show_summary(of, ", ".join(f"{row['flight_key']} ({figure(row['score'])})" for row in latest))


def _show_summary(of: dict[str, Any], flights: str) -> None:
    lines = {
        "scored": f"{plural(of['rows'], 'flight')} of {plural(of['days'], 'day')} by {of['models']}",
        "quarantined": plural(of["quarantined"], "flight"),
        "findings": f"on {plural(of['remarkable'], 'day')}, see `status {_NAME}`",
        "worst day": f"{of['worst']}, mean score {figure(of['most'])}",
        f"most at risk on {_LAST}": flights,
    }
    show_pairs(f"\n{_NAME}, {_FIRST} to {_LAST}", lines.items())


def _step(number: int, what: str, done: bool) -> bool:
    echo(f"[{number}/6] {what}" + (": already there" if done else " ..."))
    return not done


def _python(script: Path, *arguments: Path) -> None:
    # DuckDB's own call of pandas, which pandas warns of.
    quiet = {"PYTHONWARNINGS": "ignore:The inplace keyword"}
    _run([sys.executable, str(script), *map(str, arguments)], os.environ | quiet)


def _is_scored(project: Project) -> bool:
    """Whether every partition of the demo is live, scored by the present champion."""
    champion = Registry(project.registry).alias(_NAME, "champion")
    if not project.published_database.is_file():
        return False
    with open_published(project) as con:
        live = {each.partition_key: each.model_version for each in partition_statuses(con, _NAME, 400)}
    return all(live.get(day) == champion for day in _days())


def _is_evaluated(project: Project) -> bool:
    """Whether every day has figures from its labels, and the last day an estimate: days are estimated in order."""
    with open_published(project) as con:
        tables = rows_of(con, f"SELECT table_name FROM information_schema.tables WHERE table_schema = '{_NAME}'")
        if not {"performance", "estimates"} <= {row["table_name"] for row in tables}:
            return False
        evaluated = rows_of(con, f"SELECT DISTINCT partition_key FROM {_NAME}.performance")
        last = f"SELECT 1 FROM {_NAME}.estimates WHERE partition_key = $key AND metric = 'auc'"
        estimated = rows_of(con, last, {"key": str(_LAST)})
    return {*_days()} <= {row["partition_key"] for row in evaluated} and bool(estimated)


def _evaluate(project: Project) -> None:
    """As `performance flight_delay --evaluate` and `estimate flight_delay --backfill`, without their tables."""
    from pip_dagster.cli.performance import evaluate_labels
    from pip_dagster.flow.engine import available_threads
    from pip_dagster.monitoring.estimating import estimate_stored
    from pip_dagster.monitoring.performance import read_performance
    from pip_dagster.warehouse.connect import workspace

    began, pipeline = time.monotonic(), find_pipeline(project, _NAME)
    version = Registry(project.registry).get(_NAME, "champion")
    evaluate_labels(pipeline, str(_FIRST), str(_LAST), progress=_detail)
    with workspace(threads=available_threads()) as con:
        estimate_stored(con, pipeline, version, progress=_detail)
        of = read_performance(con, pipeline)
    if whole := of.window(of.counting()):
        _detail(f"{_NAME}: {of.metric} {whole.value:.3f} over {plural(whole.partitions, 'day')}")
    _detail(f"{time.monotonic() - began:.0f} s")


def _is_newest(page: Path, project: Project) -> bool:
    """Whether nothing was stored since the page was written."""
    stored = [each for each in (project.warehouse, project.published_database) if isinstance(each, Path)]
    changed = [each.stat().st_mtime for each in stored if each.is_file()]
    return page.is_file() and page.stat().st_mtime >= max(changed, default=0.0)


def _detail(text: str) -> None:
    echo(f"      {text}")


def _days() -> list[str]:
    return [str(_FIRST + timedelta(days=i)) for i in range((_LAST - _FIRST).days + 1)]


def _materialize(project: Project) -> None:
    """One run of the pipeline's job over the range, as `pip-dagster run` starts it."""
    from pip_dagster.cli.run import score
    from pip_dagster.declaration.grid import partition_named
    from pip_dagster.flow.backfill import unrecorded

    began, pipeline = time.monotonic(), find_pipeline(project, _NAME)
    partitions = [partition_named(pipeline.spec.partitions, day) for day in _days()]
    work = unrecorded(pipeline, partitions, by=whoami(), why="the demo")
    outcome, _ = score(pipeline, work, checked_home(project, create=True), allow_fewer_rows=False)
    if not outcome["complete"]:
        reason = outcome["error"] or next(iter(outcome["failed"].values()), "it was cancelled")
        raise click.ClickException(f"The run did not score every day: {reason}")
    _detail(f"{plural(outcome['built'], 'partition')}, {time.monotonic() - began:.0f} s")


def _run(command: list[str], environment: dict[str, str]) -> None:
    """Run a script of the demo and print its lines as they come; if it fails, its error."""
    began = time.monotonic()
    lines: list[str] = []
    with subprocess.Popen(
        command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:
        assert process.stdout
        for line in process.stdout:
            lines.append(line)
            _detail(line.rsplit(" - ", 1)[-1].rstrip())
    if process.returncode:
        if not debugging():  # its last line says what it was
            reason = next((line.strip() for line in reversed(lines) if line.strip()), "without a message")
            raise click.ClickException(f"{command[1]} failed: {reason}")
        echo("".join(lines), err=True)
        raise click.ClickException(f"{' '.join(command[:6])} … failed with exit code {process.returncode}.")
    _detail(f"{time.monotonic() - began:.0f} s")
