"""Sources in a MariaDB server, where one is installed."""

from __future__ import annotations

import getpass
import pwd
import shutil
import subprocess
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path

import duckdb
import pytest

from pip_dagster.errors import SourceAwayError, SourceError
from pip_dagster.flow.plan import make_plan
from pip_dagster.flow.reader import sources_alone
from pip_dagster.warehouse import s3
from pip_dagster.warehouse.connect import workspace

from .conftest import DECLARED, PASSWORD

pytestmark = [
    pytest.mark.lake("never"),
    pytest.mark.slice,
    pytest.mark.skipif(duckdb.__version__ != "1.5.5", reason="the packages of the extensions are for DuckDB 1.5.5"),
    pytest.mark.skipif(not (shutil.which("mariadbd") and shutil.which("mariadb")), reason="needs a MariaDB server"),
]

SECOND = "2024-03-02"


class Server:
    """A server with a database `raw`, which the user `reader` may read. It is called with SQL, as the superuser."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="pip_dagster_my"))
        user = getpass.getuser()
        with suppress(KeyError):  # the user that the distribution creates; without it, the server runs as we do
            user = pwd.getpwnam("mysql").pw_name
            shutil.chown(self.folder, user)
        self.socket, data = self.folder / "s", self.folder / "data"
        self._options = ["--no-defaults", f"--user={user}", f"--datadir={data}"]
        install = ["mariadb-install-db", *self._options, "--auth-root-authentication-method=normal"]
        subprocess.run(install, check=True, capture_output=True)
        self.start()
        self(f"CREATE DATABASE raw CHARACTER SET utf8mb4; CREATE USER reader@localhost IDENTIFIED BY '{PASSWORD}'")
        self("GRANT SELECT ON raw.* TO reader@localhost")
        self.url = f"socket={self.socket} user=reader password={PASSWORD} database=raw"

    def __call__(self, text: str) -> str:
        command = ["mariadb", "--no-defaults", "-uroot", "-S", str(self.socket), "-N", "-e", text]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    def start(self) -> None:
        start = ["mariadbd", *self._options, f"--socket={self.socket}", "--skip-networking"]
        self.process = subprocess.Popen(start, stderr=subprocess.DEVNULL)
        for _ in range(200):
            if self.socket.exists():
                return
            time.sleep(0.1)

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(30)

    def drop_connections(self) -> None:
        for line in self("SELECT id FROM information_schema.processlist WHERE user = 'reader'").split():
            self(f"KILL {line}")


@pytest.fixture(scope="module")
def server():
    found = Server()
    yield found
    found.stop()
    shutil.rmtree(found.folder, ignore_errors=True)


@pytest.fixture
def shop(tiny, server, monkeypatch):
    monkeypatch.setenv("SHOP_URL", server.url)
    server("DROP TABLE IF EXISTS raw.orders")
    with duckdb.connect() as con:
        s3.load_extension(con, "mysql_scanner", "a test", SourceError)
        socket = server.url.split()[0].partition("=")[2]
        con.execute(f"ATTACH 'socket={socket} user=root' AS my (TYPE mysql)")
        con.execute(f"ATTACH '{tiny.root}/sources.duckdb' AS src (READ_ONLY)")
        con.execute("CREATE TABLE my.raw.orders AS FROM src.raw.orders")
    tiny.declare(source_database=None, sources={"orders": {**DECLARED, "mysql": "SHOP_URL"}})
    return server


def test_scores_are_those_of_the_file_and_late_rows_make_their_partitions_stale(tiny, shop):
    tiny.run()
    assert tiny.scores() == tiny.expected()
    shop(f"UPDATE raw.orders SET quantity = 8 WHERE day = '{SECOND}'")
    assert [each.partition.key for each in make_plan(tiny.pipeline(), tiny.partitions()).stale] == [SECOND]


def test_texts_are_compared_as_duckdb_does_and_reads_see_one_state(tiny, shop):
    shop("UPDATE raw.orders SET shop = 'PLAIN' WHERE shop = 'plain' AND order_id % 2 = 0")
    with workspace(threads=2) as outer, sources_alone(outer, tiny.pipeline().spec, tiny.root) as con:
        query = "SELECT count(*), min(shop), max(shop) FROM raw.orders WHERE shop IN ('plain', 'PLAIN') AND shop > 'a'"
        lower, *both = con.execute(query).fetchone()
        shop("DELETE FROM raw.orders")
        assert con.execute(query).fetchone() == (lower, *both) and both == ["plain", "plain"] and 0 < lower < 200
        plain = "SELECT count(*) FROM raw.orders WHERE "
        assert con.execute(f"{plain} shop = 'plain'").fetchone() == (lower,)
        assert PASSWORD not in str(con.execute("FROM duckdb_databases()").fetchall())


def test_a_server_that_restarts_is_waited_for_and_one_that_is_away_is_named(tiny, shop, monkeypatch):
    monkeypatch.setenv("PIP_DAGSTER_LOCK_DEADLINE", "30")
    shop.stop()
    starting = threading.Timer(1.0, shop.start)
    starting.start()
    try:
        assert tiny.run(SECOND)[SECOND].scoring
    finally:
        starting.join()
    shop.stop()
    monkeypatch.setenv("PIP_DAGSTER_LOCK_DEADLINE", "0.5")
    try:
        with pytest.raises(SourceAwayError, match="Pipeline orders: source 'orders' .* does not answer") as caught:
            tiny.run(SECOND)
        assert PASSWORD not in str(caught.value)
    finally:
        shop.start()


def test_a_connection_that_is_dropped_meanwhile_fails_the_run_once(tiny, shop, amid_the_next_run):
    """Not each partition for itself; a sensor skips its tick for it, as for a server that is away."""
    amid_the_next_run(shop.drop_connections)
    with pytest.raises(SourceAwayError, match="Pipeline orders: .*source .*mysql SHOP_URL"):
        tiny.run()
    assert all(each.scoring for each in tiny.run().values())
