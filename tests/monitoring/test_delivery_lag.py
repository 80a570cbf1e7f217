"""A target that waits too long for a live change is in alarm, and no longer once it has it."""

from datetime import UTC, datetime, timedelta

import pytest

from pip_dagster.delivery.outbox import DeliveryRequest, deliver
from pip_dagster.ledger.record import RunInfo
from pip_dagster.monitoring.delivery_lag import delivery_findings
from pip_dagster.monitoring.watch import BY_CLOCK, watch_clock
from pip_dagster.warehouse.access import reading
from pip_dagster.warehouse.connect import workspace

NOW = datetime.now(UTC)


def findings(tiny, now):
    with workspace(threads=1) as con, reading(con, tiny.project, purpose="test"):
        return delivery_findings(con, tiny.pipeline(), now=now)


def test_by_the_declared_time(scored):
    scored.declare(
        deliver={
            "lake": {"parquet": "out", "alarm_after": "2 hours"},
            "slow": {"parquet": "slow", "alarm_after": "9 days"},
            "unwatched": {"parquet": "unwatched", "alarm_after": None},
        }
    )
    assert [(each.subject, each.state) for each in findings(scored, NOW)] == [("lake", "ok"), ("slow", "ok")]
    lake, slow = findings(scored, NOW + timedelta(hours=3))
    assert (lake.state, slow.state, lake.partitions) == ("alarm", "ok", 4)
    assert (
        lake.cause
        == "4 partitions from 2024-03-01 live for more than 2 hours and not delivered: no run has tried it since"
    )
    assert lake.command == "pip-dagster deliver orders --target lake"
    deliver(scored.pipeline(), DeliveryRequest(RunInfo("run-1", "a test"), ("lake",)))
    assert findings(scored, NOW + timedelta(hours=3))[0].state == "ok"


@pytest.fixture
def two_hours_later(monkeypatch):
    """Deliveries are judged as of two hours from now."""
    later = datetime.now(UTC) + timedelta(hours=2)

    def of_later(con, pipeline):
        with reading(con, pipeline.project, purpose="test"):
            return delivery_findings(con, pipeline, now=later)

    monkeypatch.setitem(BY_CLOCK, "delivery", of_later)


def test_the_alarm_opens_and_is_resolved_by_the_delivery(scored, two_hours_later):
    scored.declare(deliver={"lake": {"parquet": "out"}}, monitoring={})
    states = "SELECT event, subject, state FROM ledger.alarm_states WHERE event = 'delivery'"
    watch_clock(scored.pipeline())
    assert scored.warehouse(states) == [("delivery", "lake", "alarm")]
    deliver(scored.pipeline(), DeliveryRequest(RunInfo("run-1", "a test"), ("lake",)))
    watch_clock(scored.pipeline())
    assert scored.warehouse(states) == [("delivery", "lake", "resolved")]


def test_an_alarm_of_a_target_that_is_no_longer_declared_is_resolved(scored, two_hours_later):
    scored.declare(deliver={"lake": {"parquet": "out"}}, monitoring={})
    watch_clock(scored.pipeline())
    scored.declare(monitoring={})
    watch_clock(scored.pipeline())
    assert scored.warehouse("SELECT state FROM ledger.alarm_states WHERE event = 'delivery'") == [("resolved",)]
