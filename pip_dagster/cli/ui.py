"""`pip-dagster ui`: Dagster's UI and daemon with the project's pipelines loaded."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import click

from pip_dagster.cli.dagster_home import dagster_home, trouble_with_home
from pip_dagster.cli.options import json_option
from pip_dagster.cli.output import progress
from pip_dagster.cli.ports import HOST, PORT, free_port, port_in_use
from pip_dagster.declaration.project import Project
from pip_dagster.errors import ProjectError

# Dagster's warnings of its own command and of betas that it uses.
_QUIET = "ignore:Function `dev_command`,ignore:Parameter `execution_type`"
# A backfill waits for a code server that restarts, and does not take its assets for removed.
PATIENT = {"DAGSTER_BACKFILL_RETRY_DEFINITION_CHANGED_ERROR": "1"}
_ENDS_WITHIN, _LEFT_END_WITHIN = 20.0, 5.0  # seconds, after which its processes are ended, then killed


@click.command()
@click.option("--port", default=PORT, show_default=True, type=click.IntRange(1, 65535), help="Of the UI.")
@click.option("--host", default=HOST, show_default=True, help="The address to serve on; 0.0.0.0 for every network.")
@json_option
@click.pass_obj
def ui(root: Path | None, port: int, host: str, as_json: bool) -> None:
    """Open Dagster with the project's pipelines: UI, schedules and sensors. Ctrl-C ends it.

    Without DAGSTER_HOME, runs are kept in the project's folder .dagster_home, as by `run`.

    Exit code 0: ended by Ctrl-C or SIGTERM. 1: it cannot start, or Dagster ended by itself.
    """
    project = Project.named(root) if root else Project.find()
    if port_in_use(port):
        other = f"--project {root} " if root else ""
        raise ProjectError(f"Port {port} is in use. Take another: pip-dagster {other}ui --port {free_port(port)}")
    home = dagster_home(project, create=True)
    assert home
    if trouble := trouble_with_home(home):
        raise ProjectError(f"{trouble[0]}. {trouble[1]}, or unset it.")
    command = [sys.executable, "-m", "dagster", "dev", "--host", host, "--port", str(port), "--log-level", "error"]
    environment = os.environ | PATIENT | project.environment() | {"DAGSTER_HOME": home}
    environment["PYTHONWARNINGS"] = ",".join(filter(None, (_QUIET, os.environ.get("PYTHONWARNINGS"))))
    with _workspace(project) as workspace:
        progress(f"Dagster starts on http://{host}:{port}, which takes some seconds. Its runs are in {home}.")
        # A relative working_directory of workspace.yaml is relative to where Dagster starts.
        code = _serve([*command, "--workspace", str(workspace)], environment, str(project.root), port)
    if code:
        raise click.ClickException(f"Dagster ended with exit code {code}; its own lines above say why.")


@contextmanager
def _workspace(project: Project) -> Iterator[Path]:
    """What Dagster loads: the project's workspace.yaml, or one with the module that its pyproject.toml names."""
    own = project.root / "workspace.yaml"
    if own.is_file():
        yield own
        return
    module = project.code_location
    if module is None:
        raise ProjectError(
            f"{project.root} has neither a workspace.yaml nor `root_module` in [tool.dg.project] of its "
            "pyproject.toml, so Dagster does not know what to load. Add one of them; `pip-dagster init NAME` writes "
            "a project with both."
        )
    # By --module-name the location would have another name than pyproject.toml declares, of which Dagster warns.
    name = project.location_name or module
    place = {"module_name": module, "location_name": name, "working_directory": str(project.root)}
    with tempfile.TemporaryDirectory(prefix="pip_dagster_ui_") as folder:
        file = Path(folder) / "workspace.yaml"
        file.write_text(json.dumps({"load_from": [{"python_module": place}]}), encoding="utf-8")
        yield file


def _serve(command: list[str], environment: dict[str, str], folder: str, port: int) -> int:
    """Run it until it ends or a signal arrives; then its processes are ended. 0 after a signal."""
    # In a session of its own, Ctrl-C reaches this process alone, which ends the others in order.
    with (
        _signals_interrupt(),
        subprocess.Popen(
            command, env=environment, cwd=folder, start_new_session=True, stderr=subprocess.PIPE
        ) as process,
        _forwarding(process) as ending,
    ):
        try:
            while process.poll() is None and not port_in_use(port):
                time.sleep(0.3)
            if process.poll() is None:
                progress(f"Open http://{HOST}:{port}. Ctrl-C ends it.")
            return process.wait()
        except KeyboardInterrupt:
            progress("Ending Dagster: runs that it started end with it.")
            return 0
        finally:
            ending.set()
            _end(process)


@contextmanager
def _forwarding(process: subprocess.Popen[bytes]) -> Iterator[threading.Event]:
    """Print Dagster's errors, until the event is set: what is ended while it starts prints tracebacks."""
    ending = threading.Event()

    def forward() -> None:
        assert process.stderr
        for line in process.stderr:
            if not ending.is_set():
                with suppress(OSError, ValueError):
                    sys.stderr.buffer.write(line)
                    sys.stderr.flush()

    thread = threading.Thread(target=forward, name="errors of Dagster", daemon=True)
    thread.start()
    yield ending
    thread.join(1.0)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the process, which ends its own, then whatever is left of them."""
    try:
        with suppress(ProcessLookupError, subprocess.TimeoutExpired):
            process.send_signal(signal.SIGINT)
            process.wait(_ENDS_WITHIN)
        until = time.monotonic() + _LEFT_END_WITHIN
        while _signal(process.pid, signal.SIGTERM) and time.monotonic() < until:
            process.poll()
            time.sleep(0.2)
    finally:  # a second Ctrl-C as well
        _signal(process.pid, signal.SIGKILL)


def _signal(group: int, signalled: signal.Signals) -> bool:
    """Whether there is such a process group."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signalled)
        return True
    return False


@contextmanager
def _signals_interrupt() -> Iterator[None]:
    """SIGTERM is Ctrl-C; and so is SIGINT where a shell had it ignored, as for a command in the background."""
    before = {each: signal.signal(each, signal.default_int_handler) for each in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
