"""Alarms over real runs: found by a run, listed, acknowledged, silenced with a date, and provable afterwards."""

import json
from datetime import UTC, datetime

import pytest

from pip_dagster.alerts.retrain import retrain
from pip_dagster.declaration.grid import closed_partitions
from pip_dagster.monitoring.watch import _started, watch_findings, watch_scored

from .conftest import DAYS, ENDED, RULES, backfilled
from .test_alarm_states import finding


def listed(tiny, *options):
    return json.loads(tiny.shell("alarms", "orders", "--json", *options))["alarms"]


@pytest.mark.slice
@pytest.mark.lake
def test_a_shift_is_an_alarm_for_a_user_without_dagster(watched):
    assert "No alarm is open" in watched.shell("alarms", "orders", "--check")
    backfilled(watched, DAYS[20])
    found = {each["subject"]: each for each in listed(watched)}
    assert found["amount"]["state"] == "alarm"
    mine = found["amount"]
    assert (mine["event"], mine["scope"], mine["since"], mine["quiet"]) == ("drift", "feature", DAYS[20], False)
    assert mine["value"] > mine["threshold"] in (0.05, 0.1) and mine["chance"] == 0.01 and mine["rows"] > 100
    assert mine["command"] == f"pip-dagster monitor orders {DAYS[20]}" and "%" in mine["cause"]
    watched.shell("alarms", "--check", code=1)
    published = watched.published("SELECT DISTINCT alarm_id, state FROM ledger.alarms WHERE subject = 'amount'")
    assert published == [(mine["alarm_id"], "alarm")]
    again = backfilled(watched, DAYS[20])
    assert len(listed(again)) == len(found) and {each["sequence"] for each in listed(again)} == {1}


def test_a_block_says_all_in_80_columns(alarmed):
    text = alarmed.shell("alarms", "orders")
    assert max(map(len, text.splitlines())) <= 80, text
    for words in ("ALARM", "feature amount", "since 2024-03-21", "threshold 0", "1 partition in 100", "likely cause"):
        assert words in text
    assert "  pip-dagster monitor orders 2024-03-22" in text
    (shown,) = [line for line in text.splitlines() if "feature amount" in line]
    assert shown.endswith("]") and shown[-11:-1] == listed(alarmed)[0]["alarm_id"] or "shop" in text


@pytest.mark.slice
def test_an_acknowledgement_is_audited_and_provable(alarmed):
    alarm = listed(alarmed)[0]
    assert "reason" in alarmed.shell("alarms", "ack", alarm["alarm_id"], "--why", " ", code=2)
    alarmed.shell("alarms", "ack", alarm["alarm_id"][:6], "--why", "the new shop; ada retrains")
    (found,) = [each for each in listed(alarmed) if each["alarm_id"] == alarm["alarm_id"]]
    assert found["state"] == "acknowledged" and found["acknowledged_why"] == "the new shop; ada retrains"
    assert "already" in alarmed.shell("alarms", "ack", alarm["alarm_id"], "--why", "again", code=1)
    assert "no alarm 'zz'" in alarmed.shell("alarms", "ack", "zz", "--why", "x", code=1)
    assert "acknowledged" in alarmed.shell("audit", "log", "--pipeline", "orders")
    alarmed.shell("audit", "verify")
    backfilled(alarmed, DAYS[22])
    (found,) = [each for each in listed(alarmed) if each["alarm_id"] == alarm["alarm_id"]]
    assert found["state"] == "acknowledged" and found["partition_key"] == DAYS[22] and found["acknowledged_by"]
    alarmed.tamper("UPDATE ledger.alarms SET reason = 'nothing to see' WHERE state = 'acknowledged' AND reason <> ''")
    assert "ledger.alarms" in alarmed.shell("audit", "verify", code=1)


@pytest.mark.slice
def test_a_silence_has_a_date_and_a_reason_and_ends_by_itself(alarmed):
    alarm = listed(alarmed)[0]
    alarmed.shell("alarms", "silence", alarm["alarm_id"], "--why", "known", code=2)
    beyond = [(day, "too late") for day in ("9999-12-31", "9999-12-31T23:59:59-12:00")]
    for wrong, words in (("2013-01-01", "has passed"), ("soon", "is not a date"), *beyond):
        assert words in alarmed.shell("alarms", "silence", alarm["alarm_id"], "--until", wrong, "--why", "x", code=1)
    said = alarmed.shell("alarms", "silence", alarm["alarm_id"], "--until", "2999-01-01", "--why", "a new shop")
    assert "unsilence" in said
    shown = alarmed.shell("alarms", "orders")
    assert "silent until 2999-01-02" in shown and "a new shop" in shown, "to the end of that day"
    alarmed.shell("alarms", "unsilence", alarm["alarm_id"], "--why", "fixed")
    assert "its silence by" in alarmed.shell("alarms", "orders")
    assert "no silence" in alarmed.shell("alarms", "unsilence", alarm["alarm_id"], "--why", "fixed", code=1)
    alarmed.shell("audit", "verify")
    alarmed.tamper("UPDATE ledger.silences SET until = until + INTERVAL 1 DAY WHERE until IS NOT NULL")
    assert "ledger.silences" in alarmed.shell("audit", "verify", code=1)


def test_a_rule_or_a_subject_is_silenced_for_the_whole_pipeline(alarmed):
    alarmed.shell("alarms", "silence", "--rule", "drift", "--until", "2999-01-01", "--why", "x", code=2)
    silence = ("alarms", "silence", "--pipeline", "orders", "--until", "2999-01-01", "--why", "sale\nNo alarm is open.")
    alarmed.shell(*silence, "--subject", "amount")
    shown = alarmed.shell("alarms", "orders", "--check", code=1)
    assert ": sale No alarm is open. [" in shown, "a reason looks like no line of the command"
    assert "'drfit' is not one of" in alarmed.shell(*silence, "--event", "drfit", code=2)
    alarmed.shell(*silence, "--event", "drift")
    alarmed.shell("alarms", "orders", "--check")
    assert all(each["silenced_until"] for each in listed(alarmed))
    assert "declares no pipeline" in alarmed.shell(*silence[:3], "nothing", *silence[4:], "--rule", "drift", code=1)


@pytest.mark.slice
def test_after_three_good_days_an_alarm_is_resolved_and_stays_in_the_history(alarmed):
    alarmed.source("UPDATE raw.orders SET amount = amount / 4 WHERE day >= '2024-03-21'")
    alarmed.source(
        "UPDATE raw.orders SET shop = ['Zürich', '東京', 'O''Hare \"B\"', 'plain'][1 + (order_id % 4)::INTEGER] "
        "WHERE day >= '2024-03-21'"
    )
    backfilled(alarmed, DAYS[20], DAYS[21])
    assert {each["state"] for each in listed(alarmed) if each["subject"] == "amount"} == {"alarm"}, "one good day"
    backfilled(alarmed, DAYS[22], DAYS[23])
    assert [each for each in listed(alarmed) if each["subject"] == "amount"] == []
    (found,) = [each for each in listed(alarmed, "--all") if each["subject"] == "amount"]
    assert found["state"] == "resolved" and [row["state"] for row in found["history"]][0] == "alarm"
    assert "resolved" in alarmed.shell("alarms", "orders", "--all")


@pytest.mark.slice
def test_a_backfill_of_the_past_and_a_correction_of_an_old_partition_rewrite_nothing(alarmed):
    backfilled(alarmed, DAYS[22], DAYS[23])
    before = alarmed.warehouse("SELECT * FROM ledger.alarms ORDER BY event_id")
    alarmed.source("UPDATE raw.orders SET amount = amount * 9 WHERE day < '2024-03-19'")
    backfilled(alarmed, DAYS[0], DAYS[17])
    assert alarmed.warehouse("SELECT * FROM ledger.alarms ORDER BY event_id") == before


@pytest.mark.slice
def test_what_a_backfill_of_the_past_finds_notifies_nobody(watched):
    watched.declare(monitoring=RULES, partitions={"end": "2024-06-01"})
    backfilled(watched, *DAYS[20:])
    assert listed(watched) and all(each["quiet"] for each in listed(watched))
    assert "catching up" in watched.shell("alarms", "orders")


@pytest.mark.slice
def test_a_rollback_changes_no_alarm_and_what_is_live_is_judged_next(alarmed):
    before, at = {each["alarm_id"]: each["state"] for each in listed(alarmed)}, datetime.now(UTC).isoformat()
    alarmed.source("UPDATE raw.orders SET quantity = 8 WHERE day = '2024-03-22'")
    backfilled(alarmed, DAYS[21])
    assert "1 partition rolled back" in alarmed.shell("models", "rollback", "orders", "--as-of", at, "--why", "x")
    assert {each["alarm_id"]: each["state"] for each in listed(alarmed)}.items() >= before.items()
    backfilled(alarmed, DAYS[22])
    after = {each["alarm_id"]: each["state"] for each in listed(alarmed)}
    assert before.items() <= after.items()


def test_a_partition_whose_process_was_killed_before_it_was_judged_is_judged_by_the_next(watched):
    watched.run(*DAYS[20:22])  # without what follows a run
    assert listed(watched) == []
    watch_scored(watched.pipeline(), None, [])
    assert {"amount", "shop"} <= {each["subject"] for each in listed(watched)}


def test_what_cannot_be_judged_or_stored_fails_no_run(watched, caplog):
    watched.tamper("UPDATE ledger.profiles SET counts = [1]")
    backfilled(watched, DAYS[20])
    assert "monitoring, drift" in caplog.text
    watched.tamper("DROP TABLE ledger.profiles", "DROP TABLE ledger.alarm_marks")
    watch_findings(watched.pipeline(), [finding("alarm", 21)])
    assert "not stored as alarms" in caplog.text and watched.published("FROM ledger.partitions")


def test_no_project_no_ledger_no_alarm(tiny):
    assert "No alarm is open" in tiny.shell("alarms")
    assert json.loads(tiny.shell("alarms", "--json")) == {"alarms": [], "not_live": [], "silences": []}
    assert "declares no pipeline" in tiny.shell("alarms", "other", code=1)


def test_many_warnings_are_one_block_and_what_lasts_is_no_alarm(alarmed):
    found = [finding("warning", 24, f"f{i}", rule="lasting") for i in range(30)]
    watch_findings(alarmed.pipeline(), [finding("alarm", 24), *found])
    text = alarmed.shell("alarms", "orders")
    assert text.count("WARNING") == 1 and "lasting: warning of 30 subjects since 2024-03-24" in " ".join(text.split())
    assert max(map(len, text.splitlines())) <= 80 and "30 warnings" in text
    assert alarmed.shell("alarms", "orders", "--all").count("WARNING") == 30
    alarmed.shell("alarms", "orders", "--check", code=1)


@pytest.mark.slice
def test_an_alarm_of_a_version_that_was_replaced_stays_says_so_and_retrains_nothing(alarmed):
    hook = {"command": ["false"]}
    alarmed.declare(monitoring={**RULES, "retrain": hook}, partitions=ENDED)
    alarmed.shell("models", "promote", "returns", "v2", "--override", "retrained")
    alarmed.run(DAYS[22])
    watch_scored(alarmed.pipeline(), None, [DAYS[22]])
    (first, *_) = listed(alarmed)
    assert first["state"] == "alarm" and first["outlived_by_version"] == 2
    assert "of v1; v2 scores since" in alarmed.shell("alarms", "orders")
    assert retrain(alarmed.pipeline()).said == [] == alarmed.warehouse("FROM ledger.retrains")


def test_partitions_are_in_the_order_of_time_where_the_clocks_repeat_an_hour(tiny):
    zone = {"every": "hour", "start": "2024-10-26T00:00", "end": "2024-10-29T00:00", "time_zone": "Europe/Berlin"}
    pipeline = tiny.declare(partitions=zone).pipeline()
    keys = [each.key for each in closed_partitions(pipeline.spec.partitions, datetime.now(UTC))]
    assert any("+" in key for key in keys)
    assert sorted({*keys}, key=lambda key: _started(pipeline, key)) == keys
    assert _started(pipeline, "2013-01-01") < _started(pipeline, keys[0]), "a key of a former grid comes first"


def test_an_acknowledgement_is_published(alarmed):
    alarm = listed(alarmed)[0]["alarm_id"]
    alarmed.shell("alarms", "ack", alarm, "--why", "seen")
    alarmed.shell("alarms", "silence", alarm, "--until", "2999-01-01", "--why", "so many words " * 9 + "\nline")
    shown = alarmed.shell("alarms", "orders", "--all")
    assert max(len(line) for line in shown.splitlines() if line.startswith(("  ", "A"))) <= 80 and "many words" in shown
    newest = f"SELECT state, reason FROM ledger.alarms WHERE alarm_id = '{alarm}' ORDER BY sequence DESC LIMIT 1"
    assert alarmed.published(newest) == [("acknowledged", "seen")]


@pytest.mark.slice
def test_what_nothing_judges_any_more_is_resolved_with_the_reason(alarmed):
    """Else it would hold for ever, and start retrainings."""
    watch_findings(
        alarmed.pipeline(), [finding("alarm", 22, "auc", "performance"), finding("alarm", 22, "n", "estimate")]
    )
    assert {each["event"] for each in listed(alarmed)} == {"drift"}, "of an event whose declaration is gone"
    rule = [finding("alarm", 22, "newest partition", "freshness", rule="late")]
    watch_findings(alarmed.pipeline(), rule)
    assert {each["event"] for each in listed(alarmed)} == {"drift", "freshness"}
    alarmed.declare(monitoring={"history": 14}, schedule=None, partitions=ENDED)
    alarmed.shell("alarms", "--deliver")
    assert {each["event"] for each in listed(alarmed)} == {"drift"}, "no longer late by any declaration"
    alarmed.declare(partitions=ENDED)
    backfilled(alarmed, DAYS[22])
    assert listed(alarmed) == [], "monitoring was turned off"
    causes = {each["cause"] for each in listed(alarmed, "--all") if each["event"] == "drift"}
    assert causes == {"monitoring is no longer declared"}
    alarmed.declare(monitoring=RULES, partitions=ENDED)
    backfilled(alarmed, DAYS[23])
    assert {each["since"] for each in listed(alarmed)} == {DAYS[23]}, "another alarm begins"


def test_a_rule_that_does_not_judge_the_present_version_resolves_its_alarms(alarmed):
    pipeline = alarmed.pipeline()
    watch_findings(pipeline, [finding("alarm", 22, "score", rule="former"), finding("ok", 22)])
    assert "former" in {each["rule"] for each in listed(alarmed)}
    watch_findings(pipeline, [finding("ok", 23)])
    assert "former" not in {each["rule"] for each in listed(alarmed)}


@pytest.mark.slice
def test_partitions_that_a_report_lists_as_alarms_are_in_alarm_here_too(tiny):
    tiny.run("2024-03-01")
    (tiny.folder / "e.yaml").write_text(
        "features:\n- type: expect_column_values_to_be_in_set\n  kwargs: {column: shop, value_set: [none]}\n"
    )
    tiny.declare(quality="e.yaml")
    tiny.run("2024-03-01", "2024-03-03", "2024-03-02")
    shown = tiny.shell("alarms", "orders", "--check", code=1)
    assert "BLOCKED  orders: partition 2024-03-03 is not live" in shown and "2024-03-01 is" not in shown
    assert "In alarm: 2 partitions blocked or failed." in shown and "pip-dagster lineage orders 2024-03-02" in shown
    tiny.shell("report", "orders", "-o", str(tiny.root / "r.html"), "--json", str(tiny.root / "r.json"))
    reported = json.loads((tiny.root / "r.json").read_text())["alarms"]
    found = json.loads(tiny.shell("alarms", "--json"))["not_live"]
    assert [(each["partition_key"], each["status"]) for each in found] == [
        (each["subject"], each["event"]) for each in reported if each["rule"] == "attempt"
    ]
    tiny.declare()
    tiny.run("2024-03-03", "2024-03-02")
    assert "No alarm is open." in tiny.shell("alarms", "--check")


def test_the_alarms_of_a_pipeline_that_is_not_declared_any_longer_fail_no_check(alarmed):
    alarmed.shell("alarms", "--check", code=1)
    (alarmed.folder / "defs.yaml").unlink()
    assert "orders is not declared any longer" in " ".join(alarmed.shell("alarms", "--check").split())
