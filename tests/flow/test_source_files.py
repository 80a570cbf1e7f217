"""Sources as users have them: where tables lie, what views name, what a file is called and what it is."""

import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pip_dagster.declaration.spec import Source
from pip_dagster.errors import SourceError
from pip_dagster.flow.plan import make_plan
from pip_dagster.flow.source_files import catalog_of
from pip_dagster.flow.sources import open_sources
from pip_dagster.warehouse.connect import workspace

FIRST, SECOND = "2024-03-01", "2024-03-02"
COLUMNS = "order_id, day, gift, shop, quantity, amount"
WITHIN = "WHERE day >= $start_date AND day < $end_date"


def orders_to(tiny, path, *statements):
    """Another DuckDB file with all orders in its schema `main`; the statements are run under its own name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    frame = tiny.source_frame()
    with duckdb.connect(str(path)) as con:
        con.execute("CREATE TABLE orders AS SELECT * REPLACE (day::DATE AS day) FROM frame")
        for statement in statements:
            con.execute(statement)
    return len(frame)


def declare(tiny, table, *, database="shop.duckdb", sql=None, available_at=None, **others):
    orders = {"table": table, "partition_column": "day"} | ({"available_at": available_at} if available_at else {})
    sources = {"orders": orders} | others
    return tiny.declare(sql or f"SELECT {COLUMNS} FROM {table} {WITHIN}", source_database=database, sources=sources)


def read(tiny):
    """The rows of the source `orders`, as feature SQL reads them."""
    spec = tiny.pipeline().spec
    table = spec.sources["orders"].table
    with workspace(threads=1) as con, open_sources(con, spec, tiny.root):
        return con.execute(f"SELECT order_id, quantity, shop FROM {table} ORDER BY order_id").fetchall()


def orders_of(tiny):
    return tiny.source_rows("SELECT order_id, quantity, shop FROM raw.orders ORDER BY order_id")


def refused(tiny):
    """The error of a run: one sentence, without a traceback's lines."""
    with pytest.raises(SourceError) as error:
        make_plan(tiny.pipeline(), tiny.partitions(FIRST))
    assert "\n" not in str(error.value)
    return str(error.value)


class TestSchemaMain:
    @pytest.mark.parametrize("read", ["orders", '"MAIN"."Orders"'])
    def test_is_read_by_any_name_that_duckdb_has_for_it(self, tiny, read):
        orders_to(tiny, tiny.root / "shop.duckdb")
        declare(tiny, "main.orders", sql=f"SELECT {COLUMNS} FROM {read} {WITHIN}")
        assert tiny.run(FIRST)[FIRST].error is None
        assert tiny.scores() == tiny.expected(f"day = '{FIRST}'")

    def test_a_change_there_is_noticed_planned_and_labelled(self, tiny):
        orders_to(tiny, tiny.root / "shop.duckdb", "CREATE TABLE outcomes (order_id BIGINT, day DATE, returned INT)")
        (tiny.folder / "labels.sql").write_text(f"SELECT order_id, returned FROM outcomes {WITHIN}")
        (tiny.folder / "expectations.yaml").write_text(
            "sources:\n  orders:\n    - type: expect_table_row_count_to_be_between\n      kwargs: {min_value: 1}\n"
        )
        declare(tiny, "main.orders", outcomes={"table": "main.outcomes", "partition_column": "day"})
        document = (tiny.folder / "defs.yaml").read_text()
        gates = "  quality: expectations.yaml\n  gates: {labels: {sql: labels.sql, outcome: returned}}\n"
        (tiny.folder / "defs.yaml").write_text(document + gates)
        tiny.run(FIRST, SECOND)
        partitions = tiny.partitions(FIRST, SECOND)
        with duckdb.connect(str(tiny.root / "shop.duckdb")) as con:
            con.execute(f"INSERT INTO outcomes SELECT order_id, day, 1 FROM orders WHERE day = '{FIRST}'")
        assert not make_plan(tiny.pipeline(), partitions).stale, "only labels read it"
        with duckdb.connect(str(tiny.root / "shop.duckdb")) as con:
            con.execute(f"UPDATE orders SET quantity = 1 WHERE day = '{SECOND}'")
        assert [each.partition.key for each in make_plan(tiny.pipeline(), partitions).stale] == [SECOND]

    def test_so_do_schemas_with_the_names_of_the_warehouses_own(self, tiny):
        schemas = [f"CREATE SCHEMA {name}" for name in ("ledger", "warehouse", "published")]
        tables = ["ledger.days AS SELECT DISTINCT day", "warehouse.orders AS SELECT *", "published.n AS SELECT 1 AS n"]
        orders_to(tiny, tiny.root / "shop.duckdb", *schemas, *[f"CREATE TABLE {each} FROM orders" for each in tables])
        joined = "warehouse.orders JOIN ledger.days USING (day)"
        sql = f"SELECT {COLUMNS} FROM {joined} {WITHIN} AND EXISTS (FROM published.n)"
        others = {name: {"table": table} for name, table in (("days", "ledger.days"), ("n", "published.n"))}
        declare(tiny, "warehouse.orders", sql=sql, **others)
        tiny.run(FIRST)
        assert tiny.scores() == tiny.expected(f"day = '{FIRST}'")
        assert not make_plan(tiny.pipeline(), tiny.partitions(FIRST)).stale

    def test_other_schemas_that_duckdb_has_are_refused_with_the_remedy(self):
        with pytest.raises(
            ValueError, match=r"reserved schema; declare a view of it in another schema, such as 'raw\.t'"
        ):
            Source(table="temp.t")
        with pytest.raises(ValueError, match=r"'main\.orders' for a table in DuckDB's default schema"):
            Source(table="orders")


DUCKDB_2 = int(duckdb.__version__.split(".")[0]) >= 2
names_its_catalog = pytest.mark.skipif(DUCKDB_2, reason="DuckDB 2 leaves the file's own catalog out of a view's text")
OWN_SCHEMA = "CREATE SCHEMA shop.shop; CREATE VIEW shop.shop.v AS FROM shop.main.orders"
# What a view may read, with the file's name and its catalog's.
VIEWS = {
    "its own catalog": "CREATE VIEW v AS SELECT * FROM {shop}.main.orders",
    "a view over a view": "CREATE VIEW u AS FROM {shop}.main.orders; CREATE VIEW v AS FROM {shop}.main.u",
    "another schema": "CREATE SCHEMA s; CREATE VIEW s.u AS FROM {shop}.main.orders; CREATE VIEW v AS FROM {shop}.s.u",
    "a macro": "CREATE MACRO {shop}.main.f(x) AS x; "
    "CREATE VIEW v AS SELECT * REPLACE ({shop}.main.f(gift) AS gift) FROM {shop}.main.orders",
    "a macro beside a table without a catalog": "CREATE MACRO f(x) AS x; "
    "CREATE VIEW v AS SELECT * REPLACE ({shop}.main.f(gift) AS gift) FROM orders",
    "a macro that is a table": "CREATE MACRO t() AS TABLE FROM orders; CREATE VIEW v AS FROM {shop}.main.t()",
    "no catalog": "CREATE VIEW v AS SELECT * FROM orders",
}


class TestViewsThatNameTheirCatalog:
    @pytest.mark.parametrize("view", VIEWS)
    def test_are_read_like_tables(self, tiny, view):
        orders_to(tiny, tiny.root / "shop.duckdb", VIEWS[view].format(shop="shop"))
        declare(tiny, "main.v")
        assert read(tiny) == orders_of(tiny)

    def test_are_scored_and_their_changes_are_noticed(self, tiny):
        path = tiny.root / "shop.duckdb"
        orders_to(tiny, path, VIEWS["its own catalog"].format(shop="shop"))
        declare(tiny, "main.v")
        assert tiny.run(FIRST)[FIRST].error is None
        assert tiny.scores() == tiny.expected(f"day = '{FIRST}'")
        assert not make_plan(tiny.pipeline(), tiny.partitions(FIRST)).stale
        declare(tiny, "main.v", available_at="day")
        assert tiny.run(FIRST, as_known=True)[FIRST].error is None
        assert tiny.scores() == tiny.expected(f"day = '{FIRST}'")
        with duckdb.connect(str(path)) as con:
            con.execute("UPDATE orders SET quantity = quantity + 1")
        assert make_plan(tiny.pipeline(), tiny.partitions(FIRST)).stale

    @pytest.mark.parametrize("name", ["main", "system", "warehouse", "my-shop", "my shop", "My.Shop", ".shop"])
    def test_whatever_the_file_is_called(self, tiny, name):
        path = tiny.root / "data" / f"{name}.duckdb"
        catalog = f'"{catalog_of(path)}"'
        orders_to(tiny, path, VIEWS["its own catalog"].format(shop=catalog))
        with duckdb.connect(str(path)) as con:
            assert con.execute("SELECT current_database()").fetchone() == (catalog.strip('"'),)
        declare(tiny, "main.v", database=f"data/{name}.duckdb")
        assert read(tiny) == orders_of(tiny)

    @names_its_catalog
    def test_that_is_memory_are_refused_since_it_is_duckdbs_own(self, tiny):
        orders_to(tiny, tiny.root / "memory.duckdb", VIEWS["its own catalog"].format(shop="memory"))
        declare(tiny, "main.v", database="memory.duckdb")
        assert "the view main.v of" in (text := refused(tiny)) and "Rename the file" in text
        with duckdb.connect(str(tiny.root / "memory.duckdb")) as con:
            con.execute("CREATE OR REPLACE VIEW v AS SELECT * FROM orders")
        assert read(tiny) == orders_of(tiny)

    def test_of_another_file_are_read_where_that_is_declared_and_it_is_named_where_not(self, tiny):
        orders_to(tiny, tiny.root / "ref.duckdb")
        with duckdb.connect(str(tiny.root / "shop.duckdb")) as con:
            con.execute(f"ATTACH '{tiny.root}/ref.duckdb' AS ref (READ_ONLY)")
            con.execute("CREATE VIEW v AS SELECT * FROM ref.main.orders")
        declare(tiny, "main.v")
        text = refused(tiny)
        assert (
            "source 'orders' (main.v) cannot be read from shop.duckdb" in text
            and "declare a source in ref.duckdb" in text
        )
        declare(tiny, "main.v", ref={"table": "main.orders", "database": "ref.duckdb"})
        assert read(tiny) == orders_of(tiny)

    @names_its_catalog
    def test_that_two_files_have_are_refused_with_both_paths(self, tiny):
        """DuckDB 1.5 would read the file that is attached by that name, whichever the view means."""
        for folder in ("a", "b"):
            orders_to(tiny, tiny.root / folder / "shop.duckdb", VIEWS["its own catalog"].format(shop="shop"))
        declare(tiny, "main.v", database="a/shop.duckdb", other={"table": "main.orders", "database": "b/shop.duckdb"})
        text = refused(tiny)
        assert f"{tiny.root}/a/shop.duckdb, {tiny.root}/b/shop.duckdb" in text and "Rename" in text

    def test_that_two_files_have_and_no_view_names_is_no_matter(self, tiny):
        orders_to(tiny, tiny.root / "a" / "shop.duckdb")
        orders_to(tiny, tiny.root / "b" / "shop.duckdb", "CREATE TABLE days AS SELECT DISTINCT day FROM orders")
        sql = f"SELECT {COLUMNS} FROM main.orders JOIN main.days USING (day) {WITHIN}"
        declare(
            tiny,
            "main.orders",
            database="a/shop.duckdb",
            sql=sql,
            days={"table": "main.days", "database": "b/shop.duckdb"},
        )
        assert read(tiny) == orders_of(tiny)

    def test_of_one_file_by_two_paths_is_one_file(self, tiny):
        orders_to(tiny, tiny.root / "shop.duckdb", VIEWS["its own catalog"].format(shop="shop"))
        declare(tiny, "main.v", database="./shop.duckdb", other={"table": "main.orders", "database": "shop.duckdb"})
        assert read(tiny) == orders_of(tiny)

    @names_its_catalog
    def test_that_is_the_schema_of_a_declared_table_too_are_refused(self, tiny):
        orders_to(tiny, tiny.root / "shop.duckdb", OWN_SCHEMA)
        declare(tiny, "shop.v")
        assert "so that shop.v has two meanings in SQL" in refused(tiny)
        # A table beside it needs no catalog, and is read as before.
        with duckdb.connect(str(tiny.root / "shop.duckdb")) as con:
            con.execute("CREATE TABLE shop.shop.orders AS FROM shop.main.orders")
        declare(tiny, "shop.orders")
        assert read(tiny) == orders_of(tiny)

    @names_its_catalog
    def test_that_becomes_ambiguous_in_another_view_names_it(self, tiny):
        orders_to(tiny, tiny.root / "shop.duckdb", VIEWS["its own catalog"].format(shop="shop"))
        with duckdb.connect(str(tiny.root / "y.duckdb")) as con:
            con.execute("CREATE SCHEMA shop")
            con.execute("CREATE TABLE shop.t AS SELECT 1 AS a")
            con.execute("CREATE SCHEMA raw")
            con.execute("CREATE VIEW raw.t AS SELECT * FROM shop.t")
        others = {"t": {"table": "raw.t", "database": "y.duckdb"}}
        sources = others | {"orders": {"table": "main.v", "database": "shop.duckdb"}}
        tiny.declare(f"SELECT {COLUMNS} FROM main.v {WITHIN}", source_database=None, sources=sources)
        text = refused(tiny)
        assert "source 't' (raw.t)" in text and "shop" in text


class TestParquet:
    @pytest.mark.slice
    def test_with_capitals_is_read_by_the_names_that_the_declaration_and_the_model_use(self, tiny):
        pq.write_table(
            pa.Table.from_pandas(tiny.source_frame()).rename_columns(
                ["Order_ID", "DAY", "Amount", "QUANTITY", "Gift", "Shop"]
            ),
            tiny.root / "Orders.parquet",
        )
        source = {"table": "raw.orders", "parquet": "Orders.parquet", "partition_column": "day"}
        tiny.declare(
            f"SELECT {COLUMNS} FROM raw.orders {WITHIN}",
            source_database=None,
            sources={"orders": source},
            decisions={"large": "amount > 100"},
            explanations={"top": 2},
        )
        assert tiny.run(FIRST)[FIRST].error is None
        assert tiny.scores() == tiny.expected(f"day = '{FIRST}'")
        assert "identical" in tiny.shell("replay", "orders", FIRST)
        assert tiny.published("SELECT count(DISTINCT order_id) FROM orders.reasons") == [(50,)]
        assert "v1" in tiny.shell("lineage", "orders", "--key", "0")
        tiny.shell("models", "promote", "returns", "2", "--why", "a test")
        assert {"order_id", "day"} <= {row[0] for row in tiny.published("DESCRIBE orders.predictions")}
        assert not make_plan(tiny.pipeline(), tiny.partitions(FIRST)).stale

    def test_with_columns_that_differ_only_in_case_is_refused(self, tiny):
        table = pa.table({"day": [1], "Distance": [1], "distance": [2], "distance_2": [3]})
        pq.write_table(table, tiny.root / "twins.parquet")
        source = {"table": "raw.orders", "parquet": "twins.parquet"}
        tiny.declare(source_database=None, sources={"orders": source})
        assert "has columns that differ only in case: Distance, distance" in refused(tiny)

    def test_with_numbered_columns_is_not(self, tiny):
        frame = tiny.source_frame().assign(amount_1=1, amount_2=2)
        frame.to_parquet(tiny.root / "numbered.parquet")
        source = {"table": "raw.orders", "parquet": "numbered.parquet", "partition_column": "day"}
        tiny.declare(f"SELECT {COLUMNS} FROM raw.orders {WITHIN}", source_database=None, sources={"orders": source})
        tiny.run(FIRST)
        assert tiny.scores() == tiny.expected(f"day = '{FIRST}'")

    def test_that_is_not_there_or_is_none_is_named_with_the_remedy(self, tiny):
        def declared(parquet):
            tiny.declare(source_database=None, sources={"orders": {"table": "raw.orders", "parquet": parquet}})
            return refused(tiny)

        assert "Create a file, or correct `parquet`" in declared("gone/*.parquet")
        (tiny.root / "folder").mkdir()
        assert "declare folder/*.parquet" in declared("folder")
        (tiny.root / "text.parquet").write_text("a,b\n1,2\n" * 20)
        assert "is no Parquet file" in declared("text.parquet")
        (tiny.root / "empty.parquet").touch()
        assert "is no Parquet file" in declared("empty.parquet")


def damaged(path):
    orders = bytearray((path.parent / "sources.duckdb").read_bytes())
    orders[4100:4120] = b"\1" * 20
    orders[8200:8220] = b"\1" * 20
    path.write_bytes(orders)


def sqlite_file(path):
    with sqlite3.connect(path) as con:
        con.execute("CREATE TABLE orders (a)")
    con.close()


# What a file is → how to write one, and what the error says.
FILES = {
    "missing": (lambda path: None, "There is no DuckDB file"),
    "directory": (lambda path: path.mkdir(), "is a directory: name the DuckDB file in it"),
    "empty": (lambda path: path.touch(), "is empty, and no DuckDB file"),
    "SQLite": (sqlite_file, "is an SQLite file"),
    "Parquet": (lambda path: pq.write_table(pa.table({"a": [1]}), path), "declare it with `parquet`"),
    "CSV": (lambda path: path.write_text("Größe,b\n1,2\n", encoding="utf-8"), "is text, such as CSV"),
    "binary": (lambda path: path.write_bytes(bytes(range(256)) * 9), "is not a DuckDB file"),
    "truncated": (lambda path: path.write_bytes((path.parent / "sources.duckdb").read_bytes()[:20000]), "is truncated"),
    "cut header": (lambda path: path.write_bytes((path.parent / "sources.duckdb").read_bytes()[:3000]), "is truncated"),
    "damaged": (damaged, "is truncated or damaged"),
    "pipe": (lambda path: os.mkfifo(path), "is no file"),
}


@pytest.mark.parametrize("kind", FILES)
def test_a_file_that_is_no_duckdb_file_is_named_with_what_it_is_and_the_remedy(tiny, kind):
    make, says = FILES[kind]
    make(tiny.root / "other.duckdb")
    tiny.declare(source_database="other.duckdb")
    text = refused(tiny)
    assert text.startswith("Pipeline orders: source 'orders' (raw.orders): ")
    assert str(tiny.root / "other.duckdb") in text and says in text


@pytest.mark.parametrize("kind", ["a block", "a view"])
def test_rows_that_cannot_be_read_are_named_with_their_source(tiny, kind):
    path = tiny.root / "shop.duckdb"
    orders_to(tiny, path, "CREATE VIEW v AS SELECT * REPLACE ((shop || order_id)::INT AS quantity) FROM orders")
    if kind == "a block":
        data = bytearray(path.read_bytes())
        at = data.index("Zürich".encode())
        data[at : at + 6] = b"forged"
        path.write_bytes(data)
    declare(tiny, "main.orders" if kind == "a block" else "main.v")
    assert "rows of source 'orders' (main." in refused(tiny)
    assert "cannot be read from shop.duckdb" in tiny.shell("plan", "orders", code=1)
    if kind == "a block":
        declare(tiny, "main.orders", available_at="day")
        assert "a source cannot be read" in tiny.shell("prove-point-in-time", "orders", "--partition", FIRST, code=1)


FIXTURES = Path(__file__).parent / "fixtures"


def test_a_file_of_duckdb_2_is_read_or_named_with_the_remedy(tiny):
    """`orders_v2.db` was written by `make_orders_v2.py`."""
    (tiny.root / "orders_v2.duckdb").write_bytes((FIXTURES / "orders_v2.db").read_bytes())
    tiny.declare(source_database="orders_v2.duckdb")
    if DUCKDB_2:
        assert [row[0] for row in read(tiny)] == [0]
        return
    text = refused(tiny)
    assert "was written by DuckDB v2." in text and "(STORAGE_VERSION 'v1.5.0')" in text and "999" not in text


def test_a_file_of_an_old_duckdb_is_named_with_the_remedy(tiny):
    """The header of a file that DuckDB 0.8.1 wrote."""
    (tiny.root / "old.duckdb").write_bytes((FIXTURES / "header_v0_8.db").read_bytes())
    tiny.declare(source_database="old.duckdb")
    text = refused(tiny)
    assert "was written by DuckDB v0.8.0 or v0.8.1" in text and "EXPORT DATABASE" in text


def test_an_encrypted_file_is_named_with_the_remedy(tiny):
    tiny.declare(source_database="encrypted.duckdb")
    (tiny.root / "encrypted.duckdb").write_bytes((FIXTURES / "encrypted.db").read_bytes())
    assert "is encrypted" in refused(tiny)


def test_a_file_that_another_process_writes_is_named_with_its_holder(tiny, monkeypatch):
    monkeypatch.setenv("PIP_DAGSTER_LOCK_DEADLINE", "0.3")
    file = str(tiny.root / "sources.duckdb")
    code = f"import duckdb, sys; c = duckdb.connect({file!r}); print(1, flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        holder.stdout.readline()
        text = refused(tiny)
        holder.stdin.close()
    assert "source 'orders' (raw.orders)" in text and f"PID {holder.pid}" in text and "declare `parquet`" in text


def test_rows_that_a_killed_writer_left_in_the_wal_are_read_from_a_read_only_folder(tiny):
    code = (
        f"import duckdb, os; c = duckdb.connect({str(tiny.root / 'sources.duckdb')!r}); "
        "c.execute('UPDATE raw.orders SET quantity = 8'); os._exit(9)"
    )
    subprocess.run([sys.executable, "-c", code], check=False)
    assert (tiny.root / "sources.duckdb.wal").exists()
    folder = tiny.root / "theirs"
    folder.mkdir()
    for name in ("sources.duckdb", "sources.duckdb.wal"):
        (tiny.root / name).rename(folder / name)
        (folder / name).chmod(0o444)
    folder.chmod(0o555)
    tiny.declare(source_database="theirs/sources.duckdb")
    try:
        assert tiny.run(FIRST)[FIRST].error is None
        assert tiny.warehouse("SELECT DISTINCT quantity FROM orders.features") == [(8,)]
        assert sorted(path.name for path in folder.iterdir()) == ["sources.duckdb", "sources.duckdb.wal"]
    finally:
        folder.chmod(0o755)
