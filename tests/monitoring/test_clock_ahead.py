"""A clock that was far ahead wrote records of the future: what waits for a time goes on, and nothing is repeated."""

from __future__ import annotations

from datetime import timedelta

import pytest

from pip_dagster import clock
from pip_dagster.alerts.retrain import may_start
from pip_dagster.declaration.reruns import Reruns
from pip_dagster.declaration.retrain import Retrain
from pip_dagster.ledger.retrains import insert_retrains, retrains_of
from pip_dagster.warehouse.access import writing
from pip_dagster.warehouse.connect import workspace

from .conftest import ENDED, RULES
from .test_alarm_delivery import ALERTS
from .test_alarm_states import Ledger, finding
from .test_retrain import NOW, entry

YEAR = timedelta(days=365)
HOURS = -365 * 24  # ago


@pytest.fixture
def ahead(monkeypatch):
    """Set this machine's clock a year ahead, and back."""
    real = clock.wall
    monkeypatch.setattr(clock, "_latest", clock._latest)  # put back after the test

    def set_(by):
        monkeypatch.setattr(clock, "wall", lambda: real() + by)

    return set_


def test_the_cool_down_is_counted_from_the_last_retraining_that_has_a_time():
    declared, reruns = Retrain(command=("x",), cool_down="2 days", attempts=9), Reruns()
    ledger = Ledger()
    ledger.judge(finding("alarm", 1))
    mine = [ledger.rows[0].alarm_id]

    def started(*earlier):
        return may_start(declared, reruns, ledger.rows, [*earlier], NOW)

    future = entry("succeeded", HOURS, mine)
    assert started(future) == 2
    assert "cooling down" in started(future, entry("succeeded", 1, mine, 1))
    assert "cooling down" in started(entry("succeeded", 1, mine, 1), future)
    assert started(entry("failed", HOURS, mine)) == 2
    assert "cooling down" in started(entry("succeeded", -1 / 60, mine)), "clocks differ by seconds"


def test_the_order_of_retrainings_is_not_that_of_clocks(alarmed):
    first, second = entry("requested", HOURS, ["a"]).now, entry("requested", 3, ["a"], 1).now
    rows = [entry("started", 4, ["a"]).now, second, first, entry("failed", 5, ["a"]).now]
    with workspace(threads=1) as con, writing(con, alarmed.project, purpose="test"):
        insert_retrains(con, rows)
        found = retrains_of(con, "orders")
    assert [(each.now.retrain_id, each.now.state) for each in found] == [("r0", "failed"), ("r1", "requested")]
    assert found[0].requested_at == first.made_at


def test_a_warning_of_the_future_is_in_the_next_digest_once(ahead):
    ledger = Ledger()
    ahead(YEAR)
    ledger.judge(finding("warning", 1))
    ahead(timedelta())
    now = clock.wall()
    assert ledger.deliver(now, digest_at=now - timedelta(hours=1)) == [("digest", None, ["amount"])]
    assert ledger.deliver(now, digest_at=now - timedelta(hours=1)) == []
    ledger.judge(finding("warning", 2, "gift"))
    assert ledger.deliver(clock.wall(), digest_at=now - timedelta(hours=1)) == [], "new since the digest of today"


def test_labels_do_not_count_before_their_time_because_a_record_is_of_the_future(tiny, ahead):
    """Records go on behind the newest; what is complete, or can be fitted again, is decided by the clock."""
    tiny.source("CREATE TABLE raw.outcomes AS SELECT order_id, day, (quantity > 5)::INT AS returned FROM raw.orders")
    (tiny.folder / "labels.sql").write_text("SELECT order_id, returned FROM raw.outcomes WHERE day = $start_date")
    sources = {name: {"table": f"raw.{name}", "partition_column": "day"} for name in ("orders", "outcomes")}
    wait = (clock.wall() - clock.wall().replace(year=2024, month=3, day=1)).days + 30
    labels = {"sql": "labels.sql", "outcome": "returned", "complete_after": f"{wait} days"}
    tiny.declare(sources=sources, labels=labels, monitoring={})
    ahead(YEAR)
    tiny.run("2024-03-01")
    ahead(timedelta())
    tiny.shell("performance", "orders", "--evaluate")
    assert "1 maturing" in tiny.shell("performance", "orders")
    assert "2024-03-01" in tiny.shell("performance", "orders", "2024-03-01")
    assert tiny.warehouse("SELECT count(*) FROM ledger.evaluations WHERE evaluated_at > now()") == [(0,)]


@pytest.mark.slice
def test_an_evaluation_of_the_future_is_made_again(tiny, ahead):
    tiny.source("CREATE TABLE raw.outcomes AS SELECT order_id, day, (quantity > 5)::INT AS returned FROM raw.orders")
    (tiny.folder / "labels.sql").write_text("SELECT order_id, returned FROM raw.outcomes WHERE day = $start_date")
    sources = {name: {"table": f"raw.{name}", "partition_column": "day"} for name in ("orders", "outcomes")}
    tiny.declare(sources=sources, labels={"sql": "labels.sql", "outcome": "returned"}, monitoring={})
    tiny.run("2024-03-01")
    ahead(YEAR)
    tiny.shell("performance", "orders", "--evaluate")
    ahead(timedelta())
    assert "1 partition evaluated, 0 unchanged" in tiny.shell("performance", "orders", "--evaluate")
    assert "Labels: 1 mature." in tiny.shell("performance", "orders")
    assert "0 partitions evaluated, 1 unchanged" in tiny.shell("performance", "orders", "--evaluate")


@pytest.mark.slice
def test_a_page_that_a_clock_ahead_recorded_is_sent_again_once_when_its_silence_ends(alarmed, room, ahead):
    alarmed.declare(monitoring=RULES, partitions=ENDED, alerts=ALERTS)
    ahead(YEAR)
    alarmed.shell("alarms", "--deliver")
    ahead(timedelta())
    assert len(room.read()) == 1
    alarmed.shell("alarms", "--deliver")
    assert room.read() == []
    day = (clock.wall() - timedelta(days=1)).isoformat()
    with workspace(threads=1) as con, writing(con, alarmed.project, purpose="test"):
        con.execute(
            "INSERT INTO ledger.silences (silence_id, pipeline, event, until, reason, made_by, made_at) "
            f"VALUES ('s', 'orders', 'drift', '{day}', 'known', 'ada', '{day}')"
        )
    alarmed.shell("alarms", "--deliver")
    assert len(room.read()) == 1
    alarmed.shell("alarms", "--deliver")
    assert room.read() == []


def test_doctor_says_that_a_record_is_of_the_future(tiny, ahead):
    tiny.run("2024-03-01")
    assert "newest record" not in tiny.shell("doctor", code=0)
    ahead(YEAR)
    tiny.run("2024-03-02")
    ahead(timedelta())
    text = " ".join(tiny.shell("doctor", code=0).split())
    assert "364 days ahead of this machine's clock" in text
