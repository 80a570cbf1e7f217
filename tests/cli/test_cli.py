"""`pip-dagster` as a user types it, in a third party's project."""

import csv
import io
import json
import subprocess
import sys

import duckdb
import pytest
from click.testing import CliRunner

from pip_dagster.cli.main import cli
from pip_dagster.errors import NotFoundError, PipelineError, ProjectError, WarehouseError

pytestmark = pytest.mark.lake


FIRST, SECOND = "2024-03-01", "2024-03-02"


@pytest.fixture
def said(scored, monkeypatch):
    """Run a command in the scored project; its output."""
    monkeypatch.chdir(scored.root / "acme")  # any folder of the project will do

    def run(*words, code=0):
        result = CliRunner().invoke(cli, list(words))
        if isinstance(result.exception, PipelineError):
            raise result.exception
        assert result.exit_code == code, result.output + str(result.exception)
        return result.output

    return run


@pytest.fixture
def troubled(scored):
    """A day whose last attempt failed, and one with an unseen category and no amount at all."""
    scored.source(
        f"UPDATE raw.orders SET amount = 'inf' WHERE day = '{SECOND}'",
        f"UPDATE raw.orders SET amount = NULL, shop = 'Zuerich' WHERE day = '{FIRST}'",
    )
    scored.run()
    return scored


class TestStatus:
    @pytest.mark.lake("always")
    def test_of_all_pipelines(self, said):
        text = said("status")
        for word in ("orders", "2024-03-01", "2024-03-04", "200", "v1"):
            assert word in text
        [row] = json.loads(said("status", "--json"))
        assert (row["pipeline"], row["partitions"], row["rows"], row["live_models"]) == ("orders", 4, 200, "v1")

    def test_of_one(self, said, scored):
        rows = json.loads(said("status", "orders", "--json"))
        assert [row["partition_key"] for row in rows] == [f"2024-03-0{day}" for day in (1, 2, 3, 4)]
        expected = scored.expected(f"day = '{FIRST}'")
        assert rows[0]["mean_score"] == pytest.approx(sum(expected.values()) / 50)
        assert (rows[0]["rows"], rows[0]["quarantined"], rows[0]["model_version"]) == (50, 0, 1)
        assert (rows[0]["last_attempt"], rows[0]["reason"], rows[0]["attempts"]) == ("scored", None, 1)
        text = said("status", "orders")
        assert text.count("live") == 4 and f"{rows[0]['mean_score']:.4g}" in text

    def test_of_the_newest_alone(self, said):
        rows = json.loads(said("status", "orders", "--last", "2", "--json"))
        assert [row["partition_key"] for row in rows] == ["2024-03-03", "2024-03-04"]

    def test_says_what_failed_and_what_was_found(self, said, troubled):
        text = said("status", "orders")
        assert "live; last attempt failed" in text
        assert "values that the model would score without an error: amount in 50 rows" in text
        assert "unseen shop (50); only missing values in amount" in text
        rows = json.loads(said("status", "orders", "--json"))
        assert [row["last_attempt"] for row in rows] == ["scored", "failed", "scored", "scored"]

    @pytest.mark.slice
    def test_forgets_a_failure_that_was_mended(self, said, troubled):
        troubled.source("UPDATE raw.orders SET amount = 3 WHERE isinf(amount)")
        troubled.run()
        row = json.loads(said("status", "orders", "--json"))[1]
        assert (row["last_attempt"], row["reason"]) == ("scored", None)

    @pytest.mark.slice
    def test_forgets_it_too_where_the_source_is_as_it_was_before(self, said, scored):
        scored.source("CREATE TABLE raw.saved AS FROM raw.orders")
        scored.source(f"UPDATE raw.orders SET amount = 'inf' WHERE day = '{SECOND}'")
        scored.run()
        assert "last attempt failed" in said("status", "orders")
        scored.source("CREATE OR REPLACE TABLE raw.orders AS FROM raw.saved")
        assert scored.run()[SECOND].reused
        row = json.loads(said("status", "orders", "--json"))[1]
        assert (row["last_attempt"], row["reason"], row["attempts"]) == ("scored", None, 2)
        assert "last attempt" not in said("status", "orders")
        scored.run()  # nothing more to record
        changes = f"SELECT count(*) FROM ledger.live_changes WHERE partition_key = '{SECOND}'"
        assert scored.warehouse(changes) == [(2,)]

    def test_shows_what_each_partition_cost(self, said, scored):
        row = json.loads(said("status", "orders", "--json"))[0]
        assert row["cpu_seconds"] > 0 and 20e6 < row["peak_memory"] < 20e9
        text = said("lineage", "orders", FIRST)
        assert "CPU time" in text and f"{row['peak_memory'] / 1e6:,.0f} MB" in text

    @pytest.mark.lake("never")
    def test_reads_files_that_were_published_before_costs_were_recorded(self, said, scored):
        for file in (scored.project.published / "orders").glob("*.duckdb"):
            with duckdb.connect(str(file)) as con:
                for column in ("cpu_seconds", "peak_memory", "live_change"):
                    con.execute(f"ALTER TABLE ledger.partitions DROP COLUMN {column}")
        row = json.loads(said("status", "orders", "--json"))[0]
        assert row["last_attempt"] == "scored" and row["cpu_seconds"] is None
        assert FIRST in said("lineage", "orders", FIRST)


class TestLineage:
    def test_shows_everything_that_made_a_partition(self, said, scored):
        text = said("lineage", "orders", FIRST)
        version = scored.registry.get("returns", 1)
        for word in ("returns v1", version.digest, version.manifest_digest, "xgboost", "duckdb", "a test", "run-1"):
            assert word in text
        [entry] = json.loads(said("lineage", "orders", FIRST, "--json"))
        assert entry["model_digest"] == version.digest and entry["is_live"] is True
        assert entry["source_digests"]["orders"]["rows"] == 50 and "xgboost" in entry["engine"]
        assert entry["score_digest"].startswith("dh1:")

    def test_shows_every_attempt_and_which_is_live(self, said, troubled):
        text = said("lineage", "orders", SECOND)
        assert "Every attempt" in text and "failed" in text
        entries = json.loads(said("lineage", "orders", SECOND, "--json"))
        assert [(entry["status"], entry["is_live"]) for entry in entries] == [("scored", True), ("failed", False)]

    def test_of_an_unknown_partition_names_those_there_are(self, said):
        with pytest.raises(NotFoundError, match="no partition '2023-01-01'; the ledger has 2024-03-01 to 2024-03-04"):
            said("lineage", "orders", "2023-01-01")


class TestQuery:
    SQL = "SELECT order_id, day, score FROM orders.predictions WHERE order_id < 3 ORDER BY 1"

    def test_as_a_table(self, said, scored):
        text = said("query", self.SQL)
        for order, score in scored.expected("order_id < 3").items():
            assert f"{order}" in text and f"{score}"[:7] in text

    def test_as_csv(self, said, scored):
        rows = list(csv.DictReader(io.StringIO(said("query", self.SQL, "--format", "csv"))))
        assert {int(row["order_id"]): float(row["score"]) for row in rows} == scored.expected("order_id < 3")

    @pytest.mark.parametrize("option", [("--json",), ("--format", "json")])
    def test_as_json(self, said, scored, option):
        rows = json.loads(said("query", self.SQL, *option))
        assert {row["order_id"]: row["score"] for row in rows} == scored.expected("order_id < 3")
        assert rows[0]["day"] == FIRST

    def test_json_has_no_nan_and_keeps_big_numbers(self, said):
        rows = json.loads(
            said("query", "SELECT 'nan'::DOUBLE a, 'inf'::DOUBLE b, 2::HUGEINT ** 0 + 1e0 c, 1.50 d", "--json")
        )
        assert rows == [{"a": None, "b": None, "c": 2.0, "d": "1.50"}]

    def test_of_more_rows_than_a_table_shows_says_so(self, said):
        assert "More than 200 rows" in said("query", "SELECT * FROM range(201)")
        assert "More than 200 rows" not in said("query", "SELECT * FROM range(200)")
        assert len(said("query", "SELECT * FROM range(30000)", "--format", "csv").splitlines()) == 30_001

    @pytest.mark.parametrize(
        "sql",
        [
            "DELETE FROM orders.predictions",
            "CREATE TABLE t AS SELECT 1",
            "COPY (SELECT 1) TO 'x.csv'",
            "SELECT 1; DROP VIEW orders.predictions",
            "ATTACH 'x.duckdb'",
            "SET enable_external_access = true",
            "INSTALL httpfs",
            "",
        ],
    )
    def test_writes_nothing(self, said, sql):
        assert "expected exactly one SELECT" in said("query", sql, code=1)

    @pytest.mark.parametrize("file", ["/etc/passwd", "sources.duckdb", "pyproject.toml", "state/registry/returns/*"])
    def test_reads_no_file_but_what_is_published(self, said, scored, file):
        path = scored.root / file if not file.startswith("/") else file
        for function in ("read_text", "read_csv", "read_blob", "glob"):
            assert f"{function}() in FROM" in said("query", f"SELECT * FROM {function}('{path}')", code=1)

    def test_an_error_says_which_tables_there_are(self, said):
        text = said("query", "SELECT * FROM predictions", code=1)
        assert "reads 'predictions', which is not a table or view of this project; correct the name" in text
        assert text.index("ledger.partitions") < text.index("orders.predictions") < text.index("information_schema.")


def test_an_unknown_pipeline_names_those_there_are(said):
    for words in (("status", "order"), ("lineage", "order", FIRST)):
        assert "No partition of a pipeline 'order' is published; published pipelines: orders" in said(*words, code=1)


def test_before_anything_is_published_it_says_how_to_begin(tiny, monkeypatch):
    monkeypatch.chdir(tiny.root)
    for words in (["status"], ["lineage", "orders", FIRST], ["query", "SELECT 1"]):
        result = CliRunner().invoke(cli, words)
        assert isinstance(result.exception, WarehouseError)
        assert "Nothing is published yet" in str(result.exception) and "pip-dagster backfill" in str(result.exception)


def test_outside_a_project_it_says_what_a_project_is(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(cli, ["status"])
    assert isinstance(result.exception, ProjectError)
    assert "expected a pyproject.toml with [tool.pip_dagster]" in str(result.exception)


@pytest.mark.parametrize("setting", ["warehose = 'x'", "warehouse = 3"])
def test_a_wrong_setting_is_named(tiny, monkeypatch, setting):
    (tiny.root / "pyproject.toml").write_text(f"[tool.pip_dagster]\n{setting}\n")
    monkeypatch.chdir(tiny.root)
    with pytest.raises(ProjectError, match=r"pyproject\.toml, \[tool\.pip_dagster\]: wareho.* is not a setting"):
        CliRunner().invoke(cli, ["status"], catch_exceptions=False)


def shell(tiny, *words, **options):
    command = [sys.executable, "-m", "pip_dagster.cli.main", *words]
    return subprocess.run(command, capture_output=True, text=True, cwd=tiny.root, timeout=60, **options)


def test_without_a_terminal_nothing_is_cut(scored):
    done = shell(scored, "lineage", "orders", FIRST, env={"LANG": "C.UTF-8"})
    version = scored.registry.get("returns", 1)
    assert done.returncode == 0, done.stderr
    assert version.digest in done.stdout and version.manifest_digest in done.stdout and "…" not in done.stdout


def test_an_error_is_one_message_and_exit_code_1(tiny):
    done = shell(tiny, "status")
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.startswith("Error: Nothing is published yet") and "Traceback" not in done.stderr


def test_the_projects_folder_may_be_named(scored, tmp_path):
    done = shell(scored, "--project", str(scored.root), "status", "--json")
    assert json.loads(done.stdout)[0]["rows"] == 200


@pytest.mark.slice
def test_it_reads_while_a_run_writes(scored):
    """The published database needs no lock of the warehouse."""
    from pip_dagster.warehouse.connect import open_warehouse, workspace

    with workspace(threads=1) as con, open_warehouse(con, scored.project.warehouse, purpose="a long run"):
        assert shell(scored, "status").returncode == 0
