"""What a process loads before it has anything to do: every run, tick and status command pays for it."""

import os
import subprocess
import sys

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


def test_status_loads_neither_dagster_nor_a_library_that_scores(scored):
    code = "from click.testing import CliRunner; from pip_dagster.cli.main import cli\n"
    code += "result = CliRunner().invoke(cli, ['status', 'orders']); assert result.exit_code == 0, result.output"
    modules = loaded(code, PIP_DAGSTER_PROJECT=str(scored.root))
    assert heavy(modules) == set()
    assert "dagster" not in modules and "duckdb" in modules
    assert len(modules) < 900, "about 600 today; a second of CPU is some 2,000"


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
    others = ("pip_dagster.erasure", "pip_dagster.delivery", "pip_dagster.openlineage", "pip_dagster.ledger.plan")
    assert not [name for name in modules if name.startswith(others)]
