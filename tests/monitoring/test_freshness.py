"""Whether the newest closed partition is live in time: by the schedule, by a declared time, on every grid."""

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from pip_dagster.cli.published import open_published
from pip_dagster.declaration.cron import Cron
from pip_dagster.declaration.every import STEPS
from pip_dagster.declaration.grid import closed_partitions, grid_end, grid_start, partitions_between
from pip_dagster.declaration.spec import Partitions
from pip_dagster.monitoring import closing
from pip_dagster.monitoring.closing import closed_since
from pip_dagster.monitoring.freshness import Newest, collect_freshness, freshness_findings, lateness
from pip_dagster.warehouse.access import reading
from pip_dagster.warehouse.connect import workspace

HOUR = timedelta(hours=1)


def at(text):
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def finding(tiny, now):
    with open_published(tiny.project) as con:
        (found,) = freshness_findings(con, tiny.pipeline(), now=at(now))
    return found


# The newest live partition of `scored` is 2024-03-04; 2024-03-05 closes at midnight and its schedule ticks at 06:00.
@pytest.mark.parametrize(
    ("now", "state", "late"),
    [
        ("2024-03-05 12:00", "ok", 1),
        ("2024-03-06 05:59", "ok", 1),
        ("2024-03-06 08:00", "ok", 1),
        ("2024-03-06 08:01", "warning", 1),
        ("2024-03-06 12:01", "alarm", 1),
        ("2024-03-08 12:00", "alarm", 2),
    ],
)
def test_by_the_schedule(scored, now, state, late):
    found = finding(scored, now)
    assert (found.state, found.partitions) == (state, late)
    assert found.event == "freshness" and found.chance is None


def test_what_is_late_is_named_with_its_attempt_and_the_next_command(scored):
    found = finding(scored, "2024-03-08 12:01")
    assert found.partition_key == "2024-03-07" and found.partitions == 3 and found.scoring_id is None
    assert found.command == "pip-dagster backfill orders --from 2024-03-05 --to 2024-03-07"
    assert found.cause == (
        "3 partitions from 2024-03-05 not live: no run has tried it. "
        "The schedule may be stopped, or the daemon is not running"
    )
    assert found.value == timedelta(days=2, hours=12, minutes=1).total_seconds()
    assert found.threshold == timedelta(hours=12).total_seconds()
    scored.source(
        "INSERT INTO raw.orders SELECT * REPLACE ('2024-03-05'::DATE AS day, 'inf'::DOUBLE AS amount) FROM raw.orders "
        "WHERE day = '2024-03-04'"
    )
    scored.run("2024-03-05")
    assert (
        "the newest attempt, 2024-03-05, is failed: values that the model would score"
        in finding(scored, "2024-03-08 12:00").cause
    )


def test_the_warehouse_and_what_is_published_say_the_same(scored):
    with workspace(threads=1) as con, reading(con, scored.project, purpose="test"):
        found = freshness_findings(con, scored.pipeline(), now=at("2024-03-08 12:00"))
    assert found == [finding(scored, "2024-03-08 12:00")]
    with workspace(threads=1) as con:
        assert collect_freshness(con, scored.pipeline())[0].partition_key == "2024-03-31", "the last of the grid"


def test_where_there_is_no_warehouse_there_is_no_finding(tiny):
    with workspace(threads=1) as con:
        assert collect_freshness(con, tiny.pipeline()) == []


def test_a_declared_time_counts_from_the_close_and_needs_no_schedule(scored):
    scored.declare(schedule=None, monitoring={"freshness": {"fail_after": "3 hours", "warn_after": "1 hour"}})
    states = [finding(scored, f"2024-03-06 {hour}").state for hour in ("00:59", "01:01", "03:01")]
    assert states == ["ok", "warning", "alarm"]
    scored.declare(monitoring={"freshness": {"fail_after": "20 hours"}})
    assert [finding(scored, f"2024-03-06 {hour}").state for hour in ("12:00", "20:01")] == ["ok", "alarm"]


@pytest.mark.parametrize("schedule", [None, "0 6 L * *"])
def test_without_a_schedule_that_is_understood_there_is_no_verdict(scored, schedule):
    scored.declare(schedule=schedule)
    found = finding(scored, "2024-03-20 12:00")
    assert found.state == "unjudged" and found.threshold is None


def test_past_the_end_of_the_grid_nothing_is_late(scored):
    scored.declare(partitions={"end": "2024-03-05"})
    assert finding(scored, "2025-01-01 00:00").state == "ok"


def test_before_anything_is_live_only_a_declared_time_is_judged(tiny):
    tiny.source("UPDATE raw.orders SET amount = 'inf'::DOUBLE")
    assert tiny.run("2024-03-01")["2024-03-01"].error
    with workspace(threads=1) as con, reading(con, tiny.project, purpose="test"):
        assert freshness_findings(con, tiny.pipeline(), now=at("2024-03-20 12:00"))[0].state == "unjudged"
        tiny.declare(monitoring={"freshness": {"fail_after": "3 hours"}})
        (found,) = freshness_findings(con, tiny.pipeline(), now=at("2024-03-20 12:00"))
    assert found.state == "alarm" and found.partition_key == "2024-03-19" and found.scoring_id is None


@pytest.mark.slice
def test_a_schedule_in_another_zone_with_a_change_of_clocks(scored):
    """The clocks of New York go forward on 2024-03-10: 06:00 is 11:00 UTC before, and 10:00 after."""
    scored.declare(schedule={"cron": "0 6 * * *", "time_zone": "America/New_York"})
    for day, tick in ((6, 11), (12, 10)):
        for missing in range(5, day - 1):
            scored.run(f"2024-03-{missing:02}")
        scored.tamper(
            f"UPDATE ledger.scorings SET partition_end = TIMESTAMPTZ '2024-03-{day - 1:02} 00:00:00+00' "
            "WHERE partition_key = '2024-03-04'"
        )
        with workspace(threads=1) as con, reading(con, scored.project, purpose="test"):
            states = [
                freshness_findings(con, scored.pipeline(), now=at(f"2024-03-{day:02} {tick + hours:02}:01"))[0].state
                for hours in (1, 2, 6)
            ]
        assert states == ["ok", "warning", "alarm"], day


@pytest.mark.parametrize("zone", ["Europe/Berlin", "Asia/Kolkata"])
@pytest.mark.parametrize("every", ["15 minutes", "hour", "day", "week", "month"])
@pytest.mark.parametrize("offset", [-2, -1, 0, 1, 3])
def test_what_closed_since_an_instant_is_the_end_of_the_whole_grid(every, zone, offset):
    start = date(2024, 3, 30) if every in STEPS else date(2024, 1, 3)
    declared = Partitions(every=every, start=start, time_zone=zone, end_offset=offset)
    now = datetime(2024, 4, 2, 7, 30, tzinfo=UTC)
    whole = closed_partitions(declared, now)
    for since in (each.start for each in [*whole[:1], *whole[-4:]]):
        found = closed_since(declared, since, now)
        assert [each.partition for each in found] == [each for each in whole if each.start >= since]
    for each in closed_since(declared, now - timedelta(days=40), now)[-3:]:
        sooner = each.at - timedelta(seconds=1)
        assert each.partition in closed_partitions(declared, each.at), "when the grid says so"
        assert each.partition not in closed_partitions(declared, sooner) or sooner < grid_start(declared)


@pytest.mark.parametrize("every", ["15 minutes", "hour", "day", "month"])
@pytest.mark.parametrize("offset", [-2, 0, 3])
def test_a_grid_that_ended_is_listed_to_its_end_however_long_ago_that_was(every, offset, monkeypatch):
    declared = Partitions(every=every, start=date(2024, 3, 30), end=date(2024, 6, 3), end_offset=offset)
    since = grid_start(declared)
    listed = []
    monkeypatch.setattr(closing, "closed_partitions", lambda *of: listed.append(of) or closed_partitions(*of))
    now = datetime(2024, 9, 1, tzinfo=UTC)
    soon, late = (closed_since(declared, since, at) for at in (now, now + timedelta(days=9_000)))
    assert soon == late and [each.partition for each in late] == closed_partitions(declared, now)
    beyond = [each for each in closed_partitions(*listed[-1]) if each.end > grid_end(declared)]
    assert len(beyond) <= 12 * (abs(offset) + 2), "a day or hour of clocks each, and no more"


@pytest.mark.parametrize("zone", ["Europe/Berlin", "Asia/Kolkata"])
@pytest.mark.parametrize("every", ["15 minutes", "hour", "day", "week", "month"])
def test_partitions_between_two_instants_are_counted_without_listing_them(every, zone):
    declared = Partitions(every=every, start=date(2024, 1, 3), time_zone=zone)
    whole = closed_partitions(declared, datetime(2024, 2 if every in STEPS else 12, 2, tzinfo=ZoneInfo(zone)))
    for first, last in ((0, 3), (0, len(whole) - 1), (len(whole) // 2, len(whole) - 1), (2, 2)):
        assert partitions_between(declared, whole[first].start, whole[last].start) == last - first


@pytest.mark.parametrize(
    ("freshness", "error"),
    [
        ({"fail_after": "1 hour", "warn_after": "2 hours"}, "`warn_after` must be shorter than `fail_after`"),
        ({"fail_after": "30 seconds"}, "30 s is too short; expected at least '1 minute'"),
        ({"warn_after": "2 hours"}, "fail_after"),
        ({"fail_after": 6}, "has no unit"),
    ],
)
def test_a_wrong_declaration_is_refused(tiny, freshness, error):
    tiny.declare(monitoring={"freshness": freshness})
    assert error in tiny.shell("plan", "orders", code=1)


def policies(tiny):
    from pip_dagster.orchestration.definitions import build_definitions

    specs = build_definitions(tiny.pipeline()).resolve_all_asset_specs()
    return {spec.key.to_user_string(): spec.freshness_policy for spec in specs if spec.freshness_policy}


@pytest.mark.parametrize(
    ("changes", "warn", "fail"),
    [
        ({}, 25 + 2, 25 + 6),
        ({"schedule": "0 6 * * 1-5"}, 73 + 2, 73 + 6),
        ({"schedule": "0 * * * *"}, 25 + 2, 25 + 6),
        ({"schedule": None, "monitoring": {"freshness": {"fail_after": "3 hours", "warn_after": "1 hour"}}}, 26, 28),
        ({"monitoring": {"freshness": {"fail_after": "3 hours"}}}, None, 28),
    ],
)
def test_dagster_has_a_policy_of_the_longest_wait_for_a_run(tiny, changes, warn, fail):
    tiny.declare(partitions={"end": None}, **changes)
    found = policies(tiny)
    assert found.keys() == {"orders/features", "orders/predictions"}
    policy = found["orders/predictions"]
    assert policy.fail_window.to_timedelta() == timedelta(hours=fail)
    assert (policy.warn_window and policy.warn_window.to_timedelta()) == (warn and timedelta(hours=warn))


@pytest.mark.parametrize(
    "changes", [{"schedule": None}, {"schedule": "0 6 L * *"}, {"partitions": {"end": "2024-04-01"}}]
)
def test_dagster_has_none_where_no_run_is_expected(tiny, changes):
    assert not policies(tiny.declare(**({"partitions": {"end": None}} | changes)))


@pytest.mark.parametrize("offset", [-1, 0, 1])
@pytest.mark.parametrize(
    ("every", "cron", "newest_end", "closes"),
    [
        # The clocks of Berlin go forward at 02:00 on 31 March 2024, and back at 03:00 on 27 October.
        ("hour", "10 * * * *", "2024-03-31T01:00+01:00", ("01:00", "03:00", "04:00")),
        ("hour", "10 * * * *", "2024-10-27T02:00+02:00", ("02:00", "02:00", "03:00")),
        ("day", "30 6 * * *", "2024-03-31T00:00+01:00", ("2024-03-31", "2024-04-01", "2024-04-02")),
        ("week", "30 6 * * *", "2024-03-31T00:00+01:00", ("2024-03-31", "2024-04-07", "2024-04-14")),
        ("month", "30 6 2 * *", "2024-03-01T00:00+01:00", ("2024-03-01", "2024-04-01", "2024-05-01")),
    ],
)
def test_on_every_grid_the_next_partition_is_late_after_the_tick_that_follows_its_close(
    tiny, every, cron, newest_end, closes, offset
):
    tiny.declare(
        schedule=cron,
        partitions={
            **{"every": every, "start": "2024-01-01", "end": None},
            **{"time_zone": "Europe/Berlin", "end_offset": offset},
        },
    )
    spec = tiny.pipeline().spec
    newest = Newest("newest", "s", datetime.fromisoformat(newest_end))
    missing = closed_since(spec.partitions, newest.end, newest.end + timedelta(days=100))[0]
    assert missing.partition.start == newest.end
    close = missing.at.astimezone(ZoneInfo("Europe/Berlin"))
    assert f"{close:%H:%M}" == closes[1 - offset] or f"{close:%Y-%m-%d}" == closes[1 - offset]
    tick = Cron.parse(cron).next_after(missing.at, ZoneInfo("Europe/Berlin"))
    warn, fail = (timedelta(minutes=10), timedelta(minutes=30)) if every == "hour" else (HOUR * 2, HOUR * 6)
    second = timedelta(seconds=1)
    states = [lateness(spec, newest, tick + wait).state for wait in (warn, warn + second, fail, fail + second)]
    assert states == ["ok", "warning", "warning", "alarm"]
    assert lateness(spec, newest, missing.at - second).missing == ()
