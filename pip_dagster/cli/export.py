"""`pip-dagster export`: what is published, as Parquet files for pandas, Polars and Spark."""

from __future__ import annotations

from pathlib import Path

import click

from pip_dagster.cli.options import json_option
from pip_dagster.cli.output import echo, show_json
from pip_dagster.cli.selection import Selection, partition_selection
from pip_dagster.declaration.project import Project
from pip_dagster.plural import plural


@click.command()
@click.argument("pipeline")
@partition_selection("to export; by default all", several=True, former_to=True)
@click.option("-o", "--output", type=click.Path(path_type=Path), help="A folder that does not exist yet.")
@json_option
@click.pass_obj
def export(
    project: Project, pipeline: str, output: Path | None, as_json: bool, selected: Selection, former_to: str | None
) -> None:
    """Write the published rows of PIPELINE to Parquet files in a new folder, one for each table, as of one moment.

    The folder appears when it is complete. Types that Parquet does not have, such as HUGEINT and INTERVAL, become text.
    Partitions whose contents were purged are named.
    """
    import duckdb

    from pip_dagster.cli.published import check_pipeline, named_keys, open_published, starts_of
    from pip_dagster.flow.engine import available_threads
    from pip_dagster.ledger.purged import purged_of
    from pip_dagster.warehouse.access import reading
    from pip_dagster.warehouse.connect import workspace
    from pip_dagster.warehouse.faults import remedy
    from pip_dagster.warehouse.published_export import of_files, of_lake, write

    folder = output or (Path(former_to) if former_to else None)
    if folder is None or (output and former_to):
        raise click.UsageError("Name the folder that is written, with -o FOLDER.")
    if folder.exists():
        raise click.ClickException(f"{folder} exists. Name a folder that does not: an export never changes one.")
    with open_published(project) as con:
        check_pipeline(con, pipeline)
        keys = named_keys(project, pipeline, selected, starts_of(con, pipeline)) if selected else None
        purged = purged_of(con, pipeline, keys)
    try:
        with workspace(threads=available_threads()) as con:
            if project.publishes:
                with of_files(con, project.published / pipeline) as tables:
                    found = write(con, tables, folder, keys)
            else:
                with reading(con, project, purpose="exporting"):
                    found = write(con, of_lake(con, pipeline), folder, keys)
    except (duckdb.Error, OSError) as error:
        text = f"{folder} cannot be written; nothing is left of it: {error}. {remedy(str(error))}"
        raise click.ClickException(text) from error
    if as_json:
        gone = [{"purge": each.purge_id, "at": each.at, "partitions": list(each.keys)} for each in purged]
        show_json({"folder": str(folder), "rows": found, "purged": gone})
        return
    listed = ", ".join(f"{name} ({plural(rows, 'row')})" for name, rows in found.items())
    echo(f"{folder}: {listed}.")
    for each in purged:
        echo(f"{each.text}.")
