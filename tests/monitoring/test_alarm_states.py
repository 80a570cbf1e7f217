"""The states of alarms, for any sequence of findings: replayed from what is stored, once, and only forward."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from types import SimpleNamespace

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pip_dagster.alerts.alarm_text import gathered
from pip_dagster.alerts.alert import Alert
from pip_dagster.alerts.paging import Standing, due, incidents
from pip_dagster.declaration.key_order import start_of
from pip_dagster.declaration.spec import Partitions
from pip_dagster.ledger.alarm_deliveries import Delivery
from pip_dagster.ledger.alarms import marks_of
from pip_dagster.monitoring.drift import ColumnDrift, PartitionDrift, WindowDrift
from pip_dagster.monitoring.drift_findings import findings_of
from pip_dagster.monitoring.finding import Finding
from pip_dagster.monitoring.states import Judging, KnownAlarms, advance

SUBJECTS = ("score", "amount", "shop")
EVENTS = ("drift", "performance", "freshness")
NOON = datetime(2024, 3, 5, 12, tzinfo=UTC)


def day(number):
    return f"2024-03-{number:02}"


def finding(state, number, subject="amount", event="drift", **changed):
    found = Finding(
        *(event, "drift", subject, day(number), f"s{number}", 1, state, 0.3, 0.1, 0.01, 500),
        *("Zürich: 10% to 40%", f"pip-dagster monitor orders {day(number)}", "feature", 0.05),
    )
    return replace(found, **changed)


def judging(quiet=False, pipeline="orders"):
    return Judging(pipeline, "a test", lambda key: key, quiet)


class Ledger:
    """The rows as they are stored, one call after the other; deliveries too."""

    def __init__(self):
        self.rows, self.marks, self.sent = [], {}, []

    @property
    def known(self):
        newest = {}
        for row in self.rows:
            newest[row.alarm_id] = max(newest.get(row.alarm_id, row), row, key=lambda each: each.sequence)
        return KnownAlarms((*newest.values(),), dict(self.marks))

    def judge(self, *findings, **options):
        change = advance(self.known, findings, judging(**options))
        self.rows += change.entries
        self.marks |= change.marks
        return [each.state for each in change.entries]

    def deliver(self, now=NOON, digest_at=None, silences=(), *, events=EVENTS, kill=False):
        found = due(Standing(incidents(self.rows), silences, self.sent), events, now, digest_at)
        for message in found if not kill else []:
            self.sent += [
                Delivery("orders", each.alarm_id, each.sequence, message.kind, "webhook", now)
                for each in message.alarms
            ]
        return [(each.kind, each.event, [alarm.subject for alarm in each.alarms]) for each in found]


def states(ledger):
    return {(each.event, each.subject): each.state for each in ledger.known.alarms}


def test_an_alarm_is_resolved_after_three_good_windows_and_not_before():
    ledger = Ledger()
    assert ledger.judge(finding("ok", 1)) == []
    assert ledger.judge(finding("alarm", 2)) == ["alarm"]
    assert ledger.judge(finding("ok", 3)) == ["alarm"]
    assert ledger.judge(finding("alarm", 4)) == ["alarm"], "and the count begins again"
    assert [*ledger.judge(finding("ok", 5)), *ledger.judge(finding("ok", 6))] == ["alarm", "alarm"]
    assert ledger.judge(finding("ok", 7)) == ["resolved"]
    assert len({row.alarm_id for row in ledger.rows}) == 1 and ledger.rows[-1].since == day(2)
    assert ledger.judge(finding("alarm", 8)) == ["alarm"] and ledger.rows[-1].sequence == 1, "another alarm"


def test_what_cannot_be_judged_neither_raises_nor_resolves():
    ledger = Ledger()
    ledger.judge(finding("alarm", 1), finding("ok", 1, "shop"))
    for number in range(2, 9):
        assert ledger.judge(finding("unjudged", number), finding("ok", number, "shop")) == []
    assert states(ledger) == {("drift", "amount"): "alarm"}
    ledger = Ledger()
    ledger.judge(finding("alarm", 1))
    assert ledger.judge(finding("unjudged", 2)) == [] and ledger.marks == {("drift", "drift"): day(1)}


def test_the_same_partition_judged_again_changes_nothing():
    ledger = Ledger()
    ledger.judge(finding("alarm", 1))
    assert ledger.judge(finding("alarm", 1)) == []
    assert ledger.judge(finding("alarm", 1, value=0.31)) == [], "a figure alone is no news"
    for _ in range(5):
        ledger.judge(finding("ok", 1))
    assert states(ledger) == {("drift", "amount"): "alarm"}, "a partition counts once"
    assert ledger.judge(finding("alarm", 1, scoring_id="rerun")) == ["alarm"], "corrected, and still bad"


def test_an_older_partition_raises_and_resolves_nothing():
    ledger = Ledger()
    ledger.judge(finding("ok", 20))
    assert ledger.judge(*(finding("alarm", number) for number in range(1, 15))) == []
    ledger.judge(finding("alarm", 21))
    before = [*ledger.rows]
    assert ledger.judge(*(finding("ok", number) for number in range(1, 21))) == [] and ledger.rows == before


def test_a_subject_that_is_gone_is_resolved_and_another_one_is_not_touched():
    ledger = Ledger()
    ledger.judge(finding("alarm", 1), finding("alarm", 1, "shop"))
    for number in (2, 3, 4):
        ledger.judge(finding("alarm", number, "shop"))
    assert states(ledger) == {("drift", "amount"): "resolved", ("drift", "shop"): "alarm"}


def test_a_partition_that_has_arrived_is_no_longer_late():
    ledger = Ledger()
    ledger.judge(finding("alarm", 1, "newest partition", "freshness"), quiet=True)
    assert ledger.rows[-1].quiet is False, "a pipeline that is behind is what freshness is about"
    assert ledger.judge(finding("ok", 1, "newest partition", "freshness")) == ["resolved"]


@pytest.mark.parametrize("event", ["freshness", "delivery", "labels"])
def test_what_is_there_now_is_judged_although_its_newest_partition_is_an_older_one(event):
    """Such as after the end of the grid was declared, or the newest partition was withdrawn."""
    ledger = Ledger()
    ledger.judge(finding("alarm", 9, "a", event))
    assert ledger.judge(finding("ok", 8, "a", event)) == ["resolved"]
    assert ledger.judge(finding("alarm", 7, "a", event)) == ["alarm"]
    assert ledger.judge(finding("alarm", 7, "a", event)) == [], "the same again"
    assert set(ledger.marks.values()) == {day(9)}, "marks go forward"


def test_labels_that_were_read_are_no_longer_overdue():
    ledger = Ledger()
    ledger.judge(finding("warning", 1, "labels", "labels"))
    assert ledger.judge(finding("ok", 1, "labels", "labels")) == ["resolved"]


def test_two_pipelines_and_two_events_do_not_meet():
    one = advance(KnownAlarms(), [finding("alarm", 1)], judging())
    other = advance(KnownAlarms(), [finding("alarm", 1)], judging(pipeline="refunds"))
    assert one.entries[0].alarm_id != other.entries[0].alarm_id
    ledger = Ledger()
    ledger.judge(finding("alarm", 1), finding("alarm", 1, event="performance"))
    for number in (2, 3, 4):
        ledger.judge(finding("ok", number))
    assert states(ledger) == {("drift", "amount"): "resolved", ("performance", "amount"): "alarm"}


def test_a_rule_that_waits_for_labels_is_weeks_behind_another_one_of_its_event():
    ledger = Ledger()
    for number in range(20, 24):
        assert ledger.judge(
            finding("ok", number, "labels", "performance", rule="labels"),
            finding("alarm", number - 19, "auc", "performance", rule="trailing"),
        ) == ["alarm"]
    assert states(ledger) == {("performance", "auc"): "alarm"}


def test_an_acknowledged_warning_that_becomes_an_alarm_is_sent():
    ledger = Ledger()
    ledger.judge(finding("warning", 1))
    assert ledger.deliver() == []
    ledger.rows.append(replace(ledger.rows[-1], sequence=2, state="acknowledged", reason="seen", event_id="z"))
    assert ledger.judge(finding("warning", 2)) == ["acknowledged"]
    assert ledger.judge(finding("alarm", 3)) == ["alarm"]
    assert ledger.deliver() == [("page", "drift", ["amount"])]


def test_what_a_backfill_of_the_past_finds_is_sent_once_it_is_confirmed():
    ledger = Ledger()
    ledger.judge(finding("alarm", 1), quiet=True)
    assert ledger.deliver() == [] and states(ledger) == {("drift", "amount"): "alarm"}
    ledger.judge(finding("alarm", 2))
    assert ledger.deliver() == [("page", "drift", ["amount"])]


WORDS = st.sampled_from(["ok", "warning", "alarm", "unjudged"])
RULES = st.sampled_from(["drift", "lasting"])
FINDINGS = st.builds(finding, WORDS, st.integers(1, 12), st.sampled_from(SUBJECTS), st.sampled_from(EVENTS), rule=RULES)
STEPS = st.lists(st.tuples(st.lists(FINDINGS, max_size=6), st.booleans(), st.booleans()), max_size=25)


@settings(max_examples=60, deadline=None)
@given(STEPS)
def test_any_sequence_replays_and_nobody_is_paged_twice_and_nothing_is_lost(steps):
    ledger, pages = Ledger(), []
    for i, (findings, quiet, kill) in enumerate(steps):
        ledger.judge(*findings, quiet=quiet)
        assert ledger.judge(*findings, quiet=quiet) == [], "the same run again"
        for kind, _, subjects in ledger.deliver(NOON + timedelta(minutes=i), kill=kill):
            pages += [(kind, subject) for subject in subjects] if not kill else []
    rows = ledger.rows
    for alarm_id in {row.alarm_id for row in rows}:
        mine = sorted((row for row in rows if row.alarm_id == alarm_id), key=lambda row: row.sequence)
        assert [row.sequence for row in mine] == [*range(1, len(mine) + 1)], "a history without gaps"
        assert all(row.state != "resolved" for row in mine[:-1]), "nothing follows its end"
    opened = [(row.event, row.rule, row.subject) for row in ledger.known.alarms if row.is_open]
    assert len(opened) == len(set(opened)), "one open alarm for a subject"
    sent = [(each.alarm_id, each.kind) for each in ledger.sent]
    assert len(sent) == len(set(sent)), "nothing twice"
    ledger.deliver(NOON + timedelta(days=1))
    paged = {each.alarm_id for each in ledger.sent if each.kind == "page"}
    lost = [row for row in ledger.known.alarms if row.state == "alarm" and not row.quiet and row.alarm_id not in paged]
    assert lost == [], "what a kill left is sent by the next call"


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(FINDINGS, max_size=6), max_size=8))
def test_what_was_judged_together_or_one_after_the_other_in_order_is_the_same(batches):
    """A run of many partitions and a run for each of them end in the same states."""
    findings = [each for batch in batches for each in batch]
    findings = [*{(each.event, each.rule, each.subject, each.partition_key): each for each in findings}.values()]
    together, single = Ledger(), Ledger()
    together.judge(*findings)
    for key in sorted({each.partition_key for each in findings}):
        single.judge(*(each for each in findings if each.partition_key == key))

    def seen(ledger):
        alarms = ledger.known.alarms
        return sorted((each.event, each.rule, each.subject, each.since, each.state, each.good) for each in alarms)

    assert seen(together) == seen(single) and together.marks == single.marks


@pytest.mark.parametrize("state", ["ok", "unjudged"])
def test_without_an_alarm_nothing_is_stored(state):
    ledger = Ledger()
    ledger.judge(finding(state, 1))
    assert ledger.rows == [] and ledger.deliver() == []


def test_marks_only_go_forward_whatever_a_clock_says():
    with duckdb.connect() as con:
        con.execute("CREATE SCHEMA ledger")
        con.execute(
            "CREATE TABLE ledger.alarm_marks (pipeline VARCHAR, event VARCHAR, rule VARCHAR, partition_key VARCHAR, "
            "made_at TIMESTAMPTZ)"
        )
        con.execute(
            "INSERT INTO ledger.alarm_marks VALUES "
            "('orders', 'drift', 'drift', '2024-03-20', '2024-03-21 06:00:00+00'), "
            "('orders', 'drift', 'drift', '2024-03-21', '2024-03-20 06:00:00+00')"
        )
        assert marks_of(con, "orders", datetime.fromisoformat) == {("drift", "drift"): "2024-03-21"}
        for before, after in (("2024-03-20", "2024-10-27-02:55"), ("2024-03-21", "2024-10-27-02:00+0100")):
            con.execute(f"UPDATE ledger.alarm_marks SET partition_key = '{after}' WHERE partition_key = '{before}'")
        grid = Partitions(every="5 minutes", start="2024-10-27", time_zone="Europe/Berlin")
        found = marks_of(con, "orders", partial(start_of, grid))
        assert found == {("drift", "drift"): "2024-10-27-02:00+0100"}, "its text is before that of 02:55"


def test_an_alert_lists_the_newest_partitions_in_the_order_that_it_is_given():
    keys = [f"2024-10-27-02:{minute:02}" for minute in range(0, 60, 5)]
    keys += [f"{key}+0100" for key in keys]
    listed = json.loads(Alert("partition_blocked", "orders", "many", dict.fromkeys(keys, "why")).payload())
    assert [each["partition"] for each in listed["partitions"]] == keys[-20:]


def test_warnings_of_one_rule_are_one_group_and_alarms_are_alone():
    listed = [finding(state, 1, subject) for state, subject in zip(("alarm", *["warning"] * 3), "abcd", strict=True)]

    def alike(each):
        return each.state if each.state == "warning" else None

    assert [[each.subject for each in group] for group in gathered(listed, alike)] == [["a"], ["b", "c", "d"]]
    assert [len(group) for group in gathered(listed, alike, least=4)] == [1, 1, 1, 1]


def column(segment, *windows):
    listed = tuple(WindowDrift(each, "previous", 50, 0.1, 0.1, 0.1, 0.5, None, 0.0, 0.0) for each in windows)
    return ColumnDrift("score", "score", segment, "JFK", None, "unjudged", None, None, 0.1, listed, "", 0.0, 0.0)


def test_a_segment_value_that_no_longer_occurs_is_not_judged():
    pipeline = SimpleNamespace(spec=SimpleNamespace(name="orders", monitoring=None))
    columns = (column(None, 28), column("origin", 28), column("airport", 7, 28))
    found = findings_of(pipeline, PartitionDrift(day(20), "s20", 50, 14, None, columns))
    assert {each.subject for each in found} == {"score", "score where airport = JFK"}
