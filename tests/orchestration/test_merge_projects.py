"""Two projects in one code location: two warehouses, two registries, one set of definitions."""

import os
import shutil
import subprocess
import sys
import warnings

import dagster as dg
import pytest
from dagster._core.definitions.definitions_load_context import DefinitionsLoadContext, DefinitionsLoadType

from pip_dagster.components import load_project, merge_projects
from pip_dagster.errors import DeclarationError

FIRST = "2024-03-01"


@pytest.fixture
def both(tiny, helpers, monkeypatch):
    """The project `acme` with the pipeline `orders`, and a copy of it, `beta`, which tests change."""
    copy = tiny.root.parent / "beta"
    shutil.copytree(tiny.root, copy)
    (copy / "acme").rename(copy / "beta")
    text = (copy / "pyproject.toml").read_text().replace("acme", "beta")
    (copy / "pyproject.toml").write_text(text)
    for root in (tiny.root, copy):
        monkeypatch.syspath_prepend(str(root))
    yield tiny, helpers.Tiny(copy)
    for name in [name for name in sys.modules if name.split(".")[0] in ("acme", "beta")]:
        del sys.modules[name]


def rename(beta, name):
    file = beta.root / "beta" / "defs" / "orders" / "defs.yaml"
    file.write_text(file.read_text().replace("name: orders", f"name: {name}"))


def load(*projects):
    packages = zip(projects, ("acme", "beta"), strict=True)
    return merge_projects(
        *(dg.load_from_defs_folder(path_within_project=each.root / name) for each, name in packages),
        dg.Definitions(executor=dg.in_process_executor),
    )


def test_each_pipeline_keeps_its_own_project(both):
    acme, beta = both
    rename(beta, "returns")
    beta.source("UPDATE raw.orders SET amount = 7")
    definitions = load(acme, beta)
    dg.Definitions.validate_loadable(definitions)
    repository = definitions.get_repository_def()
    assert {"orders_job", "returns_job"} <= {job.name for job in repository.get_all_jobs()}
    assert {each.name for each in repository.schedule_defs} == {"orders_schedule", "returns_schedule"}
    for name in ("orders", "returns"):
        run = repository.get_job(f"{name}_job").execute_in_process(
            instance=dg.DagsterInstance.ephemeral(), partition_key=FIRST
        )
        assert run.success
    for project, own in ((acme, "orders"), (beta, "returns")):
        assert project.warehouse("SELECT DISTINCT pipeline FROM ledger.scorings") == [(own,)]
    assert set(beta.warehouse("SELECT amount FROM returns.features")) == {(7.0,)}
    assert len(set(acme.warehouse("SELECT amount FROM orders.features"))) > 1


def test_the_same_pipeline_name_in_both_is_one_sentence(both):
    acme, beta = both
    with pytest.raises(DeclarationError) as caught:
        load(acme, beta)
    assert f"{acme.root} and {beta.root} both define the asset orders/" in str(caught.value)
    assert "Rename the pipeline" in str(caught.value) and "\n" not in str(caught.value)


def test_one_warehouse_for_both_is_refused(both, monkeypatch):
    acme, beta = both
    rename(beta, "returns")
    monkeypatch.setenv("PIP_DAGSTER_WAREHOUSE", str(acme.root / "one.duckdb"))
    with pytest.raises(DeclarationError, match="have one warehouse, .*one.duckdb.*unset PIP_DAGSTER_WAREHOUSE"):
        load(acme, beta)


@pytest.mark.parametrize("serves", [True, False])
def test_a_run_leaves_out_what_only_the_page_of_components_shows(tiny, monkeypatch, serves):
    monkeypatch.syspath_prepend(str(tiny.root))
    try:
        dagsters = dg.load_from_defs_folder(path_within_project=tiny.root / "acme")
        load_type = DefinitionsLoadType.INITIALIZATION if serves else DefinitionsLoadType.RECONSTRUCTION
        with DefinitionsLoadContext.scoped(DefinitionsLoadContext(load_type)), warnings.catch_warnings():
            warnings.simplefilter("error", dg.BetaWarning)  # Dagster's own suppresses them too
            ours = load_project(tiny.root / "acme")
    finally:
        for name in [name for name in sys.modules if name.split(".")[0] == "acme"]:
            del sys.modules[name]
    assert "plugin_component_types_json" in dagsters.metadata
    assert ("plugin_component_types_json" in ours.metadata) == serves
    names = [
        {*(each.name for each in found.get_repository_def().get_all_jobs()), *map(str, graph.get_all_asset_keys())}
        for found in (dagsters, ours)
        for graph in [found.get_repository_def().asset_graph]
    ]
    assert names[0] == names[1] and names[0]
    assert ours.component_tree.project_root == tiny.root


@pytest.mark.slice
def test_the_code_server_has_the_schemas_and_a_run_has_not(tiny):
    """A code server, which may load them once more for what it executes; and a run by `dagster asset materialize`."""
    file = tiny.root / "acme" / "definitions.py"
    text = file.read_text().replace("load_project(", "_noted(")
    file.write_text(
        text + "\n\ndef _noted(path):\n    found = load_project(path)\n"
        "    print('schemas' if 'plugin_component_types_json' in (found.metadata or {}) else 'none', flush=True)\n"
        "    return found\n"
    )
    home = tiny.root / "home"
    home.mkdir()
    environment = os.environ | {"PYTHONPATH": str(tiny.root), "DAGSTER_HOME": str(home)}
    one = ["asset", "materialize", "--select", "orders/features", "--partition", FIRST]
    for words, expected in ((["definitions", "validate"], "schemas"), (one, "none")):
        ended = subprocess.run(
            [sys.executable, "-m", "dagster", *words, "-m", "acme.definitions"],
            env=environment,
            cwd=tiny.root,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert ended.returncode == 0, ended.stdout
        found = [each for each in ended.stdout.split() if each in ("schemas", "none")]
        assert found[0] == expected, ended.stdout
