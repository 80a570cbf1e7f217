"""From what is due to runs: contiguous, capped, and equal for equal wants."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pip_dagster.declaration.partition import Partition
from pip_dagster.declaration.reruns import Recent, Reruns
from pip_dagster.flow.rerun_requests import (
    PROMOTION_KINDS,
    SOURCE_KINDS,
    Earlier,
    next_attempt,
    requests,
    skipped,
    wanted_by,
)
from pip_dagster.ledger.plan import Reason, Stale

START, DAY = datetime(2024, 1, 1, tzinfo=UTC), timedelta(days=1)
NOW = datetime(2024, 6, 1, tzinfo=UTC)


def day(i):
    return Partition(f"{i:03}", START + i * DAY, START + (i + 1) * DAY)


def due(i, *kinds, attempt=1, wanted="w"):
    return Stale(day(i), tuple(Reason(kind, f"{kind} said") for kind in kinds or ("missing",)), attempt, wanted)


@given(st.sets(st.integers(0, 60)), st.integers(1, 20))
def test_every_partition_is_in_one_run_and_runs_have_no_gaps(days, at_most):
    found = requests([due(i) for i in days], at_most=at_most)
    assert [p.key for each in found for p in each.partitions] == [f"{i:03}" for i in sorted(days)]
    for each in found:
        assert 1 <= len(each.partitions) <= at_most
        assert all(a.end == b.start for a, b in zip(each.partitions, each.partitions[1:], strict=False))


def test_as_few_runs_as_can_be():
    found = requests([due(i) for i in (1, 2, 3, 5, 6)], at_most=10)
    assert [[p.key for p in each.partitions] for each in found] == [["001", "002", "003"], ["005", "006"]]


def test_the_key_of_a_run_is_of_its_range_what_is_wanted_and_the_attempt():
    def key(*listed, attempt=1):
        [request] = requests(listed, at_most=10)
        return request.run_key(attempt)

    base = key(due(1), due(2))
    assert base == key(due(2), due(1)), "the same twice is the same"
    others = [
        key(due(1)),
        key(due(2), due(3)),
        key(due(1), due(2, wanted="other")),
        key(due(1), due(2, attempt=2)),
        key(due(1), due(2), attempt=2),
    ]
    assert len({base, *others}) == 6


def test_each_sensor_takes_what_is_its_own():
    grid = [day(i) for i in range(10)]
    listed = [
        due(1, "source_changed"),
        due(2, "model_promoted"),
        due(3, "source_changed", "model_promoted"),
        due(4, "failed"),
    ]
    assert [each.partition.key for each in wanted_by(listed, SOURCE_KINDS, grid)] == ["001", "003", "004"]
    assert [each.partition.key for each in wanted_by(listed, PROMOTION_KINDS, grid)] == ["002", "003", "004"]


@pytest.mark.parametrize(
    ("missing", "keys"),
    [
        ("all", ["000", "005", "008", "009"]),
        ("none", ["005"]),
        (Recent(last=2), ["005", "008", "009"]),
        (Recent(since="2024-01-10"), ["005", "009"]),
    ],
)
def test_history_that_was_never_made_is_asked_for_as_far_as_declared(missing, keys):
    grid = [day(i) for i in range(10)]
    listed = [due(0), due(5, "source_changed"), due(8), due(9)]
    assert [each.partition.key for each in wanted_by(listed, SOURCE_KINDS, grid, missing)] == keys


def test_a_run_that_left_nothing_is_asked_for_again_with_a_growing_wait_and_an_end():
    reruns = Reruns(attempts=3, back_off=timedelta(minutes=10))
    failed = [Earlier("failure", NOW - timedelta(minutes=m)) for m in (100, 15)]
    assert next_attempt([], reruns, NOW) == 1
    assert next_attempt(failed[1:], reruns, NOW) == 2
    assert "requested again from 2024-06-01 00:05:00" in next_attempt(failed, reruns, NOW), "twenty minutes by now"
    assert next_attempt(failed, reruns, NOW + timedelta(minutes=6)) == 3
    assert "3 runs of 3" in next_attempt([*failed, Earlier("success", NOW)], reruns, NOW + DAY)


def test_what_a_person_canceled_is_not_asked_for_again():
    earlier = [Earlier("failure", NOW - DAY), Earlier("canceled", NOW - timedelta(hours=1))]
    assert "canceled" in next_attempt(earlier, Reruns(), NOW)
    assert next_attempt([*earlier, Earlier("failure", NOW - timedelta(minutes=50))], Reruns(attempts=9), NOW) == 4


def test_reasons_are_said_once_each_and_short():
    [request] = requests([due(1, "missing"), due(2, "missing", "failed")], at_most=9)
    assert request.reasons == "missing said; failed said (1 of 2)"
    [request] = requests([Stale(day(i), (Reason("failed", f"{i}" * 50),), 1, "w") for i in range(50)], at_most=99)
    assert len(request.reasons) <= 400


def test_why_nothing_is_asked_for():
    assert skipped({}, (), 0, 0, 7) == "Nothing is stale; current: 7 partitions."
    text = skipped({"001": "waits"}, {"002"}, 3, 0, 7)
    assert text == "001: waits; 1 stale partition in runs that are queued or running; 3 runs left for the next tick."
    assert "current: 7 partitions; 300 that were never built are left to a backfill" in skipped({}, (), 0, 300, 7)


def test_reasons_that_differ_by_their_partition_are_one():
    def changed(i, rows, of=None):
        text = f"source changed: orders {day(i if of is None else of).key} ({rows})"
        return Stale(day(i), (Reason("source_changed", text),), 1, "w")

    def said(*due):
        [request] = requests(due, at_most=10)
        return request.reasons

    assert said(changed(1, "+1 row")) == "source changed: orders 001 (+1 row)"
    assert said(*(changed(i, "-5 rows") for i in range(1, 4))) == "source changed: orders 001 to 003 (-5 rows)"
    assert said(changed(1, "+1 row"), changed(2, "+1 row", of=1)) == "source changed: orders 001 (+1 row)"
    mixed = said(changed(1, "+1 row"), changed(2, "+1 row"), changed(3, "+2 rows"))
    assert mixed == "source changed: orders 001 to 002 (+1 row) (2 of 3); source changed: orders 003 (+2 rows) (1 of 3)"
