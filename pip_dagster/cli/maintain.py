"""`pip-dagster maintain`: keep a lake small and fast."""

from __future__ import annotations

from dataclasses import asdict
from datetime import timedelta

import click

from pip_dagster.cli.options import json_option
from pip_dagster.cli.output import say, show_json
from pip_dagster.declaration.lake import Lake
from pip_dagster.declaration.project import Project
from pip_dagster.plural import plural


@click.command()
@click.option("--keep-days", default=7, show_default=True, type=click.IntRange(min=1), help="Age of kept snapshots.")
@json_option
@click.pass_obj
def maintain(project: Project, keep_days: int, as_json: bool) -> None:
    """Merge a lake's small files, expire old snapshots and remove unused files; no row changes.

    Runs may continue meanwhile. Once a day is often enough. A warehouse file needs no maintenance.
    """
    from pip_dagster.warehouse.access import writing
    from pip_dagster.warehouse.connect import workspace
    from pip_dagster.warehouse.maintain import maintain as maintain_lake

    if not isinstance(project.warehouse, Lake):
        raise click.ClickException(f"{project.warehouse} is a file, which needs no maintenance: this is for a lake.")
    with workspace(threads=2) as con, writing(con, project, purpose="maintaining"):
        done = maintain_lake(con, keep=timedelta(days=keep_days))
    if as_json:
        show_json(asdict(done))
        return
    say(
        f"{plural(done.merged_files, 'small file')} merged, {plural(done.flushed_rows, 'row')} moved from Postgres to "
        f"Parquet, {plural(done.expired_snapshots, 'snapshot')} expired, {plural(done.removed_files, 'file')} removed."
    )
