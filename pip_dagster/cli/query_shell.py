"""The shell of `pip-dagster query`: statements end with a semicolon, and an error does not end the shell."""

from __future__ import annotations

import os
import sqlite3
from contextlib import suppress
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType

import click

from pip_dagster.cli.output import echo
from pip_dagster.cli.query_output import FORMATS, show_rows
from pip_dagster.cli.query_run import run_query
from pip_dagster.cli.unforeseen import debugging, sentence
from pip_dagster.declaration.project import Project
from pip_dagster.errors import PipelineError
from pip_dagster.sql.names import literal

_PROMPT, _MORE = "pip-dagster> ", "        ...> "
_HELP = """A statement is a SELECT that ends with a semicolon. Commands:
  .tables           the tables and views
  .schema NAME      the columns of one
  .format FORMAT    how rows are shown: {formats}
  .help             this list
  .quit             leave; so does Ctrl-D"""
_TABLES = """
SELECT table_schema || '.' || table_name AS name FROM information_schema.tables
WHERE table_catalog = current_database() ORDER BY 1
"""
_COLUMNS = """
SELECT column_name AS column, data_type AS type FROM information_schema.columns
WHERE table_schema || '.' || table_name = {name} AND table_catalog = current_database() ORDER BY ordinal_position
"""


class QueryShell:
    """Reads statements until the end of the input; each sees what is published when it runs."""

    def __init__(self, project: Project) -> None:
        self.project = project
        self.form = "table"

    def run(self) -> None:
        """Read, run and print, until the user leaves."""
        readline = _readline()
        echo(".help lists the commands; a statement ends with a semicolon.")
        text = ""
        while True:
            try:
                line = input(_MORE if text else _PROMPT)
                words = _command_words(line) if not text else []
                if words:
                    if not self._command(words):
                        break
                    continue
                text = f"{text}\n{line}" if text else line
                if not text.strip():
                    text = ""
                elif sqlite3.complete_statement(text):
                    statement, text = text, ""
                    self._attempt(statement)
            except EOFError:
                echo("")
                break
            except KeyboardInterrupt:  # the statement so far
                text = ""
                echo("")
        _remember(readline)

    def _command(self, words: list[str]) -> bool:
        """Run a command; whether the shell goes on."""
        match words:
            case [".quit" | ".exit"]:
                return False
            case [".help"]:
                echo(_HELP.format(formats=", ".join(form for form in FORMATS if form != "parquet")))
            case [".tables"]:
                self._attempt(_TABLES)
            case [".schema", name]:
                self._schema(name)
            case [".format", form] if form in FORMATS and form != "parquet":
                self.form = form
            case [".format", *_]:
                echo(f"Expected one of {', '.join(form for form in FORMATS if form != 'parquet')}.")
            case [".schema", *_]:
                echo("Expected .schema NAME, such as .schema ledger.partitions.")
            case _:
                echo(f"There is no command {words[0]}: .help lists them.")
        return True

    def _schema(self, name: str) -> None:
        try:
            with run_query(self.project, _TABLES) as result:
                known = [row[0] for row in result.fetchall()]
        except (click.ClickException, PipelineError) as error:
            echo(f"Error: {error}")
            return
        name = name.rstrip(";")
        if name not in known:
            near = get_close_matches(name, known, 3)
            echo(f"There is no table {name}." + (f" Did you mean {', '.join(near)}?" if near else " See .tables."))
        else:
            self._attempt(_COLUMNS.format(name=literal(name)))

    def _attempt(self, sql: str) -> None:
        """Run a statement and show its rows, or why it cannot be."""
        try:
            with run_query(self.project, sql) as result:
                show_rows(result, self.form)
        except click.ClickException as error:
            echo(f"Error: {error.format_message()}")
        except PipelineError as error:
            echo(f"Error: {error}")
        except Exception as error:
            if debugging():
                raise
            cancelled = "Query interrupted" in str(error)
            echo("Cancelled." if cancelled else f"Error: {sentence(error)}")


def _command_words(line: str) -> list[str]:
    """The words of a command; none for SQL. `exit`, `quit` and `help` need no dot: other shells know them."""
    words = line.split()
    if words and words[0].startswith("."):
        return words
    bare = line.strip().rstrip(";").lower()
    return [f".{bare}"] if bare in ("exit", "quit", "help") else []


def _history() -> Path:
    state = os.environ.get("XDG_STATE_HOME")
    return (Path(state) if state else Path.home() / ".local" / "state") / "pip_dagster" / "query_history"


def _readline() -> ModuleType | None:
    """Line editing and the history of earlier shells, where Python has them."""
    try:
        import readline
    except ImportError:
        return None
    with suppress(OSError):
        readline.read_history_file(_history())
    return readline


def _remember(readline: ModuleType | None) -> None:
    """Keep the history, readable by its user alone: statements may hold values of people."""
    if readline is None:
        return
    with suppress(OSError):
        path = _history()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)
        readline.set_history_length(1000)
        readline.write_history_file(path)
