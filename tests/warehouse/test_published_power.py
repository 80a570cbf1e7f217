"""Loss of power while a partition is published: what reached the disk, in which order, as the system calls show it."""

import os
import re
import shutil
import subprocess
import sys

import pytest

DAYS = ["2024-03-01", "2024-03-02", "2024-03-03", "2024-03-04"]
CALL = re.compile(r"^\d+\s+(\w+)\((.*)\)\s+= (\d+)")


@pytest.mark.skipif(not shutil.which("strace"), reason="needs strace")
@pytest.mark.parametrize("first", [True, False])
def test_rows_reach_the_disk_before_their_name_and_the_ledger_last(tiny, tmp_path, first):
    if not first:
        tiny.run(DAYS[1])
    log = tmp_path / "calls"
    words = ["backfill", "orders", "--from", DAYS[0], "--to", DAYS[0], "--no-dagster"]
    traced = ["strace", "-f", "-qq", "-s", "4096", "-e", "trace=openat,fsync,fdatasync,rename,close", "-o", str(log)]
    command = [*traced, sys.executable, "-m", "pip_dagster.cli.main", *words]
    env = os.environ | {"PIP_DAGSTER_PROJECT": str(tiny.root)}
    ended = subprocess.run(command, cwd=tiny.root, env=env, capture_output=True, text=True, check=False, timeout=300)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    done = events(log.read_text())
    folder, state = tiny.project.published / "orders", tiny.root / "state"
    named = next(i for i, (what, path) in enumerate(done) if what == "rename" and path.endswith("/rows-0001.duckdb"))
    rows = done.index(("sync", done[named][1].replace("rows-0001.duckdb", ".rows-0001.duckdb.*.tmp")))
    synced = done.index(("sync", str(folder)), named)
    published = max(i for i, each in enumerate(done) if each == ("sync", f"{state}/warehouse.duckdb.wal"))
    assert rows < named < synced < published, done
    if first:
        assert synced < done.index(("sync", str(folder.parent)), named) < published, "the folder's own name too"
        views = done.index(("rename", str(tiny.project.published_database)))
        assert ("sync", str(state)) in done[views:], "and the views'"


def events(text):
    """What was synced and renamed, in order, by path; random parts of temporary names are stars."""
    found, paths = [], {}
    for line in text.splitlines():
        if not (call := CALL.match(line)):
            continue
        name, arguments, result = call.groups()
        if name == "openat":
            paths[result] = re.sub(r"\.[0-9a-f]{8}\.tmp", ".*.tmp", arguments.split('"')[1])
        elif name == "close":
            paths.pop(arguments, None)
        elif name == "rename":
            found.append(("rename", arguments.split('"')[3]))
        else:
            found.append(("sync", paths.get(arguments, "?")))
    return found
