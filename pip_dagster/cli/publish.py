"""`pip-dagster publish`: write the published files anew from the warehouse."""

from __future__ import annotations

import click

from pip_dagster.declaration.project import Project


@click.command()
@click.pass_obj
def publish(project: Project) -> None:
    """Write every published file anew: after one was damaged or removed. Runs on a file wait until it is done."""
    if not project.publishes:
        raise click.ClickException(
            "This project publishes nothing, everybody reads its lake: name a folder as `published` in pyproject.toml."
        )
    from pip_dagster.warehouse.connect import open_warehouse, workspace
    from pip_dagster.warehouse.published import publish_pending

    with workspace(threads=2) as con, open_warehouse(con, project.warehouse, purpose="publishing anew"):
        count = publish_pending(con, project, everything=True)
    click.echo(f"{count} partitions are published in {project.published}.")
