"""Text files and variables as users have them: UTF-8 with any line ends; anything else is named."""

import pytest

from pip_dagster.declaration.find import find_pipeline
from pip_dagster.declaration.project import Project
from pip_dagster.errors import DeclarationError, ProjectError, RegistryError, WarehouseError
from pip_dagster.registry.composition import read
from pip_dagster.text_file import read_text
from pip_dagster.warehouse.memory import VARIABLE, declared_memory_limit


def test_line_ends_of_windows_are_those_of_others(tmp_path):
    file = tmp_path / "features.sql"
    file.write_bytes("SELECT 'Zürich'\r\nFROM x\rWHERE y\n".encode())
    assert read_text(file, DeclarationError) == "SELECT 'Zürich'\nFROM x\nWHERE y\n"


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        ("SELECT 1\n-- Zürich".encode("latin-1"), "is not in UTF-8: line 2 has the byte 0xfc. Save the file in UTF-8"),
        ("SELECT 1".encode("utf-16"), "is not in UTF-8: it is in UTF-16. Save the file in UTF-8"),
        (None, "cannot be read: No such file or directory"),
    ],
)
def test_a_text_that_cannot_be_read_is_named_with_its_line(tmp_path, data, problem):
    file = tmp_path / "features.sql"
    if data is not None:
        file.write_bytes(data)
    with pytest.raises(DeclarationError, match=f"features.sql {problem}"):
        read_text(file, DeclarationError)


@pytest.mark.parametrize("name", ["features.sql", "defs.yaml", "expectations.yaml"])
def test_each_file_of_a_declaration(tiny, name):
    tiny.declare(quality={"expectations": "expectations.yaml"})
    (tiny.folder / "expectations.yaml").write_text("features: []\n")
    file = tiny.folder / name
    file.write_bytes(file.read_bytes() + "# Zürich".encode("latin-1"))
    with pytest.raises(DeclarationError, match=rf"{name} is not in UTF-8: line \d+ has the byte 0xfc"):
        find_pipeline(tiny.project, "orders")


def test_the_files_of_a_project_and_of_a_composition(tmp_path):
    (tmp_path / "pyproject.toml").write_bytes("# Zürich\n".encode("latin-1"))
    with pytest.raises(ProjectError, match=r"pyproject.toml is not in UTF-8: line 1"):
        Project.at(tmp_path)
    (tmp_path / "pyproject.toml").write_bytes(b'\xef\xbb\xbf[tool.pip_dagster]\nregistry = "models"\n')
    assert Project.at(tmp_path).registry == tmp_path / "models"
    (tmp_path / "mix.yaml").write_bytes("# Zürich\n".encode("latin-1"))
    with pytest.raises(RegistryError, match=r"mix.yaml is not in UTF-8: line 1"):
        read(tmp_path / "mix.yaml")


@pytest.mark.parametrize("text", ["abc", "1", "-5GB", "0GB", "GB", "8 GB; SET threads = 1"])
def test_a_memory_limit_that_is_no_size_is_refused(monkeypatch, text):
    monkeypatch.setenv(VARIABLE, text)
    with pytest.raises(WarehouseError, match=f"{VARIABLE} is '{text}'; expected a size, such as 8GB"):
        declared_memory_limit()


@pytest.mark.parametrize("text", ["8GB", "0.5GB", "1.5 GiB", "80%", ""])
def test_a_memory_limit_that_duckdb_understands_is_taken(monkeypatch, text):
    monkeypatch.setenv(VARIABLE, text)
    assert declared_memory_limit() == (text or None)


@pytest.mark.parametrize("text", ["postgres://host/db", "data/\udcff"])
def test_a_path_that_cannot_be_one_is_named_with_its_variable(tmp_path, monkeypatch, text):
    monkeypatch.setenv("PIP_DAGSTER_REGISTRY", text)
    with pytest.raises(ProjectError, match="The setting registry is .*; expected a path.*PIP_DAGSTER_REGISTRY"):
        Project.at(tmp_path)


def test_an_empty_variable_counts_as_not_set(tmp_path, monkeypatch):
    for name in ("WAREHOUSE", "REGISTRY", "PUBLISHED"):
        monkeypatch.setenv(f"PIP_DAGSTER_{name}", "")
    assert Project.at(tmp_path).warehouse == tmp_path / "data" / "warehouse.duckdb"
