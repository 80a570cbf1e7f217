"""Whether the process of a run still exists: it holds a file lock, which the kernel releases when the process dies.

A code server notices when a worker that it started dies. If both die at once, as in a power cut, Dagster considers the
run and its partitions in progress until `max_runtime_seconds`.
"""

import fcntl
import json
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import dagster as dg

from pip_dagster.warehouse.lock_file import mode_in

GONE = "The process of the run no longer exists. The partitions that it committed stay."


@contextmanager
def alive(instance: dg.DagsterInstance, run_id: str) -> Iterator[None]:
    """Hold the run's lock file while inside. If it cannot be created, the run is not considered dead.

    The file is in the run's own folder of the instance. It exists only with its lock held, or after a kill.
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
            # A failure here must not fail the run. A file that cannot be removed keeps its lock until the process
            # ends: without the lock the run would look dead.
            with suppress(OSError):
                file.unlink(missing_ok=True)
                os.close(descriptor)


def is_gone(instance: dg.DagsterInstance, run: dg.DagsterRun) -> bool:
    """Whether the run has started and its process died without a report; False if that cannot be known from here."""
    if run.status != dg.DagsterRunStatus.STARTED or instance.is_ephemeral:
        return False
    found = [_is_held(file) for file in _folder(instance, run.run_id).glob("pip_dagster.*.alive")]
    if not found or any(each is not False for each in found):
        return False
    # It may have ended normally in the meantime.
    now = instance.get_run_by_id(run.run_id)
    return now is not None and now.status == dg.DagsterRunStatus.STARTED


def end_if_gone(instance: dg.DagsterInstance, run: dg.DagsterRun) -> bool:
    """Report the run to Dagster as failed if its process is gone; returns whether it was."""
    if not is_gone(instance, run):
        return False
    instance.report_run_failed(run, GONE)
    return True


def _folder(instance: dg.DagsterInstance, run_id: str) -> Path:
    return Path(instance.storage_directory()) / run_id


def _locked(file: Path) -> int:
    """Create the file so that its lock is held from the moment that it has its name."""
    unnamed = file.with_suffix(".new")
    # Who may only read the folder must not be able to hold it: the run would look alive for ever.
    flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
    descriptor = os.open(unnamed, flags, mode_in(file.parent))
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.write(descriptor, json.dumps(_here()).encode())
        unnamed.replace(file)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _is_held(file: Path) -> bool | None:
    """Whether its process exists; None if unknown: it is another machine's, or was just removed."""
    try:
        with file.open(encoding="utf-8") as opened:
            there, here = json.load(opened), _here()
            # A lock may not be visible on another machine. Containers on one machine share its kernel; a rebooted
            # machine is the same machine.
            if not any(there.get(name) and there[name] == here[name] for name in here):
                return None
            fcntl.flock(opened, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except (OSError, ValueError, AttributeError):
        return None
    return False if file.exists() else None  # a normal end removes the file before it releases the lock


def _here() -> dict[str, str]:
    """What identifies this machine and this boot of its kernel."""
    boot = Path("/proc/sys/kernel/random/boot_id")
    return {"machine": platform.node(), "boot": boot.read_text().strip() if boot.is_file() else ""}
