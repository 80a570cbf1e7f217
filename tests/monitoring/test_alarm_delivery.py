"""Alarms reach a real web server: at once or with the digest, in order, once, and again after a kill or a silence."""

import json
import shutil
import sys
from dataclasses import replace
from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo

import dagster as dg
import pytest
from pydantic import ValidationError

from pip_dagster.alerts.notify import notify
from pip_dagster.alerts.paging import digest_time
from pip_dagster.declaration.automation import Alerts
from pip_dagster.ledger.silences import Silence, Silenced
from pip_dagster.monitoring.watch import BY_CLOCK, watch_findings

from .conftest import DAYS, ENDED, RULES, backfilled
from .test_alarm_states import NOON, Ledger, day, finding

ALERTS = {"webhook": {"env": "ALERT_URL"}, "timeout": 2, "attempts": 1}
NOW = datetime.now(UTC)


def declared(tiny, **monitoring):
    return tiny.declare(monitoring={**RULES, **monitoring}, partitions=ENDED, alerts=ALERTS)


def alarm_ids(tiny, kind="page"):
    return {row[0] for row in tiny.warehouse(f"SELECT alarm_id FROM ledger.alarm_deliveries WHERE kind = '{kind}'")}


# One cause, one message; the most important first.


def test_several_features_of_one_window_are_one_message_ordered_by_gain_and_size(alarmed, room):
    declared(alarmed)
    out = alarmed.shell("alarms", "--deliver")
    (said,) = room.read()
    assert said["kind"] == "drift" and said["title"].startswith("orders: drift in alarm: ")
    listed = said["alarms"]
    assert len(listed) == said["alarm_count"] >= 2 and f"Sent: {said['title']}" in out
    features = [each for each in listed if each["scope"] == "feature"]
    assert [each["weight"] for each in features] == sorted((each["weight"] for each in features), reverse=True)
    scopes = [each["scope"] for each in listed]
    assert scopes == sorted(scopes, key=lambda scope: scope == "feature"), "scores come first"
    wanted = {
        *("alarm_id", "event", "rule", "subject", "state", "since", "partition_key", "scoring_id", "value"),
        *("threshold", "chance", "rows", "cause", "command", "severity", "partitions", "sequence", "made_at"),
    }
    assert wanted <= listed[0].keys()
    first = listed[0]
    for words in (f"since {first['since']}", "threshold", "1 partition in 100", "next: pip-dagster monitor orders"):
        assert words in said["text"]
    assert alarm_ids(alarmed) == {each["alarm_id"] for each in listed}
    alarmed.shell("alarms", "--deliver")
    assert room.read() == [], "nobody is paged twice"


def test_the_order_of_events_and_what_waits_for_the_digest():
    ledger = Ledger()
    ledger.judge(
        *(finding("alarm", 1, subject, event) for subject, event in (("amount", "drift"), ("auc", "performance"))),
        finding("alarm", 1, "score", scope="score"),
        finding("alarm", 1, "brier", "estimate", scope=""),
        finding("alarm", 1, "newest partition", "freshness", scope=""),
        finding("alarm", 1, "note", weight=0.0),
        finding("warning", 1, "gift"),
        finding("warning", 1, "rows", "operations", scope=""),
    )
    events = ("drift", "performance", "estimate", "freshness", "operations")
    assert ledger.deliver(events=events) == [
        ("page", "freshness", ["newest partition"]),
        ("page", "drift", ["score", "amount"]),
        ("page", "performance", ["auc"]),
        ("page", "estimate", ["brier"]),
    ]
    tomorrow = max(row.made_at for row in ledger.rows) + timedelta(days=1)
    (digest,) = ledger.deliver(tomorrow, digest_at=tomorrow, events=events)
    assert (digest[0], set(digest[2])) == ("digest", {"note", "gift", "rows"})
    assert ledger.deliver(tomorrow, digest_at=tomorrow, events=events) == [], "without news there is no digest"
    only = Ledger()
    only.judge(finding("alarm", 1), finding("alarm", 1, "auc", "performance"))
    assert only.deliver(events=("performance",)) == [("page", "performance", ["auc"])], "by alerts.events"


def test_a_feature_without_gain_never_pages_anybody():
    ledger = Ledger()
    for number in range(1, 20):
        ledger.judge(finding("alarm", number, weight=0.0), finding("warning", number, "gift"))
        assert ledger.deliver() == []


def test_forty_features_a_day_for_a_month_are_two_messages():
    """Attention ends at 30 to 50 messages a week."""
    ledger, messages = Ledger(), 0
    for number in range(1, 31):
        ledger.judge(*(finding("alarm" if number > 3 else "ok", number, f"f{i}") for i in range(40)))
        at = max((row.made_at for row in ledger.rows), default=NOON) + timedelta(hours=1)
        messages += len(ledger.deliver(at, digest_at=at))
    assert messages == 1
    for number in range(31, 34):
        ledger.judge(*(finding("ok", number, f"f{i}") for i in range(40)))
    assert [kind for kind, *_ in ledger.deliver()] == ["resolved"]


def test_a_figure_at_its_threshold_does_not_notify_each_day():
    ledger, messages = Ledger(), []
    for number in range(1, 29):
        ledger.judge(finding("alarm" if number % 2 else "ok", number))
        messages += ledger.deliver()
    assert messages == [("page", "drift", ["amount"])]


def test_the_digest_comes_at_its_time_in_the_pipelines_zone_and_once():
    zone = ZoneInfo("Europe/Berlin")
    at = datetime(2024, 3, 31, 5, 59, tzinfo=UTC)  # 07:59 there; the clocks went forward that night
    assert digest_time(time(8), zone, at) == datetime(2024, 3, 30, 7, 0, tzinfo=UTC)
    assert digest_time(time(8), zone, at + timedelta(minutes=1)) == datetime(2024, 3, 31, 6, 0, tzinfo=UTC)
    assert digest_time(time(2, 30), zone, at) is not None, "an hour that this night does not have"
    assert digest_time(None, zone, at) is None
    ledger = Ledger()
    ledger.judge(finding("warning", 1))
    made = ledger.rows[0].made_at
    assert ledger.deliver(made, digest_at=made - timedelta(minutes=1)) == [], "it came after today's digest"
    (digest,) = ledger.deliver(made + timedelta(days=2), digest_at=made + timedelta(days=1))
    assert digest == ("digest", None, ["amount"]), "late, because nobody was there to send it"
    for number in (2, 3, 4):
        ledger.judge(finding("ok", number))
    late = ledger.rows[-1].made_at + timedelta(days=3)
    assert ledger.deliver(late, digest_at=late) == [("digest", None, ["amount"])], "that it is resolved"
    assert ledger.deliver(late, digest_at=late) == []


@pytest.mark.parametrize(
    ("text", "wanted"),
    [("08:00", time(8)), (630, time(10, 30)), (False, None), ("off", None), (None, None)],
)
def test_how_the_time_of_the_digest_may_be_written(text, wanted):
    assert Alerts.model_validate({"command": ["true"], "digest": text}).digest == wanted


@pytest.mark.parametrize("text", ["8 o'clock", "25:00", 5000, "08:00+02:00", True])
def test_a_time_that_is_none_is_refused(text):
    with pytest.raises(ValidationError):
        Alerts.model_validate({"command": ["true"], "digest": text})


# Silence, acknowledgement, resolution.


def silenced(alarm, end, made_at=NOON, **about):
    mine = about or {"alarm_id": alarm.alarm_id}
    silence = Silence(pipeline="orders", until=end, reason="known", made_by="ada", made_at=made_at, **mine)
    return [Silenced(silence, end)]


def test_a_silence_holds_until_its_end_and_then_what_still_holds_is_sent():
    ledger = Ledger()
    ledger.judge(finding("alarm", 1), finding("alarm", 1, "auc", "performance"))
    (alarm, _), end = ledger.rows, NOON + timedelta(days=7)
    silences = silenced(alarm, end)
    assert ledger.deliver(NOON, silences=silences) == [("page", "performance", ["auc"])]
    ledger.judge(finding("alarm", 2))
    assert ledger.deliver(end - timedelta(seconds=1), silences=silences) == []
    assert ledger.deliver(end, silences=silences) == [("page", "drift", ["amount"])]
    assert ledger.deliver(end + timedelta(days=1), silences=silences) == [], "once"


def test_a_silence_and_its_end_count_at_once_whatever_the_clock_that_recorded_them():
    ledger = Ledger()
    ledger.judge(finding("alarm", 1))
    alarm, end, ahead = ledger.rows[0], NOON + timedelta(days=7), NOON + timedelta(hours=1)
    (on,) = silenced(alarm, end, made_at=ahead)
    assert ledger.deliver(NOON, silences=[on]) == []
    assert ledger.deliver(NOON, silences=[Silenced(on.silence, ahead, ended=True)]) == [("page", "drift", ["amount"])]


def test_an_alarm_that_was_sent_is_sent_again_when_its_silence_ends():
    ledger = Ledger()
    ledger.judge(finding("alarm", 1))
    ledger.deliver(NOON)
    later = NOON + timedelta(days=1)
    silences = silenced(ledger.rows[0], later, event="drift", made_at=NOON + timedelta(hours=1))
    assert ledger.deliver(later - timedelta(minutes=1), silences=silences) == []
    assert ledger.deliver(later, silences=silences) == [("page", "drift", ["amount"])]


def test_what_ends_during_a_silence_is_not_paged_afterwards():
    ledger = Ledger()
    ledger.judge(finding("alarm", 1))
    silences = silenced(ledger.rows[0], NOON + timedelta(days=9))
    for number in (2, 3, 4):
        ledger.judge(finding("ok", number))
    assert ledger.deliver(NOON + timedelta(days=10), silences=silences) == []


def test_an_acknowledged_alarm_is_quiet_and_its_end_is_sent():
    ledger = Ledger()
    ledger.judge(finding("alarm", 1))
    ledger.deliver()
    row = ledger.rows[-1]
    ledger.rows.append(replace(row, sequence=2, state="acknowledged", reason="seen", event_id="z"))
    ledger.judge(finding("alarm", 2))
    assert ledger.deliver() == []
    for number in (3, 4, 5):
        ledger.judge(finding("ok", number))
    assert ledger.deliver() == [("resolved", "drift", ["amount"])] and ledger.deliver() == []


# Failure, kills, several destinations, Dagster.


def test_what_was_not_delivered_is_sent_by_the_next_call(alarmed, room):
    declared(alarmed)
    room.status = 500
    assert "It is sent again" in alarmed.shell("alarms", "--deliver", code=1)
    assert room.read() and alarm_ids(alarmed) == set()
    room.status = 200
    alarmed.shell("alarms", "--deliver")
    assert len(room.read()) == 1 and alarm_ids(alarmed)


def test_a_pipeline_that_cannot_be_loaded_keeps_no_other_from_being_sent(alarmed, room):
    declared(alarmed)
    broken = alarmed.folder.with_name("another")  # is before it, in order
    shutil.copytree(alarmed.folder, broken)
    text = (broken / "defs.yaml").read_text()
    (broken / "defs.yaml").write_text(text.replace("name: orders", "name: another").replace("features.sql", "no.sql"))
    assert "no.sql" in alarmed.shell("alarms", "--deliver", code=1)
    assert len(room.read()) == 1


@pytest.mark.slice
def test_a_destination_that_fails_does_not_repeat_the_message_at_the_other(alarmed, room, tmp_path):
    command = [sys.executable, "-c", f"open({str(tmp_path / 'got')!r}, 'x')"]
    alarmed.declare(monitoring=RULES, partitions=ENDED, alerts=ALERTS | {"command": command})
    (tmp_path / "got").touch()
    for _ in range(3):
        alarmed.shell("alarms", "--deliver", code=1)
    assert len(room.read()) == 1, "the command failed, and the web server was sent it once"
    (tmp_path / "got").unlink()
    alarmed.shell("alarms", "--deliver")
    assert (tmp_path / "got").exists() and room.read() == []


def test_a_destination_that_hangs_does_not_keep_the_other_from_its_messages(alarmed, room, tmp_path, monkeypatch):
    monkeypatch.setattr("pip_dagster.alerts.notify._BEGIN_WITHIN", 0.0)
    command = [sys.executable, "-c", f"open({str(tmp_path / 'got')!r}, 'w')"]
    alarmed.declare(monitoring={"history": 14}, partitions=ENDED, alerts=ALERTS | {"command": command})
    room.status = 500
    alarmed.shell("alarms", "--deliver", code=1)
    assert (tmp_path / "got").exists() and len(room.read()) == 1


@pytest.mark.slice
def test_what_time_alone_changes_is_judged_by_each_tick(watched, room, monkeypatch):
    late = finding("alarm", 24, "newest partition", "freshness", scoring_id=None, scope="", rule="late")
    monkeypatch.setitem(BY_CLOCK, "freshness", lambda con, pipeline: [late])
    monkeypatch.setitem(BY_CLOCK, "operations", lambda con, pipeline: 1 / 0)
    declared(watched)
    with dg.DagsterInstance.ephemeral() as instance:
        _, found = tick(watched, instance)
        assert "Sent: orders: freshness in alarm: newest partition" in found.skip_message
        tick(watched, instance)
        monkeypatch.setitem(BY_CLOCK, "freshness", lambda con, pipeline: [replace(late, state="ok")])
        tick(watched, instance)
    assert [each["title"].split(":")[1].strip() for each in room.read()] == ["freshness in alarm", "freshness resolved"]


KILLED = """
import os, signal, sys
from pip_dagster.alerts import notify
from pip_dagster.cli.main import main
notify._record = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
sys.argv = ["pip-dagster", "alarms", "--deliver"]
main()
"""


@pytest.mark.slice
@pytest.mark.slow
def test_killed_between_sending_and_recording_it_is_sent_again(alarmed, room):
    declared(alarmed)
    process = alarmed.python(KILLED)
    process.communicate()
    assert process.returncode < 0 and len(room.read()) == 1 and alarm_ids(alarmed) == set()
    alarmed.shell("alarms", "--deliver")
    assert len(room.read()) == 1 and alarm_ids(alarmed), "at least once"
    alarmed.shell("alarms", "--deliver")
    assert room.read() == []


def tick(tiny, instance, cursor=None):
    from pip_dagster.orchestration.definitions import build_definitions

    (sensor,) = [each for each in build_definitions(tiny.pipeline()).sensors if each.name == "orders_alarms"]
    context = dg.build_sensor_context(instance=instance, cursor=cursor)
    found = sensor.evaluate_tick(context)
    return sensor, found


def test_the_sensor_sends_the_same_and_judges_what_a_killed_run_left(watched, room):
    declared(watched)
    watched.run(*DAYS[20:22])  # scored, and its process was killed before it judged
    with dg.DagsterInstance.ephemeral() as instance:
        sensor, first = tick(watched, instance)
        assert sensor.default_status == dg.DefaultSensorStatus.RUNNING
        assert "Sent: orders: drift in alarm" in first.skip_message and len(room.read()) == 1
        _, second = tick(watched, instance, first.cursor)
        assert second.skip_message == "Nothing new." and room.read() == []
    assert {row[0] for row in watched.warehouse("SELECT state FROM ledger.alarm_states")} == {"alarm"}


def test_a_tick_while_the_warehouse_is_locked_leaves_the_partition_to_the_next(watched, room, monkeypatch):
    from pip_dagster.errors import WarehouseLockedError
    from pip_dagster.monitoring import watch

    def locked(*_):
        raise WarehouseLockedError("another process writes")

    declared(watched)
    watched.run(*DAYS[20:22])
    with dg.DagsterInstance.ephemeral() as instance, monkeypatch.context() as patch:
        patch.setitem(watch.COLLECTORS, "drift", locked)
        _, first = tick(watched, instance)
        assert "Not judged: drift: another process writes" in first.skip_message and not first.cursor
        patch.undo()
        tick(watched, instance, first.cursor)
    assert len(room.read()) == 1


def test_a_run_in_dagster_stores_the_same_alarms_as_the_command(watched):
    from pip_dagster.orchestration.definitions import build_definitions

    tags = {"dagster/asset_partition_range_start": DAYS[20], "dagster/asset_partition_range_end": DAYS[21]}
    job = build_definitions(watched.pipeline()).resolve_job_def("orders_job")
    with dg.DagsterInstance.ephemeral() as instance:
        assert job.execute_in_process(instance=instance, tags=tags).success
    found = watched.warehouse("SELECT subject, state, since FROM ledger.alarm_states ORDER BY 1")
    assert ("amount", "alarm", DAYS[20]) in found and found


def test_resolved_is_delivered(alarmed, room):
    declared(alarmed)
    alarmed.shell("alarms", "--deliver")
    sent = {each["alarm_id"] for each in room.read()[0]["alarms"]}
    pipeline = alarmed.pipeline()
    for number in (22, 23, 24):
        watch_findings(pipeline, [finding("ok", number, "amount")])
    assert notify(pipeline).sent
    (said,) = room.read()
    assert "resolved" in said["title"] and {each["state"] for each in said["alarms"]} == {"resolved"}
    assert {each["alarm_id"] for each in said["alarms"]} <= sent and "good since 2024-03-22" in said["text"]


def test_a_project_without_alerts_sends_nothing_and_says_nothing(alarmed, room):
    alarmed.shell("alarms", "--deliver")
    assert room.read() == [] and alarm_ids(alarmed) == set()


def test_an_alarm_of_a_partition_that_was_never_scored_is_published(watched):
    watch_findings(watched.pipeline(), [finding("alarm", 24, "newest partition", "freshness", scoring_id=None)])
    assert watched.published("SELECT subject FROM ledger.alarms") == [("newest partition",)]
    assert json.loads(watched.shell("alarms", "--json"))["alarms"][0]["scoring_id"] is None
    assert backfilled(watched, DAYS[23]).published(f"SELECT count(*) FROM ledger.alarms WHERE since = '{day(24)}'")
