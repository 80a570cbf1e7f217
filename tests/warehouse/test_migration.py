"""A warehouse that an earlier commit wrote: migrated by the first writer, and nothing in it lost or changed.

fixtures/README.md says which partition of `shop_v7.tar.xz` holds which case.
"""

import json
import tarfile
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner

from pip_dagster.cli.main import cli
from pip_dagster.declaration.project import Project
from pip_dagster.errors import WarehouseError
from pip_dagster.ledger.verify import verify
from pip_dagster.warehouse import schema
from pip_dagster.warehouse.connect import open_warehouse, workspace
from pip_dagster.warehouse.migrations import MIGRATIONS

WRITTEN_BY = 7
PIPELINES = ("orders", "refunds", "parted", "canaried")
DAYS = [f"2024-03-{day:02}" for day in range(22)]  # DAYS[3] is the third of March

# The live change of a partition: its text, and what a person requested by it (rolled back, pinned version, as known).
# Whatever `why` says, only the requests count.
SPRING = "challenger 40%, champion 60%"
REQUESTED = {
    ("orders", 1): ("scored", False, None, False),
    ("orders", 2): ("scored", False, None, False),
    ("orders", 3): ("rolled back from v2: wrong for gifts", True, None, False),
    ("orders", 4): ("pinned to v1", False, 1, False),
    ("orders", 5): ("pinned to v1: as it was in spring", False, 1, False),
    ("orders", 6): ("as known at each partition's close", False, None, True),
    ("orders", 7): ("pinned to v1 as known at each partition's close: audit: of spring", False, 1, True),
    ("orders", 8): ("rolled back the source table", False, None, False),
    ("orders", 9): ("pinned the wrong weather feed", False, None, False),
    ("orders", 12): ("as known to the weather office", False, None, False),
    ("orders", 13): ("the feed as known to us: too late", False, None, False),
    ("orders", 17): ("pinned to v1: in my notes", False, None, False),
    ("orders", 18): ("rolled back from v1: in my notes", False, None, False),
    ("orders", 19): ("split 'spring': in my notes", False, None, False),
    ("orders", 20): ("pinned to v1: a tag in the UI", False, 1, False),
    ("orders", 21): ("missing: it was never scored", False, None, False),
    ("refunds", 1): ("rolled back from v2: too many flags: see 14", True, None, False),
    ("refunds", 3): ("scored", False, None, False),
    ("parted", 1): (f"split 'spring': {SPRING}", False, None, False),
    ("parted", 2): (f"pinned to v2: as it was; in spring; split 'spring': {SPRING}", False, 2, False),
    ("parted", 3): ("rolled back from v1 and v3 in an arm: ", True, None, False),
    ("parted", 4): ("no split is declared any more", False, None, False),
    ("parted", 6): (f"as known at each partition's close; split 'spring': {SPRING}", False, None, True),
    ("parted", 7): (f"pinned the wrong weather feed; split 'spring': {SPRING}", False, None, False),
    ("canaried", 1): (f"canary 'spring': {SPRING}", False, None, False),
    ("canaried", 2): ("canary 'spring': all rows are the champion's", False, None, False),
}

NEXT = "CREATE TABLE ledger.of_next_version (id VARCHAR); INSERT INTO ledger.of_next_version VALUES ('once')"


class Shop:
    """The unpacked project."""

    def __init__(self, root: Path) -> None:
        self.root, self.project = root, Project.at(root)

    def open(self, con, *, read_only=False):
        return open_warehouse(con, self.project.warehouse, purpose="test", read_only=read_only)

    @contextmanager
    def file(self):
        """The file itself, whatever its version."""
        with workspace(threads=1) as con:
            con.execute(f"ATTACH '{self.project.warehouse}' AS warehouse (READ_ONLY)")
            con.execute("USE warehouse")
            yield con
            con.execute("USE memory; DETACH warehouse")

    def rows(self, sql):
        with self.file() as con:
            return con.execute(sql).fetchall()

    def fault(self):
        """What the audit finds."""
        with self.file() as con:
            return verify(con)

    def migrate(self):
        with workspace(threads=1) as con, self.open(con):
            pass

    @property
    def version(self):
        [(version,)] = self.rows("SELECT value FROM ledger.meta WHERE key = 'schema_version'")
        return int(version)

    def command(self, *words, code=0):
        result = CliRunner().invoke(cli, ["--project", str(self.root), *words], env={"DAGSTER_HOME": None})
        assert result.exit_code == code, (result.output, result.exception)
        return result.stdout

    def content(self):
        """Every row of every table, but for the number of the version."""
        listed = "SELECT schema_name, table_name FROM duckdb_tables() WHERE table_name <> 'meta'"
        with self.file() as con:
            tables = con.execute(listed).fetchall()
            return {name: con.execute("SELECT * FROM {}.{} ORDER BY ALL".format(*name)).fetchall() for name in tables}


@pytest.fixture
def shop(tmp_path):
    with tarfile.open(Path(__file__).parent / "fixtures" / "shop_v7.tar.xz") as archive:
        # As an attribute: Python 3.11 knows it as an argument from its fourth release on.
        archive.extraction_filter = getattr(tarfile, "data_filter", None)
        archive.extractall(tmp_path)
    return Shop(tmp_path / "shop")


@pytest.fixture
def next_version(monkeypatch):
    """One migration more than there is; set it to another one where it is to fail."""

    def add(migration=NEXT):
        monkeypatch.setattr(schema, "MIGRATIONS", (*MIGRATIONS, migration))
        monkeypatch.setattr(schema, "VERSION", len(MIGRATIONS) + 1)

    add()
    return add


def test_the_first_writer_migrates_it_and_the_audit_holds(shop):
    assert shop.version == WRITTEN_BY  # where the audit of its own commit holds: see make_shop_v7.py
    shop.migrate()
    assert shop.version == schema.VERSION and shop.fault() is None
    assert "the chain is intact" in shop.command("audit", "verify")


def test_no_row_is_lost_or_changed(shop, next_version):
    before = shop.content()
    shop.migrate()
    after = shop.content()
    assert before.pop(("ledger", "publications")) and not after["ledger", "publications"], "all is published again"
    for table, rows in before.items():
        # Columns are added at a table's end; rows keep the others.
        kept = [row for row in after[table] if row[3] != "rewritten"] if table[1] == "audit" else after[table]
        if at := {"checks": 12, "scorings": 6}.get(table[1]):  # texts that quoted rows: examples, reasons
            rows, kept = ([(*row[:at], None, *row[at + 1 :]) for row in each] for each in (rows, kept))
        assert [row[: len(rows[0])] for row in kept] == rows, table
    assert {table for table in after if table not in before} >= {("ledger", "of_next_version")}


def test_a_reader_does_not_migrate_and_says_who_does(shop, next_version):
    expected = r"schema version 7.*needs \d+"
    with workspace(threads=1) as con, pytest.raises(WarehouseError, match=expected), shop.open(con, read_only=True):
        pass
    assert shop.version == WRITTEN_BY


def test_migrated_twice_it_is_migrated_once(shop, next_version):
    shop.migrate()
    content = shop.content()
    shop.migrate()
    assert shop.content() == content
    assert shop.rows("SELECT count(*) FROM ledger.of_next_version") == [(1,)]


def test_a_migration_that_ends_in_an_error_leaves_the_version_before(shop, next_version):
    before = shop.content()
    next_version(NEXT + "; SELECT error('the disk is on fire')")
    with pytest.raises(Exception, match="on fire"):
        shop.migrate()
    assert shop.version == WRITTEN_BY and shop.content() == before
    next_version()
    shop.migrate()
    assert shop.version == schema.VERSION and shop.fault() is None
    assert shop.rows("SELECT count(*) FROM ledger.of_next_version") == [(1,)]


def test_every_view_can_be_read(shop):
    shop.migrate()
    views = shop.rows("SELECT schema_name, view_name FROM duckdb_views() WHERE NOT internal ORDER BY 1, 2")
    wanted = {("ledger", "live"), ("ledger", "live_arms"), ("ledger", "partitions")}
    wanted |= {(pipeline, view) for pipeline in PIPELINES for view in ("features", "scores", "predictions")}
    assert set(views) >= wanted | {("orders", "quarantine"), ("orders", "reasons")}
    counts = {view: shop.rows("SELECT count(*) FROM {}.{}".format(*view))[0][0] for view in views}
    none_yet = {"performance", "live_evaluations", "performance_figures", "estimates", "graded_estimates"}
    none_yet |= {"drift", "live_drift", "alarm_states"}  # nothing was judged
    assert {name for (_, name), count in counts.items() if not count} == none_yet, counts
    assert counts["orders", "quarantine"] == 3


@pytest.mark.slice
@pytest.mark.parametrize("pipeline", PIPELINES)
def test_what_reads_the_ledger_reads_it(shop, pipeline):
    shop.command("publish")  # the published views name the folder that the project was in
    assert json.loads(shop.command("status", pipeline, "--json"))
    shop.command("status", pipeline, "--why")
    shop.command("plan", pipeline)
    entries = json.loads(shop.command("lineage", pipeline, DAYS[2], "--json"))
    assert {entry["partition_key"] for entry in entries} == {DAYS[2]}
    # `orders` and `refunds` were never split, unlike the others.
    assert shop.command("lineage", pipeline, "--key", "14")
    shop.command("models", "rollback", pipeline, "--partitions", f"{DAYS[1]}..{DAYS[3]}", "--dry-run", code=0)


def test_a_backfill_that_was_cut_off_can_be_resumed(shop):
    shop.migrate()
    listed = shop.command("backfill", "orders", "--resume", "--dry-run", "--json")
    assert json.loads(listed)["chunks"] == [[DAYS[14]]]


def test_every_published_file_is_written_once_more_where_that_is_asked_for(shop):
    shop.migrate()
    predictions = "SELECT * FROM orders.predictions ORDER BY partition_key, order_id"
    before = shop.rows(predictions)
    shop.command("publish")
    import duckdb

    with duckdb.connect(str(shop.project.published_database), read_only=True) as con:
        con.execute("SET TimeZone = 'UTC'")
        assert con.execute(predictions).fetchall() == before
        assert con.execute("SELECT count(*) FROM orders.quarantine").fetchall() == [(3,)]


def test_what_was_requested_of_each_partition_is_known(shop):
    """The columns of a live change, which migration 8 reads from the texts of version 7."""
    shop.migrate()
    newest = "FROM ledger.live_changes WHERE change_id IN (SELECT change_id FROM ledger.live)"
    texts = dict(shop.rows(f"SELECT (pipeline, day(partition_key::DATE)), why {newest}"))
    assert {key: texts[key] for key in REQUESTED} == {key: text for key, (text, *_) in REQUESTED.items()}
    if schema.VERSION == WRITTEN_BY:
        pytest.skip("the columns come with migration 8")
    columns = dict(shop.rows(f"SELECT (pipeline, day(partition_key::DATE)), (kind, pinned_version, as_known) {newest}"))
    for key, (_, rolled_back, version, as_known) in REQUESTED.items():
        kind = columns[key][0]
        assert columns[key][1:] == (version, as_known), key
        assert (kind == "rollback", kind == "pinned") == (rolled_back, version is not None or as_known), key
