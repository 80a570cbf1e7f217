"""`pip-dagster demo` writes its project into an empty folder, and over no file that is there."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from pip_dagster.cli.demo import _project
from pip_dagster.declaration.find import find_pipeline
from pip_dagster.declaration.project import ROOT_VARIABLE, Project
from pip_dagster.errors import PipelineError, ScaffoldError
from pip_dagster.scaffold.demo import is_demo, write_demo
from pip_dagster.scaffold.files import frame_files

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def outside(monkeypatch):
    monkeypatch.delenv(ROOT_VARIABLE, raising=False)


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_project_is_the_repositorys_and_loads(tmp_path):
    write_demo(tmp_path)
    written = files(tmp_path)
    there = {
        "flights/definitions.py",
        "flights/train.py",
        "data/flight_delay/flights.parquet",
        ".dagster_home/dagster.yaml",
    }
    assert there | {"pyproject.toml", "workspace.yaml", ".gitignore"} <= set(written)
    assert {name for name in written if name.startswith(("flights/", "data/"))} == {
        str(path.relative_to(ROOT))
        for part in ("flights", "data/flight_delay")
        for path in (ROOT / part).rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    assert find_pipeline(Project.at(tmp_path), "flight_delay").spec.monitoring is not None


def test_the_repository_is_the_demos_project_itself():
    """Its workspace and code location are those that every new project gets."""
    assert is_demo(ROOT)
    text = frame_files("flights")
    assert (ROOT / "workspace.yaml").read_text() == next(text[name] for name in text if name.name == "workspace.yaml")
    template = (ROOT / "pip_dagster/scaffold/templates/definitions.py.jinja").read_text()
    assert (ROOT / "flights/definitions.py").read_text() == template.replace("{{ package }}", "flights")


def test_a_second_time_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    _project(None)
    declaration = tmp_path / "flights/defs/flight_delay/defs.yaml"
    declaration.write_text(declaration.read_text().replace("monitoring: {}", "monitoring: {drift: {}}"))
    (tmp_path / "notes.txt").write_text("mine")
    before = files(tmp_path)
    (tmp_path / "data" / "deeper").mkdir()
    monkeypatch.chdir(tmp_path / "data" / "deeper")
    assert _project(None).root == tmp_path.resolve()
    assert files(tmp_path) == before


@pytest.mark.parametrize("left", [0, 1, 5, 12])
def test_after_an_interruption_the_rest_is_written(tmp_path, left):
    """Whatever was there when it was killed: pyproject.toml is the last, and a file is whole or not there."""
    write_demo(tmp_path)
    whole = files(tmp_path)
    written = [name for name in whole if name != "pyproject.toml"]
    for name in ["pyproject.toml", *written[left:]]:
        (tmp_path / name).unlink()
    (tmp_path / ".pyproject.toml.draft").write_text("[proj")
    assert not is_demo(tmp_path)
    write_demo(tmp_path)
    assert files(tmp_path) == whole


@pytest.mark.parametrize("own", ["notes.txt", "workspace.yaml", "data/own.csv", "flights/train.py", "pyproject.toml"])
def test_a_folder_with_files_of_its_own_is_refused_and_left_alone(tmp_path, monkeypatch, own):
    (tmp_path / own).parent.mkdir(exist_ok=True)
    (tmp_path / own).write_text("# mine\n")
    monkeypatch.chdir(tmp_path)
    before = files(tmp_path)
    with pytest.raises(ScaffoldError, match=f"has files of its own, such as {own}.*empty folder"):
        _project(None)
    assert files(tmp_path) == before


def test_an_environment_and_hidden_files_are_no_files_of_ones_own(tmp_path):
    for name in ("env/pyvenv.cfg", "env/lib/site.py", ".venv/pyvenv.cfg", ".git/HEAD", ".gitignore"):
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_text("mine")
    write_demo(tmp_path)
    assert is_demo(tmp_path) and (tmp_path / ".gitignore").read_text() == "mine"


def test_a_project_that_is_not_the_demos_is_refused_where_it_is_named(tmp_path, monkeypatch):
    (tmp_path / "pyproject.toml").write_text("[tool.pip_dagster]\n")
    with pytest.raises(ScaffoldError, match="has files of its own, such as pyproject.toml"):
        _project(tmp_path)
    monkeypatch.setenv(ROOT_VARIABLE, str(tmp_path))
    with pytest.raises(ScaffoldError, match="has files of its own, such as pyproject.toml"):
        _project(None)
    monkeypatch.setenv(ROOT_VARIABLE, str(tmp_path / "gone"))
    with pytest.raises(PipelineError, match="which is not a folder"):
        _project(None)


def test_an_empty_folder_in_another_project_gets_the_demo(tmp_path, monkeypatch):
    (tmp_path / "pyproject.toml").write_text("[tool.pip_dagster]\n")
    (tmp_path / "try").mkdir()
    monkeypatch.chdir(tmp_path / "try")
    assert _project(None).root == (tmp_path / "try").resolve()


def test_a_folder_that_may_not_be_written_is_an_error():
    with tempfile.TemporaryDirectory(dir="/tmp") as name:  # pytest's own is closed to other users
        Path(name).chmod(0o555)
        user = os.geteuid()
        if user == 0:
            os.seteuid(65534)
        try:
            with pytest.raises(ScaffoldError, match=r"cannot be written to .*: Permission denied. User \d+ may not"):
                write_demo(Path(name))
        finally:
            os.seteuid(user)
            Path(name).chmod(0o755)
        assert not list(Path(name).iterdir())


@pytest.mark.slice
@pytest.mark.parametrize(
    "place", ["written", *(pytest.param(each, marks=pytest.mark.soak) for each in ("clone", "example"))]
)
def test_dg_accepts_the_demo_and_the_example(tmp_path, place):
    folder = {"written": tmp_path, "clone": ROOT, "example": ROOT / "examples/bring_your_own"}[place]
    if place == "written":
        write_demo(tmp_path)
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    environment.pop("DAGSTER_HOME", None)
    command = "dg check defs && dg list defs"  # the first checks the YAML too
    done = subprocess.run(command, shell=True, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "All component YAML validated" in done.stdout and "All definitions loaded" in done.stdout
    assert "/predictions" in done.stdout
