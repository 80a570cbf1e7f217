"""Registrations and alias moves by many processes at once, and processes killed at any line."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pip_dagster.registry import Registry

# Forked where everything but XGBoost is imported: all eight begin at once, and the test pays for the imports once.
REGISTER = """
import os, sys
import pyarrow.parquet
from pip_dagster.registry import Registry, registration
root, sample, *models = sys.argv[1:]
for model in models:
    if os.fork() == 0:
        version = Registry(root).register("delay", model=model, sample=sample)
        os.write(1, f"{version.version} {version.created}\\n".encode())
        os._exit(0)
sys.exit(any(os.wait()[1] for _ in models))
"""

MOVE = """
import sys
from pip_dagster.registry import AliasConflict, Registry
registry = Registry(sys.argv[1])
won = 0
for _ in range(20):
    current = registry.alias("delay", "champion")
    try:
        registry.set_alias("delay", "champion", 2 if current == 1 else 1, by=sys.argv[2], why="", expect=current)
        won += 1
    except AliasConflict:
        pass
print(won)
"""


def _all(commands: list[list[str]]) -> list[str]:
    # One thread each: a test of races, not of the machine.
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    running = [
        subprocess.Popen([sys.executable, "-c", *command], stdout=subprocess.PIPE, text=True, env=environment)
        for command in commands
    ]
    answers = [process.communicate(timeout=120)[0].strip() for process in running]
    assert [process.returncode for process in running] == [0] * len(running)
    return answers


def test_eight_registrations_at_once_lose_nothing(train, frame, label, tmp_path):
    frame.to_parquet(tmp_path / "sample.parquet")
    for rounds in range(1, 7):
        train(frame, label, rounds=rounds).save_model(tmp_path / f"{rounds}.ubj")
    # The last three are one model.
    models = [str(tmp_path / f"{rounds}.ubj") for rounds in (1, 2, 3, 4, 5, 6, 6, 6)]
    [answer] = _all([[REGISTER, str(tmp_path / "r"), str(tmp_path / "sample.parquet"), *models]])
    versions = Registry(tmp_path / "r").versions("delay")
    assert [version.version for version in versions] == [1, 2, 3, 4, 5, 6]
    assert {version.manifest.iteration_range for version in versions} == {(0, rounds) for rounds in range(1, 7)}
    assert answer.count("True") == 6
    assert answer.count("False") == 2
    for version in versions:
        version.verify()
    assert list((tmp_path / "r" / "delay").glob(".incoming-*")) == []


def test_racing_alias_moves_are_each_recorded_once(two_versions):
    wins = sum(int(answer) for answer in _all([[MOVE, str(two_versions.root), f"p{i}"] for i in range(4)]))
    history = two_versions.alias_history("delay", "champion")
    assert len(history) == wins
    assert [change.previous for change in history] == [None, *(change.version for change in history[:-1])]


def _kill_at_every_line(work: str, registry: Registry) -> tuple[int, int]:
    script = Path(__file__).with_name("kill_at_every_line.py")
    command = [sys.executable, str(script), work, str(registry.root)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    before, after = done.stdout.split()
    return int(before), int(after)


@pytest.mark.soak
def test_killed_at_any_line_a_version_is_whole_or_absent(registry):
    before, after = _kill_at_every_line("versions", registry)
    assert before > 60
    assert after > 3


def test_killed_at_any_line_an_alias_is_old_or_new(two_versions):
    two_versions.set_alias("delay", "champion", 1, by="ada", why="")
    before, after = _kill_at_every_line("alias", two_versions)
    assert before > 30
    assert after > 3
