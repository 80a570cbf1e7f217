"""`pip-dagster features`: features and training sets as Parquet files."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pip_dagster.cli.group import Commands
from pip_dagster.cli.options import json_option
from pip_dagster.cli.output import echo, progress, show_json
from pip_dagster.cli.selection import Selection, partition_selection
from pip_dagster.declaration.find import find_pipeline
from pip_dagster.declaration.project import Project
from pip_dagster.plural import plural

if TYPE_CHECKING:
    from pip_dagster.flow.training_manifest import TrainingManifest

_NAMED = 10


@click.group(cls=Commands)
def features() -> None:
    """Features, as the pipeline's own SQL builds them, and training sets."""


@features.command()
@click.argument("pipeline")
@partition_selection("or a date; by default every one that is over")
@click.option("--labels", is_flag=True, help="With the declared label of each row: a training set.")
@click.option("--column", "columns", multiple=True, help="This feature only; repeatable. The key is always there.")
@click.option("--as-known", is_flag=True, help="From the source rows that were available when each partition closed.")
@click.option("--immature", is_flag=True, help="With --labels: partitions whose labels are not complete, too.")
@click.option("--labelled-only", is_flag=True, help="With --labels: leave out rows without a label.")
@click.option(
    "--prove",
    type=click.IntRange(min=0),
    help="In how many partitions to prove that features do not depend on later rows; 3 with --labels, else 0.",
)
@click.option(
    "-o", "--output", "path", type=click.Path(path_type=Path, dir_okay=False), required=True, help="A Parquet file."
)
@json_option
@click.pass_obj
def export(
    project: Project,
    pipeline: str,
    labels: bool,
    columns: tuple[str, ...],
    as_known: bool,
    immature: bool,
    labelled_only: bool,
    prove: int | None,
    path: Path,
    as_json: bool,
    selected: Selection,
) -> None:
    """Write features of PIPELINE to a Parquet file; with --labels, a training set.

    The rows are those that scoring would be given, by the SQL that scores, in the order of partition and key. What was
    left out is reported, and recorded in the file with what it was built from. The file appears when it is complete.
    """
    from pip_dagster.api.pipeline import PipelineHandle

    if (immature or labelled_only) and not labels:
        raise click.UsageError("--immature and --labelled-only are about labels; add --labels.")
    first, last = selected.bounds
    handle, chosen = PipelineHandle(find_pipeline(project, pipeline)), columns or None
    rows = handle.training_set(
        first,
        last,
        columns=chosen,
        progress=progress,
        labels=labels,
        as_known=as_known,
        mature_only=not immature,
        labelled_only=labelled_only,
        prove=prove if prove is not None else 3 * labels,
    )
    rows.write(path)
    found = rows.manifest
    if as_json:
        show_json({"path": str(path)} | asdict(found))
    else:
        _show(path, found)


def _show(path: Path, found: TrainingManifest) -> None:
    labelled = f", {found.labelled:,} with a label" if found.outcome else ""
    of = f"{plural(found.partitions, 'partition')} from {found.first} to {found.last}"
    echo(f"{path}: {plural(found.rows, 'row')}{labelled}, of {of}.")
    for text in found.left_out:
        echo(f"Left out: {text}.")
    for key, why in list(found.excluded.items())[:_NAMED]:
        echo(f"  {key}: {why}")
    if len(found.excluded) > _NAMED:
        echo(f"  and {len(found.excluded) - _NAMED:,} more; list them all with --json.")
    if found.provisional:
        echo(f"Sources of {plural(len(found.provisional), 'partition')} may still be incomplete.")
    echo(f"Point in time: {found.proof.text}.")
