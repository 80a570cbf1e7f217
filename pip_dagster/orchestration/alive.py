"""Whether the process that works on a run is still there: it holds a lock, which the kernel takes back when it dies.

A code server notices when a worker that it started dies. Where both are gone at once, as in a power cut, Dagster takes
the run for running until `max_runtime_seconds`, and with it its partitions.
"""

import fcntl
import json
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import dagster as dg

GONE = "The process that worked on it is gone. What it had committed stays."


@contextmanager
def alive(instance: dg.DagsterInstance, run_id: str) -> Iterator[None]:
    """Give a sign of life of the run while inside. Where that cannot be kept there is none: it is not taken for dead.

    The file lies in the run's own folder of the instance. It is there only with its lock held, or after a kill.
    """
    if instance.is_ephemeral:
        yield
        return
    file = _folder(instance, run_id) / f"pip_dagster.{os.getpid()}.alive"
    descriptor = None
    with suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        descriptor = _locked(file)
    try:
        yield
    finally:
        if descriptor is not None:
            # What became of a run is no matter of its sign. One that cannot be taken away keeps its lock until the
            # process ends: without it the run would look dead.
            with suppress(OSError):
                file.unlink(missing_ok=True)
                os.close(descriptor)


def is_gone(instance: dg.DagsterInstance, run: dg.DagsterRun) -> bool:
    """Whether the run has begun and its process ended without a word. False wherever that cannot be told from here."""
    if run.status != dg.DagsterRunStatus.STARTED or instance.is_ephemeral:
        return False
    found = [_is_held(file) for file in _folder(instance, run.run_id).glob("pip_dagster.*.alive")]
    if not found or any(each is not False for each in found):
        return False
    # It may have ended in good order meanwhile.
    now = instance.get_run_by_id(run.run_id)
    return now is not None and now.status == dg.DagsterRunStatus.STARTED


def end_if_gone(instance: dg.DagsterInstance, run: dg.DagsterRun) -> bool:
    """Tell Dagster that the run failed, if its process is gone; whether it was."""
    if not is_gone(instance, run):
        return False
    instance.report_run_failed(run, GONE)
    return True


def _folder(instance: dg.DagsterInstance, run_id: str) -> Path:
    return Path(instance.storage_directory()) / run_id


def _locked(file: Path) -> int:
    """The file with its lock held from the moment that it has its name."""
    unnamed = file.with_suffix(".new")
    descriptor = os.open(unnamed, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.write(descriptor, json.dumps(_here()).encode())
        unnamed.replace(file)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _is_held(file: Path) -> bool | None:
    """Whether its process is there; None when that cannot be told: it was another machine's, or has just gone."""
    try:
        with file.open(encoding="utf-8") as opened:
            there, here = json.load(opened), _here()
            # A lock may not reach from one machine to another. Containers of one machine share its kernel; a machine
            # that was started again is the same one.
            if not any(there.get(name) and there[name] == here[name] for name in here):
                return None
            fcntl.flock(opened, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except (OSError, ValueError, AttributeError):
        return None
    return False if file.exists() else None  # it goes before its lock does, in good order


def _here() -> dict[str, str]:
    """By what this machine, and this start of its kernel, are told from others."""
    boot = Path("/proc/sys/kernel/random/boot_id")
    return {"machine": platform.node(), "boot": boot.read_text().strip() if boot.is_file() else ""}
