"""The probe of a model's registration, run once for each model, sample and claims in a run of the tests.

It takes a second of CPU, and the tests register the same few models hundreds of times. An answer is a function of the
request's contents, so that of an equal request is kept, with the files that the probe wrote; all workers share them. A
refusal is not kept.

Nearly all of that second are imports. So a probe is forked from a process that has made them: it has limits, a time and
a death of its own, as one that `sandbox` starts.
"""

from __future__ import annotations

import hashlib
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from pip_dagster.registry.sandbox import ProbeReport, ProbeRequest

Probe = Callable[[ProbeRequest, Path, float], ProbeReport]
_WRITTEN = ("golden", "convert_to")


def remembering(probe: Probe, kept: Path) -> Probe:
    """The same probe, with its answers in the folder `kept`."""

    def run(request: ProbeRequest, folder: Path, seconds: float) -> ProbeReport:
        place = kept / _digest(request, seconds)
        if not place.is_dir():
            report = probe(request, folder, seconds)
            new = Path(tempfile.mkdtemp(dir=kept))
            (new / "report.json").write_text(report.model_dump_json())
            for name, path in _outputs(request):
                shutil.copyfile(path, new / name)
            try:
                new.rename(place)
            except OSError:  # another worker was faster
                shutil.rmtree(new)
            return report
        for name, path in _outputs(request):
            shutil.copyfile(place / name, path)
        return ProbeReport.model_validate_json((place / "report.json").read_bytes())

    return run


def _outputs(request: ProbeRequest) -> list[tuple[str, Path]]:
    return [(name, path) for name in _WRITTEN if (path := getattr(request, name)) is not None]


def _digest(request: ProbeRequest, seconds: float) -> str:
    paths = ("model", "sample", "held_out", *_WRITTEN)
    left_out = {"name": True, "training": {"file": True}} | dict.fromkeys(paths, True)  # a name is in refusals only
    found = hashlib.sha256(request.model_dump_json(exclude=left_out).encode())
    found.update(repr((seconds, request.convert_to is None)).encode())
    inputs = [request.model, request.sample, request.held_out, request.training.file if request.training else None]
    for path in filter(None, inputs):
        for file in [path] if path.is_file() else sorted(each for each in path.rglob("*") if each.is_file()):
            found.update(os.fsencode(file.relative_to(path)))
            found.update(file.read_bytes())
    return found.hexdigest()


_SERVER = """
import json, os, sys
from pip_dagster.registry import probe
hidden = probe._Without()
sys.meta_path.insert(0, hidden)
import duckdb, pyarrow.parquet
from pip_dagster.registry import encoding, probe_composite, sample, training_causes, training_scores
from pip_dagster.registry.engines import DEFAULT, engine_named
engine_named(DEFAULT).preload()
sys.meta_path.remove(hidden)
for line in sys.stdin:
    folder, path, environment = json.loads(line)
    if not (pid := os.fork()):
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(environment)
        for descriptor, name in ((1, "stdout"), (2, "stderr")):
            os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), descriptor)
        sys.argv = [probe.__file__, path]
        try:
            probe.main()
        except BaseException:
            sys.excepthook(*sys.exc_info())
        os._exit(1)
    print(pid, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""


class ProbeServer:
    """`subprocess` for `sandbox`: its `run` answers as that of a new process does."""

    TimeoutExpired = subprocess.TimeoutExpired

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._path = ""

    def run(
        self, command: list[str], *, cwd: Path, env: dict[str, str], timeout: float, **options: Any
    ) -> subprocess.CompletedProcess[str]:
        """In a process of its own where a test has another path, or a limit that starting one exceeds."""
        if self._process is None:
            self._path = env["PYTHONPATH"]
            server = [sys.executable, "-c", _SERVER]
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
            # Unbuffered: what one `readline` left in a buffer, `select` would not see.
            self._process = subprocess.Popen(server, env=env, bufsize=0, **pipes)
        if env["PYTHONPATH"] != self._path or timeout < 1:
            return subprocess.run(command, cwd=cwd, env=env, timeout=timeout, check=False, **options)
        server = self._process
        assert server.stdin and server.stdout
        server.stdin.write(f"{json.dumps([str(cwd), command[-1], env])}\n".encode())
        pid = int(server.stdout.readline())
        late = not select.select([server.stdout], [], [], timeout)[0]
        if late:
            with suppress(ProcessLookupError):  # it ended just now
                os.kill(pid, 9)
        code = int(server.stdout.readline())
        if late:
            raise subprocess.TimeoutExpired(command, timeout)
        printed = [(Path(cwd) / name).read_text(errors="replace") for name in ("stdout", "stderr")]
        return subprocess.CompletedProcess(command, code, *printed)

    def close(self) -> None:
        """End the server."""
        if self._process:
            self._process.communicate()
