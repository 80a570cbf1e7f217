"""`pip-dagster` in a clone's environment, forked from a process that has imported the libraries.

Most of a documented command's CPU seconds are imports. Arguments, folder, environment, streams, exit code and process
are those of a command of its own; `make demo` and tests/test_packages.py run the real script.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

_SERVER = """
import gc, json, os, signal, socket, sys, time
import dagster, dagster.components, duckdb, numpy, pandas, pyarrow.parquet, scipy.stats, xgboost
from pip_dagster.cli import main, start
from pip_dagster.flow import materialize
import pip_dagster.components
gc.freeze()
listening = socket.socket(socket.AF_UNIX)
listening.bind(sys.argv[1])
listening.listen()
print("ready", flush=True)
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
while True:
    asked, _ = listening.accept()
    if os.fork():
        asked.close()
        continue
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    listening.close()
    size = int.from_bytes(asked.recv(8, socket.MSG_WAITALL), "big")
    _, streams, _, _ = socket.recv_fds(asked, 1, 3)
    arguments, folder, environment = json.loads(asked.recv(size, socket.MSG_WAITALL))
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    sys.stdin, sys.stdout = open(0), open(1, "w")
    sys.stderr = open(2, "w", buffering=1, errors="backslashreplace")
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    time.tzset()
    sys.argv = arguments
    sys.path[:0] = [folder for folder in environment.get("PYTHONPATH", "").split(os.pathsep) if folder]
    code = 1
    try:
        start.main()
        code = 0
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:
        sys.excepthook(*sys.exc_info())
    import atexit
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    asked.send(bytes([code]))
    os._exit(code)
"""

_SCRIPT = """#!{python} -IS
import json, os, socket, sys
answer = socket.socket(socket.AF_UNIX)
answer.connect({place!r})
asked = json.dumps([sys.argv, os.getcwd(), dict(os.environ)]).encode()
answer.send(len(asked).to_bytes(8, "big"))
socket.send_fds(answer, [b" "], [0, 1, 2])
answer.sendall(asked)
os._exit(int.from_bytes(answer.recv(1) or bytes([1]), "big"))
"""


class Server:
    """Forks a process for each command of an environment where `install` was called."""

    def __init__(self, place: Path, folder: Path, environment: dict[str, str]) -> None:
        self._place = place
        self._process = subprocess.Popen(
            [sys.executable, "-c", _SERVER, str(place)], cwd=folder, env=environment, stdout=subprocess.PIPE
        )
        assert self._process.stdout and self._process.stdout.readline() == b"ready\n"

    def install(self, environment: Path) -> None:
        """Have it run the `pip-dagster` of this virtual environment, of which `activate` then names the folder."""
        script = environment / "bin" / "pip-dagster"
        script.unlink()
        script.write_text(_SCRIPT.format(python=sys.executable, place=str(self._place)))
        script.chmod(0o755)
        activate = environment / "bin" / "activate"
        text = activate.read_text()
        activate.unlink()
        activate.write_text(text.replace(sys.prefix, str(environment)))

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.communicate()
