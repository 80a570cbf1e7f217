"""Files on servers: S3, Google Cloud Storage by its S3 protocol, and the web; real servers in this process."""

import functools
import gzip
import http.server
import importlib.util
import re
import threading
import urllib.request

import duckdb
import pytest

from pip_dagster.errors import DeclarationError, SourceAwayError, SourceError
from pip_dagster.flow.plan import make_plan
from pip_dagster.flow.reader import sources_alone
from pip_dagster.flow.unchanged import state_of
from pip_dagster.warehouse import remote
from pip_dagster.warehouse.connect import workspace

FIRST, SECOND = "2024-03-01", "2024-03-02"
KEY, SECRET = "pip-dagster-key", "S3cret/of+the=server"
ORDERS = {"order_id": "BIGINT", "day": "DATE", "gift": "BOOLEAN", "shop": "VARCHAR", "quantity": "INTEGER"}
ORDERS["amount"] = "DOUBLE"

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("duckdb_extension_httpfs") is None or duckdb.__version__ != "1.5.5",
    reason="needs DuckDB 1.5.5 and the packages of the extra `lake`",
)


@pytest.fixture(scope="module")
def s3_url():
    """An S3 server with the bucket `data`."""
    server = pytest.importorskip("moto.server", reason="needs the package moto").ThreadedMotoServer(
        "127.0.0.1", port=0, verbose=False
    )
    server.start()
    host, port = server.get_host_and_port()
    url = f"http://{host}:{port}"
    urllib.request.urlopen(urllib.request.Request(f"{url}/data", method="PUT"), timeout=10).close()
    yield url
    server.stop()


@pytest.fixture
def store(s3_url, monkeypatch):
    """The environment of both protocols."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_url)
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.setenv("GCS_ENDPOINT_URL", s3_url)
    for service in ("AWS", "GCS"):
        monkeypatch.setenv(f"{service}_ACCESS_KEY_ID", KEY)
        monkeypatch.setenv(f"{service}_SECRET_ACCESS_KEY", SECRET)
    return s3_url


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture
def web(tmp_path):
    """A folder and the web server that offers it."""
    folder = tmp_path / "www"
    folder.mkdir()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield folder, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def copy(tiny, path, options, select="*"):
    """Write the project's orders there."""
    with workspace(threads=1) as con:
        if "://" in path:
            remote.reach(con, "/".join(path.split("/")[:3]) + "/", "the test", SourceError)
        con.execute(f"ATTACH '{tiny.root}/sources.duckdb' AS src (READ_ONLY)")
        con.execute(f"COPY (SELECT {select} FROM src.raw.orders) TO '{path}' ({options})")


def declare(tiny, key, place):
    source = {"table": "raw.orders", key: place, "partition_column": "day"}
    source |= {} if key in ("parquet", "delta", "iceberg") else {"columns": ORDERS}
    return tiny.declare(source_database=None, sources={"orders": source})


def rows(tiny):
    spec = tiny.pipeline().spec
    with workspace(threads=1) as con, sources_alone(con, spec, tiny.root) as own:
        return own.execute("SELECT order_id, quantity, shop, day::VARCHAR FROM raw.orders ORDER BY 1").fetchall()


def expected(tiny):
    return tiny.source_rows("SELECT order_id, quantity, shop, day::DATE::VARCHAR FROM raw.orders ORDER BY 1")


OPTIONS = {"parquet": "FORMAT parquet", "csv": "FORMAT csv, HEADER", "json": "FORMAT json"}


@pytest.mark.slice
def test_every_format_is_read_from_every_server(tiny, store, web):
    folder, url = web
    for key, options in OPTIONS.items():
        for scheme in ("s3", "gs"):
            copy(tiny, f"{scheme}://data/{key}/{scheme}/1.{key}", options)
            assert rows(declare(tiny, key, f"{scheme}://data/{key}/{scheme}/*.{key}")) == expected(tiny), scheme
        copy(tiny, f"{folder}/orders.{key}", options)
        assert rows(declare(tiny, key, f"{url}/orders.{key}")) == expected(tiny), key


@pytest.mark.parametrize("name", ["orders.json", "orders.json.gz"])
def test_an_array_that_was_cut_off_after_a_comma_is_refused_from_the_web_too(tiny, web, name):
    folder, url = web
    copy(tiny, f"{folder}/whole.json", "FORMAT json, ARRAY true")
    whole = (folder / "whole.json").read_bytes()
    write = gzip.compress if name.endswith(".gz") else bytes
    (folder / name).write_bytes(write(whole))
    assert rows(declare(tiny, "json", f"{url}/{name}")) == expected(tiny)
    (folder / name).write_bytes(write(whole[: whole.index(b",\n", len(whole) // 2) + 2]))
    with pytest.raises(SourceError, match=rf"{name} was cut off: its array does not end"):
        rows(tiny)


def test_a_file_of_the_web_is_scored_and_its_change_is_noticed(tiny, web):
    folder, url = web
    copy(tiny, f"{folder}/orders.csv", OPTIONS["csv"])
    declare(tiny, "csv", f"{url}/orders.csv")
    assert tiny.run(FIRST)[FIRST].error is None
    assert tiny.scores() == tiny.expected(f"day = '{FIRST}'")
    assert not make_plan(tiny.pipeline(), tiny.partitions(FIRST)).stale
    copy(tiny, f"{folder}/orders.csv", OPTIONS["csv"], f"* REPLACE (if(day = '{FIRST}', 8, quantity) AS quantity)")
    assert make_plan(tiny.pipeline(), tiny.partitions(FIRST)).stale


def test_feature_sql_reads_no_other_file_of_a_server(tiny, web, helpers):
    folder, url = web
    copy(tiny, f"{folder}/orders.parquet", OPTIONS["parquet"])
    (folder / "secret.csv").write_text("a\n1\n")
    declare(tiny, "parquet", f"{url}/orders.parquet")
    for escape in (f"read_csv('{url}/secret.csv')", f"'{url}/secret.csv'"):
        (tiny.folder / "features.sql").write_text(helpers.SQL.replace("FROM raw.orders", f"FROM raw.orders, {escape}"))
        with pytest.raises(DeclarationError, match=r"secret.csv|read_csv"):
            tiny.pipeline()
    (tiny.folder / "features.sql").write_text(helpers.SQL)
    with workspace(threads=1) as con, sources_alone(con, tiny.pipeline().spec, tiny.root) as own:
        assert own.execute("SELECT count(*) FROM raw.orders").fetchone() == (200,)
        with pytest.raises(duckdb.Error, match="disabled|Permission"):
            own.execute(f"FROM read_csv('{url}/secret.csv')")


def test_delta_tables_are_read_from_both(tiny, store):
    deltalake = pytest.importorskip("deltalake")
    pytest.importorskip("duckdb_extension_delta")
    options = {"AWS_ENDPOINT_URL": store, "AWS_ALLOW_HTTP": "true", "aws_conditional_put": "etag"}
    options |= {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_REGION": "us-east-1"}
    with duckdb.connect(str(tiny.root / "sources.duckdb"), read_only=True) as con:
        table = con.execute("SELECT * FROM raw.orders").to_arrow_table()
    deltalake.write_deltalake("s3://data/delta/orders", table, storage_options=options, mode="overwrite")
    assert rows(declare(tiny, "delta", "gs://data/delta/orders")) == expected(tiny)
    assert rows(declare(tiny, "delta", "s3://data/delta/orders")) == expected(tiny)
    with pytest.raises(SourceError, match="there is no Delta table in s3://data/none"):
        rows(declare(tiny, "delta", "s3://data/none"))


@pytest.mark.parametrize(
    ("key", "place", "said"),
    [
        ("csv", "gs://no-such-bucket/*.csv", "There is no bucket no-such-bucket on http://127"),
        ("csv", "s3://data/none/*.csv", "no file matches"),
        ("json", "s3://data/none/1.json", "no file matches|There is no such object"),
        ("delta", "gs://no-such-bucket/t", "There is no bucket no-such-bucket"),
    ],
)
def test_what_a_server_has_not_is_a_sentence(tiny, store, key, place, said):
    with pytest.raises(SourceError, match=f"source 'orders' .*({said})") as caught:
        rows(declare(tiny, key, place))
    assert "\n" not in str(caught.value) and SECRET not in str(caught.value)


def test_a_file_that_the_web_has_not_is_a_sentence(tiny, web):
    for key in OPTIONS:
        with pytest.raises(SourceError, match="no such object on http://127.*correct the path http://127"):
            rows(declare(tiny, key, f"{web[1]}/none.{key}"))


@pytest.mark.slice
def test_a_server_that_is_away_is_that(tiny, store, monkeypatch):
    """The sensors skip a tick, and no partition fails."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    for key in (*OPTIONS, *(["delta"] if importlib.util.find_spec("duckdb_extension_delta") else [])):
        for place in ("s3://data/x", "http://127.0.0.1:1/x"):
            if key == "delta" and place.startswith("http"):
                continue
            with pytest.raises(SourceAwayError, match=r"127\.0\.0\.1:1 does not answer.*"):
                make_plan(declare(tiny, key, place).pipeline(), tiny.partitions())


def test_a_server_that_does_not_answer_ends_at_the_deadline(tiny, monkeypatch):
    import socket

    monkeypatch.setattr(remote, "_TIMEOUT", 1)
    monkeypatch.setattr(remote, "_RETRIES", 0)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        place = f"http://127.0.0.1:{silent.getsockname()[1]}/x.csv"
        with pytest.raises(SourceAwayError, match="does not answer"):
            rows(declare(tiny, "csv", place))


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("gs://data/x.csv", "no credentials for gs://data/.*GCS_ACCESS_KEY_ID and GCS_SECRET_ACCESS_KEY"),
        ("az://data/x.csv", "no storage account for az://data/.*AZURE_STORAGE_CONNECTION_STRING"),
        ("abfss://data/x.csv", "no storage account for abfss://data/"),
    ],
)
def test_without_credentials_it_says_which_to_set(tiny, monkeypatch, place, said):
    if place.startswith(("az", "abfss")):
        pytest.importorskip("duckdb_extension_azure")
    for name in ("GCS_ACCESS_KEY_ID", "AZURE_STORAGE_ACCOUNT", "AZURE_STORAGE_CONNECTION_STRING"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(SourceError, match=said):
        rows(declare(tiny, "csv", place))


@pytest.mark.slice
def test_an_azure_that_is_away_is_that_and_shows_no_key(tiny, monkeypatch):
    pytest.importorskip("duckdb_extension_azure")
    secret = "c2VjcmV0LW9mLXRoZS1hY2NvdW50"
    monkeypatch.setenv(
        "AZURE_STORAGE_CONNECTION_STRING",
        f"DefaultEndpointsProtocol=http;AccountName=a;AccountKey={secret};BlobEndpoint=http://127.0.0.1:1/a;",
    )
    with pytest.raises(SourceAwayError, match="Azure does not answer") as caught:
        rows(declare(tiny, "parquet", "az://data/*.parquet"))
    assert secret not in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.slice
def test_secrets_are_stored_nowhere(tiny, store):
    copy(tiny, "gs://data/secret/1.csv", OPTIONS["csv"])
    declare(tiny, "csv", "gs://data/secret/*.csv")
    tiny.run(FIRST)
    assert tiny.shell("status", "orders") and tiny.shell("lineage", "orders", FIRST)
    for path in tiny.root.rglob("*"):
        if path.is_file():
            assert not re.search(re.escape(SECRET.encode()), path.read_bytes()), path


def test_the_state_of_objects_shows_whether_they_changed_without_reading_them(tiny, store, monkeypatch):
    from pip_dagster.flow import unchanged
    from pip_dagster.flow.origins import listing

    monkeypatch.setattr(unchanged, "_SETTLED_SECONDS", -1e9)
    monkeypatch.setattr(listing, "SETTLED_SECONDS", -1e9)
    copy(tiny, "s3://data/state/1.csv", OPTIONS["csv"])
    declare(tiny, "csv", "s3://data/state/*.csv")
    before = state_of(tiny.pipeline(), tiny.partitions())
    assert before is not None and state_of(tiny.pipeline(), tiny.partitions()) == before
    copy(tiny, "s3://data/state/2.csv", OPTIONS["csv"])
    assert state_of(tiny.pipeline(), tiny.partitions()) != before


@pytest.mark.slice
def test_an_iceberg_table_is_read_from_s3(tiny, store):
    """Importing pyiceberg takes seconds."""
    catalogs = pytest.importorskip("pyiceberg.catalog.sql")
    pytest.importorskip("duckdb_extension_iceberg")
    with duckdb.connect(str(tiny.root / "sources.duckdb"), read_only=True) as con:
        table = con.execute("SELECT * FROM raw.orders").to_arrow_table()
    options = {"s3.endpoint": store, "s3.access-key-id": KEY, "s3.secret-access-key": SECRET, "s3.region": "us-east-1"}
    catalog = catalogs.SqlCatalog("c", uri=f"sqlite:///{tiny.root}/cat.db", warehouse="s3://data/ice", **options)
    catalog.create_namespace("shop")
    written = catalog.create_table("shop.orders", schema=table.schema)
    written.append(table)
    place = written.location()
    assert rows(declare(tiny, "iceberg", place)) == expected(tiny)
    tiny.run(FIRST)
    assert tiny.scores() == tiny.expected(f"day = '{FIRST}'")
