"""`pip-dagster check`: every kind of fault on one line with its place, and nothing written."""

import json
import os
import re
from pathlib import Path

import pytest

from pip_dagster.cli.main import cli
from tests.conftest import invoke

FEATURES = """SELECT order_id, day, gift, shop, quantity, amount
FROM raw.orders
WHERE day >= $start_date AND day < $end_date
"""
LABELS = "SELECT order_id, gift AS returned FROM raw.orders WHERE day >= $start_date AND day < $end_date\n"


def check(tiny, *words, code=1):
    found = json.loads(tiny.shell("check", "orders", *words, "--json", code=code))
    (only,) = found["pipelines"]
    assert found["ok"] == only["ok"] == (code == 0)
    return only


def files_of(root: Path) -> dict[str, tuple[int, int]]:
    return {str(path): (path.stat().st_mtime_ns, path.stat().st_size) for path in root.rglob("*") if path.is_file()}


@pytest.fixture
def short(tiny):
    return tiny.declare(partitions={"end": "2024-03-05"}, sql=FEATURES)


def test_of_what_is_right_it_says_so_and_writes_nothing(short):
    before = files_of(short.root)
    assert short.shell("check") == (
        "orders: ok. Checked: 1 source, 6 columns of features, returns v1, 50 rows of 2024-03-04.\n"
    )
    assert files_of(short.root) == before and not short.project.warehouse.exists()


def test_the_rows_of_a_named_partition_are_read(short):
    assert check(short, "2024-03-02", code=0)["partition"] == "2024-03-02"
    (problem,) = check(short, "2024-03-09")["problems"]
    assert problem["text"] == "there is no partition '2024-03-09' that has closed"


def test_of_a_partition_without_rows_it_says_how_to_check_some(short):
    short.declare(partitions={"end": "2024-03-05"}, sql=f"{FEATURES} AND false\n")
    assert short.shell("check").splitlines() == [
        "orders: ok. Checked: 1 source, 6 columns of features, returns v1, 0 rows of 2024-03-04.",
        "To check rows, name a partition that has some: pip-dagster check orders PARTITION",
    ]


# What is changed of the SQL → what is wrong, of which kind, on which line.
SQL = {
    "a column that the source lacks": (("quantity, amount", "quantity, amout AS amount"), "features", 1, "amout"),
    "a syntax error": (("FROM raw", "FRM raw"), "declaration", None, "syntax"),
    "a table that is not declared": (("raw.orders", "raw.other"), "features|declaration", None, "raw.other"),
    "an unknown parameter": (("$end_date", "$last"), "features", None, r"\$last is no parameter"),
    "a missing feature": ((", amount", ""), "model", None, "'amount' is missing"),
    "a mistyped feature": (("quantity,", "quantity::VARCHAR AS quantity,"), "model", None, "'quantity' is VARCHAR"),
    "rows outside their partition": (("day >=", "true OR day >="), "rows", None, "outside the requested"),
    "a cast that a row breaks": (("amount\n", "(shop || '!')::INT AS amount\n"), "rows", None, "feature SQL fails"),
    "a key that is not unique": (("order_id,", "1 AS order_id,"), "rows", None, "cannot be built: .*order_id"),
}


@pytest.mark.parametrize("name", SQL)
def test_faults_of_the_feature_sql(short, name):
    (old, new), what, line, text = SQL[name]
    short.declare(partitions={"end": "2024-03-05"}, sql=FEATURES.replace(old, new))
    (problem,) = check(short)["problems"]
    assert re.fullmatch(what, problem["what"]) and re.search(text, problem["text"])
    assert line is None or (problem["line"] == line and problem["file"].endswith("acme/defs/orders/features.sql"))
    assert "\n" not in problem["text"]


def test_several_faults_are_all_listed_one_a_line(short):
    short.declare(partitions={"end": "2024-03-05"}, decisions={"late": "scoer > 1"}, sql=FEATURES.replace("gift, ", ""))
    lines = short.shell("check", "orders", code=1).splitlines()
    assert lines[0].startswith("orders: problem: acme/defs/orders/features.sql: ") and "'gift' is missing" in lines[0]
    assert "decisions.late" in lines[1] and "scoer" in lines[1]
    assert lines[2].startswith("orders: 2 problems. Checked:") and len(lines) == 3


def test_faults_of_the_declaration_have_their_line(short):
    short.declare(partitions={"every": "fortnight"}, sensors={"source_changes": {"minimum": 3}})
    found = check(short)["problems"]
    text = (short.folder / "defs.yaml").read_text().splitlines()
    assert {each["what"] for each in found} == {"declaration"} and len(found) >= 2
    assert any("fortnight" in text[each["line"] - 1] for each in found)
    assert all(each["file"].endswith("defs.yaml") for each in found)


def test_each_source_that_cannot_be_read_is_named(short):
    short.declare(
        sources={
            "orders": {"table": "raw.orders", "partition_column": "dya"},
            "shops": {"table": "raw.shops"},
            "files": {"table": "raw.files", "parquet": "no/*.parquet"},
        }
    )
    found = check(short)["problems"]
    assert [each["what"] for each in found] == ["source"] * 3
    for each, name in zip(found, ("orders", "shops", "files"), strict=True):
        assert f"source {name!r}" in each["text"]


@pytest.mark.parametrize(("most", "warnings"), [(4, 0), (3, 1)])
def test_of_more_partitions_than_dagster_recommends_it_warns(short, monkeypatch, most, warnings):
    monkeypatch.setattr("pip_dagster.flow.check._MOST_PARTITIONS", most)
    found = check(short, code=0)["problems"]
    assert [(each["level"], each["what"]) for each in found] == [("warning", "declaration")] * warnings
    for each in found:
        assert "every day from 2024-03-01 are 4 partitions by now" in each["text"] and "later `start`" in each["text"]
        assert Path(each["file"]).read_text().splitlines()[each["line"] - 1].strip().startswith("every:")


class TestTheModel:
    def test_that_is_not_there(self, short):
        short.declare(scoring={"model_name": "unknown"})
        found = check(short)["problems"]
        assert [each["what"] for each in found] == ["model"] and "unknown" in found[0]["text"]

    def test_whose_file_was_changed(self, short):
        file = short.registry.get("returns", 1).path / "model.ubj"
        file.chmod(0o644)
        file.write_bytes(file.read_bytes() + b"x")
        assert [each["what"] for each in check(short)["problems"]] == ["model"]

    def test_that_has_never_seen_a_category(self, short):
        short.source("UPDATE raw.orders SET shop = 'Genf' WHERE day = '2024-03-04' AND order_id % 2 = 0")
        (warning,) = check(short, code=0)["problems"]
        assert warning["level"] == "warning" and "shop has a category that returns v1 has never seen" in warning["text"]
        short.declare(scoring={"on_unseen_category": "error"}, partitions={"end": "2024-03-05"})
        (problem,) = check(short)["problems"]
        assert problem["level"] == "problem" and "categories the model has never seen: shop" in problem["text"]

    def test_that_a_value_would_be_infinite_for(self, short):
        short.source("UPDATE raw.orders SET amount = 'inf' WHERE day = '2024-03-04'")
        (problem,) = check(short)["problems"]
        assert problem["what"] == "rows" and "amount in 50 rows" in problem["text"]

    def test_of_a_challenger_that_names_none_is_a_warning(self, short):
        short.declare(scoring={"challengers": ["next"]}, partitions={"end": "2024-03-05"})
        (warning,) = check(short, code=0)["problems"]
        assert warning["level"] == "warning" and "next" in warning["text"]


class TestExpectations:
    @pytest.mark.parametrize(
        ("section", "column", "text"),
        [
            ("features", "amout", "on column 'amout'"),
            ("sources:\n  orders", "amout", "on column 'amout'"),
            ("predictions", "scoer", "on column 'scoer'"),
            pytest.param("features", "shop", "cannot be judged", marks=pytest.mark.slice),  # imports Great Expectations
        ],
    )
    def test_on_what_is_not_there_or_of_another_type(self, short, section, column, text):
        between = f"expect_column_values_to_be_between, kwargs: {{column: {column}, min_value: 0}}"
        indent = "    " if ":" in section else "  "
        (short.folder / "expectations.yaml").write_text(f"{section}:\n{indent}- {{type: {between}}}\n")
        short.declare(quality={"expectations": "expectations.yaml"}, partitions={"end": "2024-03-05"})
        (problem,) = check(short)["problems"]
        assert text in problem["text"]


class TestLabels:
    @pytest.mark.parametrize(
        ("sql", "text", "line"),
        [
            (LABELS, None, None),
            (LABELS.replace("returned", "other"), "no column returned in its result", None),
            (LABELS.replace("gift", "\n  gfit"), "gfit", 2),
            (LABELS.replace("$end_date", "$until"), r"\$until is no parameter", None),
            (LABELS.replace("order_id,", "order_id || 'x' AS order_id,"), "Could not convert", None),
        ],
        ids=["sound", "no outcome", "no such column", "no such parameter", "a key of another type"],
    )
    def test_are_bound_to_the_sources(self, short, sql, text, line):
        (short.folder / "labels.sql").write_text(sql)
        short.declare(labels={"sql": "labels.sql", "outcome": "returned"}, partitions={"end": "2024-03-05"})
        if text is None:
            assert check(short, code=0)["problems"] == []
            return
        (problem,) = check(short)["problems"]
        assert problem["what"] == "labels" and re.search(text, problem["text"])
        assert problem["file"].endswith("labels.sql") and line in (None, problem["line"])


def test_of_an_unknown_pipeline(short):
    said = invoke(cli, ["--project", str(short.root), "check", "other"])
    assert said.exit_code == 1 and "declares no pipeline 'other'; it declares orders" in said.output


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_for_a_user_who_may_only_read(short):
    for path in short.root.rglob("*"):
        path.chmod(0o555 if path.is_dir() else 0o444)
    assert check(short, code=0)["ok"]


def test_what_a_target_wants_and_predictions_lack_is_a_fault_with_its_line(short):
    def line(text):
        lines = (short.folder / "defs.yaml").read_text().splitlines()
        return next(number for number, each in enumerate(lines, start=1) if text in each)

    target = {"parquet": "out", "columns": {"order": "order_id", "risk": "scor", "cost": "amuont"}}
    arms = {"parquet": "other", "columns": ["score", "arm", "bucket"], "where": "score > 0.5 AND model_version > 0"}
    short.declare(deliver={"crm": target, "arms": arms})
    risk, cost, bucket = check(short)["problems"]
    assert (risk["what"], risk["file"].endswith("defs.yaml")) == ("deliver", True)
    assert risk["text"].startswith("deliver.crm.columns names 'scor', which is not a column of the predictions")
    assert risk["text"].endswith("did you mean 'score'?")
    assert "deliver.arms.columns names 'bucket'" in bucket["text"]
    assert [each["line"] for each in (risk, cost, bucket)] == [line("risk: scor"), line("amuont"), line("- bucket")]
    target["columns"], arms["columns"] = {"risk": "score"}, ["score"]
    short.declare(deliver={"crm": target | {"where": "shop > 1 AND nowhere = 2"}, "arms": arms})
    [found] = check(short)["problems"]
    assert "deliver.crm.where" in found["text"] and "nowhere" in found["text"]
    assert found["line"] == line("where: shop > 1")
    short.declare(deliver={"crm": target, "arms": arms})
    check(short, code=0)
