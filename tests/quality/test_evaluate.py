import datetime as dt
import json
import os
import subprocess
import sys

import pytest

from pip_dagster.quality import relation as relation_module
from pip_dagster.quality.evaluate import evaluate
from pip_dagster.quality.relation import Relation
from pip_dagster.quality.suite import Expectation

ENGINES = ["auto", "great_expectations"]
JFK = {"type": "comparison", "column": {"name": "origin"}, "operator": "==", "parameter": "JFK"}


def expect(type_, id_="e", *, condition=None, severity="critical", **kwargs):
    return Expectation(id_, "features", f"expect_{type_}", kwargs, severity, condition)


@pytest.fixture(params=ENGINES)
def judge(request, con):
    def run(*expectations, partitions=("a", "b"), key=("rid",), relation="t"):
        judged = Relation.of(con, relation, partition_column="part", row_id="rid")
        return evaluate(judged, key=key, expectations=expectations, partitions=partitions, engine=request.param)

    return run


def statuses(evaluation):
    return [v.status for v in evaluation.verdicts]


def test_a_verdict_per_partition_and_expectation_in_the_order_asked(con, judge):
    con.execute("CREATE TABLE t AS SELECT ['a', 'b'][i % 2 + 1] part, i rid, i x FROM range(10) r(i)")
    evaluation = judge(
        expect("column_values_to_be_between", "high", column="x", max_value=8, severity="warning"),
        expect("table_row_count_to_equal", "five", value=5),
        partitions=["b", "a", "none"],
    )
    assert [(v.partition, v.expectation.id, v.status) for v in evaluation.verdicts] == [
        ("b", "high", "failed"), ("b", "five", "passed"),
        ("a", "high", "passed"), ("a", "five", "passed"),
        ("none", "high", "passed"), ("none", "five", "failed"),
    ]  # fmt: skip
    assert evaluation.of("b")[0].examples == ({"rid": 9, "x": 9},)
    assert evaluation.of("none")[1].observed == 0
    assert evaluation.broken.to_pylist() == [
        {"partition": "b", "row_id": 9, "expectation_id": "high", "severity": "warning"}
    ]
    with pytest.raises(KeyError):
        evaluation.of("never asked")


@pytest.mark.parametrize(("failing", "status"), [(5, "passed"), (6, "failed")])
def test_mostly_is_met_at_exactly_its_share(con, judge, failing, status):
    con.execute(f"CREATE TABLE t AS SELECT 'a' part, i rid, (i >= {failing})::INT x FROM range(100) r(i)")
    evaluation = judge(expect("column_values_to_be_between", column="x", min_value=1, mostly=0.95), partitions=["a"])
    (verdict,) = evaluation.verdicts
    assert (verdict.status, verdict.unexpected_count, verdict.unexpected_percent) == (status, failing, failing)
    assert len(verdict.examples) == failing
    assert evaluation.broken.num_rows == failing


def test_nan_and_null_are_alike(con, judge):
    for missing in ("NULL", "'NaN'"):
        con.execute(
            f"CREATE OR REPLACE TABLE t AS SELECT 'a' part, i rid, "
            f"CASE WHEN i < 4 THEN {missing}::DOUBLE ELSE i END x FROM range(10) r(i)"
        )
        evaluation = judge(
            expect("column_values_to_not_be_null", "null", column="x"),
            expect("column_values_to_be_between", "between", column="x", min_value=5),
            expect("column_mean_to_be_between", "mean", column="x", min_value=6.5, max_value=6.5),
            expect("column_proportion_of_non_null_values_to_be_between", "share", column="x", min_value=0.6),
            partitions=["a"],
        )
        found = [(v.status, v.unexpected_count, v.unexpected_percent) for v in evaluation.verdicts]
        assert found[:2] == [("failed", 4, 40.0), ("failed", 1, 1 / 6 * 100)]
        assert found[2:] == [("passed", None, None)] * 2
        assert evaluation.verdicts[0].examples[0] == {"rid": 0, "x": None}


def test_a_row_condition_counts_only_the_rows_it_selects(con, judge):
    con.execute("CREATE TABLE t AS SELECT 'a' part, i rid, i x, ['JFK', 'EWR'][i % 2 + 1] origin FROM range(10) r(i)")
    (verdict,) = judge(
        expect("column_values_to_be_between", column="x", min_value=4, condition=JFK), partitions=["a"]
    ).verdicts
    assert (verdict.unexpected_count, verdict.element_count) == (2, 5)
    assert [row["rid"] for row in verdict.examples] == [0, 2]


def test_what_is_unique_is_unique_within_its_partition(con, judge):
    con.execute("CREATE TABLE t AS SELECT ['a', 'b'][i % 2 + 1] part, i rid, i // 2 x FROM range(10) r(i)")
    con.execute("INSERT INTO t VALUES ('b', 10, 4)")
    evaluation = judge(
        expect("column_values_to_be_unique", "x", column="x"),
        expect("compound_columns_to_be_unique", "xx", column_list=["x", "part"]),
    )
    assert statuses(evaluation) == ["passed", "passed", "failed", "failed"]
    assert set(evaluation.broken["row_id"].to_pylist()) == {9, 10}


def test_an_empty_partition_passes_row_checks_and_fails_counts(con, judge):
    con.execute("CREATE TABLE t (part VARCHAR, rid BIGINT, x DOUBLE, s VARCHAR)")
    evaluation = judge(
        expect("column_values_to_not_be_null", "null", column="x"),
        expect("column_values_to_match_regex", "regex", column="s", regex="^a"),
        expect("column_values_to_be_unique", "unique", column="s"),
        expect("table_row_count_to_be_between", "rows", min_value=1),
        expect("column_mean_to_be_between", "mean", column="x", min_value=0),
    )
    assert statuses(evaluation) == ["passed", "passed", "passed", "failed", "failed"] * 2
    assert evaluation.broken.num_rows == 0
    assert evaluation.broken.schema.names == ["partition", "row_id", "expectation_id", "severity"]


def test_what_could_not_be_evaluated_is_never_a_pass_and_spoils_nothing_else(con, judge):
    con.execute("CREATE TABLE t AS SELECT 'a' part, i rid, i x, 'text' s FROM range(3) r(i)")
    evaluation = judge(
        expect("column_mean_to_be_between", "mean of text", column="s", min_value=0),
        expect("column_values_to_be_between", "number or day", column="x", min_value=dt.date(2013, 1, 1)),
        expect("column_values_to_be_between", "low above high", column="x", min_value=3, max_value=1),
        expect("column_values_to_match_regex", "half a regex", column="s", regex="("),
        expect("column_values_to_not_be_null", "gone", column="z"),
        expect("column_values_to_be_between", "no such kwarg", column="x", minimum=1),
        expect("column_values_to_be_between", "fine", column="x", min_value=0),
        expect("column_values_to_be_increasing", "fine too", column="x"),
        partitions=["a"],
    )
    assert statuses(evaluation) == ["errored"] * 6 + ["passed"] * 2
    assert all(v.error for v in evaluation.verdicts[:6])
    assert "column 'z' is not in the table; there is part, rid, s, x" in evaluation.verdicts[4].error
    assert evaluation.broken.num_rows == 0


def test_names_and_values_of_every_kind(con, judge):
    con.execute('''
        CREATE TABLE "my ""table" AS SELECT 'a' part, i rid, i::DECIMAL(10, 2) / 10 AS "Preis (€)",
        '2013-01-01 00:00:00+00'::TIMESTAMPTZ + to_hours(i::INT) AS "wann ""genau""", (i * 2)::HUGEINT AS h,
        ['ü', 'ö'][i % 2 + 1] AS "größe", DATE '2013-01-01' + i::INT AS tag FROM range(10) r(i)''')
    evaluation = judge(
        expect("column_values_to_be_between", "price", column="Preis (€)", max_value=0.8),
        expect("column_values_to_be_between", "when", column='wann "genau"', max_value="2013-01-01T08:00:00+00:00"),
        expect("column_values_to_be_in_set", "letter", column="größe", value_set=["ü"]),
        expect("column_values_to_be_between", "day", column="tag", max_value=dt.date(2013, 1, 9)),
        expect("column_sum_to_be_between", "sum", column="h", max_value=89),
        partitions=["a"],
        key=["größe", "tag"],
        relation='"my ""table"',
    )
    assert statuses(evaluation) == ["failed"] * 5
    assert [v.unexpected_count for v in evaluation.verdicts] == [1, 1, 5, 1, None]
    price = evaluation.verdicts[0].examples[0]
    assert price == {"größe": "ö", "tag": "2013-01-10", "Preis (€)": 0.9}
    when = evaluation.verdicts[1].examples[0]['wann "genau"']
    assert when == "2013-01-01T09:00:00+00:00"
    json.dumps([v.examples for v in evaluation.verdicts] + [v.observed for v in evaluation.verdicts])


def test_at_most_ten_examples_the_first_by_row_id(con, judge):
    con.execute("CREATE TABLE t AS SELECT 'a' part, 99 - i rid, i x FROM range(100) r(i)")
    (verdict,) = judge(expect("column_values_to_be_null", column="x"), partitions=["a"]).verdicts
    assert [row["rid"] for row in verdict.examples] == list(range(10))


def test_a_range_larger_than_memory_is_judged_in_whole_partitions(con, judge, monkeypatch):
    con.execute("CREATE TABLE t AS SELECT chr(97 + (i % 5)::INT) part, i rid, i x FROM range(50) r(i)")
    suite = [
        expect("column_values_to_match_regex", "regex", column="x", regex="^4"),
        expect("column_mean_to_be_between", "mean", column="x", max_value=23),
        expect("column_values_to_be_increasing", "up", column="x"),
        expect("column_values_to_not_be_null", "null", column="x"),
    ]
    whole = judge(*suite, partitions="abcdez")
    monkeypatch.setattr(relation_module, "ROWS_IN_MEMORY", 25)
    chunked = judge(*suite, partitions="abcdez")
    assert whole.verdicts == chunked.verdicts
    assert whole.broken.equals(chunked.broken)


@pytest.mark.slice
def test_great_expectations_stays_off_the_network_and_the_disk(tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    program = (
        "import socket\n"
        "def refuse(*a, **k): raise AssertionError('network')\n"
        "socket.socket.connect = refuse\nsocket.getaddrinfo = refuse\n"
        "import duckdb\nfrom pip_dagster.quality.evaluate import evaluate\n"
        "from pip_dagster.quality.relation import Relation\n"
        "from pip_dagster.quality.suite import Expectation\n"
        "con = duckdb.connect()\n"
        "con.execute(\"CREATE TABLE t AS SELECT 'p' part, i rid, i x FROM range(5) r(i)\")\n"
        "e = Expectation('e', 'features', 'expect_column_values_to_be_increasing', {'column': 'x'})\n"
        "t = Relation.of(con, 't', partition_column='part', row_id='rid')\n"
        "ev = evaluate(t, key=[], expectations=[e], partitions=['p'])\n"
        "assert ev.verdicts[0].status == 'passed', ev\n"
    )
    environment = {k: v for k, v in os.environ.items() if not k.startswith("GX_")} | {"HOME": str(home)}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program], cwd=tmp_path, env=environment, check=True, capture_output=True
    )
    assert done.stdout == done.stderr == b""
    assert [p.name for p in tmp_path.iterdir()] == ["home"]
    assert list(home.iterdir()) == []
