"""How a source in a database is declared, and that a connection string in the file is refused without being shown."""

from __future__ import annotations

from contextlib import ExitStack

import duckdb
import pytest
from pydantic import ValidationError

from pip_dagster.cli.diagnoses_project import sources
from pip_dagster.declaration.server import Server
from pip_dagster.declaration.source import ORIGINS, Source
from pip_dagster.errors import DeclarationError, SourceAwayError, SourceError
from pip_dagster.flow.distributed.places import Places
from pip_dagster.flow.origins import kinds, mysql, postgres
from pip_dagster.flow.origins.opened import Opening
from pip_dagster.flow.origins.servers import is_away
from pip_dagster.flow.plan import make_plan

from .conftest import PASSWORD


def source(**keys):
    return Source.model_validate({"table": "raw.orders", **keys})


def test_a_server_is_named_by_a_variable_or_a_file():
    assert source(postgres="CRM_URL").postgres == Server(url_env="CRM_URL")
    assert source(mysql={"url_file": "/run/secrets/crm"}).place(None) == "mysql /run/secrets/crm"
    assert source(ducklake="data/lake.ducklake").place(None) == "data/lake.ducklake"
    assert source(ducklake={"url_env": "LAKE"}).place(None) == "ducklake LAKE"
    assert source(sqlite="data/shop.db").origin == "sqlite" and source().origin is None


@pytest.mark.parametrize("key", ["postgres", "mysql", "sqlite", "ducklake"])
@pytest.mark.parametrize(
    "value", [f"postgresql://u:{PASSWORD}@h/d", f"host=h password={PASSWORD}", {"url_env": f"mysql://u:{PASSWORD}@h"}]
)
def test_a_connection_string_is_refused_and_not_shown(tiny, key, value):
    with pytest.raises(ValidationError) as caught:
        source(**{key: value})
    assert PASSWORD not in str(caught.value)
    tiny.declare(source_database=None, sources={"orders": {"table": "raw.orders", key: value}})
    assert PASSWORD not in tiny.shell("check", code=1)


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"postgres": "A", "sqlite": "b"}, "`postgres` or `sqlite`, not both"),
        ({"postgres": {}}, "one of `url_env` and `url_file`"),
        ({"postgres": {"url_env": "A", "url_file": "b"}}, "one of `url_env` and `url_file`"),
        ({"parquet": "a/*.parquet", "remote_table": "b"}, "`remote_table` only for a table of a database"),
        ({"ducklake": "postgres:dbname=x"}, "must be a path"),
    ],
)
def test_what_does_not_fit_together_is_refused(keys, said):
    with pytest.raises(ValidationError, match=said):
        source(**keys)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (f"postgresql://u:{PASSWORD}@h/d\npostgresql://u:{PASSWORD}@h/e\n", "write one line"),
        (f"postgresql://u:{PASSWORD[:4]}\0{PASSWORD[4:]}@h/d", "write one line"),
        (f'CRM_URL="postgresql://u:{PASSWORD}@h/d"\n', "is not a Postgres connection string"),
        ("service=none_of_that_name", "none_of_that_name"),
    ],
    ids=["two lines", "NUL", "a line of a shell", "a service"],
)
def test_what_a_file_of_a_connection_string_holds_is_not_shown(tmp_path, content, said):
    (tmp_path / "secret").write_text(content)
    with duckdb.connect() as con, ExitStack() as stack, pytest.raises(SourceError, match=said) as caught:
        declared = source(postgres={"url_file": "secret"})
        postgres.open_origin(Opening(con, "shop", tmp_path, stack), "orders", declared)
    assert PASSWORD[:4] not in str(caught.value) and "Secret with name" not in str(caught.value)


def test_each_origin_has_a_module_or_is_a_file_of_duckdbs():
    assert {key for key in ORIGINS if kinds._ORIGINS.get(key)} == set(ORIGINS) - {"database", "parquet"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("mysql://ada:p%40ss@db:3307/shop", ("db", "3307", "ada", "p@ss", "shop")),
        ("host=db port=3307 user=ada password='p@ss' database=shop", ("db", "3307", "ada", "p@ss", "shop")),
    ],
)
def test_a_connection_string_of_mysql_becomes_a_secret(text, expected):
    found = mysql.connection_of(text, "w", "mysql A")
    assert tuple(found[key] for key in ("HOST", "PORT", "USER", "PASSWORD", "DATABASE")) == expected


@pytest.mark.parametrize("text", [f"postgresql://u:{PASSWORD}@h/d", f"{PASSWORD}", f"mysql://h:{PASSWORD}x/"])
def test_what_is_no_string_of_mysql_is_refused_and_not_shown(text):
    with pytest.raises(SourceError, match="what mysql A holds is not a MySQL connection string") as caught:
        mysql.connection_of(text, "w", "mysql A")
    assert PASSWORD not in str(caught.value)


def test_time_outs_of_the_connection_string_win_over_ours():
    secret, options = postgres.connection_of(
        f"postgresql://u:{PASSWORD}@h/d?connect_timeout=3&options=-c%20statement_timeout%3D5", "w", "p", "orders"
    )
    assert secret["PASSWORD"] == PASSWORD and PASSWORD not in options
    assert "connect_timeout=3 " in options and "statement_timeout=5 -c idle" in options and "600000" not in options


def test_tasks_of_a_cluster_do_not_read_it(tiny):
    tiny.declare(source_database=None, sources={"orders": {"table": "raw.orders", "sqlite": "shop.db"}})
    with pytest.raises(DeclarationError, match="tasks of a Ray cluster cannot read source 'orders' from shop.db"):
        Places.of(tiny.pipeline())


@pytest.mark.skipif(duckdb.__version__ != "1.5.5", reason="the packages of the extensions are for DuckDB 1.5.5")
def test_a_mysql_server_that_is_away_is_one_sentence(tiny, monkeypatch):
    monkeypatch.setenv("SHOP_URL", f"mysql://reader:{PASSWORD}@127.0.0.1:1/shop")
    monkeypatch.setenv("PIP_DAGSTER_LOCK_DEADLINE", "0")
    declared = {"table": "raw.orders", "partition_column": "day", "mysql": "SHOP_URL"}
    tiny.declare(source_database=None, sources={"orders": declared})
    with pytest.raises(SourceAwayError, match="source 'orders' .* mysql SHOP_URL does not answer") as caught:
        make_plan(tiny.pipeline(), tiny.partitions())
    assert PASSWORD not in str(caught.getrepr(chain=True))
    (found,) = sources(tiny.project)
    assert found.text.startswith("orders.orders: DuckDB's extension mysql_scanner")


@pytest.mark.skipif(duckdb.__version__.startswith("1."), reason="there are packages")
def test_without_the_extension_the_error_names_it(tiny, monkeypatch):
    monkeypatch.setenv("HOME", str(tiny.root))
    (tiny.root / "shop.db").touch()
    tiny.declare(source_database=None, sources={"orders": {"table": "raw.orders", "sqlite": "shop.db"}})
    with pytest.raises(SourceError, match="cannot load its extension sqlite_scanner, which .*source 'orders'"):
        make_plan(tiny.pipeline(), tiny.partitions())


# As the clients of MySQL and MariaDB write them.
AWAY = (
    'Failed to prepare MySQL query "SELECT 1": Server has gone away',
    'Failed to prepare MySQL query "SELECT 1": MySQL server has gone away',
    'Failed to store result for MySQL query "SELECT 1": Lost connection to server during query',
    "Failed to connect to MySQL database: Can't connect to local server through socket '/run/s' (2)",
    "Failed to connect to MySQL database: Too many connections",
    "Failed to execute query: Connection was killed",
)


@pytest.mark.parametrize("said", AWAY)
def test_a_lost_connection_to_mysql_is_a_server_that_is_away(said):
    assert is_away(duckdb.IOException(f"IO Error: {said}"))
    assert not is_away(duckdb.IOException("IO Error: Access denied for user 'reader'@'localhost'"))
