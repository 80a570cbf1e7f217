"""Helpers of this folder can be imported: pytest's importlib mode puts no test folder on the path."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
SECRET = "0123456789abcdef" * 3  # pragma: allowlist secret


class Killer:
    """The process of `kill_server.py`."""

    def __init__(self, folder):
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("kill_server.py"))],
            env=os.environ | {"TMPDIR": str(folder), "SHOP_KEY": SECRET},
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self.folder, self.secret, self.lines = folder, SECRET, {"erase": 20_000, "run": 20_000}

    def __call__(self, root, do, **wanted):
        """What came of it: `killed`, or what it said."""
        self._process.stdin.write(json.dumps({"root": str(root), "do": do} | wanted) + "\n")
        self._process.stdin.flush()
        said = json.loads(self._process.stdout.readline())
        assert "failed" not in said, said["failed"]
        self.lines[do] = said.get("lines") or self.lines[do]
        return said

    def close(self):
        self._process.stdin.close()
        self._process.wait(timeout=60)
        self._process.stdout.close()


@pytest.fixture(scope="session")
def killer(tmp_path_factory):
    """What runs an erasure or a run in a process that is killed; its temporary files are in `killer.folder`."""
    folder = tmp_path_factory.mktemp("temporary")
    found = Killer(folder)
    yield found
    found.close()
