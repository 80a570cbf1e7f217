"""What a shell completes, through the protocol that it speaks with the command."""

import os
import re
import resource
import shutil
import subprocess
import sys

import pytest

from pip_dagster.cli.main import cli


@pytest.fixture
def completed(monkeypatch, capsys):
    """What bash is offered for the last word."""

    def run(project, *words):
        monkeypatch.setenv("_PIP_DAGSTER_COMPLETE", "bash_complete")
        monkeypatch.setenv("COMP_WORDS", " ".join(["pip-dagster", *words]))
        monkeypatch.setenv("COMP_CWORD", str(len(words)))
        monkeypatch.chdir(project)
        with pytest.raises(SystemExit):
            cli(prog_name="pip-dagster")
        out, err = capsys.readouterr()
        assert err == ""
        return [line.removeprefix("plain,") for line in out.splitlines() if line.startswith("plain,")]

    return run


DAYS = ["2024-03-04", "2024-03-03", "2024-03-02", "2024-03-01"]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["status", ""], ["orders"]),
        (["status", "o"], ["orders"]),
        (["lineage", "orders", ""], DAYS),
        (["lineage", "orders", "2024-03-03"], DAYS[1:2]),
        (["lineage", "nothing", ""], []),
        (["plan", "orders", "--from", "2024"], DAYS),
        (["plan", "orders", "--to", "2024-03-02", "--from", ""], DAYS),
        (["models", "rollback", "orders", "2024-03-01..2024-03-0"], [f"{DAYS[3]}..{d}" for d in DAYS]),
        (["models", "show", ""], ["returns"]),
        (["models", "show", "returns", ""], ["v2", "v1", "champion"]),
        (["models", "gate", "orders", "v"], ["v2", "v1"]),
        (["models", "history", "returns", "--alias", ""], ["champion"]),
        (["query", "SELECT", "--format", "par"], ["parquet"]),
        (["statu"], ["status"]),
    ],
)
def test_names_of_the_project_are_completed(scored, completed, words, expected):
    assert completed(scored.root, *words) == expected


def test_without_a_project_or_with_damage_nothing_is_offered_and_nothing_is_said(scored, tmp_path, completed):
    empty = tmp_path / "empty"
    empty.mkdir()
    for words in (["status", ""], ["lineage", "orders", ""], ["models", "show", ""]):
        assert completed(empty, *words) == []
    assert completed(empty, "--project", str(scored.root), "status", "") == ["orders"]
    scored.project.published_database.write_bytes(b"damaged" * 1000)
    assert completed(scored.root, "lineage", "orders", "") == []
    next(scored.root.rglob("defs.yaml")).write_bytes(b"\xff\xfe: [")
    assert completed(scored.root, "status", "") == []


def test_a_locked_warehouse_is_not_in_the_way(scored, completed):
    import duckdb

    with duckdb.connect(str(scored.project.warehouse)):
        assert completed(scored.root, "lineage", "orders", "") == DAYS


def test_it_takes_less_than_half_a_cpu_second(scored):
    """In a process of its own, as a shell runs it."""
    environment = os.environ | {
        "_PIP_DAGSTER_COMPLETE": "bash_complete",
        "COMP_WORDS": "pip-dagster lineage orders ",
        "COMP_CWORD": "3",
    }
    code = "import sys; sys.argv = ['pip-dagster']; from pip_dagster.cli.main import main; main()"
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=scored.root, capture_output=True, text=True, check=False
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.stderr == "" and done.stdout.split() == [f"plain,{day}" for day in DAYS]
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    assert used < 1.0, "half a second on an idle machine, twice that beside other tests"


# As readline does: the line is divided at COMP_WORDBREAKS, of which the colon is one, and the function is called.
ASK = r"""
eval "$(_PIP_DAGSTER_COMPLETE=bash_source pip-dagster)"
compopt() { :; }
COMP_LINE=$1; COMP_POINT=${#1}; shift; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=()
_pip_dagster_completion pip-dagster
printf '%s\n' "${COMPREPLY[@]}"
"""


@pytest.mark.slice
@pytest.mark.skipif(not shutil.which("bash"), reason="needs bash")
def test_bash_completes_the_keys_of_hours_after_their_colon(scored, tmp_path):
    """The script that the command writes, run by bash; what it replies replaces what follows the last colon."""
    scored.tamper("UPDATE ledger.scorings SET partition_key = partition_key || '-02:00'")
    scored.tamper("UPDATE ledger.live_changes SET partition_key = partition_key || '-02:00'")
    scored.shell("publish")
    program = tmp_path / "pip-dagster"
    program.write_text(f"#!{sys.executable}\nfrom pip_dagster.cli.start import main\nmain()\n")
    program.chmod(0o755)
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}

    def replies(line):
        words = re.findall(r"[:=]|[^ :=]+", line) + ([""] if line[-1] in " :=" else [])
        command = ["bash", "--norc", "-c", ASK, "bash", line, *words]
        done = subprocess.run(command, cwd=scored.root, env=environment, capture_output=True, text=True, check=False)
        assert done.stderr == ""
        return done.stdout.split()

    assert replies("pip-dagster lineage orders 2024-03-03-02:") == ["00"]
    assert replies("pip-dagster plan orders --from=2024-03-03-02:0") == ["00"]
    assert replies("pip-dagster plan orders 2024-03-01-02:00..2024-03-04") == ["00..2024-03-04-02:00"]
    assert replies("pip-dagster lineage orders 2024-03-03") == ["2024-03-03-02:00"]
