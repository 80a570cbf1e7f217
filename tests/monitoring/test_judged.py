"""Stored drift: each row is bound to what it was computed from; what is live equals a computation from nothing."""

from dataclasses import astuple, replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import dagster as dg
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pip_dagster import clock
from pip_dagster.declaration.monitoring import Monitoring
from pip_dagster.ledger.profiles import LiveScoring
from pip_dagster.ledger.rollback import rollback
from pip_dagster.monitoring.drift import drift_of, judge_all
from pip_dagster.monitoring.drift_findings import findings_of
from pip_dagster.monitoring.judged import bases_of_live, judge_all_drift, judge_drift, judging
from pip_dagster.monitoring.series import Column, Series, needed_for, read_series, season_of
from pip_dagster.warehouse.connect import workspace

DAYS = [f"2024-03-{day:02}" for day in range(1, 21)]
MORE = """
CREATE OR REPLACE TABLE raw.orders AS
SELECT (row_number() OVER ())::INTEGER AS order_id, d::DATE AS day, * EXCLUDE (order_id, day)
FROM raw.orders, generate_series(DATE '2024-03-01', DATE '2024-03-24', INTERVAL 1 DAY) g(d)
WHERE hash(order_id, d) % 8 < 3"""
FIGURES = (
    "SELECT * EXCLUDE (judgement_id, judged_at, scoring_id) FROM orders.drift "
    "ORDER BY partition_key, name, column_kind, segment, segment_value, partitions, reference"
)


@pytest.fixture
def monitored(tiny):
    tiny.declare(monitoring={"history": 14, "segments": ["shop"], "season": "1 week"})
    tiny.source(MORE)
    tiny.run(*DAYS, stored=judging(tiny.pipeline(), DAYS))
    return tiny


def judge(tiny, keys=None):
    pipeline = tiny.pipeline()
    with workspace(threads=1) as con:
        return judge_drift(con, pipeline, tiny.registry.get("returns", "champion"), keys)


def from_nothing(tiny):
    """The live drift when all of it is judged again, in one go."""
    tiny.tamper("DELETE FROM ledger.judgements", "DELETE FROM ledger.drift")
    with workspace(threads=1) as con:
        judge_all_drift(con, tiny.pipeline(), tiny.registry.get("returns", "champion"))
    return tiny.warehouse(FIGURES)


def rounded(rows):
    def plain(value):
        return round(value, 9) if isinstance(value, float) else (*rounded(value),) if type(value) is tuple else value

    return [tuple(map(plain, row)) if isinstance(row, tuple) else plain(row) for row in rows]


@pytest.mark.lake
def test_a_run_stores_and_publishes_the_drift_of_its_partitions(monitored):
    stored = monitored.warehouse(FIGURES)
    assert monitored.published(FIGURES) == stored
    assert {row[0] for row in stored} == {*DAYS}
    (newest,) = judge(monitored)
    windows = [(each, window) for each in newest.columns for window in each.windows]
    of_newest = [row for row in stored if row[0] == DAYS[-1]]
    assert len(of_newest) == len(windows) and {window.reference for _, window in windows} == {
        "training",
        "previous",
        "season",
    }
    before = monitored.warehouse("SELECT count(*) FROM ledger.judgements")
    judge(monitored, DAYS)
    assert monitored.warehouse("SELECT count(*) FROM ledger.judgements") == before, "judged again, nothing is new"
    assert rounded(from_nothing(monitored)) == rounded(stored)


def test_a_stored_judgement_is_read_and_equals_one_that_is_judged_now(monitored):
    stored = judge(monitored, DAYS)
    with workspace(threads=1) as con:
        series = read_series(con, monitored.pipeline(), monitored.registry.get("returns", "champion"), last=20)
    judged = drift_of(series, series.positions, monitored.pipeline().spec.monitoring)
    for one, other in zip(stored, judged, strict=True):
        assert one.text == other.text and one.rows == other.rows and one.max_psi == pytest.approx(other.max_psi)
        columns = ([replace(c, mean=None, training_mean=None) for c in each.columns] for each in (one, other))
        first, second = (rounded(map(astuple, each)) for each in columns)
        assert first == second
    monitored.tamper("UPDATE ledger.drift SET excess = 9 WHERE partition_key = '2024-03-20' AND partitions = 1")
    assert {each.excess for each in judge(monitored)[0].columns} == {9.0}, "nothing is judged twice"
    monitored.declare(monitoring={"history": 14, "segments": ["shop"], "season": "1 week", "psi": 0.2})
    (changed,) = judge(monitored)
    assert 9.0 not in {each.excess for each in changed.columns}, "by other rules it is judged again"


@pytest.mark.slice
def test_a_correction_and_a_rollback_change_the_figures_of_later_partitions(monitored):
    first, before = monitored.warehouse(FIGURES), clock.now()
    monitored.source("UPDATE raw.orders SET amount = amount * 3 WHERE day = '2024-03-10'")
    monitored.run("2024-03-10", stored=judging(monitored.pipeline(), ["2024-03-10"]))
    judge(monitored, ["2024-03-10"])
    second = monitored.warehouse(FIGURES)
    changed = {old[0] for old, new in zip(first, second, strict=True) if old != new}
    assert {"2024-03-10", "2024-03-11", "2024-03-20"} <= changed and "2024-03-09" not in changed
    assert monitored.published(FIGURES) == second
    days = ("2024-03-10", "2024-03-10")
    rollback(monitored.project, "orders", why="wrong", by="a test", as_of=before, partitions=days)
    judge(monitored)
    third = monitored.warehouse(FIGURES)
    assert rounded(third) == rounded(first)
    assert rounded(from_nothing(monitored)) == rounded(third)


@pytest.mark.slice
@settings(max_examples=3, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.sampled_from(DAYS), st.sampled_from(["amount", "quantity"])), min_size=1, max_size=3))
def test_after_any_corrections_the_live_figures_are_those_of_a_computation_from_nothing(monitored, corrections):
    for day, column in corrections:
        monitored.source(f"UPDATE raw.orders SET {column} = {column} + 1 WHERE day = '{day}'")
        monitored.run(day, stored=judging(monitored.pipeline(), [day]))
    judge(monitored)
    live = monitored.warehouse(FIGURES)
    assert rounded(from_nothing(monitored)) == rounded(live)


@pytest.mark.slice
def test_findings_name_column_rule_and_command(monitored):
    monitored.source("UPDATE raw.orders SET shop = NULL WHERE day >= '2024-03-19' AND order_id % 3 = 0")
    monitored.run(*DAYS[-2:], stored=judging(monitored.pipeline(), DAYS[-2:]))
    (newest,) = judge(monitored)
    found = {each.subject: each for each in findings_of(monitored.pipeline(), newest) if each.rule == "drift"}
    shop = found["shop"]
    assert (shop.state, shop.partition_key) == ("alarm", DAYS[-1])
    assert shop.value == pytest.approx(0.33, abs=0.15) and shop.threshold == 0.05 and "missing: " in shop.cause
    assert shop.command == f"pip-dagster monitor orders {DAYS[-1]}"
    assert found["amount"].state == "ok"


def test_missing_values_within_the_noise_of_psi_are_paged_at_once(monitored):
    """Orders of alarms have a weight of 0 where the model does not use a column."""
    monitored.source("UPDATE raw.orders SET amount = NULL WHERE day >= '2024-03-19' AND order_id % 6 = 0")
    monitored.run(*DAYS[-2:], stored=judging(monitored.pipeline(), DAYS[-2:]))
    (newest,) = judge(monitored)
    (drift,) = (each for each in newest.columns if each.name == "amount")
    assert (drift.state, drift.rule) == ("alarm", "missing")
    noise = (replace(drift.window(1, "training"), excess=-0.05),)  # as with 20 bins and fewer rows
    of = SimpleNamespace(columns=[replace(drift, windows=noise)], partition_key=DAYS[-1], scoring_id="x", rows=75)
    found = next(findings_of(monitored.pipeline(), of))
    assert found.state == "alarm" and found.weight > 0


def test_scores_from_before_monitoring_are_profiled_by_the_check(tiny):
    from pip_dagster.orchestration.definitions import build_definitions

    tiny.declare()
    tiny.source(MORE)
    tiny.run(*DAYS)
    tiny.declare(monitoring={"history": 14})
    tags = {"dagster/asset_partition_range_start": DAYS[0], "dagster/asset_partition_range_end": DAYS[-1]}
    job = build_definitions(tiny.pipeline()).resolve_job_def("orders_job")
    result = job.execute_in_process(instance=dg.DagsterInstance.ephemeral(), tags=tags)
    checks = [
        e.asset_check_evaluation_data for e in result.all_events if e.event_type_value == "ASSET_CHECK_EVALUATION"
    ]
    found = {each.partition: each for each in checks if each.check_name == "drift" and each.partition}
    assert {*found} == {*DAYS} and found[DAYS[-1]].passed
    assert found[DAYS[-1]].description == f"{DAYS[-1]}: No column is in alarm."
    assert {"max PSI", "columns in alarm", "rows"} <= {*found[DAYS[-1]].metadata}


def test_a_correction_concerns_the_windows_that_have_it_and_those_one_season_later():
    start, rules = datetime(2020, 1, 1, tzinfo=UTC), Monitoring()
    live = [LiveScoring(str(i), start + timedelta(days=i), f"s{i}") for i in range(600)]
    corrected = [*live[:100], live[100]._replace(scoring_id="other"), *live[101:]]

    def bases(scorings):
        return bases_of_live(scorings, "a manifest", rules)

    changed = [at for at, pair in enumerate(zip(bases(live), bases(corrected), strict=True)) if len({*pair}) > 1]
    assert changed == [*range(100, 156), *range(464, 492)]
    assert len({*bases(live)}) == 600 and bases([]) == []


def test_a_gap_in_last_season_gives_the_same_verdict_alone_and_with_others():
    """The partner of the newest day is missing; those of the two days before it are as unlike training as they are."""
    rules, start = (
        Monitoring.model_validate({"season": "8 weeks", "history": 14, "psi": 0.5}),
        datetime(2024, 1, 1, tzinfo=UTC),
    )
    days = [day for day in range(71) if day != 14]
    live = [LiveScoring(f"k{day}", start + timedelta(days=day), f"s{day}") for day in days]
    even, shifted = [100] * 5 + [0, 0], [300, 50, 50, 50, 50, 0, 0]
    counts = np.array([[shifted if day in (12, 13, 68, 69, 70) else even for day in days]])
    column = Column("feature", "amount", (*"abcde", "missing", "never seen"), tuple(even), 1.0, 0.5, 1.0)

    def state(*wanted):
        places = needed_for(live, wanted, rules)
        kept = [live[at] for at in places]
        season = np.array(season_of([each.partition_start for each in kept], rules))
        series = Series(
            *(tuple(each.partition_key for each in kept), (column,), counts[:, places], np.array([even])),
            means=np.zeros((1, len(kept))),
            season=season,
        )
        return judge_all(series, [places.index(at) for at in wanted], rules)[-1].states

    assert state(69) == state(67, 68, 69) == ("alarm",)
