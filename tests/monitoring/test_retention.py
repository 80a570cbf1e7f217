"""Retention: figures of purged partitions go on being compared with, and `check` says what is kept too short for."""

from __future__ import annotations

from datetime import timedelta

import pytest

from pip_dagster import clock
from pip_dagster.monitoring.performance import performance_findings, read_performance
from pip_dagster.warehouse.connect import workspace

from .test_performance import DAYS, LABELS, REGRESSION, SOURCES, WORLD

SQL = "SELECT order_id, returned FROM raw.outcomes WHERE day >= $start_date AND day < $end_date"


def keeping(first):
    """A clock by which all days before this one are purged."""
    days = (clock.wall() - clock.wall().replace(year=2024, month=3, day=first, hour=0, minute=0)).days
    return {"subject": "order_id", "retention": {"content": f"{days} days"}}


@pytest.fixture
def labelled(tiny):
    tiny.source(*WORLD)
    (tiny.folder / "labels.sql").write_text(SQL)
    tiny.declare(sources=SOURCES, labels={**LABELS, "complete_after": "1 day"}, monitoring={})
    tiny.run(*DAYS)
    tiny.shell("performance", "orders", "--evaluate")
    return tiny


def trailing(tiny):
    with workspace(threads=1) as con:
        found = {each.rule: each for each in performance_findings(con, tiny.pipeline())}
        keys = [each.partition_key for each in read_performance(con, tiny.pipeline()).partitions]
    return found["trailing"], keys


@pytest.mark.slice
def test_a_window_is_compared_with_what_was_measured_of_purged_partitions(labelled):
    """With twelve days of rows there would be five partitions before the newest seven, and no verdict for ever."""
    labels = {**LABELS, "complete_after": "1 day"}
    before, keys = trailing(labelled)
    assert before.state == "ok" and keys == DAYS
    labelled.declare(sources=SOURCES, labels=labels, monitoring={}, privacy=keeping(13))
    labelled.shell("purge", "orders")
    assert trailing(labelled) == (before, keys)
    assert "24 mature" in labelled.shell("performance", "orders")
    labelled.source(REGRESSION)
    assert "7 partitions evaluated, 5 unchanged" in labelled.shell("performance", "orders", "--evaluate")
    assert trailing(labelled)[0].state == "alarm"
    report = labelled.root / "report.json"
    labelled.shell("report", "orders", "-o", str(labelled.root / "report.html"), "--json", str(report))
    assert '"partition": "2024-03-01"' in report.read_text()


@pytest.mark.soak
def test_what_was_purged_before_its_labels_were_complete_never_counts(labelled):
    """It would be judged by the few labels that came early, and be overdue where none did."""
    wait = (clock.wall() - clock.wall().replace(year=2024, month=3, day=1)).days + 100
    labelled.tamper(f"UPDATE ledger.evaluations SET mature_at = now() + INTERVAL {wait} DAY")
    labels = {**LABELS, "complete_after": "1 day"}
    labelled.declare(sources=SOURCES, labels=labels, monitoring={}, privacy=keeping(23))
    labelled.shell("purge", "orders")
    later = clock.wall() + timedelta(days=wait + 1)
    with workspace(threads=1) as con:
        found = read_performance(con, labelled.pipeline(), now=later).partitions
    assert [(each.partition_key, each.state) for each in found] == [(DAYS[22], "mature"), (DAYS[23], "mature")]


@pytest.mark.parametrize(
    ("content", "declared", "said"),
    [
        ("10 days", {}, "drift is judged from 16"),
        ("200 days", {}, "never compared with the same season"),
        ("200 days", {"references": ["training", "previous"]}, None),
        ("13 months", {}, None),
    ],
)
def test_check_says_for_what_rows_are_kept_too_short(tiny, content, declared, said):
    tiny.declare(monitoring=declared, privacy={"subject": "order_id", "retention": {"content": content}})
    text = " ".join(tiny.shell("check", "orders").split())
    assert (said in text) if said else ("rows are purged" not in text), text
    assert ("defs.yaml:" in text) == bool(said)


def test_check_says_that_labels_come_after_the_purge(tiny):
    tiny.source("CREATE TABLE raw.outcomes AS SELECT order_id, day, (quantity > 5)::INT AS returned FROM raw.orders")
    (tiny.folder / "labels.sql").write_text(SQL)
    privacy = {"subject": "order_id", "retention": {"content": "60 days"}}
    for wait, is_said in (("60 days", True), ("59 days", False)):
        tiny.declare(sources=SOURCES, labels={**LABELS, "complete_after": wait}, privacy=privacy)
        assert ("performance is never measured" in " ".join(tiny.shell("check", "orders").split())) == is_said
