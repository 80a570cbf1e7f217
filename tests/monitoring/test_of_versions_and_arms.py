"""Performance where versions and arms change: each is judged by its own facts, and none hides that labels are late."""

from datetime import UTC, datetime, timedelta

from pip_dagster.cli.performance_shown import _counts
from pip_dagster.declaration.labels import Labels
from pip_dagster.declaration.monitoring import Monitoring
from pip_dagster.ledger.live_partitions import LivePartition
from pip_dagster.ledger.performance import LabelEvaluation, Part
from pip_dagster.monitoring.coverage import coverages
from pip_dagster.monitoring.performance import Performance, judge_performance

NOW = datetime(2024, 4, 1, tzinfo=UTC)


def part(number, arm="champion", *, scoring=None, basis=None):
    start = datetime(2024, 3, number, tzinfo=UTC)
    scoring = scoring or f"s{number}-{arm}"
    live = LivePartition(f"2024-03-{number:02}", start, start + timedelta(days=1), scoring, "t", 50)
    return Part(live, basis or scoring, arm, "returns", 1)


def evaluation(of, labelled=50):
    return LabelEvaluation(
        *(f"e-{of.live.scoring_id}", "orders", of.live.key, of.live.start, of.live.end, of.live.scoring_id, of.basis),
        *(of.arm, of.model_name, of.model_version, "f", "d", [], 50, labelled, None, False),
        *(of.live.end if labelled else None, None, NOW),
    )


def states(parts, evaluated, **declared):
    labels = Labels.model_validate({"sql": "labels.sql", "outcome": "returned"} | declared)
    known = {each.identity: evaluation(each) for each in evaluated}
    return [each.state for each in coverages(parts, known, labels, NOW)]


def test_an_arm_without_labels_is_overdue_although_the_other_arm_has_them():
    both = [part(1, basis="change-1"), part(1, "challenger", basis="change-1")]
    assert states(both, both[:1], arrives_after="1 day") == ["mature", "overdue"]
    assert states(both, [part(1)], arrives_after="1 day") == ["waiting", "waiting"], "scored again, not evaluated yet"


def test_overdue_labels_are_counted_by_partition():
    parts = [part(number, arm, basis=f"c{number}") for number in range(1, 31) for arm in ("champion", "challenger")]
    labels = Labels.model_validate({"sql": "labels.sql", "outcome": "returned", "arrives_after": "1 day"})
    found = Performance("auc", tuple(coverages(parts, {}, labels, NOW)), {}, None)
    (finding,) = judge_performance("orders", found, Monitoring())
    assert "labels of 28 partitions are overdue, 2024-03-03 first" in finding.cause and finding.partitions == 28
    assert _counts(found) == {"mature": 0, "maturing": 0, "waiting": 0, "overdue": 30}
    assert finding.scoring_id == "s30-champion", "of what scores now: the alarm is not one of an earlier version"
