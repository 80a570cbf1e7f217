"""A Postgres table as a target: a partition is one transaction, and rows of others stay."""

import re
import socket
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import pytest

from pip_dagster.declaration.server import Server
from pip_dagster.delivery.address import address_of
from pip_dagster.delivery.postgres import PostgresTarget
from pip_dagster.delivery.postgres_connection import PostgresSession
from pip_dagster.delivery.postgres_types import takes, type_of
from pip_dagster.delivery.target import DeliveryError, NewerChangeError

pytestmark = [pytest.mark.slice, pytest.mark.lake("never")]

SCORES = "SELECT range AS order_id, range / 7.0::FLOAT AS score FROM range(50)"
TABLE = "scores.orders"


@contextmanager
def target(table=TABLE, pipeline="orders", timeout=10.0, variable="PREDICTIONS_URL"):
    where = "Pipeline orders: target there"
    address = address_of(Server(url_env=variable), Path(), where)
    opened = PostgresTarget(pipeline, table, PostgresSession(where, f"${variable}", address, timeout))
    try:
        yield opened
    finally:
        opened.close()


def deliver(staged, *arguments, table=TABLE, timeout=10.0, **others):
    change, rows = staged(*arguments, **others)
    with target(table, change.pipeline, timeout) as opened:
        receipt = opened.deliver(change, rows)
        assert opened.read_back(change.partition_key, change.columns) == receipt.__class__(
            receipt.shown, change.rows, change.digest, TABLE if table == TABLE else table
        )
    return receipt


def test_a_partition_is_replaced_and_the_others_stay(postgres, staged):
    deliver(staged, SCORES)
    deliver(staged, SCORES, key="2024-03-02")
    assert deliver(staged, f"{SCORES} LIMIT 20", 2).rows == 20
    counts = "SELECT partition_key, count(*), min(pip_pipeline) FROM scores.orders GROUP BY 1 ORDER BY 1"
    assert postgres.sql(counts) == [("2024-03-01", 20, "orders"), ("2024-03-02", 50, "orders")]
    record = (
        "SELECT pipeline, target, partition_key, change_id, scoring_ids, rows FROM scores.pip_deliveries ORDER BY 3"
    )
    first, second = postgres.sql(record)
    assert first == ("orders", "there", "2024-03-01", "20240302T060002000000-1a2b3c4d", ["s2"], 20)
    assert second[2:] == ("2024-03-02", "20240302T060001000000-1a2b3c4d", ["s1"], 50)


def test_a_repeat_writes_nothing_an_older_change_is_refused_and_an_empty_one_deletes(postgres, staged):
    deliver(staged, SCORES, 2)
    before = postgres.sql("SELECT DISTINCT xmin::text FROM scores.orders")
    assert not deliver(staged, SCORES, 2).is_new
    with pytest.raises(NewerChangeError, match="partition 2024-03-01: target there shows change 20240302T060002"):
        deliver(staged, SCORES, 1)
    assert postgres.sql("SELECT DISTINCT xmin::text FROM scores.orders") == before
    assert deliver(staged, SCORES, 1, force=True).is_new
    assert deliver(staged, f"{SCORES} WHERE false", 3).rows == 0
    assert postgres.sql("SELECT * FROM scores.orders") == []
    assert deliver(staged, f"{SCORES} LIMIT 3", 3, declaration="f" * 32).rows == 3, "other columns, the same change"


TYPES = {
    "true": "boolean",
    "1::TINYINT": "smallint",
    "-2::SMALLINT": "smallint",
    "65535::USMALLINT": "integer",
    "4294967295::UINTEGER": "bigint",
    "18446744073709551615::UBIGINT": "numeric(20,0)",
    "(-9223372036854775807)::BIGINT": "bigint",
    "123.450::DECIMAL(12,3)": "numeric(12,3)",
    "99999999999999999999999999999999999999::DECIMAL(38,0)": "numeric(38,0)",
    "'nan'::DOUBLE": "double precision",
    "'-inf'::FLOAT": "real",
    "0.1::FLOAT": "real",
    "1e-310::DOUBLE": "double precision",
    "'a,\"b\"\n\\N \\. é 東京'": "text",
    "''": "text",
    "'\\N'": "text",
    "NULL::VARCHAR": "text",
    "'\\x00\\xFFab'::BLOB": "bytea",
    "''::BLOB": "bytea",
    "DATE '0044-03-15 (BC)'": "date",
    "DATE '12345-01-02'": "date",
    "TIMESTAMP '0044-03-15 (BC) 01:02:03.5'": "timestamp without time zone",
    "'infinity'::DATE": "date",
    "TIME '23:59:59.999999'": "time without time zone",
    "TIMESTAMP '2024-03-10 02:30:00.123456'": "timestamp without time zone",
    "'2024-03-10 02:30:00.123456'::TIMESTAMP_NS": "timestamp without time zone",
    "TIMESTAMPTZ '2024-03-10 02:30:00.5+05:30'": "timestamp with time zone",
    "'-infinity'::TIMESTAMP": "timestamp without time zone",
    "gen_random_uuid()": "uuid",
    "'{\"a\": [1, null]}'::JSON": "jsonb",
    "[1, NULL, 3]": "jsonb",
    "['a', NULL, 'b\"c']": "jsonb",
    "{'shop': 'Zürich', 'n': 0.1::FLOAT, 'at': TIMESTAMP '2024-01-01'}": "jsonb",
    "MAP {'a': 1.5::DOUBLE, 'b': NULL}": "jsonb",
    "[{'k': [1, 2]}]": "jsonb",
    "NULL::INTEGER[]": "jsonb",
}


def test_every_type_arrives_and_is_read_back_as_it_was(postgres, staged):
    select = "SELECT " + ", ".join(f'{value} AS "c{i}"' for i, value in enumerate(TYPES))
    deliver(staged, f"{select} UNION ALL SELECT {', '.join(['NULL'] * len(TYPES))}")
    found = postgres.sql(
        "SELECT format_type(atttypid, atttypmod) FROM pg_attribute WHERE attrelid = 'scores.orders'::regclass "
        "AND attname ~ '^c[0-9]+$' ORDER BY substr(attname, 2)::int"
    )
    assert [name for (name,) in found] == list(TYPES.values())


@pytest.mark.parametrize(
    ("select", "said"),
    [
        ("SELECT '2024-03-10 02:30:00.123456789'::TIMESTAMP_NS AS at", "column at has nanoseconds, and Postgres has"),
        ("SELECT 'a' || chr(0) AS x", "cannot store a value.*invalid byte sequence"),
        ("SELECT ['nan'::DOUBLE] AS x", "cannot store a value of column x.*type json"),
        (f'SELECT 1 AS "{"é" * 32}"', "more than 63 bytes.*give it another name"),
        ("SELECT 'me' AS pip_pipeline", "column pip_pipeline says whose a row is"),
    ],
    ids=["nanoseconds", "NUL", "NaN in a list", "long name", "our own name"],
)
def test_what_postgres_cannot_have_is_refused_whole(postgres, staged, select, said):
    with pytest.raises(DeliveryError, match=f"Pipeline orders, partition 2024-03-01: target there: .*{said}") as caught:
        deliver(staged, f"SELECT 1 AS a, * FROM ({select})")
    assert not caught.value.again and "\n" not in str(caught.value)
    assert postgres.sql("SELECT to_regclass('scores.orders')") == [(None,)]


def test_rows_of_others_stay_and_a_new_column_is_added(postgres, staged):
    postgres.sql("CREATE SCHEMA scores; CREATE TABLE scores.orders (order_id bigint, note varchar(9), score float8)")
    postgres.sql("INSERT INTO scores.orders VALUES (7, 'theirs', 1), (8, NULL, 2)")
    deliver(staged, SCORES)
    deliver(staged, f"SELECT order_id, 'x' AS \"100% Größe\" FROM ({SCORES})", 2)
    deliver(staged, "SELECT 1 AS a", 3, key="2024-03-02", pipeline="others")
    theirs = "SELECT order_id, note, score FROM scores.orders WHERE pip_pipeline IS NULL ORDER BY 1"
    assert postgres.sql(theirs) == [(7, "theirs", 1.0), (8, None, 2.0)]
    ours = 'SELECT count(*), count(score), count(note), min("100% Größe") FROM scores.orders'
    assert postgres.sql(f"{ours} WHERE pip_pipeline = 'orders'") == [(50, 0, 0, "x")]


def test_a_column_of_another_type_is_refused_in_a_sentence(postgres, staged):
    deliver(staged, SCORES)
    remedy = r'ALTER TABLE "scores"."orders" ALTER "score" TYPE text'
    with pytest.raises(DeliveryError, match=f"column score of scores.orders has the type real.*{remedy}"):
        deliver(staged, "SELECT 1::BIGINT AS order_id, 'high' AS score", 2)
    assert postgres.sql("SELECT count(*) FROM scores.orders") == [(50,)]
    postgres.sql(
        "ALTER TABLE scores.orders ADD must int NOT NULL DEFAULT 1; ALTER TABLE scores.orders ALTER must DROP DEFAULT"
    )
    with pytest.raises(DeliveryError, match="a constraint of the table refuses the rows.*must"):
        deliver(staged, SCORES, 2)


def test_a_table_that_somebody_dropped_is_created_again_with_what_is_delivered(postgres, staged):
    """The record beside it speaks of rows that are gone."""
    deliver(staged, SCORES)
    postgres.sql("DROP TABLE scores.orders")
    assert deliver(staged, SCORES).is_new and postgres.sql("SELECT count(*) FROM scores.orders") == [(50,)]
    assert not deliver(staged, SCORES).is_new


@pytest.mark.parametrize("column", ["pip_pipeline", "partition_key"])
def test_a_table_that_lost_the_column_of_delivered_rows_is_refused(postgres, staged, column):
    """The former rows would stay beside the new ones, as though they were somebody else's."""
    deliver(staged, SCORES)
    postgres.sql(f"ALTER TABLE scores.orders DROP {column}")
    with pytest.raises(DeliveryError, match=f"scores.orders has lost the column {column}, by which") as caught:
        deliver(staged, SCORES, 2)
    assert postgres.sql("SELECT count(*) FROM scores.orders") == [(50,)]
    postgres.sql("TRUNCATE scores.orders")
    postgres.sql(re.search(r"`(DELETE .*)`", str(caught.value))[1])
    assert deliver(staged, SCORES, 2).is_new and postgres.sql("SELECT count(*) FROM scores.orders") == [(50,)]


def test_another_target_of_the_pipeline_does_not_take_the_rows_over_unseen(postgres, staged):
    deliver(staged, SCORES)
    with pytest.raises(DeliveryError, match="target there has delivered this partition to scores.orders") as caught:
        deliver(staged, SCORES, 2, target="renamed")
    postgres.sql(re.search(r"`(UPDATE .*)`", str(caught.value))[1])
    assert deliver(staged, SCORES, 2, target="renamed").is_new


def test_a_reader_that_polls_never_sees_two_changes_of_a_partition(postgres, staged):
    import psycopg2

    seen, end = set(), threading.Event()

    def poll():
        con = psycopg2.connect(postgres.owner_url)
        con.autocommit = True
        with con.cursor() as cursor:
            while not end.is_set():
                cursor.execute("SELECT count(*), min(score), max(score) FROM scores.orders")
                seen.add(cursor.fetchone())
        con.close()

    deliver(staged, "SELECT 0 AS score FROM range(2000)")
    reader = threading.Thread(target=poll)
    reader.start()
    for n in range(2, 12):
        deliver(staged, f"SELECT {n} AS score FROM range({2000 + n})", n)
    end.set()
    reader.join()
    assert seen <= {(2000, 0, 0), *((2000 + n, n, n) for n in range(2, 12))} and len(seen) > 3


def test_two_at_once_end_with_the_newer_and_create_the_table_once(postgres, staged):
    errors = []

    def run(n, key):
        try:
            deliver(staged, f"SELECT {n} AS n FROM range(500)", n, key=key)
        except NewerChangeError as error:
            errors.append(error)
        except AssertionError:  # read back after the other had replaced it
            pass

    threads = [threading.Thread(target=run, args=(n, key)) for n in range(1, 5) for key in ("2024-03-01", "2024-03-02")]
    [each.start() for each in threads]
    [each.join() for each in threads]
    found = postgres.sql("SELECT partition_key, n, count(*) FROM scores.orders GROUP BY 1, 2 ORDER BY 1")
    assert found == [("2024-03-01", 4, 500), ("2024-03-02", 4, 500)]


def test_a_role_with_few_rights_is_told_which_it_lacks_and_needs_no_more(postgres, staged, monkeypatch):
    deliver(staged, SCORES)
    role = f"writer_{postgres.name}"
    postgres.sql(f"CREATE ROLE {role} LOGIN PASSWORD 'pw'")
    monkeypatch.setenv("PREDICTIONS_URL", postgres.owner_url.replace("postgres:@", f"{role}:pw@"))
    with pytest.raises(DeliveryError, match="the role may not do this.*permission denied for schema scores") as caught:
        deliver(staged, SCORES, 2)
    assert not caught.value.again
    postgres.sql(f"GRANT USAGE ON SCHEMA scores TO {role}")
    postgres.sql(f"GRANT SELECT, INSERT, UPDATE, DELETE ON scores.orders, scores.pip_deliveries TO {role}")
    deliver(staged, SCORES, 2)
    with pytest.raises(DeliveryError, match="may not do this.*must be owner of table orders"):
        deliver(staged, f"SELECT 1 AS more, * FROM ({SCORES})", 3)
    postgres.sql(f"REASSIGN OWNED BY {role} TO postgres; DROP OWNED BY {role}")
    postgres.sql(f"DROP ROLE {role}")


def test_a_table_locked_by_another_session_is_tried_again_later(postgres, staged):
    import psycopg2

    deliver(staged, SCORES)
    other = psycopg2.connect(postgres.owner_url)
    with other.cursor() as cursor:
        cursor.execute("LOCK TABLE scores.orders IN EXCLUSIVE MODE")
        with pytest.raises(DeliveryError, match="another session has locked the table") as caught:
            deliver(staged, SCORES, 2, timeout=1.0)
    assert caught.value.again
    other.close()
    deliver(staged, SCORES, 2)


def test_a_connection_killed_in_mid_copy_leaves_the_former_rows(postgres, staged, monkeypatch):
    deliver(staged, SCORES)
    kill = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'pip_dagster'"
    killed = []

    def watched(self, file):
        class Killing:
            def read(self, size=-1):
                if not killed:
                    killed.append(postgres.sql(kill))
                return file.read(size)

        return Killing()

    with monkeypatch.context() as patch:
        patch.setattr(PostgresSession, "watched", watched)
        with pytest.raises(DeliveryError, match="the connection was lost|does not answer") as caught:
            deliver(staged, "SELECT range AS order_id, 0::FLOAT AS score FROM range(200000)", 2)
    assert caught.value.again and killed
    assert postgres.sql("SELECT count(*), max(score) > 1 FROM scores.orders") == [(50, True)]
    assert deliver(staged, SCORES, 2).is_new


class Proxy:
    """A way to the server by TCP that can fall silent, as a cut cable."""

    def __init__(self, path):
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port, self._path, self.silent = self._listening.getsockname()[1], path, threading.Event()
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self):
        while True:
            client, _ = self._listening.accept()
            server = socket.socket(socket.AF_UNIX)
            server.connect(self._path)
            for one, other in ((client, server), (server, client)):
                threading.Thread(target=self._copy, args=(one, other), daemon=True).start()

    def _copy(self, one, other):
        while data := one.recv(65536):
            if self.silent.is_set():
                time.sleep(60)
            other.sendall(data)
        other.close()


def test_a_server_that_falls_silent_is_given_up(postgres, staged, monkeypatch):
    from pip_dagster.delivery import postgres_connection

    monkeypatch.setattr(postgres_connection, "_GRACE_SECONDS", 0.0)
    socket_file = re.search(r"host=([^&]+)", postgres.owner_url)[1]
    proxy = Proxy(f"{socket_file}/.s.PGSQL.5432")
    monkeypatch.setenv("PREDICTIONS_URL", f"postgresql://postgres@127.0.0.1:{proxy.port}/{postgres.name}")
    deliver(staged, SCORES)
    change, rows = staged(SCORES, 2)
    with target(timeout=1.0) as opened:
        proxy.silent.set()
        began = time.monotonic()
        with pytest.raises(DeliveryError, match="the database does not answer") as caught:
            opened.deliver(change, rows)
    assert caught.value.again and time.monotonic() - began < 5


@pytest.mark.parametrize(
    ("url", "said", "again"),
    [
        (None, "the environment variable PREDICTIONS_URL is not set", False),
        ("mysql://x:{secret}@host/db", "\\$PREDICTIONS_URL is no address of a Postgres", False),
        ("host= {secret} sslmode", "\\$PREDICTIONS_URL is no address of a Postgres", False),
        ("postgresql://x:{secret}@127.0.0.1:1/db", "the database does not answer.*refused", True),
        ("postgresql://x:{secret}@no-such-host.invalid/db", "the database does not answer", True),
        ("{good}_gone?password={secret}", "refuses the connection.*does not exist", False),
    ],
    ids=["unset", "another kind", "no address", "away", "unknown host", "no database"],
)
def test_an_address_that_does_not_work_is_reported_without_its_secret(
    postgres_server, password, monkeypatch, url, said, again
):
    monkeypatch.delenv("PREDICTIONS_URL", raising=False)
    if url:
        good = postgres_server.get_uri(database="postgres").partition("?")
        url = url.replace("{good}", good[0]).replace("{secret}", quote(password, safe=""))
        monkeypatch.setenv("PREDICTIONS_URL", url + ("&" + good[2] if "_gone" in url else ""))
    with pytest.raises(DeliveryError, match=f"Pipeline orders: target there: .*{said}") as caught, target():
        pass
    assert caught.value.again == again and password not in str(caught.value)


def test_types_that_hold_every_value_of_another():
    assert (
        takes("bigint", "integer")
        and takes("character varying(20)", "text")
        and takes("numeric(20,4)", "numeric(12,3)")
    )
    assert not takes("integer", "bigint") and not takes("numeric(12,2)", "numeric(12,3)") and not takes("text", "real")
    assert type_of("STRUCT(a INTEGER)[]") == "jsonb" and type_of("DECIMAL(18,3)") == "numeric(18,3)"
    assert type_of("ENUM('a', 'b')") == "text" and type_of("INTEGER[3]") == "jsonb"
