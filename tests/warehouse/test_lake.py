"""The shared warehouse: who waits for whom, what is tried again, what is kept and what is said of secrets."""

import json
import os
import re
import secrets
import threading
import time
from datetime import timedelta
from pathlib import Path

import duckdb
import pytest
from click.testing import CliRunner

from pip_dagster.cli.main import cli
from pip_dagster.declaration.lake import Lake, unkept_type
from pip_dagster.declaration.project import Project
from pip_dagster.errors import DeclarationError, NoWarehouseError, ProjectError, WarehouseError
from pip_dagster.ledger.promotions import alias_moves
from pip_dagster.ledger.record import new_id
from pip_dagster.ledger.rollback import rollback
from pip_dagster.ledger.verify import verify
from pip_dagster.warehouse import advisory, lake_connection
from pip_dagster.warehouse.connect import open_warehouse, workspace
from pip_dagster.warehouse.maintain import maintain
from pip_dagster.warehouse.transaction import transaction

pytestmark = pytest.mark.lake("only")

FIRST, SECOND, THIRD, FOURTH = DAYS = ("2024-03-01", "2024-03-02", "2024-03-03", "2024-03-04")

# Another machine: it changes nothing but the order of its partitions, and always scores anew.
SCORE_ANEW = """
import os, sys
import yaml
from pip_dagster.flow.materialize import materialize
from pip_dagster.ledger.record import RunInfo
from pip_dagster.orchestration.partitions import partitions_definition, partitions_of
from pip_dagster.declaration.pipeline import Pipeline
from pip_dagster.declaration.project import Project
from pip_dagster.declaration.spec import PipelineSpec

project = Project.find()
folder = project.root / "acme" / "defs" / "orders"
attributes = yaml.safe_load((folder / "defs.yaml").read_text())["attributes"]
attributes["decisions"] = {"mine": f"score >= 0.{sys.argv[1]}"}  # a declaration of its own
pipeline = Pipeline.load(PipelineSpec.model_validate(attributes), folder, project)
partitions = partitions_of(partitions_definition(pipeline.spec.partitions), sys.argv[2:])
for result in materialize(pipeline, partitions, RunInfo(f"run {sys.argv[1]}", "a machine")):
    print(result.partition.key, result.error or "stored", flush=True)
"""


def lake_of(tiny) -> Lake:
    place = tiny.project.warehouse
    assert isinstance(place, Lake)
    return place


def opened(tiny, con, **options):
    return open_warehouse(con, lake_of(tiny), purpose="test", **options)


def assert_sound(tiny, days):
    """No row twice, none lost, the ledger agrees with the rows, the chain holds, everything is published."""
    (torn,) = tiny.warehouse(
        """SELECT count(*) FROM ledger.scorings s WHERE status = 'scored' AND s.rows_scored <>
        (SELECT count(DISTINCT o.order_id) FROM orders.scores o WHERE o.scoring_id = s.scoring_id)"""
    )
    assert torn == (0,)
    twice = "SELECT scoring_id, order_id FROM orders.scores GROUP BY ALL HAVING count(*) > 1"
    assert tiny.warehouse(twice) == []
    again = "SELECT partition_key, feature_digest FROM ledger.extractions WHERE is_new GROUP BY ALL HAVING count(*) > 1"
    assert tiny.warehouse(again) == [], "equal content makes one revision"
    live = tiny.warehouse("SELECT partition_key, scoring_id FROM ledger.live ORDER BY 1")
    assert [key for key, _ in live] == sorted(days)
    newest = "SELECT partition_key, arg_max(scoring_id, change_id) FROM ledger.live_changes GROUP BY 1 ORDER BY 1"
    assert tiny.warehouse(newest) == live
    rows = "SELECT partition_key, any_value(scoring_id), count(*) FROM orders.predictions GROUP BY 1 ORDER BY 1"
    assert [row[:2] for row in tiny.warehouse(rows)] == live
    assert tiny.published(rows) == tiny.warehouse(rows)
    pending = "SELECT count(*) FROM ledger.live_changes c ANTI JOIN ledger.publications p ON p.change_id = c.change_id"
    assert tiny.warehouse(pending) == [(0,)]
    with workspace(threads=1) as con, opened(tiny, con, read_only=True):
        assert verify(con, moves=alias_moves(tiny.registry)) is None
        assert con.execute("SELECT count(*), max(seq) FROM ledger.audit").fetchone() == (
            con.execute("SELECT 1 + count(*) FROM ledger.live_changes").fetchone() * 2
        )


def run_at_once(tiny, *works):
    processes = [tiny.python(SCORE_ANEW, str(number), *days) for number, days in enumerate(works, 1)]
    for process, days in zip(processes, works, strict=True):
        said = process.communicate(timeout=300)[0]
        assert process.returncode == 0, said
        assert sorted(said.split("\n")[:-1]) == sorted(f"{day} stored" for day in days), said


class TestAtOnce:
    @pytest.mark.slice
    def test_four_processes_make_the_lake_and_score_the_same_days(self, tiny):
        """At first use: catalog, schema, tables and views are made by one, the others do their transaction again."""
        works = [DAYS, DAYS[::-1], DAYS, (THIRD, FIRST, FOURTH, SECOND)]
        run_at_once(tiny, *works)
        assert tiny.warehouse("SELECT count(*) FROM ledger.scorings WHERE status = 'scored'") == [(16,)]
        assert tiny.warehouse("SELECT count(*) FROM ledger.live_changes") == [(16,)]
        assert_sound(tiny, DAYS)
        assert tiny.scores() == tiny.expected()

    @pytest.mark.soak
    @pytest.mark.parametrize("same", [True, False])
    def test_four_processes_of_fifteen_days(self, tiny, same):
        tiny.source(
            "CREATE OR REPLACE TABLE raw.orders AS SELECT * REPLACE (order_id + 1000 * d AS order_id, "
            "DATE '2024-03-01' + d::INT AS day) FROM raw.orders, range(15) t(d) WHERE day = '2024-03-01'"
        )
        days = [f"2024-03-{day:02}" for day in range(1, 16)]
        works = [days, days[::-1], days[5:] + days[:5], days[::-1][5:] + days[::-1][:5]]
        run_at_once(tiny, *(works if same else [days[at::4] for at in range(4)]))
        count = 60 if same else 15
        assert tiny.warehouse("SELECT count(*) FROM ledger.scorings WHERE status = 'scored'") == [(count,)]
        assert_sound(tiny, days)

    @pytest.mark.soak
    def test_a_rerun_that_another_overtook_is_done_again_and_keeps_no_revision_twice(self, scored, monkeypatch):
        """Another process stores the same corrected features between this one's first read and its commit."""
        from pip_dagster.flow import store_features
        from pip_dagster.flow.storing import insert_counted

        scored.source(f"UPDATE raw.orders SET quantity = 8 WHERE day = '{FIRST}'")
        others = []

        def overtaken(*arguments):
            insert_counted(*arguments)
            if "features" in arguments[-1] and not others:
                others.append(FIRST)
                others.append(scored.run(FIRST)[FIRST].features.revision)

        monkeypatch.setattr(store_features, "insert_counted", overtaken)
        result = scored.run(FIRST)[FIRST]
        assert not result.error and others == [FIRST, result.features.revision]
        assert_sound(scored, DAYS)

    @pytest.mark.slice
    def test_the_newest_change_holds_though_its_clock_is_behind(self, scored):
        ahead = (new_id()[:4], "2999")
        scored.tamper(f"UPDATE ledger.live_changes SET change_id = replace(change_id, '{ahead[0]}', '{ahead[1]}')")
        scored.source("UPDATE raw.orders SET quantity = 8")
        scored.run(FIRST)
        assert scored.scores(where=f"partition_key = '{FIRST}'") == scored.expected(f"day = '{FIRST}'")


class TestTurns:
    @pytest.mark.soak
    def test_who_waits_too_long_is_told_who_holds_it(self, scored, monkeypatch):
        holder = scored.python(
            """
            import time
            from pip_dagster.declaration.project import Project
            from pip_dagster.warehouse.transaction import transaction
            from pip_dagster.warehouse.connect import open_warehouse, workspace
            with workspace(threads=1) as con, open_warehouse(con, Project.find().warehouse, purpose="a long rollback"):
                with transaction(con):
                    print("held", flush=True)
                    time.sleep(60)
            """
        )
        try:
            assert holder.stdout.readline().strip() == "held"
            scored.source("UPDATE raw.orders SET quantity = 8")
            monkeypatch.setenv("PIP_DAGSTER_LOCK_DEADLINE", "0.5")
            said = rf"not free within 0\.5 s.*held by pip_dagster .*:{holder.pid} a long rollback.*nothing was written"
            with pytest.raises(WarehouseError, match=said):
                scored.run()
            monkeypatch.undo()
            assert len(scored.warehouse("SELECT * FROM orders.predictions")) == 200, "a reader waits for nobody"
            threading.Timer(0.5, holder.kill).start()  # its connection ends, and with it the lock
            assert not any(result.error for result in scored.run().values())
        finally:
            holder.kill()
            holder.wait()
        assert scored.scores() == scored.expected()

    def test_come_in_the_order_of_asking(self, scored):
        order = []
        with workspace(threads=1) as con, opened(scored, con):

            def ask(number):
                with advisory.holding(con, [advisory.WAREHOUSE]):
                    order.append(number)

            with transaction(con):
                threads = [threading.Thread(target=ask, args=(number,)) for number in range(6)]
                for thread in threads:
                    thread.start()
                    time.sleep(0.1)
                assert order == []
            for thread in threads:
                thread.join()
        assert order == list(range(6))

    def test_one_taken_late_sees_what_was_committed_meanwhile(self, scored):
        count = "SELECT count(*) FROM ledger.audit"
        with (
            workspace(threads=1) as con,
            workspace(threads=1) as other,
            opened(scored, con),
            opened(scored, other),
            transaction(con, late=True) as turn,
        ):
            assert con.execute(count).fetchone() == (5,)
            with transaction(other):
                other.execute("INSERT INTO ledger.audit SELECT * REPLACE (6 AS seq) FROM ledger.audit WHERE seq = 5")
            assert turn.take().execute(count).fetchone() == (6,)
            assert con.execute(count).fetchone() == (5,)

    def test_a_turn_that_was_lost_with_its_connection_commits_nothing(self, scored, backend):
        with workspace(threads=1) as con, opened(scored, con), pytest.raises(duckdb.Error), transaction(con):
            con.execute("DELETE FROM ledger.scorings")
            cut(scored, backend, "application_name LIKE 'pip_dagster%' AND state = 'idle in transaction'")
        assert scored.warehouse("SELECT count(*) FROM ledger.scorings") == [(4,)]


def cut(tiny, backend, which):
    """End connections to the lake's Postgres, as a restart of it does."""
    name = dict(lake_of(tiny).parameters)["dbname"]
    backend.server.psql(
        f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}' "
        f"AND pid <> pg_backend_pid() AND {which}"
    )


class TestPostgresGoesAway:
    @pytest.mark.slice
    def test_in_the_middle_of_a_run(self, scored, backend, monkeypatch):
        """Every connection is cut in the middle of a transaction, once for features and once for scores."""
        from pip_dagster.flow import store_features, store_scores
        from pip_dagster.flow.storing import insert_counted

        cuts = []

        def cutting(*arguments):
            insert_counted(*arguments)
            kind = arguments[-1].split(":")[-1]
            if kind not in cuts:
                cuts.append(kind)
                cut(scored, backend, "true")

        for module in (store_features, store_scores):
            monkeypatch.setattr(module, "insert_counted", cutting)
        scored.source("UPDATE raw.orders SET quantity = 8")
        assert not any(result.error for result in scored.run().values())
        assert cuts == [" features", " scores"]
        assert_sound(scored, DAYS)
        assert scored.scores() == scored.expected()

    def test_one_that_is_not_there_is_named_in_time_and_without_its_password(self, tiny, monkeypatch):
        monkeypatch.setattr(lake_connection, "_REACHABLE_WITHIN", 0.5)
        setting = "ducklake:postgres:postgresql://u:S3cret%21@127.0.0.1:1/x"
        monkeypatch.setenv("PIP_DAGSTER_WAREHOUSE", setting)
        began = time.monotonic()
        with pytest.raises(WarehouseError, match=r"host=127\.0\.0\.1 port=1.*could not be reached") as caught:
            tiny.run()
        assert time.monotonic() - began < 10
        assert "S3cret" not in str(caught.value) + repr(tiny.project) + str(tiny.project)
        assert caught.value.__suppress_context__, "no traceback shows DuckDB's own words, which hold the string"

    @pytest.mark.slice
    def test_a_password_comes_from_the_setting_or_the_environment(self, scored, backend, monkeypatch):
        server, name = backend.server, dict(lake_of(scored).parameters)["dbname"]
        role = f"app_{name}"
        server.psql(f"CREATE ROLE {role} LOGIN SUPERUSER PASSWORD 'it''s S3cret'")
        hba = Path(server.pgdata) / "pg_hba.conf"
        rules = hba.read_text()
        try:
            hba.write_text(f"local all {role} scram-sha-256\n{rules}")
            server.psql("SELECT pg_reload_conf()")
            time.sleep(0.2)
            lake = lake_of(scored)
            plain = Lake(tuple({**dict(lake.parameters), "user": role}.items()), lake.data_path)
            monkeypatch.setenv("PIP_DAGSTER_WAREHOUSE", plain.setting)
            with pytest.raises(WarehouseError, match="no password supplied"):
                scored.run()
            monkeypatch.setenv("PGPASSWORD", "it's S3cret")
            scored.source("UPDATE raw.orders SET quantity = 8")
            assert not any(result.error for result in scored.run().values())
            monkeypatch.setenv("PGPASSWORD", "wrong")
            monkeypatch.setenv("PIP_DAGSTER_WAREHOUSE", plain.setting + r" password='it\'s S3cret'")
            scored.source("UPDATE raw.orders SET quantity = 7")
            assert not any(result.error for result in scored.run().values())
            assert os.environ["PIP_DAGSTER_WAREHOUSE"] == scored.project.environment()["PIP_DAGSTER_WAREHOUSE"]
            with workspace(threads=1) as con, opened(scored, con):
                seen = con.execute(
                    "SELECT path FROM duckdb_databases() UNION ALL SELECT secret_string FROM duckdb_secrets()"
                )
                assert "S3cret" not in str(seen.fetchall())
        finally:
            hba.write_text(rules)
            server.psql("SELECT pg_reload_conf()")
        assert scored.scores() == scored.expected()


@pytest.mark.slice
class TestReaders:
    def test_read_the_lake_itself_where_nothing_is_published(self, scored, monkeypatch):
        monkeypatch.setenv("PIP_DAGSTER_PUBLISHED", "none")

        def said(*words, code=0):
            result = CliRunner().invoke(cli, ["--project", str(scored.root), *words])
            assert result.exit_code == code, result.output + repr(result.exception)
            return result.output

        before = scored.project
        assert not before.publishes
        assert json.loads(said("query", "--json", "SELECT count(*) AS n FROM orders.predictions")) == [{"n": 200}]
        assert "2024-03-04" in said("status", "orders")
        assert "v1" in said("lineage", "orders", FIRST)
        assert "uses read_text() in FROM" in said("query", "SELECT * FROM read_text('/etc/hostname')", code=1)
        assert "expected exactly one SELECT" in said("query", "DELETE FROM ledger.scorings", code=1)
        assert "publishes nothing" in said("publish", code=1)
        scored.registry.set_alias("returns", "champion", 2, by="eve", why="better")
        assert not any(result.error for result in scored.run().values())
        result = rollback(scored.project, "orders", why="worse", by="eve")
        assert len(result.flips) == 4 and result.published == 0
        scored.run()  # v1 is champion again
        scored.registry.set_alias("returns", "champion", 2, by="eve", why="better after all")
        scored.run()
        assert len(rollback(scored.project, "orders", why="no", by="eve").flips) == 4, "none waits to be published"
        monkeypatch.delenv("PIP_DAGSTER_PUBLISHED")
        assert "4 partitions published." in said("publish")
        assert scored.scores() == scored.expected(version=1)

    def test_of_what_is_not_there_yet_are_told_so_and_make_nothing(self, tiny):
        with pytest.raises(NoWarehouseError, match="no warehouse in ducklake:postgres:.* yet"):
            tiny.warehouse("SELECT 1")
        assert not Path(lake_of(tiny).data_path).exists()

    def test_with_the_role_of_the_docs_read_and_cannot_write(self, scored, backend, monkeypatch):
        page = Path(__file__).parents[2] / "docs" / "deployment.md"
        (block,) = re.findall(r"```sql\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
        database, role = dict(lake_of(scored).parameters)["dbname"], f"reader_{secrets.token_hex(4)}"
        statements = re.sub(r"--[^\n]*", "", re.sub(r"\breader\b", role, block))
        backend.psql(database, statements)
        try:
            monkeypatch.setenv("PIP_DAGSTER_PUBLISHED", "none")
            scored.source(f"UPDATE raw.orders SET quantity = 8 WHERE day = '{FIRST}'")
            scored.run()  # tables that the role was not granted by name
            owner = lake_of(scored)
            reader = Lake(tuple({**dict(owner.parameters), "user": role}.items()), owner.data_path)
            monkeypatch.setenv("PIP_DAGSTER_WAREHOUSE", reader.setting)
            assert json.loads(scored.shell("query", "--json", "SELECT count(*) AS n FROM orders.predictions")) == [
                {"n": 200}
            ]
            assert FIRST in scored.shell("status", "orders")
            with workspace(threads=1) as con:
                lake_connection._load_extensions(con, reader)
                con.execute(f"ATTACH $${reader.connection('test')}$$ AS pg (TYPE postgres)")
                for sql in (
                    "DROP TABLE ducklake_snapshot",
                    "DELETE FROM ducklake_snapshot",
                    "CREATE TABLE evil (a INT)",
                ):
                    with pytest.raises(duckdb.Error, match=r"must be owner|permission denied"):
                        con.execute("CALL postgres_execute('pg', $1)", [sql])
                with pytest.raises(duckdb.Error, match="permission denied"):
                    con.execute("FROM postgres_query('pg', 'SELECT pg_read_file(''/etc/hostname'')')")
            monkeypatch.delenv("PIP_DAGSTER_WAREHOUSE")
        finally:
            backend.psql(database, f"DROP OWNED BY {role}; DROP ROLE {role}")

    def test_see_one_moment_while_others_write(self, scored):
        with workspace(threads=1) as con, opened(scored, con, read_only=True):
            before = con.execute("SELECT count(*) FROM ledger.live_changes").fetchone()
            scored.source("UPDATE raw.orders SET quantity = 8")
            scored.run()
            assert con.execute("SELECT count(*) FROM ledger.live_changes").fetchone() == before


class TestWhatIsKept:
    @pytest.mark.parametrize(
        ("sql_type", "unkept"),
        [
            ("HUGEINT", "HUGEINT"),
            ("UHUGEINT", "UHUGEINT"),
            ("STRUCT(a HUGEINT)", "HUGEINT"),
            ("ENUM('a', 'b')", "ENUM"),
            ("INTERVAL", "INTERVAL"),
            ("TIME WITH TIME ZONE", "TIME WITH TIME ZONE"),
            ("FLOAT[3]", "[3]"),
            ("BIT", "BIT"),
            ('STRUCT("BIT" INTEGER)', None),
            ("TIMESTAMP WITH TIME ZONE", None),
            ("VARCHAR[]", None),
            ("DECIMAL(38,0)", None),
            ("BIGINT", None),
        ],
    )
    def test_types_that_would_come_back_as_others(self, sql_type, unkept):
        assert unkept_type(sql_type) == unkept

    @pytest.mark.slice
    def test_a_sum_of_whole_numbers_is_refused_with_the_way_out(self, tiny, helpers):
        """Parquet would keep the nearest DOUBLE of a HUGEINT, and say nothing."""
        tiny.declare(helpers.SQL.replace("'not a feature'", "sum(quantity) OVER ()"))
        with pytest.raises(DeclarationError, match=r"column 'note' of its features is HUGEINT.*to BIGINT"):
            tiny.run()
        with pytest.raises(NoWarehouseError):
            tiny.warehouse("SELECT count(*) FROM ledger.extractions")
        tiny.declare(helpers.SQL.replace("'not a feature'", "(sum(quantity) OVER ())::BIGINT"))
        tiny.run()
        assert tiny.scores() == tiny.expected()

    @pytest.mark.parametrize("rows", [1, 50])
    def test_rows_come_back_to_the_bit_inlined_in_postgres_or_in_parquet(self, tiny, rows):
        values = (
            "'infinity'::TIMESTAMP", "'-infinity'::DATE", "'2024-01-01 00:00:00.000001+00'::TIMESTAMPTZ",
            "'nan'::DOUBLE", "'-0.0'::DOUBLE", "'-0.0'::FLOAT", "0.1::FLOAT", "1e-320::DOUBLE", "'24:00:00'::TIME",
            "99999999999999999999999999999999999999::DECIMAL(38,0)", "'2020-01-01 00:00:00.123456789'::TIMESTAMP_NS",
            "'\\x00\\xff'::BLOB", "'a' || chr(0) || '\"東'", "''", "NULL::VARCHAR", "18446744073709551615::UBIGINT",
            "'{\"a\":1}'::JSON", "{'a': 1, 'b': ['x', NULL]}", "[[1, NULL], NULL]", "map {'a': 1}", "true",
        )  # fmt: skip
        with workspace(threads=1) as con, opened(tiny, con):
            select = "SELECT " + ", ".join(f"{value} AS c{at}" for at, value in enumerate(values))
            con.execute(f"CREATE TABLE memory.here AS {select} FROM range({rows})")
            con.execute("CREATE SCHEMA kept")
            con.execute(f"CREATE TABLE kept.there AS {select} FROM range({rows})")
            typed = [
                con.execute(f"SELECT column_name, column_type FROM (DESCRIBE {table})").fetchall()
                for table in ("memory.here", "kept.there")
            ]
            assert typed[0] == typed[1]
            differing = [
                value
                for at, value in enumerate(values)
                if con.execute(f"SELECT DISTINCT hash(c{at}), c{at}::VARCHAR FROM memory.here").fetchall()
                != con.execute(f"SELECT DISTINCT hash(c{at}), c{at}::VARCHAR FROM kept.there").fetchall()
            ]
            assert differing == []


class TestMaintenance:
    @pytest.mark.soak
    def test_puts_small_files_together_while_runs_go_on_and_changes_no_row(self, scored):
        for quantity in (1, 2):
            scored.source(f"UPDATE raw.orders SET quantity = {quantity}")
            for day in DAYS:  # each in transactions, and so in files, of its own
                scored.run(day)
        everything = "SELECT count(*), bit_xor(hash(s)), sum(hash(s)::HUGEINT) FROM orders.scores s"
        before = scored.warehouse(everything), scored.warehouse("FROM ledger.scorings ORDER BY ALL")
        files = list(Path(lake_of(scored).data_path).rglob("*.parquet"))
        with workspace(threads=1) as con, opened(scored, con):
            done = maintain(con, keep=timedelta(0))
        assert done.merged_files > 10 and done.flushed_rows > 10 and done.expired_snapshots > 10
        assert len(list(Path(lake_of(scored).data_path).rglob("*.parquet"))) < len(files)
        assert (scored.warehouse(everything), scored.warehouse("FROM ledger.scorings ORDER BY ALL")) == before
        assert_sound(scored, DAYS)

    @pytest.mark.soak
    def test_at_the_same_time_as_runs(self, scored):
        stop, failures = threading.Event(), []

        def keep_maintaining():
            while not stop.is_set():
                try:
                    with workspace(threads=1) as con, opened(scored, con):
                        maintain(con, keep=timedelta(hours=1))  # longer than any reader takes
                except Exception as error:
                    failures.append(error)

        thread = threading.Thread(target=keep_maintaining)
        thread.start()
        try:
            run_at_once(scored, DAYS, DAYS[::-1])
        finally:
            stop.set()
            thread.join()
        assert not failures
        assert_sound(scored, DAYS)

    @pytest.mark.slice
    def test_a_purge_of_old_scores_leaves_what_is_live(self, scored):
        """As retention will do it: rows of scorings that are not live are deleted, in a turn of their own."""
        scored.source("UPDATE raw.orders SET quantity = 8")
        scored.run()
        ((table,),) = scored.warehouse(
            "SELECT table_name FROM duckdb_tables() WHERE table_name LIKE 'scores\\_\\_%' ESCAPE '\\'"
        )
        with workspace(threads=1) as con, opened(scored, con), transaction(con):
            con.execute(f"DELETE FROM orders.{table} WHERE scoring_id NOT IN (SELECT scoring_id FROM ledger.live)")
        assert scored.warehouse("SELECT count(*) FROM orders.scores") == [(200,)]
        with workspace(threads=1) as con, opened(scored, con):
            maintain(con, keep=timedelta(0))
        assert scored.warehouse("SELECT count(*) FROM orders.predictions") == [(200,)]
        assert scored.scores() == scored.expected()


class TestTheSetting:
    @pytest.mark.parametrize(
        ("text", "shown"),
        [
            ("dbname=lake host=db", "dbname=lake host=db"),
            (r"host='a b' user = 'o\'neil' password=x", r"host='a b' user='o\'neil'"),
            ("postgresql://u:p%40ss@db.example:6432/lake?sslmode=require",
             "host=db.example port=6432 user=u dbname=lake sslmode=require"),
            ("postgres://u@a,b:2/lake", "host=a,b port=5432,2 user=u dbname=lake"),
            ("postgresql://[::1]/lake", "host=::1 port=5432 dbname=lake"),
        ],
    )  # fmt: skip
    def test_is_any_connection_string_that_postgres_takes(self, text, shown):
        lake = Lake.parse("ducklake:postgres:" + text, Path("/p"), "data/lake")
        assert str(lake) == "ducklake:postgres:" + shown and lake.data_path == "/p/data/lake/"
        again = Lake.parse(lake.setting, Path("/p"), "data/lake")
        assert again == lake and again.secrets == lake.secrets
        assert "p@ss" not in repr(lake) + lake.connection("x")

    @pytest.mark.parametrize("text", ["ducklake:sqlite:x.db", "ducklake:postgres:", "ducklake:postgres:S3cret no=1 x"])
    def test_that_is_none_is_refused_and_not_shown(self, tiny, monkeypatch, text):
        monkeypatch.setenv("PIP_DAGSTER_WAREHOUSE", text)
        with pytest.raises(ProjectError, match=r"expected ducklake:postgres:dbname=lake") as caught:
            Project.at(tiny.root)
        assert "S3cret" not in str(caught.value)

    def test_of_parquet_files_that_lie_elsewhere_is_told(self, scored, monkeypatch):
        monkeypatch.setenv("PIP_DAGSTER_DATA_PATH", "another/place")
        with pytest.raises(WarehouseError, match=r"created with another data_path: [\s\S]*UPDATE ducklake_metadata"):
            scored.run()

    def test_that_publishes_nothing_needs_a_lake(self, tiny, monkeypatch):
        monkeypatch.setenv("PIP_DAGSTER_WAREHOUSE", "data/warehouse.duckdb")
        monkeypatch.setenv("PIP_DAGSTER_PUBLISHED", "none")
        with pytest.raises(ProjectError, match='published = "none" is for a lake'):
            Project.at(tiny.root)
