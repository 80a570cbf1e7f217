"""Parquet sources in S3: read like files, with the environment's credentials, and errors that say what to do."""

import secrets

import duckdb
import pytest

from pip_dagster.errors import SourceError
from pip_dagster.flow import extract
from pip_dagster.flow.plan import make_plan
from pip_dagster.orchestration.inputs import source_assets

FIRST, SECOND, THIRD, FOURTH = DAYS = ("2024-03-01", "2024-03-02", "2024-03-03", "2024-03-04")

SECRET = "S3cret/of+the=server"

pytestmark = [pytest.mark.lake("never"), pytest.mark.soak]


@pytest.fixture
def server(s3_server, monkeypatch):
    s3_server.allow(monkeypatch)
    return s3_server


@pytest.fixture
def orders(tiny, server):
    """The project with its source in S3, an object a day; the folder of the objects."""
    folder = f"s3://data/{secrets.token_hex(4)}/orders"
    for day in DAYS:
        write(tiny, server, folder, day)
    tiny.declare(sources=declared(f"{folder}/*.parquet"))
    return folder


def declared(parquet):
    return {"orders": {"table": "raw.orders", "parquet": parquet, "partition_column": "day"}}


def write(tiny, server, folder, day, columns="*"):
    attach = f"ATTACH '{tiny.root}/sources.duckdb' AS src (READ_ONLY)"
    server.put(f"{folder}/{day}.parquet", f"SELECT {columns} FROM src.raw.orders WHERE day = '{day}'", attach)


def test_partitions_are_scored_and_only_what_changed_is_stale(tiny, server, orders):
    tiny.run()
    assert tiny.scores() == tiny.expected()
    write(tiny, server, orders, SECOND, "* REPLACE (8 AS quantity)")
    assert [each.partition.key for each in make_plan(tiny.pipeline(), tiny.partitions()).stale] == [SECOND]
    tiny.source(f"UPDATE raw.orders SET quantity = 8 WHERE day = '{SECOND}'")
    tiny.run(SECOND)
    assert tiny.scores() == tiny.expected()


def test_one_object_is_a_source_too_and_observed_like_a_file(tiny, server, orders):
    from dagster._core.definitions.observe import observe

    tiny.declare(sources=declared(f"{orders}/{FIRST}.parquet"))
    assert tiny.run(FIRST)[FIRST].scoring
    assert tiny.scores() == tiny.expected(f"day = '{FIRST}'")
    result = observe(source_assets(tiny.pipeline()))
    [observed] = result.asset_observations_for_node("orders_sources")
    assert observed.metadata["dagster/row_count"].value == 50 and SECRET not in str(result.all_events)


def test_feature_sql_reads_no_other_object(tiny, server, orders, helpers):
    secret = orders.replace("/orders", "/secret")
    server.put(f"{secret}/x.parquet", "SELECT 1 AS one")
    for escape in (f"read_parquet('{secret}/x.parquet')", f"read_parquet('{orders}/../secret/x.parquet')"):
        tiny.declare(helpers.SQL.replace("FROM raw.orders", f"FROM raw.orders, {escape}"))
        tiny.declare(sources=declared(f"{orders}/*.parquet"))
        with pytest.raises(Exception, match=r"read_parquet\(\) "):
            tiny.run(FIRST)


@pytest.mark.parametrize(
    ("changes", "parquet", "said"),
    [
        ({"SECRET_ACCESS_KEY": "wr0ng-S3cret"}, None, "refuses the credentials.*Correct AWS_ACCESS_KEY_ID and"),
        ({"ACCESS_KEY_ID": "nobody"}, None, "refuses the credentials.*InvalidAccessKeyId"),
        ({"ENDPOINT_URL": "http://127.0.0.1:1"}, None, "S3 server http://127.0.0.1:1 does not answer. Start it"),
        ({}, "s3://no-such-bucket/x/*.parquet", "There is no bucket no-such-bucket on http.*Create it"),
        ({}, "s3://no-such-bucket/x.parquet", "There is no such object on .*correct the path s3://no-such-bucket/x"),
        ({}, "s3://data/none/*.parquet", "There is no such object on .*correct the path s3://data/none"),
        ({}, "s3://data/none.parquet", "There is no such object on .*correct the path s3://data/none.parquet"),
    ],
    ids=["secret", "key", "away", "bucket", "bucket of an object", "nothing", "no object"],
)
def test_what_s3_refuses_is_one_sentence_with_its_remedy(tiny, server, orders, monkeypatch, changes, parquet, said):
    server.allow(monkeypatch, **changes)
    if parquet:
        tiny.declare(sources=declared(parquet))
    with pytest.raises(SourceError, match=f"Pipeline orders: .*source 'orders' .*{said}") as caught:
        tiny.run()
    with pytest.raises(SourceError, match=said):
        make_plan(tiny.pipeline(), tiny.partitions())
    text = str(caught.value)
    assert "Traceback" not in text and "\n" not in text
    assert not any(each in text for each in ("wr0ng-S3cret", SECRET))


def test_without_credentials_it_says_which_to_set(tiny, server, orders, monkeypatch):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(SourceError, match="no credentials for s3://data/, which pipeline orders needs. Set AWS_ACCESS"):
        tiny.run()


def test_a_server_that_goes_away_between_fingerprint_and_read_fails_the_run_once(tiny, server, orders, monkeypatch):
    """Not each partition for itself: nothing is wrong with them."""

    def away(*arguments):
        monkeypatch.setattr(extract.FeatureQuery, "fill", failing)
        return real(*arguments)

    def failing(*_):
        raise duckdb.IOException(f"IO Error: Could not connect to server error for HTTP GET to '{server.url}/data/'")

    real = extract.fingerprints
    monkeypatch.setattr(extract, "fingerprints", away)
    with pytest.raises(SourceError, match=r"a source cannot be read from s3.*The S3 server .* does not answer.*Could"):
        tiny.run()


def test_an_object_that_is_replaced_between_fingerprint_and_read_is_stale_afterwards(tiny, server, orders, monkeypatch):
    real = extract.fingerprints

    def replaced(*arguments):
        found = real(*arguments)
        write(tiny, server, orders, FIRST, "* REPLACE (8 AS quantity)")
        return found

    monkeypatch.setattr(extract, "fingerprints", replaced)
    try:
        tiny.run(FIRST)
    except SourceError as error:  # DuckDB notices, where it still has the old object's footer
        assert "replaced while it was read" in str(error)
    monkeypatch.undo()
    server.allow(monkeypatch)
    assert FIRST in [each.partition.key for each in make_plan(tiny.pipeline(), tiny.partitions()).stale]
    tiny.source(f"UPDATE raw.orders SET quantity = 8 WHERE day = '{FIRST}'")
    tiny.run()
    assert tiny.scores() == tiny.expected()


def test_the_secret_is_stored_nowhere(tiny, server, orders):
    tiny.run()
    assert tiny.shell("status", "orders") and tiny.shell("lineage", "orders", FIRST)
    for path in tiny.root.rglob("*"):
        if path.is_file():
            assert SECRET.encode() not in path.read_bytes(), path


@pytest.mark.parametrize(
    ("parquet", "said"),
    [
        ("s3://data/x.parquet?s3_access_key_id=A&s3_secret_access_key=B", "must hold no credentials"),
        ("ftp://data/x.parquet", "cannot be ftp://; expected a path or s3://"),
    ],
)
def test_other_places_are_refused_when_they_are_declared(tiny, parquet, said):
    with pytest.raises(ValueError, match=said):
        tiny.declare(sources=declared(parquet)).pipeline()


def test_the_cli_reports_it_without_a_traceback(tiny, server, orders, monkeypatch):
    server.allow(monkeypatch, ENDPOINT_URL="http://127.0.0.1:1")
    assert "does not answer. Start it" in tiny.shell("plan", "orders", code=1)
