"""What a process loads before it has anything to do: every run, tick and status command pays for it."""

import os
import subprocess
import sys

import pytest

from pip_dagster.cli.main import _COMMANDS

HEAVY = ("great_expectations", "xgboost", "pandas", "mlflow", "pyarrow", "sklearn", "scipy", "ray")


def loaded(code, *, cwd=None, **environment):
    """Names of the modules that are loaded after `code`, by a process of its own."""
    ended = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys; print('\\n'.join(sys.modules))"],
        env=os.environ | environment,
        cwd=cwd,
        capture_output=True,
        text=True,
        check=True,
    )
    return set(ended.stdout.splitlines())


def heavy(modules):
    return {name for name in HEAVY if name in modules}


def command(*words):
    """Code that runs a command, which succeeds."""
    return (
        "from click.testing import CliRunner; from pip_dagster.cli.main import cli\n"
        f"result = CliRunner().invoke(cli, {words!r}); assert result.exit_code == 0, result.output"
    )


@pytest.mark.parametrize("words", [("status", "orders"), ("audit", "log", "orders")])
def test_what_is_stored_is_shown_without_dagster_or_a_library_that_scores(scored, words):
    modules = loaded(command(*words), PIP_DAGSTER_PROJECT=str(scored.root))
    assert heavy(modules) == set(), "does a statement bind a parameter? DuckDB 1.5 then imports pandas"
    assert "dagster" not in modules and "duckdb" in modules
    assert len(modules) < 900, "about 600 today; a second of CPU is some 2,000"


def test_the_commands_are_listed_without_being_imported():
    modules = loaded(command("--help"))
    assert not {name for name in modules if name in {module for module, *_ in _COMMANDS.values()}}
    assert not heavy(modules) and "duckdb" not in modules and len(modules) < 600


def test_a_completed_command_is_imported_only_once_it_is_complete():
    """Each press of TAB is a process of its own."""
    code = "from click.shell_completion import ShellComplete; from pip_dagster.cli.main import cli\n"
    code += "found = ShellComplete(cli, {}, 'pip-dagster', '_X').get_completions([], 'mo')\n"
    code += "assert [(each.value, bool(each.help)) for each in found] == [('models', True), ('monitor', True)], found"
    assert not {name for name in loaded(code) if name in {module for module, *_ in _COMMANDS.values()}}


def test_the_probe_of_a_model_loads_xgboost_and_neither_pandas_nor_scikit_learn():
    """Every `models register` waits for it, and both are imported by XGBoost wherever they are installed."""
    modules = loaded(
        "import sys; from pip_dagster.registry.probe import _Without; sys.meta_path.insert(0, _Without())\n"
        "import pyarrow, xgboost"
    )
    assert "xgboost" in modules and not modules & {"pandas", "sklearn"}


def test_the_definitions_load_nothing_that_most_runs_do_not_need():
    """Every run's process and every tick's loads them."""
    modules = loaded("import pip_dagster.orchestration.definitions")
    assert "dagster" in modules and "pip_dagster.orchestration.purged" in modules
    others = ("erasure", "delivery", "openlineage", "ledger.plan", "flow.performance", "flow.distributed.tasks")
    others += ("alerts.notify", "alerts.retrain")
    assert not [name for name in modules if name.startswith(tuple(f"pip_dagster.{each}" for each in others))]
