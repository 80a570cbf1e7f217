"""`pip-dagster replay` as a shell sees it: what it prints, and its exit code."""

import json

import pytest
from click.testing import CliRunner

from pip_dagster.cli.main import cli
from pip_dagster.warehouse.connect import open_warehouse, workspace

pytestmark = pytest.mark.lake


SECOND = "2024-03-02"


def run(tiny, *arguments):
    return CliRunner().invoke(cli, ["--project", str(tiny.root), "replay", *arguments])


def nudge(tiny):
    """One stored score is doubled."""
    with workspace(threads=1) as con, open_warehouse(con, tiny.project.warehouse, purpose="a forger"):
        name = con.execute("SELECT table_name FROM duckdb_tables() WHERE table_name LIKE 'scores%'").fetchone()[0]
        con.execute(f'UPDATE orders."{name}" SET score = score * 2 WHERE order_id = 70')


def test_a_partition_that_is_identical(scored):
    result = run(scored, "orders", SECOND)
    assert result.exit_code == 0, result.output
    assert "2024-03-02  identical  returns v1" in result.stdout and "the same" in result.stdout
    assert "Partitions: 1 identical. Equal to the bit: 50 rows." in result.stdout
    assert "replaying 2024-03-02" in result.stderr
    assert "Scored with device cpu, duckdb " in result.stdout and "Replayed with " in result.stdout


def test_a_difference_is_named_and_exits_with_1(scored):
    nudge(scored)
    result = run(scored, "orders", "--all")
    assert result.exit_code == 1
    assert "Partitions: 1 differs, 3 identical. Equal to the bit: 199 rows." in result.stdout
    assert "2024-03-02 differs: scores: the stored rows have digest dh1:" in result.stdout
    assert "1 of 50 scored rows differ, score in 1 by up to 8,388,608 ULPs" in result.stdout


def test_json_holds_everything(scored):
    nudge(scored)
    result = run(scored, "orders", "--all", "--json")
    assert result.exit_code == 1
    found = json.loads(result.stdout)
    assert found["verdicts"] == {"identical": 3, "differs": 1}
    (each,) = [each for each in found["partitions"] if each["verdict"] == "differs"]
    assert (each["partition"], each["model"]) == (SECOND, "returns v1")
    assert each["rows"]["max_ulps"] == 2**23 and each["rows"]["equal"] == 49
    assert each["rows"]["examples"]["differing"][0]["order_id"] == "70"
    assert each["engine_now"]["device"] == "cpu" and each["engine_differences"] == {}


def test_a_model_that_is_not_the_recorded_one_exits_with_2(scored):
    path = scored.registry.get("returns", 1).path / "model.ubj"
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    result = run(scored, "orders", SECOND)
    assert result.exit_code == 2
    assert "2024-03-02 cannot replay: returns v1: model.ubj has sha256" in result.stdout


def test_a_key_is_shown_with_features_and_both_scores(scored):
    result = run(scored, "orders", SECOND, "--key", "70", "--key", "71")
    assert result.exit_code == 0
    assert "2024-03-02, key 70: recorded features" in result.stdout and "key 71: recorded" in result.stdout
    ((score,),) = scored.warehouse("SELECT score FROM orders.scores WHERE order_id = 70")
    assert result.stdout.count(f"{score!r} 0x") == 2
    assert "quantity" in result.stdout
    shown = json.loads(run(scored, "orders", SECOND, "--key", "70", "--json").stdout)["partitions"][0]["keys"]
    assert shown[0]["stored"] == shown[0]["replayed"] == {"score": score} and not shown[0]["quarantined"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("orders", SECOND, "--key", "7000"), "no row has the key 7000"),
        (("orders", "2024-03-09"), "has no live scoring of partition '2024-03-09'"),
        (("orders", "--scoring", "never"), "has no scoring 'never'"),
        (("nothing", SECOND), "declares no pipeline 'nothing'; it declares orders"),
        (("orders",), "Name a partition"),
        (("orders", SECOND, "--all"), "cannot be combined with a partition"),
        (("orders", "--sample", "0"), "Invalid value for '--sample'"),
    ],
)
def test_what_cannot_be_asked_exits_with_2(scored, arguments, message):
    result = run(scored, *arguments)
    assert result.exit_code == 2 and message in result.stderr


def test_a_sample_and_a_named_scoring(scored):
    result = run(scored, "orders", "--sample", "2", "--json")
    assert [each["partition"] for each in json.loads(result.stdout)["partitions"]] == ["2024-03-01", "2024-03-04"]
    scoring_id = json.loads(result.stdout)["partitions"][0]["scoring_id"]
    result = run(scored, "orders", "--scoring", scoring_id, "--json")
    assert result.exit_code == 0 and json.loads(result.stdout)["partitions"][0]["scoring_id"] == scoring_id
