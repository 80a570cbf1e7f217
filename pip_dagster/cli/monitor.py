"""`pip-dagster monitor`: how far features and scores have drifted, and which of that is news."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from pip_dagster.cli.options import json_option
from pip_dagster.cli.output import echo, progress, show_json, show_table
from pip_dagster.cli.selection import Selection, partition_selection
from pip_dagster.cli.table import Heading
from pip_dagster.declaration.find import find_pipeline
from pip_dagster.declaration.monitoring import Monitoring
from pip_dagster.declaration.project import Project
from pip_dagster.errors import DeclarationError
from pip_dagster.plural import plural

if TYPE_CHECKING:
    from pip_dagster.monitoring.drift import PartitionDrift


_NAMED = 3


@click.command()
@click.argument("pipeline")
@partition_selection("to judge instead of the newest one", bounds=False)
@click.option("--last", type=click.IntRange(min=1), help="List the newest partitions, with what was in alarm.")
@click.option("--backfill", is_flag=True, help="First profile the partitions that were scored before, newest first.")
@json_option
@click.pass_obj
def monitor(
    project: Project, pipeline: str, last: int | None, backfill: bool, as_json: bool, selected: Selection
) -> None:
    """Show the drift of PIPELINE's features, scores and decisions, in PARTITION or in the newest one.

    Each column of the live partitions is compared with training, and with the partitions before.
    """
    key = selected.one
    if key is not None and last is not None:
        raise click.UsageError("A partition and --last cannot be combined.")
    from pip_dagster.flow.engine import available_threads
    from pip_dagster.flow.model import ScoringModel
    from pip_dagster.monitoring.backfill import profile_stored
    from pip_dagster.monitoring.drift import drift_of
    from pip_dagster.monitoring.judged import judge_all_drift
    from pip_dagster.monitoring.series import read_series
    from pip_dagster.warehouse.connect import workspace

    declared = find_pipeline(project, pipeline)
    rules = declared.spec.monitoring or Monitoring()
    threads = available_threads()
    model = ScoringModel.resolve(declared, threads)
    with workspace(threads=threads) as con:
        if backfill:
            done = profile_stored(con, declared, model, progress=progress)
            progress(f"{pipeline}: {plural(len(done), 'partition')} profiled.")
            judged = judge_all_drift(con, declared, model.version, again=done if rules.segments else ())
            progress(f"{pipeline}: the drift of {plural(judged, 'partition')} judged.")
        series = read_series(con, declared, model.version, last=last or (None if key else 1), first=key, until=key)
    if not series.partitions:
        how = "" if declared.spec.monitoring else "Declare `monitoring: {}` in its defs.yaml, so that each run does. "
        raise DeclarationError(
            f"Pipeline {pipeline}: no live partition is profiled on the bins of v{model.version.version}. {how}"
            f"`pip-dagster monitor {pipeline} --backfill` profiles what is stored."
        )
    places = series.positions if last is not None else [_position(series.partitions, key, pipeline)]
    found = drift_of(series, places, rules)
    if as_json:
        show_json([each.as_dict() for each in found])
    elif last is not None:
        _show_partitions(pipeline, found)
    else:
        _show_columns(pipeline, found[0], rules)


def _position(partitions: Sequence[str], key: str | None, pipeline: str) -> int:
    if key is None:
        return len(partitions) - 1
    if key not in partitions:
        raise DeclarationError(
            f"Pipeline {pipeline}: partition {key!r} is not profiled; there are {plural(len(partitions), 'partition')} "
            f"from {partitions[0]} to {partitions[-1]}. `pip-dagster monitor {pipeline} --backfill` profiles others."
        )
    return partitions.index(key)


def _show_columns(pipeline: str, found: PartitionDrift, rules: Monitoring) -> None:
    lengths = sorted({window.partitions for each in found.columns for window in each.windows})
    psi = [Heading(f"PSI {length}", optional=length < lengths[-1]) for length in lengths]
    columns = ["column", Heading("gain", optional=True), "state", *psi, "p", Heading("largest change", below=True)]
    rows = []
    for each in found.columns:
        excess = {window.partitions: window.excess for window in each.windows if window.reference == "training"}
        figures = [excess.get(length) for length in lengths]
        rows.append([each.title, each.gain, each.state, *figures, each.p, each.changed])
    show_table(
        f"{pipeline}, partition {found.partition_key}: {plural(found.rows, 'row')} against training", columns, rows
    )
    echo(_verdict(found, rules))


def _show_partitions(pipeline: str, found: Sequence[PartitionDrift]) -> None:
    rows: list[list[Any]] = []
    for each in found:
        drifted = [column.title for column in each.columns if column.state == "drifted"]
        alarms = [f"{column.title}: {column.changed}" for column in each.alarms]
        rows.append([each.partition_key, each.rows, _listed(alarms, "; "), _listed(drifted, ", ")])
    show_table(
        f"{pipeline}: drift",
        ["partition", "rows", Heading("in alarm", below=True), Heading("drifted from training", below=True)],
        rows,
    )


def _listed(names: Sequence[str], between: str) -> str:
    """The first of them, and how many more: a line of a log is read as well as a terminal."""
    more = len(names) - _NAMED
    return between.join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")


def _verdict(found: PartitionDrift, rules: Monitoring) -> str:
    by_chance = f" A partition without drift has an alarm with a probability of about {rules.false_alarms:.1%}."
    return found.text + (by_chance if found.is_judged else "")
