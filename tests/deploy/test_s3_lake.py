"""A lake whose Parquet files are in S3: outages are waited for, refusals are explained, secrets are stored nowhere."""

import secrets
import threading
from pathlib import Path

import pytest

from pip_dagster.declaration.lake import is_transient
from pip_dagster.errors import StorageError, WarehouseError
from pip_dagster.flow import store_scores
from pip_dagster.flow.storing import insert_counted
from pip_dagster.ledger.verify import verify
from pip_dagster.warehouse import windows
from pip_dagster.warehouse.connect import open_warehouse, workspace

FIRST, SECOND, THIRD, FOURTH = DAYS = ("2024-03-01", "2024-03-02", "2024-03-03", "2024-03-04")
SECRET = "S3cret/of+the=server"

pytestmark = pytest.mark.lake("only")


@pytest.fixture
def lake(tiny, s3_server, monkeypatch):
    """The project with 4 days that are large enough for files: a lake keeps a few rows in its catalog."""
    s3_server.allow(monkeypatch)
    monkeypatch.setenv("PIP_DAGSTER_DATA_PATH", f"s3://lake/{secrets.token_hex(4)}")
    tiny.source(
        "INSERT INTO raw.orders SELECT o.* REPLACE (order_id + 1000 * k AS order_id) "
        "FROM raw.orders o, range(1, 9) t(k)"
    )
    return tiny


def live(tiny):
    return tiny.warehouse("SELECT partition_key, count(*) FROM orders.predictions GROUP BY 1 ORDER BY 1")


@pytest.mark.soak
def test_partitions_are_scored_stored_and_read(lake):
    assert not any(result.error for result in lake.run().values())
    assert lake.scores() == lake.expected()
    assert live(lake) == [(day, 450) for day in DAYS]
    files = lake.warehouse(f"SELECT count(*) FROM glob('{lake.project.warehouse.data_path}**/*.parquet')")
    assert files[0][0] > 0, "features and scores are objects"
    lake.shell("maintain", "--keep-days", "1")
    assert lake.scores() == lake.expected() and live(lake) == [(day, 450) for day in DAYS]
    with workspace(threads=1) as con, open_warehouse(con, lake.project.warehouse, purpose="test", read_only=True):
        verify(con)


@pytest.mark.soak
def test_a_server_that_is_killed_in_a_run_is_waited_for(lake, tmp_path, s3_server, monkeypatch):
    server = type(s3_server)(tmp_path / "s3")
    server.start()
    server.allow(monkeypatch)
    killed = []

    def killing(*arguments):
        if not killed:
            killed.append(True)
            server.kill()
            threading.Timer(3, server.start).start()
        return insert_counted(*arguments)

    monkeypatch.setattr(store_scores, "insert_counted", killing)
    try:
        assert not any(result.error for result in lake.run().values())
        assert killed and lake.scores() == lake.expected()
        assert lake.warehouse("SELECT count(*) FROM ledger.scorings WHERE status = 'scored'") == [(4,)]
    finally:
        server.kill()


@pytest.mark.soak
def test_one_that_stays_away_ends_the_run_with_a_sentence_and_loses_nothing(lake, monkeypatch):
    lake.run(FIRST)
    monkeypatch.setenv("PIP_DAGSTER_LOCK_DEADLINE", "1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    with pytest.raises(
        StorageError, match=r"in s3://lake/.*S3 server http://127.0.0.1:1 does not answer.*Start"
    ) as error:
        lake.run(SECOND)
    assert is_transient(error.value) and "committed partitions are kept" in str(error.value)
    monkeypatch.setenv("PIP_DAGSTER_PUBLISHED", "none")
    said = lake.shell("query", "SELECT sum(score) FROM orders.predictions", code=1)
    assert "does not answer. Start it or wait for it" in said and "Traceback" not in said


@pytest.mark.soak
@pytest.mark.parametrize(
    ("changes", "path", "said"),
    [
        ({"SECRET_ACCESS_KEY": "wr0ng-S3cret"}, None, "refuses the credentials, or they have no right to s3://lake/"),
        ({}, "s3://no-such-bucket/lake", "no bucket no-such-bucket on http.*Create it, or correct"),
    ],
    ids=["credentials", "bucket"],
)
def test_what_it_refuses_is_reported_at_once(lake, s3_server, monkeypatch, changes, path, said):
    s3_server.allow(monkeypatch, **changes)
    if path:
        monkeypatch.setenv("PIP_DAGSTER_DATA_PATH", path)
    monkeypatch.setattr(windows.time, "sleep", lambda _: pytest.fail("it was retried"))
    with pytest.raises(StorageError, match=said) as error:
        lake.run(FIRST)
    assert not any(each in str(error.value) for each in ("wr0ng-S3cret", SECRET))


@pytest.mark.soak
def test_without_credentials_it_says_which_to_set(lake, monkeypatch):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(WarehouseError, match="no credentials for s3://lake/.*Set AWS_ACCESS_KEY_ID and"):
        lake.run(FIRST)


@pytest.mark.soak
def test_the_secret_is_stored_nowhere(lake, backend):
    lake.run()
    for folder in (lake.root, Path(backend.server.pgdata)):
        for path in folder.rglob("*"):
            if path.is_file():
                assert SECRET.encode() not in path.read_bytes(), path
