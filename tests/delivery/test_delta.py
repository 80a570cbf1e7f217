"""A Delta table as a target: a partition is one commit, and rows of others stay."""

import threading

import duckdb
import pytest

pytest.importorskip("deltalake", reason="needs the package deltalake, of the extra `delta`")
from deltalake import DeltaTable, write_deltalake

from pip_dagster.delivery.delta import DeltaTarget, _of_s3
from pip_dagster.delivery.target import DeliveryError, NewerChangeError

pytestmark = pytest.mark.lake("never")

SCORES = "SELECT range AS order_id, range / 7.0::FLOAT AS score FROM range(50)"


@pytest.fixture
def place(tmp_path):
    return str(tmp_path / "table of scores")


def deliver(place, staged, *arguments, **others):
    change, rows = staged(*arguments, **others)
    options = _of_s3(5.0) if place.startswith("s3://") else {}
    opened = DeltaTarget(change.pipeline, change.target, place, options)
    receipt = opened.deliver(change, rows)
    shown = opened.read_back(change.partition_key, change.columns)
    assert shown and (shown.shown, shown.rows, shown.digest) == (receipt.shown, change.rows, change.digest)
    assert shown.shown.change_id == change.change_id and shown.shown.declaration == change.declaration
    return receipt


def rows_of(place, select):
    with duckdb.connect() as con:
        con.register("delivered", DeltaTable(place).scan())
        return con.execute(select).fetchall()


COUNTS = "SELECT partition_key, count(*) FROM delivered GROUP BY 1 ORDER BY 1"


def test_a_partition_is_replaced_an_older_change_refused_and_an_empty_one_deletes(place, staged):
    deliver(place, staged, SCORES)
    deliver(place, staged, SCORES, key="it's/another %")
    deliver(place, staged, f"{SCORES} LIMIT 20", 2)
    assert rows_of(place, COUNTS) == [("2024-03-01", 20), ("it's/another %", 50)]
    version = DeltaTable(place).version()
    assert not deliver(place, staged, f"{SCORES} LIMIT 20", 2).is_new
    with pytest.raises(NewerChangeError, match="partition 2024-03-01: target there shows change 20240302T060002"):
        deliver(place, staged, SCORES, 1)
    assert DeltaTable(place).version() == version
    deliver(place, staged, SCORES, 1, force=True)
    deliver(place, staged, f"{SCORES} WHERE false", 3)
    assert rows_of(place, COUNTS) == [("it's/another %", 50)]
    deliver(place, staged, f"{SCORES} LIMIT 3", 3, declaration="f" * 32)
    [commit] = DeltaTable(place).history(1)
    assert commit["pip_dagster"]["change_id"] == "20240302T060003000000-1a2b3c4d"


TYPES = {
    "true": "boolean",
    "200::UTINYINT": "short",
    "65535::USMALLINT": "integer",
    "4294967295::UINTEGER": "long",
    "18446744073709551615::UBIGINT": "decimal(20,0)",
    "123.450::DECIMAL(12,3)": "decimal(12,3)",
    "'nan'::DOUBLE": "double",
    "'-inf'::FLOAT": "float",
    "'é 東京'": "string",
    "''": "string",
    "'\\x00\\xFFab'::BLOB": "binary",
    "DATE '12345-01-02'": "date",
    "TIME '23:59:59.999999'": "string",
    "TIMESTAMP '2024-03-10 02:30:00.123456'": "timestamp_ntz",
    "'2024-03-10 02:30:00.123456'::TIMESTAMP_NS": "timestamp_ntz",
    "'2024-03-10 02:30:00.5+05:30'::TIMESTAMPTZ": "timestamp",
    "gen_random_uuid()": "string",
    "'{\"a\": [1, null]}'::JSON": "string",
    "[1, NULL, 3]": "array",
    "{'shop': 'Zürich', 'n': 0.1::FLOAT}": "struct",
    "MAP {'a': 1.5::DOUBLE}": "map",
}


def test_every_type_arrives_and_is_read_back_as_it_was(place, staged):
    select = "SELECT " + ", ".join(f'{value} AS "c {i}"' for i, value in enumerate(TYPES))
    deliver(place, staged, f"{select} UNION ALL SELECT {', '.join(['NULL'] * len(TYPES))}")
    found = {field.name: field.type.type for field in DeltaTable(place).schema().fields}
    assert [found[f"c {i}"] for i in range(len(TYPES))] == list(TYPES.values())


def test_columns_come_and_go_and_another_type_is_refused(place, staged):
    deliver(place, staged, SCORES)
    deliver(place, staged, "SELECT 1::BIGINT AS order_id, 'x' AS note", 2)
    deliver(place, staged, SCORES, key="2024-03-02")
    counts = "SELECT partition_key, count(score), count(note) FROM delivered GROUP BY 1 ORDER BY 1"
    assert rows_of(place, counts) == [("2024-03-01", 0, 1), ("2024-03-02", 50, 0)]
    version = DeltaTable(place).version()
    with pytest.raises(
        DeliveryError, match="column order_id of .* has the type long, and the rows have string"
    ) as caught:
        deliver(place, staged, "SELECT '5' AS order_id", 3)
    assert not caught.value.again and DeltaTable(place).version() == version
    with pytest.raises(DeliveryError, match="column at has nanoseconds, and Delta has microseconds"):
        deliver(place, staged, "SELECT '2024-03-10 02:30:00.123456789'::TIMESTAMP_NS AS at", 3)
    with pytest.raises(DeliveryError, match="the column pip_pipeline says whose a row is"):
        deliver(place, staged, "SELECT 'me' AS pip_pipeline", 3)


def test_a_name_that_differs_in_case_only_is_refused(place, staged):
    """No engine reads a table with both."""
    deliver(place, staged, SCORES)
    with pytest.raises(DeliveryError, match="column Score is score in .* Name it score"):
        deliver(place, staged, SCORES.replace("AS score", "AS Score"), 2)
    with pytest.raises(DeliveryError, match="says whose a row is"):
        deliver(place, staged, SCORES.replace("AS score", "AS Pip_Pipeline"), 2)


def test_rows_of_others_stay_in_a_table_of_theirs(place, staged):
    with duckdb.connect() as con:
        theirs = con.sql("SELECT 7::BIGINT AS order_id, 'theirs' AS note UNION ALL SELECT 8, NULL")
        write_deltalake(place, theirs.to_arrow_table())
    deliver(place, staged, SCORES)
    deliver(place, staged, f"{SCORES} LIMIT 4", 2)
    deliver(place, staged, SCORES, key="2024-03-01", pipeline="others")
    counts = "SELECT pip_pipeline, count(*) FROM delivered GROUP BY 1 ORDER BY 1 NULLS FIRST"
    assert rows_of(place, counts) == [(None, 2), ("orders", 4), ("others", 50)]


def test_two_at_once_end_with_the_newer(place, staged):
    prepared = [staged(f"SELECT {n} AS n FROM range(50)", n, key) for n in range(1, 4) for key in ("a", "b")]
    failed = []

    def run(change, rows):
        try:
            DeltaTarget("orders", "there", place, {}).deliver(change, rows)
        except NewerChangeError:
            pass
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=run, args=each) for each in prepared]
    [each.start() for each in threads]
    [each.join() for each in threads]
    assert not failed
    assert rows_of(place, "SELECT partition_key, n, count(*) FROM delivered GROUP BY ALL ORDER BY 1") == [
        ("a", 3, 50),
        ("b", 3, 50),
    ]


def test_a_folder_that_cannot_be_written_is_reported(tmp_path, staged):
    (tmp_path / "file").touch()
    with pytest.raises(
        DeliveryError, match="Pipeline orders, partition 2024-03-01: target there: .*file/table"
    ) as caught:
        deliver(str(tmp_path / "file" / "table"), staged, SCORES)
    assert "\n" not in str(caught.value)


def test_in_s3_too(s3, staged):
    place = f"s3://data/{staged.__name__}"
    deliver(place, staged, SCORES)
    deliver(place, staged, f"{SCORES} LIMIT 3", 2)
    assert not deliver(place, staged, f"{SCORES} LIMIT 3", 2).is_new
    assert s3.keys("stage/_delta_log/")


def test_a_server_that_is_away_is_reported_without_its_secret(s3, staged, password, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    with pytest.raises(DeliveryError, match="s3://data/x cannot be read or written") as caught:
        deliver("s3://data/x", staged, SCORES)
    assert caught.value.again and password not in str(caught.value)
