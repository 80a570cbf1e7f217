"""A process that forks another for each delivery, and kills that one before the line that was named.

The lines that are counted are those of `pip_dagster/delivery`, so every point between two of them is met.
"""

import base64
import os
import pickle
import subprocess
import sys
from contextlib import suppress
from importlib import import_module
from pathlib import Path


def killing(at):
    """A trace that ends the process before the line of the room `delivery` with this number."""
    seen = 0

    def line(frame, event, arg):
        nonlocal seen
        if event == "line":
            seen += 1
            if seen == at:
                os._exit(9)
        return line

    def trace(frame, event, arg):
        return line if "/pip_dagster/delivery/" in frame.f_code.co_filename else None

    return trace


def deliver(kind, change, file, at):
    """Deliver in this process, which ends before the line with this number."""
    from pip_dagster.delivery.target import ChangeRows, NewerChangeError

    sys.settrace(killing(at))
    try:
        target = kind.open()
        target.deliver(change, ChangeRows(file))
        target.close()
    except NewerChangeError:
        os._exit(3)
    os._exit(0)


def serve():
    import duckdb  # noqa: F401
    import pyarrow.parquet  # noqa: F401

    import pip_dagster.delivery.parquet  # noqa: F401

    for name in ("deltalake", "psycopg2"):  # what is imported here, no child imports under the trace
        with suppress(ImportError):
            import_module(name)
    with suppress(ImportError):
        from pip_dagster.delivery.s3_client import _session

        _session().client("s3", region_name="us-east-1")
    for text in sys.stdin:
        job = pickle.loads(base64.b64decode(text))
        if not (pid := os.fork()):
            try:
                deliver(*job)
            except BaseException:
                import traceback

                traceback.print_exc()
            os._exit(1)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)


class Killer:
    """The process, for a module of tests."""

    def __init__(self):
        here = Path(__file__)
        self._process = subprocess.Popen(
            [sys.executable, str(here)],
            env=os.environ
            | {"PYTHONPATH": os.pathsep.join(filter(None, (str(here.parent), os.environ.get("PYTHONPATH"))))},
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def deliver(self, kind, change, file, at):
        """Whether the delivery ended before it was killed."""
        self._process.stdin.write(base64.b64encode(pickle.dumps((kind, change, file, at))).decode() + "\n")
        self._process.stdin.flush()
        code = int(self._process.stdout.readline())
        assert code in (0, 9), code
        return code == 0

    def close(self):
        self._process.stdin.close()
        self._process.wait(timeout=30)


if __name__ == "__main__":
    serve()
