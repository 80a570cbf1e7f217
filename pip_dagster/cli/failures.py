"""How a command ends that could not do its work: a sentence on stderr and, with `--json`, an object on stdout."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import NoReturn

import click

from pip_dagster.cli.output import echo, show_json


class Unanswered(click.ClickException):
    """The question cannot be answered, such as by a replay whose model is gone: neither yes nor no."""

    exit_code = 2


def end(text: str, code: int, *, error: str | None = None, answered: bool = False) -> NoReturn:
    """End with a message for people, and for machines `{"error": …, "exit_code": …}`.

    Args:
        text: for people.
        code: the exit code.
        error: the message alone, where `text` has more.
        answered: the command has printed an object, which names the error.
    """
    if wants_json(sys.argv[1:]) and not answered:
        show_json({"error": error or text.removeprefix("Error: "), "exit_code": code})
        sys.stdout.flush()
    echo(text, err=True)
    sys.exit(code)


def wants_json(words: Sequence[str]) -> bool:
    """Whether a command line has `--json`; by its words, since to parse it may be what fails."""
    return "--json" in (words[: words.index("--")] if "--" in words else words)
