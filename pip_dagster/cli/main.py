"""`pip-dagster`: production, lineage and the registry, from a shell."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import click

from pip_dagster import __version__
from pip_dagster.declaration.project import Project
from pip_dagster.errors import PipelineError

# Each is imported only when it is run: a status command must not pay for the registry's imports. The short help fits a
# line of 80 columns.
_COMMANDS = {
    "backfill": ("pip_dagster.cli.backfill", "backfill", "Build the past partitions of a pipeline, resumably."),
    "audit": ("pip_dagster.cli.audit", "audit", "Who made which scoring live, promoted or rolled back."),
    "demo": ("pip_dagster.cli.demo", "demo", "Score real flights with two models, to try it out."),
    "lineage": ("pip_dagster.cli.lineage", "lineage", "What produced a partition, or every score of a key."),
    "maintain": ("pip_dagster.cli.maintain", "maintain", "Merge a lake's small files and expire old snapshots."),
    "models": ("pip_dagster.cli.models", "models", "Register, list, compare, promote and roll back models."),
    "plan": ("pip_dagster.cli.plan", "plan", "The stale partitions of a pipeline with their reasons."),
    "prove-point-in-time": (
        "pip_dagster.cli.point_in_time",
        "prove_point_in_time",
        "Find features that use later rows.",
    ),
    "publish": ("pip_dagster.cli.publish", "publish", "Rewrite every published file."),
    "query": ("pip_dagster.cli.query", "query", "Run a SELECT on the published database."),
    "replay": ("pip_dagster.cli.replay", "replay", "Score recorded features again and compare to the bit."),
    "status": ("pip_dagster.cli.status", "status", "All pipelines, or the newest partitions of one."),
}


class _Lazy(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module, name, command_help = _COMMANDS[cmd_name]
        command = getattr(importlib.import_module(module), name)
        assert isinstance(command, click.Command)
        command.short_help = command_help
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
        from pip_dagster.cli.output import say

        say(f"Error: {error}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
