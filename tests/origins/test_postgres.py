"""Sources in a Postgres server: a real one, read by a role that may only read."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from datetime import datetime

import dagster as dg
import duckdb
import pytest
from click.testing import CliRunner

from pip_dagster.cli.main import cli
from pip_dagster.errors import SourceAwayError, SourceError
from pip_dagster.flow import hashed
from pip_dagster.flow.fingerprints import BucketQuery, Clock, fingerprints
from pip_dagster.flow.plan import make_plan
from pip_dagster.flow.reader import sources_alone
from pip_dagster.flow.sources import columns_of, open_sources
from pip_dagster.warehouse import pinned, s3
from pip_dagster.warehouse.connect import workspace

from .conftest import DECLARED, PASSWORD

pytestmark = [
    pytest.mark.lake("never"),
    pytest.mark.slice,
    pytest.mark.skipif(duckdb.__version__ != "1.5.5", reason="the packages of the extensions are for DuckDB 1.5.5"),
]

FIRST, SECOND, THIRD, FOURTH = DAYS = ("2024-03-01", "2024-03-02", "2024-03-03", "2024-03-04")


def declare(tiny, **keys):
    tiny.declare(source_database=None, sources={"orders": {**DECLARED, "postgres": "SHOP_URL", **keys}})


def stale(tiny):
    return [each.partition.key for each in make_plan(tiny.pipeline(), tiny.partitions()).stale]


def test_scores_are_those_of_the_file_and_late_rows_make_their_partitions_stale(tiny, shop):
    declare(tiny)
    tiny.run()
    assert tiny.scores() == tiny.expected()
    assert not stale(tiny)
    shop.sql(f"UPDATE raw.orders SET quantity = 8 WHERE day = '{SECOND}'")
    shop.sql(f"DELETE FROM raw.orders WHERE day = '{FOURTH}' AND order_id % 10 = 0")
    assert stale(tiny) == [SECOND, FOURTH]


def test_nothing_shows_the_password(tiny, shop, capfd, caplog):
    """Neither a run, nor an error, nor what DuckDB knows of its databases."""
    from dagster._core.definitions.observe import observe

    from pip_dagster.orchestration.inputs import source_assets

    tiny.run()
    (tiny.root / "instance").mkdir()
    texts = []
    with dg.DagsterInstance.local_temp(str(tiny.root / "instance")) as instance:
        for revoke in ("SELECT 1", "REVOKE SELECT ON raw.orders FROM reader"):
            shop.sql(revoke)
            observed = observe(source_assets(tiny.pipeline()), instance=instance, raise_on_error=False)
            texts += [str(observed.all_events), str(instance.all_logs(observed.run_id))]
        assert not observed.success
    with workspace(threads=1) as con, open_sources(con, tiny.pipeline().spec, tiny.root):
        texts.append(str(con.execute("FROM duckdb_databases()").fetchall()))
        texts.append(str(con.execute("FROM duckdb_secrets()").fetchall()))
    with pytest.raises(SourceError, match="source 'orders' .* from postgres SHOP_URL. .*GRANT SELECT") as caught:
        tiny.run()
    texts += [str(caught.value), str(caught.getrepr(chain=True)), tiny.shell("check", code=1)]
    texts += [*capfd.readouterr(), caplog.text]
    assert not any(PASSWORD in text for text in texts)
    holding = [file for file in tiny.root.rglob("*") if file.is_file() and PASSWORD.encode() in file.read_bytes()]
    assert not holding


@pytest.mark.parametrize(
    ("url", "said"),
    [
        (f"postgresql://reader:{PASSWORD}@127.0.0.1:1/shop", "postgres SHOP_URL does not answer.*Connection refused"),
        (f"postgresql://reader:{PASSWORD}@nowhere.invalid/shop", "postgres SHOP_URL refuses the connection, or is not"),
        (f"mysql://reader:{PASSWORD}@127.0.0.1/shop", "what postgres SHOP_URL holds is not a Postgres connection stri"),
        ("", "the environment variable SHOP_URL is not set"),
    ],
    ids=["away", "no host", "no string", "not set"],
)
def test_a_server_that_cannot_be_read_is_one_sentence(tiny, monkeypatch, url, said):
    monkeypatch.setenv("SHOP_URL", url)
    monkeypatch.setenv("PIP_DAGSTER_LOCK_DEADLINE", "0.1")
    declare(tiny)
    with pytest.raises(SourceError, match=f"Pipeline orders: source 'orders' .raw.orders.: .*{said}") as caught:
        tiny.run(FIRST)
    assert PASSWORD not in str(caught.getrepr(chain=True)) and "\n" not in str(caught.value)


def test_sensors_skip_the_tick_while_it_is_away(tiny, monkeypatch):

    monkeypatch.setenv("SHOP_URL", f"postgresql://reader:{PASSWORD}@127.0.0.1:1/shop")
    declare(tiny)
    result = tick(tiny, "orders_source_changes")
    assert isinstance(result, dg.SkipReason)
    assert "postgres SHOP_URL does not answer" in (result.skip_message or "")


def test_one_partition_reads_only_its_rows(tiny, shop):
    """By Postgres' own count of the rows that it fetched, with an index on the partition column."""
    shop.sql(
        "INSERT INTO raw.orders SELECT g + 1000, DATE '2020-01-01' + (g % 1000)::int, 1, 1, true, 'plain' "
        "FROM generate_series(1, 100000) g",
        "ALTER TABLE raw.orders ADD COLUMN at timestamptz",
        "UPDATE raw.orders SET at = timezone('Europe/Berlin', day::timestamp + interval '2 hours')",
        "CREATE INDEX ON raw.orders (day)",
        "CREATE INDEX ON raw.orders (at)",
        "VACUUM ANALYZE raw.orders",
    )
    for column, zone in (("day", "UTC"), ("day", "Europe/Berlin"), ("at", "Europe/Berlin")):
        keys = {**DECLARED, "postgres": "SHOP_URL", "partition_column": column}
        tiny.declare(source_database=None, partitions={"time_zone": zone}, sources={"orders": keys})
        before = fetched(shop)
        tiny.run(FIRST)
        assert 50 <= fetched(shop) - before < 500


def fetched(shop):
    shop.sql("SELECT pg_stat_force_next_flush()")
    [[rows]] = shop.sql(
        "SELECT coalesce(seq_tup_read, 0) + coalesce(idx_tup_fetch, 0) FROM pg_stat_user_tables "
        "WHERE relname = 'orders' AND schemaname = 'raw'"
    )
    return int(rows)


def test_a_change_column_is_counted_by_the_server(tiny, shop, monkeypatch):
    shop.sql("ALTER TABLE raw.orders ADD COLUMN updated_at timestamptz NOT NULL DEFAULT '2024-03-05 00:00+00'")
    declare(tiny, change_column="updated_at")
    tiny.run()
    assert tiny.scores() == tiny.expected()
    read = transferred(tiny, shop)
    assert read == 0 and not stale(tiny)
    shop.sql(f"UPDATE raw.orders SET quantity = 8, updated_at = now() WHERE day = '{THIRD}'")
    assert stale(tiny) == [THIRD]


def transferred(tiny, shop):
    """How many rows a plan hashes."""
    from pip_dagster.flow import source_digests

    counted = []
    real = source_digests._runs

    def runs(starts, length):
        counted.extend(starts)
        return real(starts, length)

    source_digests._runs = runs
    try:
        make_plan(tiny.pipeline(), tiny.partitions())
    finally:
        source_digests._runs = real
    return len(counted)


def test_the_server_counts_as_duckdb_does(tiny, shop):
    """By the wall clock and by instants, over clock changes, and without rows that have no end."""
    shop.sql(
        "CREATE TABLE raw.times AS SELECT g AS order_id, g % 7 AS v, (g * 1.25)::numeric(10, 2) AS cost, "
        "timestamptz '2024-03-30 00:00+00' + g * interval '7 minutes' AS instant, "
        "timestamp '2024-03-30 00:00' + g * interval '7 minutes' AS naive, "
        "date '2024-03-30' + g / 200 AS day FROM generate_series(0, 1500) g",
        "INSERT INTO raw.times VALUES (-1, 1, 1, 'infinity', '-infinity', 'infinity'), (-2, 1, 1, NULL, NULL, NULL)",
        "GRANT SELECT ON raw.times TO reader",
    )
    for column, every, zone, change in (
        ("instant", "day", "Europe/Berlin", "instant"),
        ("instant", "hour", "Europe/Berlin", "v"),
        ("naive", "day", "America/New_York", "cost"),
        ("naive", "hour", "UTC", "naive"),
        ("day", "day", "Asia/Tokyo", "v"),
    ):
        keys = {
            "table": "raw.orders",
            "remote_table": "raw.times",
            "partition_column": column,
            "change_column": change,
            "postgres": "SHOP_URL",
        }
        grid = {"every": every, "start": "2024-03-30", "end": "2024-04-05", "time_zone": zone}
        tiny.declare(source_database=None, partitions=grid, sources={"orders": keys})
        spec = tiny.pipeline().spec
        source, bounds = spec.sources["orders"], (datetime(2024, 3, 31), datetime(2024, 4, 3))
        with workspace(threads=1) as con, open_sources(con, spec, tiny.root) as opened:
            columns = columns_of(con, source)
            clock = Clock.of(spec, source, columns)
            query = BucketQuery.of(clock, columns, *bounds)
            counts = opened.counts("orders", clock.counting(spec, columns, *bounds))
            ours = f"(SELECT {query.t}, {query.newest}, count(*) {query.within} GROUP BY ALL) l(t, newest, n)"
            assert counts
            found = [con.execute(f"SELECT t, newest, n FROM {each} ORDER BY ALL").fetchall() for each in (counts, ours)]
        assert found[0] == found[1] and found[0]


def test_a_server_that_restarts_is_waited_for(tiny, shop, monkeypatch):
    monkeypatch.setenv("PIP_DAGSTER_LOCK_DEADLINE", "30")
    shop.server.stop()
    starting = threading.Timer(1.0, shop.server.start)
    starting.start()
    try:
        assert tiny.run(FIRST)[FIRST].scoring
    finally:
        starting.join()


def test_a_ducklake_with_its_catalog_in_postgres(tiny, pg, monkeypatch):
    """The lake is read as of one snapshot, while others write."""
    pg.sql("DROP SCHEMA IF EXISTS public CASCADE", "CREATE SCHEMA public AUTHORIZATION reader")
    monkeypatch.setenv("LAKE_URL", pg.url)
    with duckdb.connect() as con:
        for extension in ("postgres_scanner", "ducklake"):
            s3.load_extension(con, extension, "a test", SourceError)
        con.execute(f"ATTACH 'ducklake:postgres:{pg.url}' AS lake (DATA_PATH '{tiny.root}/lake/')")
        con.execute(f"ATTACH '{tiny.root}/sources.duckdb' AS src (READ_ONLY)")
        con.execute("CREATE SCHEMA lake.raw; CREATE TABLE lake.raw.orders AS FROM src.raw.orders")
        con.execute("DETACH src")
        tiny.declare(source_database=None, sources={"orders": {**DECLARED, "ducklake": {"url_env": "LAKE_URL"}}})
        tiny.run()
        assert tiny.scores() == tiny.expected()
        with workspace(threads=1) as outer, sources_alone(outer, tiny.pipeline().spec, tiny.root) as own:
            con.execute(f"DELETE FROM lake.raw.orders WHERE day = '{SECOND}'")
            assert own.execute("SELECT count(*) FROM raw.orders").fetchone() == (200,)
            assert PASSWORD not in str(own.execute("FROM duckdb_databases()").fetchall())
    assert stale(tiny) == [SECOND]


def test_all_reads_of_an_extraction_see_one_snapshot(tiny, shop):
    count = "SELECT count(*) FROM raw.orders"
    with workspace(threads=2) as outer, sources_alone(outer, tiny.pipeline().spec, tiny.root) as con:
        shop.sql(f"DELETE FROM raw.orders WHERE day = '{FIRST}'")  # before the first read
        assert con.execute(count).fetchone() == (200,)
        with pytest.raises(Exception, match="convert|Conversion"):
            con.execute("SELECT shop::INTEGER FROM raw.orders").fetchall()
        pinned.again(con)
        assert con.execute(count).fetchone() == (200,)


def test_a_server_that_restarts_meanwhile_fails_the_run_once(tiny, shop, amid_the_next_run):
    """Not each partition for itself, and not the process: DuckDB ends it where a transaction is left open."""
    ended = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'reader'"
    amid_the_next_run(lambda: shop.sql(ended))
    with pytest.raises(SourceAwayError, match="Pipeline orders: .*source .*postgres SHOP_URL"):
        tiny.run()
    assert all(each.scoring for each in tiny.run().values())


def test_feature_sql_reaches_no_other_table_and_no_function_of_the_server(tiny, shop, helpers):
    shop.sql("CREATE TABLE raw.salaries AS SELECT 1 AS a", "GRANT SELECT ON raw.salaries TO reader")
    escapes = ("raw.salaries", "postgres_query('x', 'SELECT 1')", "postgres_scan('', 'raw', 'salaries')")
    for escape in escapes:
        tiny.declare(helpers.SQL.replace("FROM raw.orders", f"FROM raw.orders, {escape}"))
        declare(tiny)
        with pytest.raises(Exception, match="declared source"):
            tiny.run(FIRST)


def test_views_partitioned_tables_and_names_with_capitals(tiny, shop):
    table = '"Sales"."Orders By Day"'
    shop.sql(
        'DROP SCHEMA IF EXISTS "Sales" CASCADE',
        'CREATE SCHEMA "Sales"',
        "SET search_path = 'Sales'",
        f"CREATE TABLE {table} (LIKE raw.orders) PARTITION BY RANGE (day)",
        f"CREATE TABLE early PARTITION OF {table} FOR VALUES FROM (MINVALUE) TO ('2024-03-03')",
        f"CREATE TABLE late PARTITION OF {table} FOR VALUES FROM ('2024-03-03') TO (MAXVALUE)",
        'INSERT INTO "Sales"."Orders By Day" SELECT * FROM raw.orders',
        'CREATE VIEW "Sales"."V" AS SELECT * FROM "Sales"."Orders By Day"',
        'GRANT USAGE ON SCHEMA "Sales" TO reader',
        'GRANT SELECT ON ALL TABLES IN SCHEMA "Sales" TO reader',
    )
    tiny.run()
    for remote in ("Sales.Orders By Day", "Sales.V"):
        declare(tiny, remote_table=remote)
        assert not stale(tiny)  # the same rows, wherever they are


def test_types_pass_or_are_refused(tiny, shop):
    shop.sql(
        "CREATE TYPE mood AS ENUM ('sad', 'fine')",
        "CREATE TABLE raw.odd AS SELECT order_id, day, amount::numeric AS plain, 1.25::numeric(38, 10) AS wide, "
        "gen_random_uuid() AS u, '{\"a\": [1]}'::jsonb AS j, ARRAY[order_id, NULL] AS list, "
        "ARRAY['a', 'b'] AS texts, day::timestamptz AS at, 'fine'::mood AS mood, '1 day'::interval AS span, "
        "'\\x00ff'::bytea AS raw, '10.0.0.1'::inet AS ip, "
        "CASE order_id % 3 WHEN 0 THEN 'infinity'::date WHEN 1 THEN '-infinity' END AS ever, "
        "'infinity'::timestamptz AS always FROM raw.orders",
        "GRANT SELECT ON raw.odd TO reader",
    )
    declare(tiny, remote_table="raw.odd")
    with workspace(threads=1) as con, open_sources(con, tiny.pipeline().spec, tiny.root):
        kinds = {name: kind for name, kind, *_ in con.execute("DESCRIBE raw.orders").fetchall()}
        endless = con.execute("SELECT count(*) FILTER (isinf(ever)), count(*) FILTER (isinf(always)) FROM raw.orders")
        endless = endless.fetchone()
    assert kinds == {
        **{
            "order_id": "BIGINT",
            "day": "DATE",
            "plain": "DOUBLE",
            "wide": "DECIMAL(38,10)",
            "u": "UUID",
            "j": "VARCHAR",
        },
        **{"list": "BIGINT[]", "texts": "VARCHAR[]", "at": "TIMESTAMP WITH TIME ZONE", "mood": "ENUM('sad', 'fine')"},
        **{"span": "INTERVAL", "raw": "BLOB", "ip": "VARCHAR", "ever": "DATE", "always": "TIMESTAMP WITH TIME ZONE"},
    }
    assert endless == (134, 200)
    assert not stale_twice(tiny)


def test_numbers_that_are_none_are_not_read_as_zero(tiny, shop):
    shop.sql(
        "CREATE TABLE raw.numbers AS SELECT order_id, day, CASE order_id % 2 WHEN 0 THEN 'NaN'::numeric "
        "ELSE '-Infinity' END AS amount FROM raw.orders",
        "ALTER TABLE raw.orders ADD COLUMN cost numeric(5, 2) DEFAULT 'NaN'",
        "ALTER TABLE raw.orders ADD COLUMN odd numeric(4, -2) DEFAULT 12345",
        "GRANT SELECT ON raw.numbers TO reader",
    )
    declare(tiny, remote_table="raw.numbers")
    with workspace(threads=2) as con, open_sources(con, tiny.pipeline().spec, tiny.root):
        assert con.execute("SELECT DISTINCT amount::VARCHAR FROM raw.orders ORDER BY 1").fetchall() == [
            ("-inf",),
            ("nan",),
        ]
    declare(tiny)
    with pytest.raises(SourceError, match="the scale of the numeric column odd is negative"):
        tiny.run()
    shop.sql("ALTER TABLE raw.orders DROP COLUMN odd")
    with pytest.raises(SourceError, match="source 'orders' .*NaN"):
        tiny.run()


def stale_twice(tiny):
    """Whether two readings of the same rows have two digests."""
    found = []
    for _ in range(2):
        with workspace(threads=2) as con, open_sources(con, tiny.pipeline().spec, tiny.root):
            found.append(fingerprints(con, tiny.pipeline(), tiny.partitions()).of)
    return found[0] != found[1]


def test_a_changed_schema_is_said(tiny, shop):
    tiny.run(FIRST)
    shop.sql("ALTER TABLE raw.orders RENAME COLUMN day TO order_day")
    with pytest.raises(SourceError, match="has no column 'day', which it declares as partition_column. It has: "):
        tiny.run(FIRST)


def test_a_schema_and_a_table_that_are_closed_or_not_there_are_said(tiny, shop):
    shop.sql("REVOKE USAGE ON SCHEMA raw FROM reader")
    with pytest.raises(SourceError, match="source 'orders' .* from postgres SHOP_URL. .*USAGE on its schema"):
        tiny.run(FIRST)
    shop.sql("GRANT USAGE ON SCHEMA raw TO reader")
    declare(tiny, remote_table="raw.ordres")
    with pytest.raises(SourceError, match="from postgres SHOP_URL. Did you mean raw.orders"):
        tiny.run(FIRST)


def test_a_file_can_hold_the_connection_string(tiny, shop, monkeypatch):
    monkeypatch.delenv("SHOP_URL")
    (tiny.root.parent / "secret").write_text(shop.url + "\n")
    declare(tiny, postgres={"url_file": str(tiny.root.parent / "secret")})
    assert tiny.run(FIRST)[FIRST].scoring


def test_a_killed_run_leaves_no_connection(tiny, shop):
    code = (
        "import os, signal\nfrom pathlib import Path\nfrom pip_dagster.declaration.find import find_pipeline\n"
        "from pip_dagster.declaration.project import Project\nfrom pip_dagster.flow.reader import sources_alone\n"
        "from pip_dagster.warehouse.connect import workspace\n"
        f"root = Path({str(tiny.root)!r})\nspec = find_pipeline(Project.at(root), 'orders').spec\n"
        "with workspace(threads=1) as outer, sources_alone(outer, spec, root) as con:\n"
        "    con.execute('SELECT count(*) FROM raw.orders').fetchone()\n    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == -9
    for _ in range(50):
        [[left]] = shop.sql("SELECT count(*) FROM pg_stat_activity WHERE usename = 'reader'")
        if left == "0":
            return
        shop.sql("SELECT pg_sleep(0.1)")
    raise AssertionError(left)


def tick(tiny, name):
    from pip_dagster.orchestration.partitions import partitions_definition
    from pip_dagster.orchestration.sensors.reruns import source_changes

    pipeline = tiny.pipeline()
    sensor = source_changes(pipeline, dg.define_asset_job("job"), partitions_definition(pipeline.spec.partitions))
    with dg.DagsterInstance.ephemeral() as instance:
        return sensor(dg.build_sensor_context(instance=instance))


def test_plan_and_doctor_say_whose_rows_are_hashed_and_how_to_avoid_it(tiny, shop, monkeypatch):
    declare(tiny)
    tiny.run()
    planned = json.loads(tiny.shell("plan", "orders", "--json"))
    assert planned["hashed"] == {"orders": {"place": "postgres SHOP_URL", "rows": 200}}
    assert "hashes them" not in tiny.shell("plan", "orders"), "200 rows are no trouble"
    monkeypatch.setattr(hashed, "MANY", 50)
    planned = " ".join(tiny.shell("plan", "orders", FIRST).split())
    assert "Source orders: each plan reads 50 rows of postgres SHOP_URL and hashes them. Declare its" in planned
    said = "orders.orders: each plan reads 200 rows of postgres SHOP_URL and hashes them"
    [line] = [each for each in doctor(tiny) if "hashes them" in each["text"]]
    assert (line["level"], line["text"], "change_column" in line["remedy"]) == ("warning", said, True)
    shop.sql("ALTER TABLE raw.orders ADD COLUMN changed INT DEFAULT 1")
    declare(tiny, change_column="changed")
    assert json.loads(tiny.shell("plan", "orders", "--json"))["hashed"] == {}
    assert not [each for each in doctor(tiny) if "hashes them" in each["text"]]


def doctor(tiny):
    result = CliRunner().invoke(cli, ["--project", str(tiny.root), "doctor", "--json"], env={"DAGSTER_HOME": None})
    return json.loads(result.stdout)["lines"]
