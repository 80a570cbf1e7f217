"""Groups of commands: their help is not cut, names are suggested, and examples are in one place."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any

import click
from click.shell_completion import CompletionItem

_PROGRAM = "PIP_DAGSTER"  # as click names it in the variable with which a shell requests a completion

# Section → its commands, in the order of the help.
SECTIONS = {
    "Start": ("init", "demo", "check", "doctor", "ui"),
    "Run": ("run", "backfill", "plan", "publish", "deliver"),
    "Inspect": (
        "status",
        "lineage",
        "query",
        "export",
        "features",
        "report",
        "scorecard",
        "replay",
        "subject",
        "certificate",
        "prove-point-in-time",
    ),
    "Models": ("models", "monitor", "performance", "estimate"),
    "Operate": ("alarms", "audit", "metrics", "maintain", "erase", "purge", "hold"),
}
# Command → lines of its help.
EXAMPLES = {
    "audit log": ("audit log --last 20", "audit log --json"),
    "audit verify": ("audit verify",),
    "backfill": (
        "backfill flight_delay --from 2013-09-01 --to 2013-09-30",
        "backfill flight_delay --from 2013-09-01 --to 2013-09-30 --dry-run",
    ),
    "certificate": (
        "certificate 5f2c81 -o erasure.html",
        "certificate --verify erasure.json --signer anchor.pub.pem",
    ),
    "deliver": ("deliver flight_delay", "deliver flight_delay 2013-08-01 --target lake"),
    "erase": ("erase --subject C-1042 --why 'request 17' --dry-run", "erase --subject - --why 'request 17'"),
    "estimate": ("estimate flight_delay --last 7",),
    "hold place": ("hold place --subject C-1042 --why 'claim 8' --until 2027-12-31",),
    "lineage export": (
        "lineage export flight_delay 2013-08-01..2013-08-07 -o lineage.ndjson",
        "lineage export --url https://marquez.example",
    ),
    "lineage show": (
        "lineage show flight_delay 2013-08-01",
        "lineage show flight_delay 2013-08-01 --as-of 2013-08-02T06:00:00+00:00",
        "lineage show flight_delay --key B6-105-JFK-20130831",
    ),
    "models gate": ("models gate flight_delay v2",),
    "models list": ("models list", "models list flight_delay"),
    "models promote": ("models promote flight_delay v2 --why 'better in July'",),
    "models show": ("models show flight_delay", "models show flight_delay v1 --json"),
    "monitor": ("monitor flight_delay", "monitor flight_delay --last 7"),
    "performance": ("performance flight_delay", "performance flight_delay --last 7"),
    "plan": ("plan flight_delay", "plan flight_delay --from 2013-08-01 --to 2013-08-31"),
    "purge": ("purge --dry-run", "purge flight_delay"),
    "query": (
        'query "SELECT * FROM flight_delay.predictions LIMIT 5"',
        "query -f top.sql -o top.parquet",
        "query    (a shell, on a terminal)",
    ),
    "replay": ("replay flight_delay 2013-08-01",),
    "report": ("report flight_delay",),
    "scorecard": (
        "scorecard flight_delay",
        "scorecard flight_delay --state tuned --why 'grid of 200' --key me.pem",
    ),
    "subject lookup": ("subject lookup C-1042", "subject lookup C-1042 --is PSEUDONYM"),
    "subject report": ("subject report C-1042 flight_delay --column tail -o person.html",),
    "status": ("status", "status flight_delay --last 7", "status flight_delay --why"),
}


class Commands(click.Group):
    """A group whose commands have examples, and which suggests names."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command that the first argument names, or an error that suggests names."""
        name, known = args[0], self.list_commands(ctx)
        if name not in known and not name.startswith("-"):
            near = get_close_matches(name, known, 3)
            hint = f"Did you mean {' or '.join(near)}?" if near else f"Expected one of {', '.join(known)}."
            ctx.fail(f"There is no command {name!r}. {hint}")
        return super().resolve_command(ctx, args)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """A command, with its examples."""
        command = super().get_command(ctx, cmd_name)
        return command and dressed(command, ctx, cmd_name)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Each command with its whole short help, in sections if the group has some."""
        shown = self.listed(ctx)
        width = max(map(len, shown), default=0)
        for section, names in self.sections(shown).items():
            rows = [(name.ljust(width), shown[name]) for name in names]
            if rows:
                with formatter.section(section):
                    formatter.write_dl(rows)

    def listed(self, ctx: click.Context) -> Mapping[str, str]:
        """Command → its short help."""
        commands = {name: self.get_command(ctx, name) for name in self.list_commands(ctx)}
        return {name: each.get_short_help_str(500) for name, each in commands.items() if each and not each.hidden}

    def sections(self, shown: Mapping[str, Any]) -> Mapping[str, Sequence[str]]:
        """Heading → the commands below it."""
        return {"Commands": [*shown]}


class WithDefault(Commands):
    """A group that runs its command `show` where the first word is none of its commands."""

    default = "show"

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the arguments as the default command's, unless they begin with a command or ask for help."""
        if args and args[0] not in (*self.list_commands(ctx), *ctx.help_option_names):
            args = [self.default, *args]
        return super().parse_args(ctx, args)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """The commands, and what the first argument of the default command may be."""
        command = self.get_command(ctx, self.default)
        first = command.params[0].shell_complete(ctx, incomplete) if command else []
        return [*first, *super().shell_complete(ctx, incomplete)]


def in_sections(shown: Mapping[str, Any]) -> Mapping[str, Sequence[str]]:
    """The commands of `pip-dagster` in their sections; one without a section comes last."""
    found = {section: [name for name in names if name in shown] for section, names in SECTIONS.items()}
    others = [name for name in shown if not any(name in names for names in SECTIONS.values())]
    return found | {"Other": others}


def dressed(command: click.Command, ctx: click.Context, name: str) -> click.Command:
    """The command, with the examples of its full name at the end of its help, and with its arguments completed."""
    group = ctx.command_path.split()[1:]
    if f"_{_PROGRAM}_COMPLETE" in os.environ:
        from pip_dagster.cli.complete import with_completion

        with_completion(command, " ".join(group))
    path = " ".join([*group, name])
    if path in EXAMPLES:
        command.epilog = "\b\nExamples:\n" + "\n".join(f"  pip-dagster {line}" for line in EXAMPLES[path])
    return command


class Choice(click.Choice[str]):
    """One of some words; a word that is nearly one of them is answered with it."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The word, or an error that suggests one."""
        try:
            return super().convert(value, param, ctx)
        except click.BadParameter as error:
            near = get_close_matches(str(value), [*map(str, self.choices)], 1)
            if not near:
                raise
            text = f"{error.message.rstrip('.')}. Did you mean {near[0]}?"
            raise click.BadParameter(text, ctx, param) from None
