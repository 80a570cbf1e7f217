"""`pip-dagster publish`: rewrite the published files from the warehouse."""

from __future__ import annotations

import click

from pip_dagster.cli.options import json_option
from pip_dagster.cli.output import echo, show_json
from pip_dagster.declaration.project import Project
from pip_dagster.plural import plural


@click.command()
@json_option
@click.pass_obj
def publish(project: Project, as_json: bool) -> None:
    """Rewrite every published file, after one was damaged or removed. Runs on a warehouse file wait until then."""
    if not project.publishes:
        raise click.ClickException(
            "This project publishes nothing: everybody reads its lake. To publish files, set `published` to a folder "
            "in pyproject.toml, [tool.pip_dagster]."
        )
    from pip_dagster.warehouse.access import writing
    from pip_dagster.warehouse.connect import workspace
    from pip_dagster.warehouse.pending import pending_publications
    from pip_dagster.warehouse.published import publish_pending

    with workspace(threads=2) as con, writing(con, project, purpose="publishing all files", publish=False):
        count = publish_pending(con, project, everything=True)
        left = len(pending_publications(con, project))
    if as_json and not left:
        show_json({"published": str(project.published), "partitions": count, "pending": left})
    elif not as_json:
        echo(f"{project.published}: {plural(count, 'partition')} published.")
    if left:
        raise click.ClickException(f"{plural(left, 'partition')} could not be published and stay pending; see above.")
