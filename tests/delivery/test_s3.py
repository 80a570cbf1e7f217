"""Parquet objects in S3 as a target: the manifest is replaced last, on the condition that nobody else has done so."""

import json
import threading
from datetime import timedelta

import duckdb
import pytest

pytest.importorskip("boto3", reason="needs the package boto3, of the extra `s3`")

from pip_dagster.delivery import s3 as s3_module
from pip_dagster.delivery.s3 import S3Folder
from pip_dagster.delivery.s3_client import S3Objects
from pip_dagster.delivery.target import DeliveryError, NewerChangeError

pytestmark = pytest.mark.lake("never")

SCORES = "SELECT range AS order_id, range / 7.0::FLOAT AS score FROM range(50)"


@pytest.fixture
def place(s3, request):
    return f"s3://data/{request.node.name[:60]}/scores"


def opened(place, pipeline="orders", name="there"):
    return S3Folder(pipeline, name, S3Objects(place, f"Pipeline {pipeline}: target {name}", 5.0))


def deliver(place, staged, *arguments, **others):
    change, rows = staged(*arguments, **others)
    target = opened(place, change.pipeline, change.target)
    receipt = target.deliver(change, rows)
    shown = target.read_back(change.partition_key, change.columns)
    assert shown and (shown.shown, shown.rows, shown.digest) == (receipt.shown, change.rows, change.digest)
    return receipt


def names(s3, place):
    prefix = place.removeprefix("s3://data/") + "/"
    return [key.removeprefix(prefix) for key in s3.keys(prefix)]


def test_a_manifest_names_the_rows_and_is_replaced(s3, place, staged, tmp_path):
    deliver(place, staged, SCORES)
    receipt = deliver(place, staged, f"{SCORES} LIMIT 20", 2)
    prefix = place.removeprefix("s3://data/")
    manifest = json.load(s3.client.get_object(Bucket="data", Key=f"{prefix}/2024-03-01/latest.json")["Body"])
    assert manifest["rows"] == 20 and manifest["change_id"].startswith("20240302T060002")
    [file] = manifest["files"]
    assert receipt.details["files"] == [f"{place}/2024-03-01/{file['path']}"]
    s3.client.download_file("data", f"{prefix}/2024-03-01/{file['path']}", str(tmp_path / "x.parquet"))
    assert duckdb.sql(f"SELECT count(*) FROM '{tmp_path}/x.parquet'").fetchall() == [(20,)]


def test_a_repeat_writes_nothing_an_older_change_is_refused_and_a_partition_may_be_empty(s3, place, staged):
    deliver(place, staged, SCORES, 2)
    before = names(s3, place)
    assert not deliver(place, staged, SCORES, 2).is_new and names(s3, place) == before
    with pytest.raises(NewerChangeError, match="partition 2024-03-01: target there shows change 20240302T060002"):
        deliver(place, staged, SCORES, 1)
    assert deliver(place, staged, f"{SCORES} WHERE false", 3).rows == 0
    with pytest.raises(DeliveryError, match="target other would replace what target there of pipeline orders"):
        deliver(place, staged, SCORES, 4, target="other")


def test_what_no_manifest_shows_is_removed_by_age(s3, place, staged, monkeypatch):
    class KilledError(Exception):
        pass

    def killed(*_):
        raise KilledError

    deliver(place, staged, SCORES)
    with monkeypatch.context() as patch:
        patch.setattr(S3Objects, "replace", killed)
        with pytest.raises(KilledError):
            deliver(place, staged, SCORES, 2)
    deliver(place, staged, SCORES, 3)
    files = [name for name in names(s3, place) if name.endswith(".parquet")]
    opened(place).close()
    assert len(files) == 3 and set(files) <= set(names(s3, place)), "readers may still open them"
    monkeypatch.setattr(s3_module, "GRACE", timedelta(0))
    opened(place).close()
    assert sorted(name.partition("-")[0] for name in names(s3, place)) == ["2024", "2024"]
    assert deliver(place, staged, SCORES, 3).is_new is False


def test_writers_that_race_end_with_the_newest_and_readers_see_whole_changes(s3, place, staged):
    prepared = [staged(f"SELECT {n} AS n FROM range({n})", n) for n in range(1, 7)]
    failed, seen, end = [], set(), threading.Event()

    def run(change, rows):
        try:
            opened(place).deliver(change, rows)
        except NewerChangeError:
            pass
        except Exception as error:
            failed.append(error)

    def read():
        target, columns = opened(place), prepared[0][0].columns
        while not end.is_set():
            if shown := target.read_back("2024-03-01", columns):
                seen.add((shown.shown.change_id, shown.rows, shown.digest))

    reader, writers = threading.Thread(target=read), [threading.Thread(target=run, args=each) for each in prepared]
    for each in (reader, *writers):
        each.start()
    [each.join() for each in writers]
    end.set()
    reader.join()
    assert not failed and seen <= {(change.change_id, change.rows, change.digest) for change, _ in prepared}
    assert opened(place).read_back("2024-03-01", prepared[0][0].columns).rows == 6


@pytest.mark.parametrize(
    ("changes", "place_given", "said", "again"),
    [
        ({"ENDPOINT_URL": "http://127.0.0.1:1"}, None, "the S3 server http://127.0.0.1:1 does not answer", True),
        ({}, "s3://no-such-bucket/x", "there is no bucket no-such-bucket on the S3 server", False),
        ({"ENDPOINT_URL": "no address"}, None, "S3 cannot be used: ", False),
    ],
    ids=["away", "bucket", "address"],
)
def test_what_s3_refuses_is_one_sentence_without_its_secret(
    s3, place, staged, password, monkeypatch, changes, place_given, said, again
):
    for name, value in changes.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    with pytest.raises(DeliveryError, match=f"Pipeline orders.*: target there: {said}") as caught:
        deliver(place_given or place, staged, SCORES)
    assert caught.value.again == again and password not in str(caught.value) and "\n" not in str(caught.value)


def test_without_credentials_it_says_which_to_set(s3, place, staged, monkeypatch, tmp_path):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    with pytest.raises(DeliveryError, match="no credentials for s3://data/.*Set AWS_ACCESS_KEY_ID"):
        deliver(place, staged, SCORES)
