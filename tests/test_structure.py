"""Imports between the rooms point one way, and the check refuses one that does not, wherever in a file it stands."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture
def copied(tmp_path):
    """The package and its rules in another folder, to plant imports in."""
    shutil.copytree(ROOT / "pip_dagster", tmp_path / "pip_dagster", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    command = "import sys; sys.path.insert(0, '.'); from importlinter.cli import lint_imports_command as run; run()"
    return subprocess.run(
        [sys.executable, "-c", command, "--no-cache"], cwd=folder, capture_output=True, text=True, timeout=120
    )


def plant(folder: Path, file: str, lines: str) -> None:
    with (folder / "pip_dagster" / file).open("a", encoding="utf-8") as opened:
        opened.write(lines)


def test_the_package_as_it_is_keeps_the_rules(copied):
    found = lint(copied)
    assert found.returncode == 0, found.stdout
    assert "2 kept, 0 broken" in found.stdout


@pytest.mark.parametrize(
    "planted",
    [
        "from pip_dagster.flow.model import ScoringModel\n",
        "def later():\n    from pip_dagster.flow.model import ScoringModel\n\n    return ScoringModel\n",
        "if TYPE_CHECKING:\n    from pip_dagster.flow.model import ScoringModel\n",
    ],
    ids=["at the top of the file", "inside a function", "for types only"],
)
def test_an_import_against_the_direction_is_refused_with_the_rule(copied, planted):
    plant(copied, "ledger/record.py", planted)
    found = lint(copied)
    assert found.returncode == 1
    assert "pip_dagster.ledger is not allowed to import pip_dagster.flow" in found.stdout
    assert "docs/architecture.md" in found.stdout


def test_two_files_that_import_each_other_are_refused(copied):
    plant(copied, "sql/names.py", "def later():\n    import pip_dagster.sql.planted\n")
    (copied / "pip_dagster/sql/planted.py").write_text("from pip_dagster.sql.names import quote\n")
    found = lint(copied)
    assert found.returncode == 1
    assert "No cycles are allowed in pip_dagster.sql" in found.stdout


def test_a_new_room_has_to_be_given_its_place(copied):
    (copied / "pip_dagster/cellar").mkdir()
    (copied / "pip_dagster/cellar/__init__.py").write_text("")
    found = lint(copied)
    assert found.returncode == 1
    assert "cellar" in found.stdout


def test_the_map_of_rooms_finds_no_circle_and_nothing_against_the_direction():
    drawn = subprocess.run(
        [sys.executable, ROOT / "tools/rooms.py"], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert drawn.returncode == 0, drawn.stdout + drawn.stderr
    assert " 0 against the direction, 0 circles" in drawn.stdout


def test_each_temporary_table_is_filled_by_one_module_and_listed_with_the_stage():
    """Whoever wants the rows of another module is handed their relation: the schema's name is written once."""
    files = {str(file.relative_to(ROOT / "pip_dagster")): file.read_text() for file in ROOT.glob("pip_dagster/**/*.py")}
    assert {name for name, text in files.items() if "pip_stage" in text} == {"flow/stage.py", "sql/names.py"}
    kept = [(name, file) for file, text in files.items() for name in re.findall(r'\bkeep\(\s*[\w.]+,\s*"(\w+)"', text)]
    assert len(kept) == len(dict(kept)) > 10, "no table has two modules"
    map_of_tables = files["flow/stage.py"].split('"""')[1]
    assert not [name for name, _ in kept if f"`{name}`" not in map_of_tables]
