"""`pip-dagster`: production, lineage and the registry, from a shell."""

from __future__ import annotations

import importlib
import io
import logging
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

import click
from click.shell_completion import CompletionItem

from pip_dagster import __version__
from pip_dagster.cli import interrupted
from pip_dagster.cli.cancelled import CANCELLED, TEXT
from pip_dagster.cli.failures import end
from pip_dagster.cli.group import Commands, dressed, in_sections
from pip_dagster.cli.output import progress
from pip_dagster.cli.unforeseen import debugging, sentence
from pip_dagster.declaration.project import Project
from pip_dagster.errors import PipelineError
from pip_dagster.printable import printable
from pip_dagster.warehouse import lock

# Each is imported only when it is run: a status command must not pay for the registry's imports. The short help fits a
# line of 80 columns; `cli/group.py` has the section of each.
_COMMANDS = {
    "alarms": ("pip_dagster.cli.alarms", "alarms", "What is in alarm, since when, and what to do."),
    "backfill": ("pip_dagster.cli.backfill", "backfill", "Build the past partitions of a pipeline, resumably."),
    "audit": ("pip_dagster.cli.audit", "audit", "Who made which scoring live, promoted or rolled back."),
    "check": ("pip_dagster.cli.check", "check", "What is wrong with a pipeline, before it runs."),
    "deliver": ("pip_dagster.cli.deliver", "deliver", "Deliver what is live to the declared targets."),
    "demo": ("pip_dagster.cli.demo", "demo", "Score real flights with two models, to try it out."),
    "doctor": ("pip_dagster.cli.doctor", "doctor", "Whether this machine and project can run."),
    "erase": ("pip_dagster.cli.erase", "erase", "Erase the rows of one person, everywhere."),
    "estimate": ("pip_dagster.cli.estimate", "estimate", "Performance expected before labels arrive."),
    "export": ("pip_dagster.cli.export", "export", "Write published rows as Parquet files."),
    "features": ("pip_dagster.cli.features", "features", "Write features and training sets as Parquet files."),
    "certificate": ("pip_dagster.cli.certificate", "certificate", "What an erasure removed, signed."),
    "hold": ("pip_dagster.cli.hold", "hold", "Legal holds on a person's rows."),
    "init": ("pip_dagster.cli.init", "init", "Write a new project, from a table of yours."),
    "lineage": ("pip_dagster.cli.lineage", "lineage", "What produced a partition, or every score of a key."),
    "maintain": ("pip_dagster.cli.maintain", "maintain", "Merge a lake's small files and expire old snapshots."),
    "metrics": ("pip_dagster.cli.metrics", "metrics", "Operational figures for Prometheus."),
    "models": ("pip_dagster.cli.models", "models", "Register, list, compare, promote and roll back models."),
    "monitor": ("pip_dagster.cli.monitor", "monitor", "How far features and scores have drifted."),
    "performance": ("pip_dagster.cli.performance", "performance", "How good scores were, by late labels."),
    "plan": ("pip_dagster.cli.plan", "plan", "The stale partitions of a pipeline with their reasons."),
    "prove-point-in-time": (
        "pip_dagster.cli.point_in_time",
        "prove_point_in_time",
        "Find features that use later rows.",
    ),
    "publish": ("pip_dagster.cli.publish", "publish", "Rewrite every published file."),
    "purge": ("pip_dagster.cli.purge", "purge", "Remove contents that are past their clock."),
    "query": ("pip_dagster.cli.query", "query", "Run a SELECT on the published database."),
    "report": ("pip_dagster.cli.report", "report", "A page on how a pipeline is doing."),
    "replay": ("pip_dagster.cli.replay", "replay", "Score recorded features again and compare to the bit."),
    "run": ("pip_dagster.cli.run", "run", "Score what is stale, or the partitions that you name."),
    "scorecard": ("pip_dagster.cli.scorecard", "scorecard", "The ML Test Score, from evidence that expires."),
    "subject": ("pip_dagster.cli.subject", "subject", "What was predicted about one person."),
    "ui": ("pip_dagster.cli.ui", "ui", "Open Dagster with the pipelines loaded."),
    "status": ("pip_dagster.cli.status", "status", "All pipelines, or the newest partitions of one."),
}


# They are given the folder of --project, if any.
_WITHOUT_PROJECT = ("certificate", "demo", "doctor", "init", "ui")


class _Lazy(Commands):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module, name, command_help = _COMMANDS[cmd_name]
        with interrupted.nothing_begun():
            command = getattr(importlib.import_module(module), name)
        assert isinstance(command, click.Command)
        command.short_help = command_help
        return dressed(command, ctx, cmd_name)

    def listed(self, ctx: click.Context) -> Mapping[str, str]:
        """From the list alone: to import all commands for `--help`, or a press of TAB, takes half a second."""
        return {name: _COMMANDS[name][2] for name in self.list_commands(ctx)}

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        found = [CompletionItem(name, help=of) for name, of in self.listed(ctx).items() if name.startswith(incomplete)]
        return [*found, *click.Command.shell_complete(self, ctx, incomplete)]

    def sections(self, shown: Mapping[str, Any]) -> Mapping[str, Sequence[str]]:
        return in_sections(shown)


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
    ctx.with_resource(lock.waits_said(progress))
    if ctx.invoked_subcommand in _WITHOUT_PROJECT:
        ctx.obj = project
    else:
        ctx.obj = Project.named(project) if project else Project.find()


def main() -> None:
    """Run the command line. An error is one message and exit code 1, not a traceback; Ctrl-C is exit code 130."""
    interrupted.watch()
    if "_PIP_DAGSTER_COMPLETE" in os.environ:
        from pip_dagster.cli.bash import complete_colons

        complete_colons()
    try:
        _prepare_streams()
        try:
            Path.cwd()
        except OSError:  # with which DuckDB ends the process
            end("Error: The working directory does not exist any more. Change to the project's folder.", 1)
        code = _run()
    except KeyboardInterrupt:  # a second one, while the first one's message was printed
        code = CANCELLED
    except BaseException:
        interrupted.leave()
        raise
    interrupted.leave()
    sys.exit(code)


def _run() -> int:
    """Run the command; its exit code."""
    try:
        code = cli(standalone_mode=False)
        sys.stdout.flush()  # a full disk, or a reader who has gone
    except Exception as error:
        interrupted.ignore()
        _end(error)
    except KeyboardInterrupt:
        interrupted.ignore()
        end(TEXT, CANCELLED)
    return code if isinstance(code, int) else 0


def _end(error: Exception) -> NoReturn:
    """End with a message about the error."""
    if isinstance(error, click.ClickException):
        shown = io.StringIO()
        error.show(shown)
        end(shown.getvalue().rstrip(), error.exit_code, error=error.format_message())
    # Ctrl-C, as click, DuckDB and Arrow report it.
    if isinstance(error, click.Abort) or "Query interrupted" in str(error) or type(error).__name__ == "ArrowCancelled":
        end(TEXT, CANCELLED)
    if isinstance(error, BrokenPipeError):  # `| head` has read enough
        _discard_output()
        sys.exit(1)
    if isinstance(error, PipelineError):
        end(f"Error: {error}", 1, answered=error.answered)
    if debugging():
        raise error
    _discard_output()
    end(f"Error: {sentence(error)}", 1)


def _prepare_streams() -> None:
    """Have output that the terminal's encoding cannot hold as escapes, and closed streams read and write nothing."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, Path(os.devnull).open(mode, encoding="utf-8"))  # noqa: SIM115 - until the end
        elif mode == "w" and hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    if logging.lastResort:
        logging.lastResort.setFormatter(_Printable())


def _discard_output() -> None:
    """Write what is left in standard output's buffer to nowhere: Python would fail to write it at its end."""
    with suppress(OSError, ValueError):
        sys.stdout.flush()
        return
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class _Printable(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))


if __name__ == "__main__":
    main()
