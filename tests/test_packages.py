"""What an index and an installer get: source distribution and wheel, built and used in clean environments."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import pip_dagster

ROOT = Path(__file__).parents[1]
UV = Path(sys.executable).with_name("uv")


CARRIED = "pip_dagster/scaffold/demo-project"


def run(*words: str | Path, cwd: Path = ROOT) -> str:
    command = [str(word) for word in words]
    done = subprocess.run(command, cwd=cwd, env=clean(), capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def packages(tmp_path_factory) -> Path:
    """A folder with the source distribution of the committed and new files, and the wheel that is built from it."""
    source, built = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("built")
    listed = run("git", "ls-files", "--cached", "--others", "--exclude-standard", "-z")
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    # Without isolation: setuptools is here, and nothing need be fetched.
    python = ("--no-build-isolation", "--python", sys.executable)
    run(UV, "build", "--quiet", *python, "--out-dir", built, source, cwd=source)
    return built


@pytest.fixture(scope="module")
def sdist(packages) -> Path:
    return next(packages.glob("*.tar.gz"))


@pytest.fixture(scope="module")
def wheel(packages) -> Path:
    return next(packages.glob("*.whl"))


pytestmark = pytest.mark.slice


def test_their_metadata_is_what_an_index_accepts(sdist, wheel):
    run(sys.executable, "-m", "twine", "check", "--strict", sdist, wheel)


def test_both_have_the_version_of_the_package(sdist, wheel):
    assert sdist.name == f"pip_dagster-{pip_dagster.__version__}.tar.gz"
    assert wheel.name == f"pip_dagster-{pip_dagster.__version__}-py3-none-any.whl"


def test_the_source_distribution_has_all_that_is_committed_but_habits_of_the_repository(sdist):
    with tarfile.open(sdist) as opened:
        inside = {name.split("/", 1)[1] for name in opened.getnames() if "/" in name}
    committed = set(filter(None, run("git", "ls-files", "-z").split("\0")))
    missing = {name for name in committed - inside if (ROOT / name).is_file()}
    assert {name for name in missing if not name.startswith(".")} == set()


def test_the_wheel_has_every_file_that_the_package_reads(wheel):
    with zipfile.ZipFile(wheel) as opened:
        inside = set(opened.namelist())
    committed = set(filter(None, run("git", "ls-files", "-z", "pip_dagster").split("\0")))
    assert {name for name in committed - inside if (ROOT / name).is_file()} == set()
    assert not [name for name in inside if name.startswith(("tests/", "benchmarks/"))]


def test_the_wheel_carries_the_demos_project_and_no_module_of_it(wheel):
    with zipfile.ZipFile(wheel) as opened:
        inside = set(opened.namelist())
    committed = set(filter(None, run("git", "ls-files", "-z", "flights", "data/flight_delay").split("\0")))
    carried = {name.removeprefix(f"{CARRIED}/") for name in inside if name.startswith(CARRIED)}
    assert carried == {name for name in committed if (ROOT / name).is_file()}
    assert not {
        name
        for name in inside - {f"{CARRIED}/{name}" for name in carried}
        if "flights" in name or "flight_delay" in name or "/defs/" in name
    }


@pytest.fixture(scope="module")
def command(wheel, tmp_path_factory) -> Path:
    """`pip-dagster` of an environment with the wheel and what it requires, and nothing else."""
    environment = tmp_path_factory.mktemp("installed") / "env"
    run(sys.executable, "-m", "venv", environment)
    python = environment / "bin" / "python"
    what = ("-c", ROOT / "constraints.txt", wheel)
    try:
        run(UV, "pip", "install", "--quiet", "--python", python, *what)
    except AssertionError:  # pip knows mirrors and certificates that uv may not know
        run(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *what)
    return python.with_name("pip-dagster")


def test_an_empty_environment_runs_what_the_wheel_installs(command, tmp_path):
    assert pip_dagster.__version__ in run(command, "--version", cwd=tmp_path)
    assert "Usage: pip-dagster" in run(command, "--help", cwd=tmp_path)
    python = command.with_name("python")
    places = run(python, "-c", "import pip_dagster.components as c; print(c.__file__)", cwd=tmp_path)
    assert str(command.parents[1]) in places
    listed = (
        "import pkgutil, pip_dagster as p; print([m.name for m in pkgutil.walk_packages(p.__path__, 'pip_dagster.')])"
    )
    assert "definitions'" not in run(python, "-c", listed, cwd=tmp_path).replace("orchestration.definitions'", "")


@pytest.mark.soak
def test_the_demo_runs_from_the_wheel_in_an_empty_folder_killed_and_repeated(command, tmp_path):
    folder = tmp_path / "try"
    folder.mkdir()
    with subprocess.Popen(
        [command, "demo"], cwd=folder, env=clean(), text=True, stdout=subprocess.PIPE, start_new_session=True
    ) as process:
        assert process.stdout
        assert any("v1: the schedule alone" in line for line in process.stdout)  # the second model is in training
        os.killpg(process.pid, signal.SIGKILL)
    assert "[2/6] two models, trained on January to June and registered ..." in (
        second := run(command, "demo", cwd=folder)
    )
    assert "[1/6] the source tables, from data/flight_delay: already there" in second
    assert "31 of 31 partitions" in second and "\nopen data/reports/flight_delay/report.html" in second
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    third = run(command, "demo", cwd=folder)
    assert third.count(": already there\n") == 6
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    assert "flight_delay" in run(command, "status", cwd=folder)


def clean() -> dict[str, str]:
    """This shell's variables, less those that name a project or an instance."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("DAGSTER", "PIP_DAGSTER", "PYTHONPATH"))
    }
