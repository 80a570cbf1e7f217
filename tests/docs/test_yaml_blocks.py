"""Every YAML block of the documents and every defs.yaml of the examples loads, and passes `dg check yaml`."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import dagster as dg
import jsonschema
import pytest
import yaml
from dagster_shared.yaml_utils import parse_yamls_with_source_position

from pip_dagster.declaration.find import find_declarations, find_pipeline
from pip_dagster.declaration.project import Project
from pip_dagster.declaration.spec import PipelineSpec
from pip_dagster.quality.suite_file import load_suites
from pip_dagster.registry import composition

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"^( *)```ya?ml\n(.*?)^ *```", re.MULTILINE | re.DOTALL)
DECLARED = [
    ROOT / "flights/defs/flight_delay",
    ROOT / "examples/bring_your_own/shop/defs/returns",
    ROOT / "examples/requests/desk/defs/risk",
]
HEAD = "type: pip_dagster.components.InferencePipeline\nattributes:\n"
# What a block of single keys is completed with.
REST = {
    "name": "name: orders",
    "partitions": "partitions: {start: 2024-01-01}",
    "source_database": "source_database: data/sources.duckdb",
    "sources": "sources: {orders: {table: raw.orders, partition_column: day}}",
    "features": "features: {sql: features.sql, key: [order_id], partition_column: day}",
    "scoring": "scoring: {model_name: returns}",
}


def blocks() -> dict[str, str]:
    """Document and line → the text of a YAML block."""
    found = {}
    for document in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))):
        text = document.read_text(encoding="utf-8")
        for match in BLOCK.finditer(text):
            found[f"{document.name}:{text[: match.start()].count(chr(10)) + 1}"] = match[2]
    return found


def kind(text: str) -> str:
    """What a block is about, by its keys."""
    keys = set(yaml.safe_load(text))
    if "type" in keys:
        return "whole"
    if keys <= {"sources", "features", "predictions"} and isinstance(yaml.safe_load(text).get("features"), list):
        return "expectations"
    if keys <= {"segments", "ensemble", "combine", "unmatched"}:
        return "composition"
    return "dagster" if keys <= {"run_launcher", "event_log_storage"} else "part"


def whole(text: str) -> str:
    """A defs.yaml with the keys of the block."""
    present = set(yaml.safe_load(text))
    rest = "\n".join(line for key, line in REST.items() if key not in present)
    return HEAD + "".join(f"  {line}\n" for line in (rest + "\n" + text).splitlines())


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A project with a pipeline for each block and example."""
    root = tmp_path_factory.mktemp("documented")
    (root / "pyproject.toml").write_text(
        '[tool.dg]\ndirectory_type = "project"\n[tool.dg.project]\nroot_module = "documented"\n'
    )
    defs = root / "documented" / "defs"
    defs.mkdir(parents=True)
    (root / "documented" / "__init__.py").touch()
    for folder in DECLARED:
        shutil.copytree(folder, defs / folder.name)
    for place, text in blocks().items():
        if kind(text) in ("whole", "part"):
            folder = defs / re.sub(r"\W", "_", place)
            folder.mkdir()
            declared = whole(text) if kind(text) == "part" else text
            # The same name in each: one code location has it once.
            renamed = re.sub(r"^  name: .*$", f"  name: {folder.name.lower()}", declared, flags=re.MULTILINE)
            (folder / "defs.yaml").write_text(renamed, encoding="utf-8")
            [read, *_] = yaml.safe_load(declared)["attributes"]["sources"].values()
            for name in ("features.sql", "labels.sql"):
                sql = f"SELECT * FROM {read['table']} WHERE day >= $start_date AND day < $end_date"
                (folder / name).write_text(sql)
            (folder / "expectations.yaml").touch()
    return Project.at(root)


def test_every_block_is_of_a_kind_that_is_loaded():
    kinds = [kind(text) for text in blocks().values()]
    assert {each: kinds.count(each) for each in ("whole", "expectations", "composition", "dagster")} == {
        "whole": 1,
        "expectations": 1,
        "composition": 2,
        "dagster": 2,
    }
    assert kinds.count("part") >= 11


def test_the_commands_read_every_declaration(project):
    declared = find_declarations(project)
    assert len(declared) == len(DECLARED) + sum(kind(text) in ("whole", "part") for text in blocks().values())
    for name in declared:
        assert find_pipeline(project, name).spec.name == name


def test_dagster_loads_every_declaration(project, monkeypatch):
    monkeypatch.syspath_prepend(str(project.root))
    found = dg.load_from_defs_folder(path_within_project=project.root / "documented").get_repository_def()
    names = {key.path[0] for key in found.asset_graph.get_all_asset_keys()}
    assert set(find_declarations(project)) <= names
    del sys.modules["documented"]


def test_the_schema_accepts_every_declaration(project):
    validator = jsonschema.Draft202012Validator(PipelineSpec.model_json_schema())
    validator.check_schema(validator.schema)
    for file, _ in find_declarations(project).values():
        [document] = parse_yamls_with_source_position(file.read_text(encoding="utf-8"))
        validator.validate(document.value["attributes"])


# Folder by folder: without a path, `dg check yaml` of Dagster 1.13 checks one file of each component type only.
CHECK = """
import sys
from click.testing import CliRunner
from dagster_dg_cli.cli import create_dg_cli

for folder in sys.argv[1:]:
    result = CliRunner().invoke(create_dg_cli(), ["check", "yaml", folder])
    print(folder, result.exit_code)
    print(result.output, file=sys.stderr)
"""


@pytest.mark.slice
@pytest.mark.slow
def test_dg_check_yaml_accepts_every_declaration_and_refuses_a_wrong_one(project):
    wrong = project.root / "documented" / "defs" / "wrong"
    wrong.mkdir()
    (wrong / "defs.yaml").write_text(whole("schedule: [1]"))
    # Seconds each: Dagster checks its schema again. The test above has all of them.
    folders = [str(wrong.parent / folder.name) for folder in (*DECLARED, wrong)]
    run = subprocess.run(
        [sys.executable, "-c", CHECK, *folders], cwd=project.root, capture_output=True, text=True, timeout=240
    )
    shutil.rmtree(wrong)
    refused = [line for line in run.stdout.splitlines() if not line.endswith(" 0")]
    assert refused == [f"{wrong} 1"], run.stdout + run.stderr


def test_blocks_of_expectations_and_compositions_load(tmp_path):
    for text in blocks().values():
        file = tmp_path / "block.yaml"
        file.write_text(text, encoding="utf-8")
        if kind(text) == "expectations":
            assert load_suites(file).features
        if kind(text) == "composition":
            assert composition.read(file)
