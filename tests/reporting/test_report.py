"""`pip-dagster report` over real runs: what it says, from which sources, with the same bytes each time."""

import hashlib
import json
import os
import re
import subprocess
import sys

import pytest
from pydantic import TypeAdapter

from pip_dagster.ledger.alarms import AlarmEntry, insert_alarms, insert_marks
from pip_dagster.reporting.content import Report
from pip_dagster.reporting.page import to_html, to_json
from pip_dagster.warehouse.connect import open_warehouse, workspace
from pip_dagster.warehouse.transaction import transaction

DAYS = [f"2024-03-{day:02}" for day in range(1, 25)]
LABELS = "SELECT order_id, returned FROM raw.outcomes WHERE day >= $start_date AND day < $end_date;"


def report(tiny, *arguments):
    """The content that the command wrote, and what it printed."""
    files = ("-o", str(tiny.root / "report.html"), "--json", str(tiny.root / "report.json"))
    printed = tiny.shell("report", "orders", *files, *arguments)
    return json.loads((tiny.root / "report.json").read_text(encoding="utf-8")), printed


def page(tiny):
    return (tiny.root / "report.html").read_text(encoding="utf-8")


def tiles(content):
    return {tile["name"]: tile["state"] for tile in content["tiles"]}


def drift_alarm(alarm_id, sequence, subject, state, severity, since="2024-03-20"):
    return AlarmEntry(
        **{"pipeline": "orders", "alarm_id": alarm_id, "sequence": sequence, "event": "drift", "rule": "sudden"},
        **{"subject": subject, "scope": "feature", "weight": None, "state": state, "severity": severity},
        **{"since": since, "partition_key": DAYS[-1], "scoring_id": None, "partitions": 3, "value": 0.5},
        **{"threshold": 0.1, "chance": None, "rows": 150, "cause": "because", "made_by": "ada", "good": []},
        **{"command": "pip-dagster monitor orders", "quiet": False},
    )


def write(tiny, store):
    """Store what the ledger's own functions write."""
    file = tiny.project.warehouse
    with workspace(threads=1) as con, open_warehouse(con, file, purpose="a test"), transaction(con):
        store(con)


def test_a_shift_is_the_verdict_with_since_when_and_what_to_do(reported):
    content, printed = report(reported)
    assert content["schema"] == "pip_dagster.report/1"
    verdict = content["verdict"]
    assert verdict["state"] == "alarm" and "drift of " in verdict["sentence"]
    assert verdict["since"] == "2024-03-21" and verdict["action"].startswith("pip-dagster ")
    assert verdict["sentence"] in printed and verdict["action"] in printed
    assert tiles(content)["drift"] == "alarm" and tiles(content)["freshness"] == "ok"
    by_day = {day["partition"]: day for day in content["days"]}
    assert [*by_day] == DAYS and by_day[DAYS[21]]["drift"] == "alarm" and "shop" in by_day[DAYS[21]]["drifted"]
    assert by_day[DAYS[18]]["drift"] == "ok" and by_day[DAYS[3]]["drift"] == "unjudged"
    (shop,) = (column for column in content["columns"] if column["name"] == "shop")
    assert shop["state"] == "alarm" and len(shop["series"]) == len(DAYS) and shop["psi_1"] > 1
    (returned,) = content["decisions"]
    assert returned["is_rate"] and returned["values"][0] == pytest.approx(
        returned["counts"][0] / by_day[DAYS[0]]["rows"]
    )


def test_the_page_has_what_the_json_has(reported):
    content, _ = report(reported)
    text = page(reported)
    for said in (content["verdict"]["sentence"], content["origin"]["ledger_head"], content["origin"]["as_of"][:10]):
        assert said in text.replace("<wbr>", "")
    for day in content["days"]:
        assert f"<td>{day['partition']}</td>" in text
    read = TypeAdapter(Report).validate_json(json.dumps(content))
    assert to_html(read) == text, "the page is written from the same content"
    assert json.loads(to_json(read)) == content


@pytest.mark.slice
def test_the_bytes_are_the_same_in_another_process_and_after_recording(reported):
    before, printed = report(reported)
    entry = before["origin"]["ledger_entry"]
    data = (reported.root / "report.html").read_bytes()
    assert f"sha256 {hashlib.sha256(data).hexdigest()}" in printed
    command = [sys.executable, "-m", "pip_dagster.cli.main", "report", "orders", "-o", "-"]
    environment = os.environ | {"PIP_DAGSTER_PROJECT": str(reported.root), "PYTHONHASHSEED": "7", "TZ": "Asia/Tokyo"}
    again = subprocess.run(command, capture_output=True, env=environment, check=True)
    assert again.stdout == data
    reported.shell("report", "orders", "-o", str(reported.root / "x.html"), "--record", "--why", "the board")
    assert report(reported)[0]["origin"]["ledger_entry"] == entry, "the entry that records it is not counted"
    assert (reported.root / "report.html").read_bytes() == data
    ((actor, subject, details),) = reported.warehouse(
        "SELECT actor, subject, details FROM ledger.audit WHERE action = 'report'"
    )
    assert json.loads(subject) == {"report": hashlib.sha256(data).hexdigest()} and actor
    assert json.loads(details)["why"] == "the board" and json.loads(details)["last"] == DAYS[-1]
    assert "the chain is intact" in reported.shell("audit", "verify", code=4)
    assert "report recorded" in reported.shell("audit", "log", "--last", "1")


def test_labels_show_the_metric_segments_lift_and_calibration(reported):
    before, _ = report(reported)
    assert "--evaluate" in before["unavailable"]["performance"] and before["performance"] == []
    assert tiles(before)["performance"] == "unknown"
    reported.shell("performance", "orders", "--evaluate")
    content, _ = report(reported)
    auc = content["performance"][0]
    assert auc["metric"] == "auc" and auc["higher_is_better"]
    assert all(point["maturity"] == "mature" and point["coverage"] == 1 for point in auc["points"])
    assert {line["column"] for line in auc["segments"]} == {"shop"}
    assert [line["metric"] for line in auc["segments"]] == sorted(line["metric"] for line in auc["segments"])
    assert content["lift"][0]["decile"] == 1 and content["lift"][0]["mean_score"] > content["lift"][-1]["mean_score"]
    assert content["calibration"]["error"] > content["calibration"]["by_chance"]
    assert content["days"][0]["labels"] == "mature" and "performance" not in content["unavailable"]
    assert "measured, labels mature" in page(reported) and "lower is better" not in page(reported)


def test_what_is_not_judged_is_not_fine(reported):
    def tile(name):
        return next(each for each in report(reported)[0]["tiles"] if each["name"] == name)

    (reported.folder / "labels.sql").write_text(LABELS.replace("WHERE", "WHERE day < '2024-03-15' AND"))
    reported.shell("performance", "orders", "--evaluate")
    shown = json.loads(reported.shell("performance", "orders", "--json"))
    assert {each["state"] for each in shown["findings"] if each["rule"] == "trailing"} == {"unjudged"}
    (week,) = (each for each in shown["windows"] if each["partitions"] == 7 and not each["segment"])
    performance = tile("performance")
    assert (performance["state"], performance["word"]) == ("unknown", "not judged")
    assert "is not measured" not in report(reported)[0]["verdict"]["sentence"]
    assert performance["text"].startswith("Too few labelled partitions. auc ")
    assert (
        f"auc {week['value']:.4g} over 7 partitions to 2024-03-14, {week['labelled']:,} labels" in performance["text"]
    )
    content, _ = report(reported)
    assert "overdue or unusual labels" in page(reported) and "labels of labels" not in json.dumps(content)


def test_a_warning_of_drift_is_on_its_tile(reported):
    write(reported, lambda con: insert_marks(con, "orders", {("drift", "lasting"): DAYS[19]}))
    reported.tamper("DELETE FROM ledger.alarms")
    write(reported, lambda con: insert_alarms(con, [drift_alarm("a", 1, "amount", "warning", "warning")]))
    content, _ = report(reported, "--to", DAYS[19])  # none of these partitions is in alarm
    drift = next(each for each in content["tiles"] if each["name"] == "drift")
    assert drift["state"] == "warning" and drift["text"].startswith("amount: ")


def test_what_is_published_is_enough_while_another_process_holds_the_warehouse(reported):
    whole, _ = report(reported)
    holder = reported.python(
        """
        import sys
        from pathlib import Path
        from pip_dagster.warehouse.lock import exclusive
        with exclusive(Path("state/warehouse.duckdb.lock"), purpose="a long run"):
            print("held", flush=True)
            sys.stdin.read()
        """,
        stdin=True,
    )
    assert holder.stdout.readline() == "held\n"
    os.environ["PIP_DAGSTER_LOCK_DEADLINE"] = "0.1"
    try:
        content, _ = report(reported)
    finally:
        del os.environ["PIP_DAGSTER_LOCK_DEADLINE"]
        holder.stdin.close()
        holder.wait()
    assert content["origin"]["read_from"] == "published files" and content["audit"] is None
    assert [day["rows"] for day in content["days"]] == [day["rows"] for day in whole["days"]]
    assert "published files have no" in content["unavailable"]["drift"]
    assert any("a long run" in limit for limit in content["limits"]), "why is among the limits"


def test_a_damaged_warehouse_is_an_error_and_not_a_report(reported):
    file = reported.project.warehouse
    file.write_bytes(file.read_bytes()[:20_000])
    assert "is damaged" in reported.shell("report", "orders", "-o", "-", code=1)


def test_a_changed_audit_is_an_alarm(reported):
    reported.tamper("UPDATE ledger.audit SET actor = 'nobody' WHERE seq = 3")
    content, _ = report(reported)
    assert content["audit"]["intact"] is False and "entry 3" in content["audit"]["text"]
    assert content["verdict"]["sentence"].startswith("In alarm: the audit chain is broken")


def test_the_alarms_that_the_ledger_keeps_are_those_of_the_report(reported):
    reported.tamper(*(f"DELETE FROM ledger.{table}" for table in ("alarms", "alarm_marks")))
    assert {line["subject"] for line in report(reported)[0]["alarms"]} >= {"shop", "amount"}, "as computed"
    write(reported, lambda con: insert_marks(con, "orders", {("drift", "sudden"): DAYS[-1]}))
    alarms = [
        drift_alarm("a", 1, "amount", "alarm", "alarm"),
        drift_alarm("a", 2, "amount", "acknowledged", "alarm"),
        drift_alarm("b", 1, "shop", "resolved", "alarm"),
        drift_alarm("c", 1, "gift", "warning", "warning", "2024-03-23"),
    ]
    write(reported, lambda con: insert_alarms(con, alarms))
    reported.shell(
        "alarms", "silence", "--pipeline", "orders", "--subject", "gift", "--until", "9999-01-01", "--why", "known"
    )
    content, _ = report(reported)
    assert [(line["subject"], line["status"]) for line in content["alarms"]] == [
        *(("amount", "acknowledged"), ("gift", "warning"), ("shop", "resolved"))
    ]
    assert (
        content["verdict"]["sentence"] == "In alarm: drift of amount." and content["verdict"]["since"] == "2024-03-20"
    )
    assert content["alarms"][1]["silenced"].endswith(": known") and ": known" in page(reported)
    assert content["accepted"][0]["what"] == "silence of subject gift" and content["accepted"][0]["until"]


def test_the_period_is_chosen_and_bounded(reported):
    content, _ = report(reported, "--from", DAYS[2], "--to", DAYS[20])
    assert (content["period"]["first"], content["period"]["last"]) == (DAYS[2], DAYS[20])
    assert content["period"]["partitions"] == 19 and content["period"]["stored"] == 24
    assert content["columns"][0]["series"][0] is not None
    wrong = reported.shell("report", "orders", "--from", "March", code=1)
    assert "'March' is not the key of a partition" in wrong and "2024-03-01" in wrong
    for command in (("report", "orders"), ("performance", "orders", "--evaluate")):
        assert "Swap them" in reported.shell(*command, "--from", DAYS[5], "--to", DAYS[2], code=1)


def test_no_partition_one_and_only_blocked_ones(tiny):
    tiny.declare(monitoring={})
    content, _ = report(tiny)
    assert content["verdict"]["sentence"] == "Nothing is judged yet." and content["days"] == []
    assert content["origin"]["read_from"] == "nothing" and content["origin"]["as_of"] is None
    assert not tiny.project.warehouse.exists(), "reading creates none"
    tiny.run("2024-03-01")
    content, _ = report(tiny)
    assert content["verdict"]["state"] == "ok" and "not measured" in content["verdict"]["sentence"]
    assert tiles(content)["drift"] == "unknown"
    (tiny.folder / "e.yaml").write_text(
        "features:\n- type: expect_column_values_to_be_in_set\n  kwargs: {column: shop, value_set: [none]}\n"
    )
    tiny.declare(monitoring={}, quality="e.yaml")
    tiny.run("2024-03-02", "2024-03-03")
    content, _ = report(tiny, "--from", "2024-03-02")
    assert [day["status"] for day in content["days"]] == ["blocked", "blocked"]
    assert content["verdict"]["state"] == "alarm" and "2024-03-03 blocked" in content["verdict"]["sentence"]
    assert content["attempts"][0]["partition"] == "2024-03-03" and content["checks"][0]["partitions_failed"] == 2


def test_a_gap_in_the_grid_shows(tiny):
    tiny.run("2024-03-01", "2024-03-04")
    content, _ = report(tiny)
    assert [day["status"] for day in content["days"]] == ["live", "missing", "missing", "live"]
    assert tiles(content)["freshness"] == "warning" and "declare `monitoring: {}`" in content["unavailable"]["drift"]


def test_few_rows_are_not_aggregated(tiny):
    tiny.declare(
        "SELECT * FROM (" + " ".join(re.sub(r";\s*$", "", open_sql(tiny)).split()) + ") WHERE order_id % 10 = 0"
    )
    tiny.declare(monitoring={}, decisions={"returned": "score >= 0.5"})
    tiny.run("2024-03-01", "2024-03-02")
    content, _ = report(tiny)
    assert {day["rows"] for day in content["days"]} == {5}
    assert content["decisions"][0]["values"] == [None, None]
    assert all(set(column["series"]) == {None} for column in content["columns"])


def open_sql(tiny):
    return (tiny.folder / "features.sql").read_text(encoding="utf-8")


@pytest.mark.slice
def test_two_versions_are_compared_on_the_rows_that_both_scored(reported):
    reported.shell("models", "promote", "returns", "v2", "--override", "a test")
    reported.shell("backfill", "orders", "--from", DAYS[20], "--to", DAYS[22], "--no-dagster", "--why", "a test")
    files = ("-o", str(reported.root / "c.html"), "--json", str(reported.root / "c.json"))
    printed = reported.shell("report", "orders", "--compare", "v1", "v2", *files)
    content = json.loads((reported.root / "c.json").read_text(encoding="utf-8"))
    assert content["schema"] == "pip_dagster.report.comparison/1"
    a, b = content["sides"]
    assert (a["partitions"], b["partitions"], b["live_partitions"]) == (24, 3, 3)
    (expected,) = reported.warehouse(
        "SELECT count(*), avg(b.score - a.score) FROM orders.scores a "
        "JOIN orders.scores b USING (partition_key, order_id) "
        "JOIN ledger.scorings x ON x.scoring_id = a.scoring_id JOIN ledger.scorings y ON y.scoring_id = b.scoring_id"
        " WHERE x.model_version = 1 AND y.model_version = 2"
    )
    paired = content["paired"]
    assert (paired["rows"], paired["mean_difference"]) == (expected[0], pytest.approx(expected[1], rel=1e-5))
    assert set(paired["flips"]) == {"returned"} and content["sentence"] in printed
    assert "The same rows by both" in (reported.root / "c.html").read_text(encoding="utf-8")
    nothing = reported.shell("report", "orders", "--compare", "v1", "v9", code=1)
    assert "'v9' has scored no partition" in nothing
    assert "compared with itself" in reported.shell("report", "orders", "--compare", "v1", "v1", code=1)


def test_the_command_imports_no_library_that_it_does_not_need(reported):
    """DuckDB imports pandas to bind a parameter: a third of the time of the report of a year."""
    code = """
        import sys
        from click.testing import CliRunner
        from pip_dagster.cli.main import cli
        found = CliRunner().invoke(cli, ["report", "orders", "-o", "report.html"])
        assert not found.exit_code, found.output
        assert not {"pandas", "xgboost", "great_expectations", "dagster"} & {*sys.modules}
    """
    process = reported.python(code)
    assert process.wait() == 0, process.stdout.read()
