"""The benchmarks measure each process by itself, and each benchmark can be run alone."""

import sys

import pytest

from benchmarks import data, measure
from benchmarks.suite import Options, benchmarks

ALLOCATE = "import sys; held = bytearray(int(sys.argv[1]) << 20); held[::4096] = b'x' * len(held[::4096])"


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(measure, "FOLDER", tmp_path / "benchmarks")
    monkeypatch.setattr(data, "FOLDER", tmp_path / "benchmarks")


def test_a_peak_is_the_process_s_own_and_not_that_of_the_one_that_measures():
    held = bytearray(400 << 20)
    held[::4096] = b"x" * len(held[::4096])
    small, large = (measure.command([sys.executable, "-S", "-c", ALLOCATE, str(mb)]).peak_mb for mb in (1, 200))
    assert small < 60 and 190 < large - small < 215
    del held


def test_cpu_seconds_include_those_of_children_and_a_peak_is_that_of_the_largest():
    grandchild = [sys.executable, "-S", "-c", f"{ALLOCATE}; sum(range(9_000_000))", "200"]
    run = measure.command([sys.executable, "-c", f"import subprocess; subprocess.run({grandchild!r})"])
    assert run.cpu_seconds > 0.1 and run.peak_mb > 200


def test_a_command_that_fails_ends_the_measurement_with_its_output():
    with pytest.raises(SystemExit, match="ended with 3:\nbroken"):
        measure.command([sys.executable, "-S", "-c", "import sys; print('broken', flush=True); sys.exit(3)"])


@pytest.mark.slice
def test_a_measured_process_reports_what_it_timed(tmp_path):
    (tmp_path / "timed.py").write_text(
        "from benchmarks.measure import Timed\n"
        "def process(n):\n"
        "    with Timed() as timed: sum(range(int(n)))\n"
        "    timed.report(rows=int(n))\n"
    )
    run = measure.case("timed:process", 1_000_000, environment={"PYTHONPATH": f"{tmp_path}:{data.REPOSITORY}"})
    assert run.reported == {"rows": 1_000_000} and 0 < run.seconds < 5 and run.peak_mb > 10


def test_data_are_not_made_in_a_measured_process(monkeypatch):
    monkeypatch.setenv(data.MEASURED, "1")
    with pytest.raises(AssertionError, match="must be made before"):
        data.scale("1M")


def test_each_benchmark_says_what_it_measures():
    assert {"predict_floor", "memory", "year", "daily", "growth"} <= set(benchmarks())
    assert all(each.about for each in benchmarks().values()) and not Options().long
