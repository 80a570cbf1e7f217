"""Delta and Iceberg tables as sources, written by their own libraries: pinned at one version for each extraction."""

import gzip
import importlib.util
import shutil
from pathlib import Path

import duckdb
import pytest

from pip_dagster.errors import SourceError
from pip_dagster.flow.origins import listing
from pip_dagster.flow.origins.kinds import origin_of
from pip_dagster.flow.plan import make_plan
from pip_dagster.flow.reader import sources_alone
from pip_dagster.warehouse.connect import workspace

FIRST, SECOND, THIRD, FOURTH = DAYS = ("2024-03-01", "2024-03-02", "2024-03-03", "2024-03-04")

NEEDS = {
    "delta": ("deltalake", "duckdb_extension_delta"),
    "iceberg": ("pyiceberg", "duckdb_extension_iceberg", "duckdb_extension_avro"),
}


def orders(tiny, where="true", select="*"):
    """Rows of the project's source table, as the table formats take them."""
    with duckdb.connect(str(tiny.root / "sources.duckdb"), read_only=True) as con:
        return con.execute(f"SELECT {select} FROM raw.orders WHERE {where}").to_arrow_table()


class DeltaTable:
    """A Delta table on disk."""

    key = "delta"

    def __init__(self, tiny):
        self.path = tiny.root / "lake" / "orders"
        self.declared = "lake/orders"

    def write(self, rows):
        import deltalake

        deltalake.write_deltalake(self.path, rows, partition_by=["day"])

    def append(self, rows):
        import deltalake

        deltalake.write_deltalake(self.path, rows, mode="append")

    def overwrite(self, rows):
        import deltalake

        deltalake.write_deltalake(self.path, rows, mode="overwrite")

    def delete(self, where):
        import deltalake

        deltalake.DeltaTable(self.path).delete(where)

    def rewrite_files(self):
        """Other files with the same rows."""
        import deltalake

        table = deltalake.DeltaTable(self.path)
        assert table.optimize.compact()["numFilesRemoved"] >= 2
        table.create_checkpoint()

    def drop_old_files(self):
        import deltalake

        removed = deltalake.DeltaTable(self.path).vacuum(0, dry_run=False, enforce_retention_duration=False)
        assert removed


class IcebergTable:
    """An Iceberg table on disk, with its catalog in SQLite."""

    key = "iceberg"

    def __init__(self, tiny):
        from pyiceberg.catalog.sql import SqlCatalog

        self.path = tiny.root / "lake" / "shop" / "orders"
        self.declared = "lake/shop/orders"
        (tiny.root / "lake").mkdir()
        self.catalog = SqlCatalog("c", uri=f"sqlite:///{tiny.root}/cat.db", warehouse=f"file://{tiny.root}/lake")
        self.catalog.create_namespace("shop")

    @property
    def table(self):
        return self.catalog.load_table("shop.orders")

    def write(self, rows):
        self.catalog.create_table("shop.orders", schema=rows.schema).append(rows)

    def append(self, rows):
        self.table.append(rows)

    def overwrite(self, rows):
        self.table.overwrite(rows)

    def delete(self, where):
        self.table.delete(where)

    def rewrite_files(self):
        self.table.overwrite(self.table.scan().to_arrow())

    def drop_old_files(self):
        current = {task.file.file_path.removeprefix("file://") for task in self.table.scan().plan_files()}
        for file in self.path.rglob("data/**/*.parquet"):
            if str(file) not in current:
                file.unlink()


# Importing pyiceberg takes seconds.
@pytest.fixture(params=["delta", pytest.param("iceberg", marks=pytest.mark.slice)])
def table(request, tiny):
    """A project whose source is such a table."""
    if missing := [name for name in NEEDS[request.param] if importlib.util.find_spec(name) is None]:
        pytest.skip(f"needs {', '.join(missing)}")
    if duckdb.__version__ != "1.5.5":
        pytest.skip("the extensions of DuckDB come from packages for 1.5.5")
    made = DeltaTable(tiny) if request.param == "delta" else IcebergTable(tiny)
    made.write(orders(tiny))
    declare(tiny, made)
    return made


def declare(tiny, table, **others):
    source = {"table": "raw.orders", table.key: table.declared, "partition_column": "day"} | others
    return tiny.declare(source_database=None, sources={"orders": source})


def identity(tiny):
    """What a sensor compares, and reads nothing else while it is the same."""
    source = tiny.pipeline().spec.sources["orders"]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(listing, "SETTLED_SECONDS", -1e9)
        found = origin_of(source).identity(tiny.root, source)
    assert found is not None
    return found


def stale(tiny):
    return [each.partition.key for each in make_plan(tiny.pipeline(), tiny.partitions()).stale]


@pytest.mark.slice
def test_scores_are_those_of_the_table_and_only_what_changed_is_stale(tiny, table):
    tiny.run()
    assert tiny.scores() == tiny.expected()
    assert stale(tiny) == []
    table.append(orders(tiny, f"day = '{SECOND}'", "* REPLACE (order_id + 100000 AS order_id)"))
    assert stale(tiny) == [SECOND]
    table.delete(f"day = '{THIRD}' and quantity > 6")
    assert stale(tiny) == [SECOND, THIRD]
    tiny.run(SECOND, THIRD)
    seen = tiny.scores()
    kept = tiny.expected(f"day <> '{THIRD}' OR quantity <= 6")
    assert {key: seen[key] for key in kept} == kept and len(seen) == len(kept) + 50
    version = identity(tiny)
    assert version == identity(tiny)
    table.rewrite_files()
    assert version != identity(tiny)
    assert stale(tiny) == [], "other files with the same rows"


def test_a_table_that_is_created_again_with_the_same_version_is_another(tiny, table):
    if table.key == "iceberg":
        pytest.skip("pyiceberg gives each metadata file a name of its own")
    before = identity(tiny)
    shutil.rmtree(table.path)
    table.write(orders(tiny, f"day = '{FIRST}'"))
    assert identity(tiny) != before


def test_all_reads_of_an_opening_see_one_version(tiny, table):
    spec = tiny.pipeline().spec
    count = "SELECT count(*), sum(quantity) FROM raw.orders"
    with workspace(threads=1) as con, sources_alone(con, spec, tiny.root) as own:
        before = own.execute(count).fetchone()
        table.overwrite(orders(tiny, f"day = '{FIRST}'"))
        assert own.execute(count).fetchone() == before
        with pytest.raises(duckdb.Error):
            own.execute(f"FROM read_text('{tiny.root}/sources.duckdb')")
    with workspace(threads=1) as con, sources_alone(con, spec, tiny.root) as own:
        assert own.execute(count).fetchone()[0] == 50


def test_files_that_are_removed_while_they_are_read_are_an_error_with_its_remedy(tiny, table):
    from pip_dagster.flow.sources import open_sources, rows_of

    spec = tiny.pipeline().spec
    with workspace(threads=1) as con, open_sources(con, spec, tiny.root):
        table.overwrite(orders(tiny, f"day = '{FIRST}'"))
        table.drop_old_files()
        source = spec.sources["orders"]
        with (
            pytest.raises(SourceError, match=f"rows of source 'orders' .* from {table.declared}.*Run again"),
            rows_of(spec, "orders", source),
        ):
            con.execute("SELECT sum(quantity) FROM raw.orders").fetchone()
    remedy = f"source raw.orders cannot be read from {table.declared}. .*Run again"
    with pytest.raises(SourceError, match=remedy), workspace(threads=1) as con, open_sources(con, spec, tiny.root):
        table.overwrite(orders(tiny, f"day = '{FIRST}'"))
        table.drop_old_files()
        con.execute("SELECT sum(quantity) FROM raw.orders").fetchone()  # as feature SQL does


def test_a_column_that_is_added_is_read_by_the_next_opening(tiny, table):
    rows = orders(tiny, f"day = '{FOURTH}'", "*, 1 AS late")
    if table.key == "delta":
        import deltalake

        deltalake.write_deltalake(table.path, rows, mode="append", schema_mode="merge")
    else:
        with table.table.update_schema() as update:
            update.union_by_name(rows.schema)
        table.append(rows)
    with workspace(threads=1) as con, sources_alone(con, tiny.pipeline().spec, tiny.root) as own:
        assert own.execute("SELECT count(late), count(*) FROM raw.orders").fetchone() == (50, 250)


def test_a_table_that_is_not_there_is_a_sentence(tiny, table):
    shutil.rmtree(table.path)
    with pytest.raises(SourceError, match=f"source 'orders' .* there is no .* table in .*{table.declared}.*correct"):
        make_plan(tiny.pipeline(), tiny.partitions())


@pytest.mark.slice
class TestIceberg:
    @pytest.fixture
    def table(self, tiny):
        if missing := [name for name in NEEDS["iceberg"] if importlib.util.find_spec(name) is None]:
            pytest.skip(f"needs {', '.join(missing)}")
        made = IcebergTable(tiny)
        made.write(orders(tiny))
        declare(tiny, made)
        return made

    def test_a_metadata_file_is_a_source_that_never_changes(self, tiny, table):
        table.declared = table.table.metadata_location.removeprefix("file://")
        declare(tiny, table)
        table.overwrite(orders(tiny, f"day = '{FIRST}'"))
        with workspace(threads=1) as con, sources_alone(con, tiny.pipeline().spec, tiny.root) as own:
            assert own.execute("SELECT count(*) FROM raw.orders").fetchone() == (200,)

    def test_metadata_may_be_compressed(self, tiny, table):
        newest = Path(table.table.metadata_location.removeprefix("file://"))
        newest.with_name("v9.gz.metadata.json").write_bytes(gzip.compress(newest.read_bytes()))
        with workspace(threads=1) as con, sources_alone(con, tiny.pipeline().spec, tiny.root) as own:
            assert own.execute("SELECT count(*) FROM raw.orders").fetchone() == (200,)

    def test_two_files_that_claim_to_be_the_newest_are_refused(self, tiny, table):
        newest = Path(table.table.metadata_location.removeprefix("file://"))
        number = newest.name.split("-")[0]
        shutil.copy(newest, newest.with_name(f"{number}-00000000-0000-0000-0000-000000000000.metadata.json"))
        with pytest.raises(SourceError, match="have the same number, and only the catalog knows"):
            make_plan(tiny.pipeline(), tiny.partitions())
        newest.with_name(f"{int(number) + 1:05}-00000000-0000-0000-0000-00000000000a.metadata.json").write_text("{")
        with pytest.raises(SourceError, match="is not the metadata of an Iceberg table"):
            make_plan(tiny.pipeline(), tiny.partitions())
