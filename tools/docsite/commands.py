"""The page of the commands, from click: usage, what it does, options and exit codes of each."""

from __future__ import annotations

import inspect
from collections.abc import Iterator

import click

from tools.docsite.markdown import cell, table

HEAD = """# Commands

For whoever types or scripts `pip-dagster`: every command with its options and exit codes, generated from the program.
`pip-dagster COMMAND --help` prints the same.

Where a command lists no exit codes of its own: 0 is success, 1 an error that the message explains, 2 a wrong option or
argument, 130 a command that Ctrl-C ended.
"""

Named = tuple[tuple[str, ...], click.Command]


def walk(command: click.Command, path: tuple[str, ...] = ("pip-dagster",)) -> Iterator[Named]:
    """Each command with its name, groups before what is in them."""
    yield path, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            child = command.get_command(context, name)
            if child is not None and not child.hidden:
                yield from walk(child, (*path, name))


def page() -> str:
    """The page."""
    from pip_dagster.cli.main import cli

    return HEAD + "".join(_section(path, command) for path, command in walk(cli))


def options(command: click.Command) -> list[click.Option]:
    """The options that a reader may use."""
    return [each for each in command.params if isinstance(each, click.Option) and not each.hidden]


def _section(path: tuple[str, ...], command: click.Command) -> str:
    context = click.Context(command, info_name=" ".join(path))
    usage = " ".join([" ".join(path), *command.collect_usage_pieces(context)])
    level, title = "#" * max(2, min(len(path), 3)), " ".join(path[1:]) or "pip-dagster"
    help_text = cell_text(command.help or "")
    parts = [f"\n{level} {title}\n\n```text\n{usage}\n```\n\n{help_text}\n"]
    if listed := options(command):
        parts.append("\n" + table(("option", "value", "meaning"), map(_row, listed)))
    if isinstance(command, click.Group):
        names = command.list_commands(context)
        linked = (f"[`{name}`](#{'-'.join([*path[1:], name])})" for name in names)
        parts.append(f"\nCommands: {', '.join(linked)}.\n")
    return "".join(parts)


def cell_text(text: str) -> str:
    """The help of a command, with its paragraphs, as Markdown."""
    return inspect.cleandoc(text.replace("\b", "")).replace("<", "&lt;")


def _row(option: click.Option) -> tuple[str, str, str]:
    names = ", ".join(f"`{each}`" for each in (*option.opts, *option.secondary_opts))
    return names, _value(option), cell(option.help or "") + _default(option)


def _value(option: click.Option) -> str:
    if option.is_flag:
        return "flag"
    if isinstance(option.type, click.Choice):
        return " or ".join(f"`{each}`" for each in option.type.choices)
    shown = f"`{cell(option.make_metavar(click.Context(click.Command('shown'))))}`"
    return f"{shown}, repeatable" if option.multiple else shown


def _default(option: click.Option) -> str:
    if option.required:
        return " Required."
    shown = option.show_default and option.default is not None and not callable(option.default)
    return f" Default: {cell(str(option.default))}." if shown else ""
