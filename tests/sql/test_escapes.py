"""A person's SQL reads declared sources, or the project's tables, and nothing else; it writes nothing."""

from __future__ import annotations

import importlib.util
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import pip_dagster
from pip_dagster.declaration.pipeline import sources_read
from pip_dagster.errors import DeclarationError
from pip_dagster.flow.reader import sources_alone
from pip_dagster.sql.row_sql import row_expression
from pip_dagster.warehouse.connect import workspace

import duckdb  # isort: skip

_spec = importlib.util.spec_from_file_location("escapes", Path(__file__).with_name("escapes.py"))
assert _spec and _spec.loader
escapes = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(escapes)

OTHER = os.environ.get("PIP_DAGSTER_DUCKDB2_PYTHON")
SECRET = "s3cret,of,the,house\n1,2,3,4\n"
BOUNDS = "day >= $start_date AND day < $end_date"
COLUMNS = {"score": "FLOAT", "day": "DATE"}
KINDS = pytest.mark.parametrize("kind", escapes.KINDS)


class House:
    """A project with a secret file, a secret table beside the declared one, and what must not change."""

    def __init__(self, tiny: Any) -> None:
        self.tiny = tiny
        (tiny.root / "secret.csv").write_text(SECRET)
        tiny.source(
            "CREATE TABLE raw.secret AS SELECT 's3cret' AS a",
            "CREATE VIEW raw.v_orders AS SELECT o.* FROM raw.orders o SEMI JOIN raw.secret ON true",
        )
        self.before = self.state()

    def filled(self, text: str) -> str:
        root = self.tiny.root
        return text.format(file=root / "secret.csv", db=root / "sources.duckdb", new=root / "new.out", bounds=BOUNDS)

    def state(self) -> tuple[list[str], list[tuple[Any, ...]]]:
        root = self.tiny.root
        files = [str(path) for path in root.rglob("*") if "__pycache__" not in path.parts and ".lock" not in path.name]
        return sorted(files), self.tiny.source_rows(
            "SELECT count(*), min(day), (SELECT max(a) FROM raw.secret) FROM raw.orders"
        )


@pytest.fixture
def house(tiny: Any) -> Iterator[House]:
    found = House(tiny)
    yield found
    assert found.state() == found.before, "nothing was written"


def refused(run: Callable[[str], object], texts: list[str], start: str) -> None:
    """Each is refused, in one sentence that begins so and shows no secret."""
    passed = []
    for text in texts:
        try:
            run(text)
            passed.append(text)
        except DeclarationError as error:
            said = str(error)
            assert said.startswith(start) and said.endswith((".", "?")) and "\n" not in said.replace(text, ""), said
            assert "s3cret" not in said.replace(text, ""), said
    assert passed == []


def test_there_are_enough_ways_to_try() -> None:
    assert len({text for texts in escapes.KINDS.values() for text in texts}) > 180
    assert len(escapes.ROW) > 40 and len(escapes.LEGAL) > 50


@KINDS
def test_feature_sql_reads_declared_sources_only(house: House, kind: str) -> None:
    secret_frame = duckdb.sql("SELECT 's3cret' AS a").to_arrow_table()  # noqa: F841
    spec = house.tiny.pipeline().spec
    texts = [house.filled(text) for text in escapes.KINDS[kind]]
    refused(lambda text: sources_read(spec, text, "features.sql"), texts, "Pipeline orders, features.sql: ")


@KINDS
def test_what_it_refuses_is_refused_inside_a_query_that_is_fine_otherwise(house: House, kind: str) -> None:
    """In a subquery, a table expression and a set operation, which statements that write cannot be in."""
    spec = house.tiny.pipeline().spec
    fine = f"SELECT * FROM raw.orders WHERE {BOUNDS}"
    texts = [house.filled(text) for text in escapes.KINDS[kind]]
    for around in ("{fine} AND EXISTS ({text})", "WITH x AS ({text}) {fine}", "({fine}) UNION ALL ({text})"):
        nested = [around.format(fine=fine, text=text) for text in texts if "--" not in text]
        refused(lambda text: sources_read(spec, text, "features.sql"), nested, "Pipeline orders, features.sql: ")


def test_features_and_labels_are_refused_when_the_pipeline_loads(house: House) -> None:
    tiny, text = house.tiny, house.filled(escapes.FILES[0])
    with pytest.raises(
        DeclarationError, match=r"^Pipeline orders, features\.sql: uses read_text\(\) in FROM.* declare that"
    ):
        tiny.declare(text).pipeline()
    tiny.declare(
        f"SELECT order_id, day, gift, shop, quantity, amount FROM raw.orders WHERE {BOUNDS}",
        gates={"labels": {"sql": "labels.sql", "outcome": "content"}},
    )
    (tiny.folder / "labels.sql").write_text(text)
    with pytest.raises(DeclarationError, match=r"^Pipeline orders, labels\.sql: uses read_text\(\) in FROM"):
        tiny.pipeline()
    house.before = house.state()


def test_row_sql_reads_its_row_only(house: House) -> None:
    def judge(text: str) -> None:
        row_expression(text, COLUMNS, where="Pipeline orders: decisions.late", row="the scored row")

    refused(judge, [house.filled(text) for text in escapes.ROW], "Pipeline orders: decisions.late ")


def test_legal_sql_runs(house: House) -> None:
    tiny = house.tiny
    tiny.declare(sources={name: {"table": f"raw.{name}", "partition_column": "day"} for name in ("orders", "v_orders")})
    pipeline = tiny.pipeline()
    values = {"start_date": "2024-03-01", "end_date": "2024-03-03"}
    with workspace(threads=1) as con, sources_alone(con, pipeline.spec, tiny.root) as own:
        for text in map(house.filled, escapes.LEGAL):
            assert sources_read(pipeline.spec, text, "features.sql"), text
            own.execute(text, values if "$start_date" in text else {}).fetchall()


def test_where_it_runs_duckdb_itself_lets_nothing_out(house: House) -> None:
    """The second line: what the parse tree would refuse, tried behind it."""
    tiny, pipeline = house.tiny, house.tiny.pipeline()
    secret_frame = duckdb.sql("SELECT 's3cret' AS a").to_arrow_table()  # noqa: F841
    texts = [
        *escapes.FILES[:18],
        "FROM secret_frame",
        *(f"{verb} '{{new}}'" for verb in ("COPY raw.orders TO", "ATTACH")),
    ]
    texts += ["SET enable_external_access = true", "SET allowed_paths = ['/']", "LOAD httpfs", "INSTALL httpfs"]
    texts += [
        "RESET lock_configuration",
        "SET allowed_configs = ['TimeZone']",
        "FROM 'https://example.com/x.parquet'",
        "FROM warehouse.ledger.audit",
    ]
    with workspace(threads=1) as con, sources_alone(con, pipeline.spec, tiny.root) as own:
        for text in map(house.filled, texts):
            if "read_duckdb" not in text and "parquet_kv" not in text:
                with pytest.raises(duckdb.Error):
                    own.execute(text).fetchall()


def test_the_run_goes_on_with_a_warehouse_beside_confined_sources(house: House) -> None:
    tiny = house.tiny
    tiny.source(
        f"COPY raw.orders TO '{tiny.root}/orders.parquet'",
        f"CREATE VIEW raw.on_disk AS FROM read_parquet('{tiny.root}/ord*.parquet')",
    )
    sql = f"SELECT order_id, day, gift, shop, quantity, amount FROM raw.on_disk WHERE {BOUNDS}"
    tiny.declare(sql, sources={"orders": {"table": "raw.on_disk", "partition_column": "day"}})
    assert not any(result.error for result in tiny.run().values())
    assert tiny.scores() == tiny.expected()
    house.before = house.state()


@pytest.mark.lake("always")
class TestQuery:
    @pytest.fixture(autouse=True)
    def _where(self, scored: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        if "ducklake" in str(scored.project.warehouse):
            monkeypatch.setenv("PIP_DAGSTER_PUBLISHED", "none")

    def texts(self, house: House) -> list[str]:
        every = [house.filled(text) for texts in escapes.KINDS.values() for text in texts]
        every += [text.replace("raw.orders", "orders.predictions") for text in escapes.WRITES if "raw.orders" in text]
        on_lake = {"FROM warehouse.ledger.audit"} if "ducklake" in str(house.tiny.project.warehouse) else set()
        return [text for text in every if text not in on_lake]

    @pytest.mark.slice
    @pytest.mark.parametrize("everything", [False, pytest.param(True, marks=pytest.mark.soak)])
    def test_reads_tables_only_and_writes_nothing(self, scored: Any, everything: bool) -> None:
        house = House(scored)
        texts = self.texts(house)
        if "ducklake" in str(scored.project.warehouse) and not everything:
            texts = [text for text in texts if text.startswith(("FROM ducklake_", "FROM postgres_"))][::2]
        before = scored.warehouse(
            "SELECT (SELECT count(*) FROM ledger.audit), (SELECT count(*) FROM orders.predictions)"
        )
        for text in texts:
            said = scored.shell("query", text, code=1)
            assert said.startswith("Error: A query reads the project's tables and writes nothing; this "), (text, said)
            assert said.strip().endswith(".") and said.replace(text, "").strip().count("\n") == 0, said
            assert "s3cret" not in said
        assert house.state() == house.before
        assert before == scored.warehouse(
            "SELECT (SELECT count(*) FROM ledger.audit), (SELECT count(*) FROM orders.predictions)"
        )

    def test_lists_and_reads_what_there_is(self, scored: Any) -> None:
        for text in escapes.LISTS[:: 3 if "ducklake" in str(scored.project.warehouse) else 1]:
            assert scored.shell("query", text), text
        assert "50" in scored.shell(
            "query",
            "WITH d AS (FROM orders.predictions) SELECT count(*) AS n, max(s) OVER () AS m FROM d "
            "JOIN ledger.partitions p USING (partition_key), range(1) AS r(s) WHERE p.partition_key = '2024-03-01' "
            "GROUP BY s",
        )


@pytest.mark.slice
@pytest.mark.skipif(not OTHER, reason="PIP_DAGSTER_DUCKDB2_PYTHON names no interpreter")
def test_another_duckdb_refuses_alike() -> None:
    done = subprocess.run(
        [
            str(OTHER),
            "-m",
            "pytest",
            "-p",
            "no:cacheprovider",
            __file__,
            "-k",
            "not TestQuery and not another",
            "-m",
            "not soak",
        ],
        env=os.environ | {"PYTHONPATH": str(Path(pip_dagster.__file__).parents[1])},
        cwd=Path(pip_dagster.__file__).parents[1],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout
