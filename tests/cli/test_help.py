"""The help: in sections, never cut, with examples that parse; names that are nearly right are suggested."""

import shlex

import click
import pytest
from click.testing import CliRunner

from pip_dagster.cli.group import EXAMPLES, SECTIONS
from pip_dagster.cli.main import cli


def commands(group=cli, *path):
    """Every command with its full name."""
    with click.Context(group, info_name=path[-1] if path else "pip-dagster") as ctx:
        for name in group.list_commands(ctx):
            command = group.get_command(ctx, name)
            yield (*path, name), command
            if isinstance(command, click.Group):
                yield from commands(command, *path, name)


def helped(*path, columns=80):
    result = CliRunner().invoke(cli, [*path, "--help"], terminal_width=columns, prog_name="pip-dagster")
    assert result.exit_code == 0, result.output
    return result.output


def test_every_command_is_in_one_section():
    listed = [name for names in SECTIONS.values() for name in names]
    assert len(listed) == len({*listed})
    assert {path[0] for path, _ in commands()} <= {*listed}


@pytest.mark.parametrize("columns", [60, 80])
def test_no_help_is_cut_or_wider_than_the_terminal(columns):
    groups = [(), *(path for path, command in commands() if isinstance(command, click.Group))]
    assert ("models",) in groups
    for path in groups:
        text = helped(*path, columns=columns)
        assert "..." not in text.replace("COMMAND [ARGS]...", "") and max(map(len, text.splitlines())) <= columns
    sections = [line.rstrip(":") for line in helped().splitlines() if line.endswith(":") and line[0].isupper()]
    assert [name for name in sections if name in SECTIONS] == [*SECTIONS]


def test_examples_are_in_the_help_and_parse():
    known = {" ".join(path): command for path, command in commands()}
    for name, lines in EXAMPLES.items():
        text = helped(*name.split())
        for line in lines:
            assert f"  pip-dagster {line}\n" in text and len(line) < 78
            words = shlex.split(line.split("   (")[0])[len(name.split()) :]
            with known[name].make_context(name, words, resilient_parsing=False) as ctx:
                assert ctx.params


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (["statu"], "There is no command 'statu'. Did you mean status or estimate?"),
        (["models", "promot"], "There is no command 'promot'. Did you mean promote?"),
        (["audit", "xyz"], "There is no command 'xyz'. Expected one of accept, "),
        (["query", "SELECT 1", "--format", "parket"], "Did you mean parquet?"),
        (["status", "--jsn"], "Did you mean '--json'?"),
    ],
)
def test_what_is_nearly_right_is_suggested(words, answer, tiny):
    result = CliRunner().invoke(cli, ["--project", str(tiny.root), *words])
    assert result.exit_code == 2 and answer in result.output
