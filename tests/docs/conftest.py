"""A clone with its demo, built once in a run of the tests."""

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from forked import Server  # noqa: E402 - after the path

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def demonstrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a clone in which `make demo` ran twice; `first` and `second`, beside it, are what it printed."""
    base = tmp_path_factory.getbasetemp()
    place = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "demonstrated"
    place.mkdir(exist_ok=True)
    target = place / "pip_dagster"
    with (place / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (place / "second").exists():
            shutil.rmtree(target, ignore_errors=True)
            copy_checkout(target)
            for name in ("first", "second"):
                demo = subprocess.run(
                    ["make", "demo"], cwd=target, env=reader(target), capture_output=True, text=True, timeout=600
                )
                assert demo.returncode == 0, demo.stderr[-4000:] + demo.stdout[-2000:]
                (place / name).write_text(demo.stdout, encoding="utf-8")
    return target


def copy_checkout(target: Path) -> None:
    """The committed and new files in a folder of their own, with this environment as its .venv."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)
    # As for a reader: this environment has scikit-learn for the tests, and XGBoost imports it for a second.
    (target / "sklearn.py").write_text("raise ImportError('pip_dagster does not install it')\n")
    (target / ".venv" / "bin").mkdir(parents=True)
    for part in (*Path(sys.prefix).iterdir(), *Path(sys.prefix, "bin").iterdir()):
        if part.name != "bin":
            (target / ".venv" / part.relative_to(sys.prefix)).symlink_to(part)
    # Newer than what it is made from: the environment counts as installed.
    (target / ".venv" / ".installed").unlink(missing_ok=True)
    (target / ".venv" / ".installed").touch()
    compiled_as(f"{sys.prefix}/lib", target / ".venv" / "lib")
    for package in ("pip_dagster", "flights"):
        compiled_as(ROOT / package, target / package)


def compiled_as(original: Path | str, copy: Path) -> None:
    """The same files, of the same age, by another path: their bytecode is there already."""
    there = Path(f"{sys.pycache_prefix}{copy}")
    if sys.pycache_prefix and not there.is_symlink():
        there.parent.mkdir(parents=True, exist_ok=True)
        there.symlink_to(f"{sys.pycache_prefix}{original}")


def reader(root: Path) -> dict[str, str]:
    """This shell's environment, less what would name another project."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("DAGSTER", "PIP_DAGSTER", "MAKE", "MFLAGS"))}
    return inherited | {"PYTHONPATH": str(root)}


@pytest.fixture(scope="session")
def forking(demonstrated: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Runs the `pip-dagster` of copies of that clone."""
    server = Server(tmp_path_factory.mktemp("forking") / "socket", demonstrated, reader(demonstrated))
    yield server
    server.close()


@pytest.fixture(scope="module")
def clone(demonstrated: Path, forking: Server, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """This module's own copy of that clone."""
    return copy_clone(demonstrated, forking, tmp_path_factory.mktemp("clone"))


@pytest.fixture
def own_clone(demonstrated: Path, forking: Server, tmp_path: Path) -> Path:
    """This test's own copy of that clone."""
    return copy_clone(demonstrated, forking, tmp_path)


def copy_clone(demonstrated: Path, forking: Server, folder: Path) -> Path:
    """A copy which publishes its own: published views name their files absolutely."""
    target = Path(shutil.copytree(demonstrated, folder / "pip_dagster", symlinks=True))
    compiled_as(demonstrated, target)
    forking.install(target / ".venv")
    command = [target / ".venv" / "bin" / "pip-dagster", "--project", str(target), "publish"]
    subprocess.run(command, cwd=target, env=reader(target), capture_output=True, check=True)
    return target
