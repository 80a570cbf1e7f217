"""`pip-dagster`: production, lineage and the registry, from a shell."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import click

from pip_dagster import __version__
from pip_dagster.declaration.project import Project
from pip_dagster.errors import PipelineError

# Each is imported only when it is run: a status command must not pay for the registry's imports.
_COMMANDS = {
    "backfill": ("pip_dagster.cli.backfill", "backfill"),
    "audit": ("pip_dagster.cli.audit", "audit"),
    "demo": ("pip_dagster.cli.demo", "demo"),
    "lineage": ("pip_dagster.cli.lineage", "lineage"),
    "maintain": ("pip_dagster.cli.maintain", "maintain"),
    "models": ("pip_dagster.cli.models", "models"),
    "monitor": ("pip_dagster.cli.monitor", "monitor"),
    "plan": ("pip_dagster.cli.plan", "plan"),
    "prove-point-in-time": ("pip_dagster.cli.point_in_time", "prove_point_in_time"),
    "publish": ("pip_dagster.cli.publish", "publish"),
    "query": ("pip_dagster.cli.query", "query"),
    "replay": ("pip_dagster.cli.replay", "replay"),
    "status": ("pip_dagster.cli.status", "status"),
}


class _Lazy(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module, name = _COMMANDS[cmd_name]
        command = getattr(importlib.import_module(module), name)
        assert isinstance(command, click.Command)
        return command


@click.group(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--project",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="The project's folder; by default the one that contains the working directory.",
)
@click.version_option(__version__, prog_name="pip-dagster")
@click.pass_context
def cli(ctx: click.Context, project: Path | None) -> None:
    """Inference pipelines in production: runs, lineage, models, backfills and rollbacks."""
    ctx.obj = Project.at(project) if project else Project.find()


def main() -> None:
    """Run the command line; an error that the user can fix is one message and exit code 1, not a traceback."""
    try:
        cli()
    except PipelineError as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
