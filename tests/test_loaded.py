"""What is loaded stays out of garbage collection, and what is not goes on being collected."""

import gc
import json
import subprocess
import sys
import textwrap

import pytest

from pip_dagster.loaded import loading

REPORT = """
import gc, json
seen = {id(each) for each in gc.get_objects()}  # without what was taken out
left = [name for name, module in sorted(sys.modules.items()) if id(vars(module)) in seen]
print(json.dumps({"left": left, "loaded": sorted(sys.modules), "enabled": gc.isenabled()}))
"""


def report(process: subprocess.Popen) -> dict:
    said, _ = process.communicate()
    assert process.returncode == 0, said
    return json.loads(said.splitlines()[-1])


def left_of(found: dict, *packages: str) -> set[str]:
    return {name for name in found["left"] if name.split(".")[0] in packages}


@pytest.mark.slice
def test_definitions_load_without_collecting_dagster():
    code = "import sys\nimport pip_dagster.components\n" + REPORT
    found = report(subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True))
    assert "dagster" in found["loaded"] and "pip_dagster.orchestration.assets" in found["loaded"]
    assert left_of(found, "dagster", "pydantic") == set()
    assert found["enabled"]


@pytest.mark.slice
def test_a_run_leaves_the_libraries_that_it_loaded_out_of_collection(tiny):
    code = """
        import sys
        from pathlib import Path
        from pip_dagster.declaration.find import find_pipeline
        from pip_dagster.flow.materialize import materialize
        from pip_dagster.ledger.record import RunInfo
        from pip_dagster.orchestration.partitions import partitions_definition, partitions_of
        from pip_dagster.declaration.project import Project

        pipeline = find_pipeline(Project.at(Path.cwd()), "orders")
        day = partitions_of(partitions_definition(pipeline.spec.partitions), ["2024-03-01"])
        [result] = materialize(pipeline, day, RunInfo("r", "test"))
        assert result.scoring and not result.error, result.error
    """
    found = report(tiny.python(textwrap.dedent(code) + REPORT))
    libraries = ("pandas", "numpy", "pyarrow", "xgboost", "scipy", "duckdb")
    assert {"pandas", "xgboost", "pyarrow"} <= set(found["loaded"])
    # What a library puts off until it is asked for is little.
    assert len(left_of(found, *libraries)) < 20 and not {"pandas", "xgboost", "numpy"} & set(found["left"])
    assert found["enabled"]


def test_loading_happens_once_for_each_name(fresh):
    before = gc.get_freeze_count()
    with loading(fresh):
        assert not gc.isenabled()
        kept = [[i] for i in range(1000)]
    assert gc.isenabled()
    once = gc.get_freeze_count()
    assert once >= before + 1000
    with loading(fresh):
        assert gc.isenabled()
        kept += [[i] for i in range(1000)]
    assert gc.get_freeze_count() <= once


def test_what_cannot_be_imported_ends_as_it_would_and_is_tried_again(fresh):
    before = gc.get_freeze_count()
    for _ in range(2):
        with pytest.raises(ModuleNotFoundError), loading(fresh):
            assert not gc.isenabled()
            import no_such_library  # noqa: F401
        assert gc.isenabled()
    assert gc.get_freeze_count() <= before


def test_a_process_that_does_without_collection_goes_on_without_it(fresh):
    gc.disable()
    try:
        with loading(fresh):
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


@pytest.fixture
def fresh(request, monkeypatch):
    """A name that was never loaded; what a test froze is thawed, since this process runs others."""
    monkeypatch.setattr("pip_dagster.loaded._loaded", set())
    yield request.node.name
    gc.unfreeze()
