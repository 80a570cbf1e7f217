"""What is said of how far a backfill is and how long it goes on."""

from datetime import datetime, timedelta
from types import SimpleNamespace

import pytest

from pip_dagster.cli import backfill_progress
from pip_dagster.cli.backfill_progress import Progress, duration


@pytest.fixture
def clock(monkeypatch):
    found = SimpleNamespace(now=100.0)
    monkeypatch.setattr(backfill_progress.time, "monotonic", lambda: found.now)
    return found


def chunk(first, size):
    days = [datetime(2024, 3, 1) + timedelta(days=first + i) for i in range(size)]
    return [SimpleNamespace(key=f"{day:%Y-%m-%d}") for day in days]


def result(partition, error=None):
    return SimpleNamespace(partition=partition, error=error, reused=False)


def test_the_time_left_goes_by_whole_chunks_whose_partitions_come_in_bursts(clock, capsys):
    with Progress(40) as progress:
        for first in (0, 10):
            progress.begin(chunk(first, 10))
            clock.now += 30  # the features
            for partition in chunk(first, 10):
                clock.now += 0.1
                progress.note(result(partition, "bad" if partition.key == "2024-03-02" else None))
                progress.note(result(partition))  # told twice, counted once
    assert (progress.done, progress.built, progress.failed) == (20, 19, {"2024-03-02": "bad"})
    assert capsys.readouterr().err.splitlines() == [
        "1 of 40 partitions",
        "11 of 40 partitions, 1 failed, about 1 min 30 s left",
    ]


def test_of_one_chunk_it_goes_by_what_came_after_the_first(clock, capsys):
    with Progress(4) as progress:
        progress.begin(chunk(0, 4))
        for partition in chunk(0, 4):
            clock.now += 6
            progress.note(result(partition))
    assert capsys.readouterr().err.splitlines() == [
        "1 of 4 partitions",
        "2 of 4 partitions, about 12 s left",
        "3 of 4 partitions, about 6 s left",
        "4 of 4 partitions",
    ]


@pytest.mark.parametrize(("seconds", "text"), [(40.4, "40 s"), (200, "3 min 20 s"), (7500, "2 h 5 min")])
def test_durations_are_said_as_people_say_them(seconds, text):
    assert duration(seconds) == text
