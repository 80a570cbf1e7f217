"""A container's limits: read from cgroup v2 and v1, of each level, and used for threads and memory."""

import os
from pathlib import Path

import pytest

from pip_dagster.flow.engine import available_threads
from pip_dagster.warehouse import container
from pip_dagster.warehouse.connect import workspace
from pip_dagster.warehouse.memory import Room, all_memory, make_room, run_memory

MACHINE = float(os.sysconf("SC_PAGE_SIZE")) * os.sysconf("SC_PHYS_PAGES")
NO_LIMIT = "9223372036854771712"


def write(root: Path, files: dict[str, str], own: str) -> tuple[float, float | None]:
    """What a tree of cgroup files says, for a process in `own`, the lines of /proc/self/cgroup."""
    for name, text in files.items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text + "\n")
    (root / "self").write_text(own)
    return container.memory(root, root / "self"), container.cpus(root, root / "self")


@pytest.mark.parametrize(
    ("files", "own", "memory", "cpus"),
    [
        ({}, "", MACHINE, None),
        ({"memory.max": "1000000000", "cpu.max": "150000 100000"}, "0::/", 1e9, 1.5),
        ({"memory.max": "max", "cpu.max": "max 100000"}, "0::/", MACHINE, None),
        (  # a slice and a service within it: the lower limit of each kind
            {
                "a/memory.max": "900000000",
                "a/b/memory.max": "max",
                "a/cpu.max": "max 100000",
                "a/b/cpu.max": "50000 100000",
            },
            "0::/a/b\n",
            9e8,
            0.5,
        ),
        (
            {
                "memory/memory.limit_in_bytes": NO_LIMIT,
                "memory/job/memory.limit_in_bytes": "2000000000",
                "cpu,cpuacct/job/cpu.cfs_quota_us": "300000",
                "cpu,cpuacct/job/cpu.cfs_period_us": "100000",
            },
            "5:memory:/job\n4:cpu,cpuacct:/job\n0::/\n",
            2e9,
            3.0,
        ),
        (  # in a container: its own cgroup is the root, the path is the host's
            {
                "memory/memory.limit_in_bytes": "500000000",
                "cpu/cpu.cfs_quota_us": "-1",
                "cpu/cpu.cfs_period_us": "100000",
            },
            "5:memory:/docker/1f\n4:cpu:/docker/1f\n",
            5e8,
            None,
        ),
        ({"memory.max": "garbled"}, "not a line\n", MACHINE, None),
    ],
)
def test_the_lowest_limit_of_all_levels_counts(tmp_path, files, own, memory, cpus):
    assert write(tmp_path, files, own) == (memory, cpus)


def test_threads_are_those_of_the_quota_rounded_up(monkeypatch):
    allowed = len(os.sched_getaffinity(0))
    for quota, threads in ((0.5, 1), (1.5, min(2, allowed)), (64.0, allowed), (None, allowed)):
        monkeypatch.setattr(container, "cpus", lambda quota=quota: quota)
        assert available_threads() == threads


def test_a_process_leaves_room_for_itself_in_a_small_container(monkeypatch):
    for memory, expected in ((16e9, 12.8e9), (4e9, 3.2e9), (1e9, 0.6e9), (0.4e9, 0.1e9)):
        monkeypatch.setattr(container, "memory", lambda memory=memory: memory)
        assert all_memory() == pytest.approx(expected)
        with workspace(threads=2) as con:
            assert Room.of(con).limit == pytest.approx(expected, rel=0.06)  # reported with one digit
            make_room(con, 2_000, 2)
            assert Room.of(con).limit <= 1.01 * expected
            two = Room(50e6, 2).larger(databases=2)
            assert two and two.limit <= expected / 2
    assert run_memory(2) == "100MB"
