"""Published rows: which files there are, and what readers see while they change, grow, move and break."""

import itertools
import shutil
import signal

import duckdb
import pytest

from pip_dagster.errors import WarehouseError
from pip_dagster.warehouse import access, published_change, published_rows
from pip_dagster.warehouse.connect import open_warehouse, workspace
from pip_dagster.warehouse.published import publish_pending

DAYS = ["2024-03-01", "2024-03-02", "2024-03-03", "2024-03-04"]
COUNTS = "SELECT partition_key, count(*) FROM orders.predictions GROUP BY 1 ORDER BY 1"


def files(tiny):
    return sorted(path.name for path in (tiny.project.published / "orders").iterdir())


def reader(tiny):
    return duckdb.connect(str(tiny.project.published_database), read_only=True)


def change_sources(tiny):
    tiny.source("UPDATE raw.orders SET quantity = 1 + quantity % 8")


@pytest.mark.lake
def test_a_batch_of_partitions_is_one_file_changed_once(scored, monkeypatch):
    changes = []

    def counted(con, file, keys, *arguments, **options):
        changes.append((file.name, keys))
        return published_change.change(con, file, keys, *arguments, **options)

    monkeypatch.setattr("pip_dagster.warehouse.published.change", counted)
    change_sources(scored)
    scored.run()
    assert changes == [("rows-0001.duckdb", DAYS)]
    assert files(scored) == ["rows-0001.duckdb"] and scored.scores() == scored.expected()


def test_a_connection_that_stays_open_sees_new_rows_new_columns_and_new_tables(scored):
    with reader(scored) as con:
        assert con.execute(COUNTS).fetchall() == [(day, 50) for day in DAYS]
        scored.declare(decisions={"high": "score > 0.5"})
        change_sources(scored)
        scored.run(DAYS[0])
        found = con.execute(
            "SELECT partition_key, count(high) FROM orders.predictions GROUP BY 1 ORDER BY 1"
        ).fetchall()
        assert found == [(DAYS[0], 50), *((day, 0) for day in DAYS[1:])]
        scored.declare(decisions={"high": "CASE WHEN score > 0.5 THEN 'yes' ELSE 'no' END"})
        scored.run(DAYS[1])
        found = con.execute("SELECT DISTINCT typeof(high) FROM orders.predictions WHERE high IS NOT NULL").fetchall()
        assert found == [("VARCHAR",)], "as in the warehouse, where both are of one type"
        assert files(scored) == ["rows-0001.duckdb"]


def test_a_file_that_has_reached_its_cap_gets_no_further_partitions(tiny, monkeypatch):
    monkeypatch.setattr(published_rows, "CAP", 1)
    tiny.run(*DAYS[:2])
    tiny.run(DAYS[2])
    assert files(tiny) == ["rows-0001.duckdb", "rows-0002.duckdb"]
    change_sources(tiny)
    tiny.run(*DAYS[:3])
    assert files(tiny) == ["rows-0001.duckdb", "rows-0002.duckdb"], "a partition stays in its file"
    assert tiny.published(COUNTS) == [(day, 50) for day in DAYS[:3]]
    assert tiny.scores() == tiny.expected(f"day <= '{DAYS[2]}'")
    assert tiny.published("SELECT count(*) FROM ledger.partitions WHERE is_live") == [(3,)]


def test_many_new_partitions_fill_one_file_after_the_other(tiny, monkeypatch):
    monkeypatch.setattr(published_rows, "CAP", 1)
    monkeypatch.setattr(published_rows, "_AT_ONCE", 100)
    tiny.run()
    assert files(tiny) == ["rows-0001.duckdb", "rows-0002.duckdb"]
    tiny.shell("publish")
    assert files(tiny) == ["rows-0001.duckdb", "rows-0002.duckdb"]
    assert tiny.scores() == tiny.expected()


def test_a_large_partition_has_a_file_of_its_own(tiny, monkeypatch):
    tiny.run(DAYS[0])
    monkeypatch.setattr(published_rows, "LARGE", 10)
    tiny.run(*DAYS[:3])
    expected = ["rows-0001.duckdb", *(f"single-{day}.duckdb" for day in DAYS[1:3])]
    assert files(tiny) == expected
    monkeypatch.undo()
    change_sources(tiny)
    tiny.run()
    assert files(tiny) == expected, "and keeps it; a small one goes to the file of the others"
    assert tiny.published(COUNTS) == [(day, 50) for day in DAYS]
    assert tiny.scores() == tiny.expected()


@pytest.mark.parametrize("key", ["2013-11-03-01:00-0500", "a/b", "..", "a [b]*"])
def test_any_key_becomes_the_name_of_a_file(tmp_path, key):
    file = published_rows._own(tmp_path, key)
    file.touch()
    assert list(tmp_path.iterdir()) == [file]


def test_a_file_is_written_whole_now_and_then(scored, monkeypatch):
    change_sources(scored)
    monkeypatch.setattr(published_change, "_WHOLE_EVERY", 1)
    scored.run(DAYS[3], DAYS[1])
    assert scored.scores() == scored.expected(f"day IN ('{DAYS[1]}', '{DAYS[3]}')") | scored.scores(
        where=f"partition_key NOT IN ('{DAYS[1]}', '{DAYS[3]}')"
    )
    with duckdb.connect(str(scored.project.published / "orders" / "rows-0001.duckdb"), read_only=True) as con:
        keys = [key for (key,) in con.execute("SELECT partition_key FROM orders.predictions ORDER BY rowid").fetchall()]
    assert keys == sorted(keys), "in order, so that a query for one partition skips the others"


def test_a_kill_amid_publishing_leaves_what_the_next_publication_removes(scored):
    before = scored.scores()
    change_sources(scored)
    process = scored.python(
        f"""
        import os, signal, sys
        from pip_dagster.cli.main import main
        from pip_dagster.warehouse import published_change
        published_change.detach = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
        sys.argv = ["pip-dagster", "backfill", "orders", "--from", "{DAYS[0]}", "--to", "{DAYS[0]}", "--no-dagster"]
        main()
        """
    )
    output = process.communicate(timeout=120)[0]
    assert process.returncode == -signal.SIGKILL, output
    assert [name for name in files(scored) if name.startswith(".rows-0001.duckdb.")]
    assert scored.scores() == before
    scored.shell("publish")
    assert files(scored) == ["rows-0001.duckdb"]
    assert scored.scores(where=f"partition_key = '{DAYS[0]}'") == scored.expected(f"day = '{DAYS[0]}'")


@pytest.mark.parametrize("original", ["there", "gone"])
def test_a_copied_or_moved_project_shows_its_own_rows(scored, helpers, tmp_path, original):
    copy = helpers.Tiny(tmp_path / "a copy [of it]")
    shutil.copytree(scored.root, copy.root)
    if original == "gone":
        shutil.rmtree(scored.root)
    else:
        scored.source("INSERT INTO raw.orders SELECT * REPLACE (order_id + 1000 AS order_id) FROM raw.orders LIMIT 9")
        scored.run()
    before = sorted((path, path.stat().st_mtime_ns) for path in copy.project.published.rglob("*"))
    assert copy.shell("query", "SELECT count(*) AS n FROM orders.predictions", "--format", "csv") == "n\n200\n"
    assert DAYS[0] in copy.shell("status", "orders") and DAYS[0] in copy.shell("lineage", "orders", DAYS[0])
    assert sorted((path, path.stat().st_mtime_ns) for path in copy.project.published.rglob("*")) == before
    copy.run(DAYS[0])
    assert copy.scores() == copy.expected()


def test_a_damaged_file_is_one_sentence_and_is_written_again(scored, caplog):
    file = scored.project.published / "orders" / "rows-0001.duckdb"
    before = scored.scores()
    file.write_bytes(file.read_bytes()[:20_000])
    for words in (["status"], ["lineage", "orders", DAYS[0]], ["query", "FROM orders.predictions"]):
        text = scored.shell(*words, code=1)
        assert "rows-0001.duckdb" in text and ("pip-dagster publish" in text or words[0] == "query")
    change_sources(scored)
    scored.run(DAYS[0])
    assert f"orders, partition {DAYS[0]} is stored but cannot be published" in caplog.text
    assert scored.shell("publish").endswith("4 partitions published.\n")
    assert scored.scores() == before | scored.expected(f"day = '{DAYS[0]}'")


def test_parquet_files_of_an_earlier_release_stay_until_everything_is_published_again(scored):
    before = scored.scores()
    published = scored.project.published
    old = {"predictions": "orders.predictions", "ledger": "ledger.partitions"}
    with reader(scored) as con:
        for folder, view in old.items():
            (published / "orders" / folder).mkdir()
            con.execute(f"COPY (FROM {view}) TO '{published}/orders/{folder}/all.parquet'")
    (published / "orders" / "rows-0001.duckdb").unlink()
    scored.project.published_database.unlink()
    with duckdb.connect(str(scored.project.published_database)) as con:
        for folder, view in old.items():
            con.execute(f"CREATE SCHEMA IF NOT EXISTS {view.split('.')[0]}")
            con.execute(f"CREATE VIEW {view} AS FROM read_parquet(['{published}/orders/{folder}/*.parquet'])")
    (published / "views.sql").write_text("CREATE SCHEMA ...")
    scored.tamper("DELETE FROM ledger.publications")  # as the migration does
    assert DAYS[0] in scored.shell("status", "orders"), "until then, they are read"
    change_sources(scored)
    scored.run(DAYS[0])
    assert files(scored) == ["rows-0001.duckdb"]
    assert scored.scores() == before | scored.expected(f"day = '{DAYS[0]}'")


def test_values_are_published_as_they_are(tiny):
    wide = 170141183460469231731687303715884105727
    decisions = {
        "wide": f"{wide}::HUGEINT",
        "took": "INTERVAL 90 minutes",
        "either": "CASE WHEN score > 0.5 THEN union_value(yes := 1) ELSE union_value(yes := 2) END",
    }
    tiny.declare(decisions=decisions).run(DAYS[0])
    found = tiny.published("SELECT DISTINCT wide, typeof(took), typeof(either) FROM orders.predictions")
    assert found == [(wide, "INTERVAL", 'UNION("yes" INTEGER)')]


def test_rows_files_can_be_opened_by_themselves(scored, tmp_path):
    """As documented for pandas, and for a file that was mailed or archived."""
    moved = shutil.copy(scored.project.published / "orders" / "rows-0001.duckdb", tmp_path / "mailed.duckdb")
    with duckdb.connect(str(moved), read_only=True) as con:
        frame = con.sql("SELECT p.* FROM orders.predictions p JOIN ledger.partitions l USING (scoring_id)").df()
    assert dict(zip(frame["order_id"], frame["score"].astype(float), strict=True)) == scored.scores()


class TestExport:
    def test_writes_parquet_that_others_read(self, scored, tmp_path):
        import pandas as pd

        folder = tmp_path / "new" / "export"
        text = scored.shell("export", "orders", "--to", str(folder))
        assert text == f"{folder}: partitions (4 rows), predictions (200 rows).\n"
        assert sorted(path.name for path in folder.iterdir()) == ["partitions.parquet", "predictions.parquet"]
        frame = pd.read_parquet(folder / "predictions.parquet")
        assert dict(zip(frame["order_id"], frame["score"].astype(float), strict=True)) == scored.scores()

    def test_of_some_partitions(self, scored, tmp_path):
        scored.shell("export", "orders", "--to", str(tmp_path / "e"), "--partitions", f"{DAYS[1]}..{DAYS[2]}")
        select = f"SELECT DISTINCT partition_key FROM '{tmp_path}/e/predictions.parquet' ORDER BY 1"
        with duckdb.connect() as con:
            assert con.execute(select).fetchall() == [(DAYS[1],), (DAYS[2],)]

    def test_types_that_parquet_lacks_are_text(self, tiny, tmp_path):
        wide = 170141183460469231731687303715884105727
        decisions = {"wide": f"{wide}::HUGEINT", "listed": f"[{wide}::HUGEINT]", "took": "INTERVAL 90 minutes"}
        tiny.declare(decisions=decisions).run(DAYS[0])
        tiny.shell("export", "orders", "--to", str(tmp_path / "e"))
        with duckdb.connect() as con:
            found = con.execute(
                f"SELECT DISTINCT wide, listed, took FROM '{tmp_path}/e/predictions.parquet'"
            ).fetchall()
        assert found == [(str(wide), f"[{wide}]", "01:30:00")]

    def test_changes_no_folder_that_is_there(self, scored, tmp_path):
        assert "exists" in scored.shell("export", "orders", "--to", str(tmp_path), code=1)
        assert "published pipelines: orders" in scored.shell("export", "order", "--to", str(tmp_path / "e"), code=1)

    def test_that_fails_leaves_nothing(self, scored, tmp_path):
        (tmp_path / "file").write_text("where a folder should be")
        assert "cannot be written" in scored.shell("export", "orders", "--to", str(tmp_path / "file" / "e"), code=1)
        assert sorted(path.name for path in tmp_path.iterdir() if path.name != "shop") == ["file"]

    @pytest.mark.lake("always")
    def test_of_a_lake_that_publishes_nothing(self, scored, backend, monkeypatch, tmp_path):
        if scored.project.warehouse.__class__.__name__ == "Lake":
            monkeypatch.setenv("PIP_DAGSTER_PUBLISHED", "none")
        scored.shell("export", "orders", "--to", str(tmp_path / "e"))
        with duckdb.connect() as con:
            assert con.execute(f"SELECT count(*) FROM '{tmp_path}/e/predictions.parquet'").fetchone() == (200,)


def test_nothing_published_is_said(tiny):
    with pytest.raises(WarehouseError, match="Nothing is published yet"):
        from pip_dagster.warehouse.published_views import opened

        with opened(tiny.project):
            pass


@pytest.mark.slice
def test_a_file_stays_compact_however_often_it_changes(scored, monkeypatch):
    """A change adds two blocks of 256 KiB, and a row group to each table; those of three are merged by the fourth."""
    from pip_dagster.warehouse.access import writing
    from pip_dagster.warehouse.connect import workspace
    from pip_dagster.warehouse.published import publish_pending

    monkeypatch.setattr(published_change, "_WHOLE_EVERY", 10**9)
    of_each = itertools.cycle((0, 0, 0, 100))
    monkeypatch.setattr(published_change, "merges", lambda: next(of_each))
    before = scored.scores()
    file = scored.project.published / "orders" / "rows-0001.duckdb"
    with workspace(threads=1) as con, writing(con, scored.project, purpose="test", publish=False):
        for turn in range(24):
            con.execute("SET max_vacuum_tasks = 0")  # as most openings of the warehouse set it
            day = f"partition_key = '{DAYS[turn % 4]}'"
            ids = f"SELECT change_id FROM ledger.live_changes WHERE {day}"
            con.execute(f"DELETE FROM ledger.publications WHERE change_id IN ({ids})")
            assert publish_pending(con, scored.project) == 1
    with duckdb.connect(str(file), read_only=True) as con:
        groups = "SELECT count(DISTINCT row_group_id) FROM pragma_storage_info('orders.predictions')"
        assert con.execute(groups).fetchone()[0] <= 2
    assert file.stat().st_size < 4 * 2**20
    assert scored.scores() == before


@pytest.mark.slice
def test_a_file_that_exceeds_the_memory_of_a_run_is_written_with_more(tiny, monkeypatch, caplog):
    """The rows of years, sorted, by a run that was given what its own few rows need."""
    copies = "raw.orders o, range(4000) t(d) WHERE o.order_id < 50"
    tiny.source(
        "CREATE OR REPLACE TABLE raw.orders AS SELECT o.* REPLACE (order_id + 50 * d AS order_id, "
        f"DATE '2024-03-01' + (d % 4)::INT AS day) FROM {copies}"
    )
    tiny.run()
    tiny.source("UPDATE raw.orders SET quantity = quantity % 8 + 1 WHERE day = '2024-03-01'")
    with monkeypatch.context() as patched:
        patched.setattr(access, "publish_pending", lambda *_: 0)
        tiny.run("2024-03-01")
    monkeypatch.setattr(published_change, "_WHOLE_EVERY", 1)

    def publish():
        project = tiny.project
        with workspace(threads=2) as con, open_warehouse(con, project.warehouse, purpose="test"):
            con.execute("SET memory_limit = '20MB'")
            done = publish_pending(con, project)
            con.execute("SET memory_limit = '200MB'")
            return done

    with monkeypatch.context() as patched:
        patched.setattr("pip_dagster.warehouse.memory.declared_memory_limit", lambda: "20MB")
        assert publish() == 0
    assert "PIP_DAGSTER_MEMORY_LIMIT is 20MB, which is not enough" in caplog.text
    assert "Possible solutions" not in caplog.text, "one sentence"
    caplog.clear()
    assert publish() == 1
    assert not caplog.text
    assert tiny.scores() == tiny.expected()
