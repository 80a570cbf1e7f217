"""Sources in a MariaDB server, where one is installed."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import duckdb
import pytest

from pip_dagster.errors import SourceError
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


@pytest.fixture(scope="module")
def server():
    """A function that runs SQL as the superuser; the user `reader` may read the database `raw`."""
    folder = Path(tempfile.mkdtemp(prefix="pip_dagster_my"))
    shutil.chown(folder, "mysql")
    socket, data = folder / "s", folder / "data"
    install = ["mariadb-install-db", "--no-defaults", "--user=mysql", f"--datadir={data}"]
    subprocess.run([*install, "--auth-root-authentication-method=normal"], check=True, capture_output=True)
    start = ["mariadbd", "--no-defaults", "--user=mysql", f"--datadir={data}", f"--socket={socket}"]
    process = subprocess.Popen([*start, "--skip-networking"], stderr=subprocess.DEVNULL)

    def sql(text):
        command = ["mariadb", "--no-defaults", "-uroot", "-S", str(socket), "-N", "-e", text]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    for _ in range(200):
        if socket.exists():
            break
        time.sleep(0.1)
    sql(f"CREATE DATABASE raw CHARACTER SET utf8mb4; CREATE USER reader@localhost IDENTIFIED BY '{PASSWORD}'")
    sql("GRANT SELECT ON raw.* TO reader@localhost")
    sql.url = f"socket={socket} user=reader password={PASSWORD} database=raw"
    yield sql
    process.terminate()
    process.wait(30)
    shutil.rmtree(folder, ignore_errors=True)


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
