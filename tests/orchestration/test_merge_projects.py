"""Two projects in one code location: two warehouses, two registries, one set of definitions."""

import shutil
import sys

import dagster as dg
import pytest

from pip_dagster.components import merge_projects
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
