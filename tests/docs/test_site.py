"""The documentation site: the generated reference is complete, links hold, nothing is loaded from elsewhere."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from tools.docsite import commands, keys, links, python_api, settings, tables  # noqa: E402 - after the path


@cache
def parsed() -> list[tuple[str, list[ast.AST]]]:
    """Each file of the package: its text, and its texts in the syntax tree."""
    texts = [file.read_text(encoding="utf-8") for file in (ROOT / "pip_dagster").rglob("*.py")]
    kept = ast.Constant | ast.JoinedStr
    return [(text, [each for each in ast.walk(ast.parse(text)) if isinstance(each, kept)]) for text in texts]


def test_the_tables_of_keys_are_current():
    stale = [document.name for document, text in keys.current().items() if text != document.read_text(encoding="utf-8")]
    assert stale == [], "run: python tools/docsite/keys.py"


def test_every_key_of_a_declaration_is_in_a_table_and_described():
    # A split has a canary's keys, but for its gate.
    assert {*keys.schemas()} - keys.documented() == {"Split"}
    fields = [(model, key, field) for model, of in keys.schemas().items() for key, field in of["properties"].items()]
    assert [(model, key) for model, key, field in fields if not field.get("description")] == []
    assert len(fields) > 120


def test_every_command_and_option_is_on_the_page_and_described():
    from pip_dagster.cli.main import cli

    page, found = commands.page(), dict(commands.walk(cli))
    assert {("pip-dagster", "models", "register"), ("pip-dagster", "query")} <= found.keys()
    for path, command in found.items():
        assert command.help, path
        title = " ".join(path[1:]) or "pip-dagster"
        section = re.split(rf"^#+ {re.escape(title)}$", page, flags=re.MULTILINE)
        assert len(section) == 2, title
        for option in commands.options(command):
            assert option.help, f"{title} {option.opts[0]}"
            assert f"| `{option.opts[0]}`" in re.split(r"^##", section[1], maxsplit=1, flags=re.MULTILINE)[0]


def test_every_table_and_column_of_the_warehouse_is_described_and_nothing_else():
    from pip_dagster.warehouse.kinds import KINDS

    texts, con, used = tables.described(), tables.warehouse(), set()
    assert {*texts["tables"]} == {tables.name_of(kind) for kind in KINDS}
    for kind in KINDS:
        own, columns = texts["tables"][tables.name_of(kind)], [name for name, _ in tables.columns(con, kind)]
        assert own["about"] and {*own} - {"about"} <= {*columns}, f"{kind.name} describes columns that it does not have"
        assert columns, f"tools/docsite/tables.py builds no {kind.name}"
        used |= {*columns} - {*own}
        missing = [each for each in columns if each != tables.OWN and not tables.about(texts, kind, each)]
        assert missing == [], kind.name
    assert {*texts["columns"]} - used == set(), "columns that no table has"
    page = tables.page()
    assert all(f"`{kind.schema or '<p>'}.{kind.name}`" in page for kind in KINDS)


@pytest.mark.slice
def test_every_environment_variable_that_the_package_reads_is_listed():
    from pip_dagster.declaration.project import OPTIONAL_SETTINGS, SETTINGS

    read = set()
    for text, nodes in parsed():
        if "environ" not in text:
            continue
        for node in nodes:
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                read |= {
                    *re.findall(r"^(?:PIP_DAGSTER|DAGSTER|AWS|MLFLOW|OMP|RAY|GX|PG)_[A-Z0-9_]*[A-Z0-9]$", node.value)
                }
    of_settings = {f"PIP_DAGSTER_{key.upper()}" for key in (*SETTINGS, *OPTIONAL_SETTINGS)}
    children_only = {"OMP_NUM_THREADS"}  # set for a child process, not read
    assert read - of_settings - {*settings.VARIABLES} - children_only == set()
    assert all(f"`{name}`" in settings.page() for name in of_settings)


def test_every_public_name_is_on_the_page_of_the_python_api():
    page = python_api.page()
    assert "::: pip_dagster.components.merge_projects" in page and "::: pip_dagster.errors.PipelineError" in page


def test_links_into_the_repository_become_links_within_the_site():
    assert links.for_site(ROOT, "index.md", "[a](docs/start.md#files), [b](SECURITY.md)") == (
        "[a](start.md#files), [b](files/SECURITY.md)"
    )
    assert links.for_site(ROOT, "deployment.md", "[a](../examples/deploy)\n```\n[a](../examples)\n```") == (
        "[a](files/examples/deploy.md)\n```\n[a](../examples)\n```"
    )
    assert links.for_site(ROOT, "files/SECURITY.md", "[a](docs/operations.md)") == "[a](../operations.md)"
    assert "files/examples/deploy/compose.yaml.md" in links.linked_files(ROOT, ["deployment.md"])


def test_every_page_says_for_whom_it_is_and_is_in_the_navigation():
    nav = re.findall(r"^ +- ([\w/-]+\.md)$", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"), re.MULTILINE)
    documents = {file.name for file in (ROOT / "docs").glob("*.md")} - {"glossary.md"}
    assert documents - {*nav} == set() and len(nav) == len({*nav})
    for name in documents:
        opening = (ROOT / "docs" / name).read_text(encoding="utf-8").split("\n\n")[1]
        assert re.search(r"\bFor \w+|\bfor (who|every|those|any|people|readers)|\bwhoever\b", opening), (
            f"{name}: {opening}"
        )


@pytest.mark.slice
def test_the_site_is_built_strictly_and_loads_nothing_from_elsewhere(tmp_path):
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert built.returncode == 0, built.stdout + built.stderr
    # With --quiet, mkdocs counts no warnings, and nothing is strict.
    assert re.findall(r"mkdocs build (.*?) &&", (ROOT / "Makefile").read_text(encoding="utf-8")) == ["--strict"]
    pages = list(tmp_path.rglob("*.html"))
    assert len(pages) > 50 and (tmp_path / "search" / "search_index.js").exists()
    loads = re.compile(
        r"""<(?:script|img|iframe|source)\b[^>]*\bsrc=["']?(?:https?:)?//|<link\b[^>]*\bhref=["']?(?:https?:)?//"""
    )
    for page in pages:
        assert not loads.search(page.read_text(encoding="utf-8")), page.name
    for sheet in tmp_path.rglob("*.css"):
        assert not re.search(r"url\([\"']?(?:https?:)?//|@import", sheet.read_text(encoding="utf-8")), sheet.name


def test_every_message_of_the_troubleshooting_page_is_one_that_the_package_prints():
    spoken = []
    for _, nodes in parsed():
        for node in nodes:
            if isinstance(node, ast.JoinedStr):
                spoken += ["".join(part.value if isinstance(part, ast.Constant) else "…" for part in node.values)]
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                spoken += [node.value]
    said = "\n".join(spoken)
    page = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    tables = re.findall(r"^\| message.*\n\|.*\n((?:\|.*\n)+)", page, re.MULTILINE)
    messages = [found[1] for table in tables for found in re.finditer(r"^\| `([^`]+)`", table, re.MULTILINE)]
    unknown = [each for each in messages if not all(part.strip(" ,;") in said for part in each.split("…"))]
    assert unknown == [] and len(messages) >= 30


@pytest.mark.slice
def test_the_block_for_scikit_learn_gives_files_that_are_registered(tmp_path, monkeypatch):
    import numpy as np
    import pandas as pd
    from click.testing import CliRunner

    from pip_dagster.cli.main import cli

    page = (ROOT / "docs" / "other-models.md").read_text(encoding="utf-8")
    [block] = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    [command] = re.findall(r"^pip-dagster (models register .*)$", page, re.MULTILINE)
    (tmp_path / "pyproject.toml").write_text("[tool.pip_dagster]\n")
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(1)
    X = pd.DataFrame({"amount": rng.normal(size=400), "shop": pd.Categorical(rng.choice(["a", "b"], 400))})
    exec(block, {"X": X, "y": (X["amount"] > 0).astype(int)})
    registered = CliRunner().invoke(cli, command.split())
    assert registered.exit_code == 0 and "orders registered as v1" in registered.output, registered.output
