"""`pip-dagster maintain`: keep a lake small and quick."""

from __future__ import annotations

from dataclasses import asdict
from datetime import timedelta

import click

from pip_dagster.cli.output import show_json
from pip_dagster.declaration.lake import Lake
from pip_dagster.declaration.project import Project


@click.command()
@click.option("--keep-days", default=7, show_default=True, type=click.IntRange(min=1), help="Snapshots to keep.")
@click.option("--json", "as_json", is_flag=True, help="For machines.")
@click.pass_obj
def maintain(project: Project, keep_days: int, as_json: bool) -> None:
    """Put a lake's small files together, forget old snapshots, remove files that nobody needs; no row changes.

    Runs may go on meanwhile. Once a day is often enough. A warehouse file needs none.
    """
    from pip_dagster.warehouse.connect import open_warehouse, workspace
    from pip_dagster.warehouse.maintain import maintain as maintain_lake

    if not isinstance(project.warehouse, Lake):
        raise click.ClickException(f"{project.warehouse} is a file, which needs no maintenance: it is for a lake.")
    with workspace(threads=2) as con, open_warehouse(con, project.warehouse, purpose="maintaining"):
        done = maintain_lake(con, keep=timedelta(days=keep_days))
    if as_json:
        show_json(asdict(done))
        return
    click.echo(
        f"{done.merged_files:,} small files put together, {done.flushed_rows:,} rows moved from Postgres to Parquet, "
        f"{done.expired_snapshots:,} snapshots forgotten, {done.removed_files:,} files removed."
    )
