"""Ctrl-C at any moment of a command: a sentence, exit code 130, and no traceback, also while libraries are imported."""

import json
import os
import random
import signal
import subprocess
import sys
import time

import pytest

SENTENCE = "Cancelled. What was committed stays.\n"
# Sends SIGINT when a module is looked for, and when its code begins to run, as a person might.
PROGRAM = """
import os, signal, sys
from importlib.abc import MetaPathFinder

class Pressing(MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == os.environ["AT"]:
            sys.meta_path.remove(self)
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Pressing())
from pip_dagster.cli.start import main
sys.argv = ["pip-dagster", *sys.argv[1:]]
main()
"""


def pressed(root, at, *words):
    """The command, with Ctrl-C at the import of a module."""
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, *words],
        cwd=root,
        env=os.environ | {"AT": at},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.mark.slice
@pytest.mark.parametrize(
    ("at", "words"),
    [
        ("click", ("status",)),
        ("pip_dagster.cli.table", ("status",)),
        ("duckdb", ("status", "orders")),
        (
            "pyarrow.lib",
            ("query", "SELECT range AS a FROM range(5_000_000)", "--format", "parquet", "-o", "rows.parquet"),
        ),
        ("numpy._core", ("check",)),
        ("dagster._core.instance", ("run", "orders", "2024-03-01")),
    ],
)
def test_ctrl_c_within_an_import_is_a_sentence(scored, at, words):
    done = pressed(scored.root, at, *words)
    assert done.returncode == 130 and (done.stderr.endswith(SENTENCE) or "cancelled" in done.stdout), done.stderr
    assert "Traceback" not in done.stderr and "Error" not in done.stderr
    assert not (scored.root / "rows.parquet").exists()


def test_with_json_it_is_an_object_too(scored):
    done = pressed(scored.root, "click", "status", "--json")
    assert json.loads(done.stdout) == {"error": SENTENCE.strip(), "exit_code": 130}


def test_where_a_shell_has_it_ignored_it_stays_ignored(scored):
    program = f"import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\n{PROGRAM}"
    done = subprocess.run(
        [sys.executable, "-c", program, "status", "--json"],
        cwd=scored.root,
        env=os.environ | {"AT": "duckdb"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0 and json.loads(done.stdout)[0]["pipeline"] == "orders"


# Sends SIGINT when the warehouse is open and the body of its `with` has not begun: its generator is closed by the
# garbage collector, after its connection.
BETWEEN = """
import contextlib, os, signal, sys
from pip_dagster.cli.start import main

def press(frame, event, arg):
    if event == "return" and frame.f_code is enter and frame.f_locals["self"].gen.__name__ == "reading":
        sys.setprofile(None)
        os.kill(os.getpid(), signal.SIGINT)

enter = contextlib._GeneratorContextManager.__enter__.__code__
sys.setprofile(press)
sys.argv = ["pip-dagster", "status", "orders"]
main()
"""


def test_ctrl_c_between_a_context_and_its_body_is_a_sentence(scored):
    done = subprocess.run([sys.executable, "-c", BETWEEN], cwd=scored.root, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", f"\n{SENTENCE}")


@pytest.mark.soak
@pytest.mark.parametrize("words", [("status", "orders"), ("run", "orders"), ("query", "SELECT 1 AS a"), ("check",)])
def test_ctrl_c_at_any_moment(scored, words):
    """At thirty moments of each command, to the whole process group as a terminal sends it."""
    chosen = random.Random(17)
    program = "from pip_dagster.cli.start import main; import sys; sys.argv = ['pip-dagster', *sys.argv[1:]]; main()"
    began = time.monotonic()
    subprocess.run([sys.executable, "-c", program, *words], cwd=scored.root, capture_output=True, check=True)
    length, faults = time.monotonic() - began, []
    for _ in range(30):
        process = subprocess.Popen(
            [sys.executable, "-c", program, *words],
            cwd=scored.root,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        time.sleep(0.08 + chosen.random() * length)  # Python's own start, in which nothing of ours runs, takes less
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGINT)
        _, err = process.communicate(timeout=60)
        if process.returncode not in (0, 130, -signal.SIGINT) or "Traceback" in err or "rror" in err:
            faults.append((process.returncode, err))
    assert not faults, faults
