"""Estimates before labels arrive: made after scoring, graded by labels, hidden and in alarm where they fail."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest

from pip_dagster.flow.performance import evaluate
from pip_dagster.ledger.estimates import GradedEstimate
from pip_dagster.monitoring.estimates import MEANING, NO_LONGER, _expected, estimate_findings, read_estimates
from pip_dagster.monitoring.estimating import calibrate_after_labels, estimate_scored, estimate_stored, refit
from pip_dagster.warehouse.access import pending_now
from pip_dagster.warehouse.connect import workspace

DAYS = [f"2024-03-{day:02}" for day in range(1, 32)]
# Each day its own three quarters of all orders, with outcomes that follow the features.
MORE = """
CREATE OR REPLACE TABLE raw.orders AS
SELECT (row_number() OVER ())::INTEGER AS order_id, d::DATE AS day, * EXCLUDE (order_id, day)
FROM raw.orders, generate_series(DATE '2024-03-01', DATE '2024-03-31', INTERVAL 1 DAY) g(d)
WHERE hash(order_id, d) % 4 < 3"""
OUTCOMES = """
CREATE OR REPLACE TABLE raw.outcomes AS SELECT order_id, day,
  (quantity + gift::INT * 2 + (shop IN ('Zürich', 'plain'))::INT * 3 + coalesce(amount, 0) / 60
   + (hash(order_id, 7) % 1000 / 250.0 - 2) > 7)::INT AS returned
FROM raw.orders"""
LABELS = "SELECT order_id, returned FROM raw.outcomes WHERE day >= $start_date AND day < $end_date"
SOURCES = {name: {"table": f"raw.{name}", "partition_column": "day"} for name in ("orders", "outcomes")}


def declare(tiny, **changes):
    (tiny.folder / "labels.sql").write_text(LABELS)
    labels = {"sql": "labels.sql", "outcome": "returned", "complete_after": "1 day"}
    tiny.declare(
        **{"sources": SOURCES, "labels": labels, "monitoring": {}, "decisions": {"high": "score > 0.6"}} | changes
    )
    return tiny


def version(tiny, number=1):
    return tiny.registry.get("returns", number)


def label(tiny, *days):
    with workspace(threads=1) as con:
        evaluate(con, tiny.pipeline(), days or None)
        return calibrate_after_labels(con, tiny.pipeline())


def do(tiny, call, *arguments, number=1, **options):
    with workspace(threads=1) as con:
        return call(con, tiny.pipeline(), version(tiny, number), *arguments, **options)


def prepare(tiny):
    """Twenty-five days scored; twenty of them have labels and a calibrator, and the others have estimates."""
    declare(tiny)
    tiny.source(MORE, OUTCOMES)
    tiny.run(*DAYS[:25])
    assert label(tiny, *DAYS[:20]) is None
    found = do(tiny, estimate_scored, DAYS[20:25])
    assert (found.done, found.reasons) == (5, {})


@pytest.fixture
def estimated(template, backend, tmp_path, helpers):
    made = backend.once("estimated", template, lambda root: prepare(helpers.Tiny(root)))
    return helpers.Tiny(backend.copied(made, tmp_path / "shop"))


def by_metric(shown, key):
    return {each.metric: each for each in shown if each.partition_key == key}


GRADES = """SELECT partition_key, metric, value, low, high, truth, hit, labelled FROM orders.estimates
WHERE partition_key = '{}' ORDER BY metric"""


@pytest.mark.slice
def test_an_estimate_is_graded_when_labels_count(estimated):
    shown = do(estimated, read_estimates)
    assert {each.partition_key for each in shown} == {*DAYS[20:25]}
    of = by_metric(shown, DAYS[20])
    assert set(of) == {"auc", "base_rate", "logloss", "brier", "precision.high", "recall.high"}
    for each in of.values():
        assert each.low < each.value < each.high and each.truth is None and not each.withdrawn
        assert MEANING in each.text and "none graded yet" in each.text
    assert estimated.warehouse(GRADES.format(DAYS[20]))[0][5:] == (None, None, None)
    label(estimated)
    graded = by_metric(do(estimated, read_estimates), DAYS[20])
    measured = dict(
        estimated.warehouse(
            f"SELECT metric, value FROM orders.performance WHERE partition_key = '{DAYS[20]}' AND segment IS NULL"
        )
    )
    for metric, each in graded.items():
        assert each.truth == measured[metric] and each.hit == (each.low <= each.truth <= each.high)
        assert each.record.graded == 5 and "of 5 such estimates held" in each.text
        assert (each.value, each.low, each.high) == (of[metric].value, of[metric].low, of[metric].high)
    assert sum(each.hit for each in graded.values()) >= 5
    published = estimated.published(GRADES.format(DAYS[20]))
    assert published == estimated.warehouse(GRADES.format(DAYS[20])) and len(published) == 6
    restated = estimated.warehouse("SELECT count(*) FROM ledger.estimates")
    estimated.source(f"UPDATE raw.outcomes SET returned = 1 - returned WHERE day = '{DAYS[20]}'")
    label(estimated)
    again = by_metric(do(estimated, read_estimates), DAYS[20])
    assert again["auc"].truth == pytest.approx(1 - graded["auc"].truth) and again["auc"].hit is False
    assert estimated.warehouse("SELECT count(*) FROM ledger.estimates") == restated, "a grade is no state of its own"


@pytest.mark.slice
def test_a_calibrator_knows_no_outcome_of_what_it_estimates(estimated):
    label(estimated)
    found = do(estimated, estimate_stored, DAYS)
    assert found.done == 0 and "pip-dagster estimate orders --backfill" in found.reasons[DAYS[0]]
    assert do(estimated, estimate_stored).done == 13, "those with five labelled partitions and 200 labels"
    rows = estimated.warehouse(
        "SELECT e.partition_key, max(c.last_end) <= any_value(s.partition_start), max(c.partitions) "
        "FROM ledger.estimates e JOIN ledger.calibrators c ON c.digest = e.calibrator_digest "
        "JOIN ledger.scorings s USING (scoring_id) GROUP BY ALL ORDER BY ALL"
    )
    assert len(rows) == 18 and all(earlier for _, earlier, _ in rows)
    reasons = dict(estimated.warehouse("SELECT partition_key, reason FROM orders.estimates WHERE metric = ''"))
    assert set(reasons) == {*DAYS[:7]}
    assert all("no calibrator of earlier partitions" in each for each in reasons.values())
    assert do(estimated, estimate_stored).done <= 1, "the day before the first calibrator"
    assert do(estimated, estimate_stored).done == 0
    recorded = "SELECT count(*), count(DISTINCT (scoring_id, reason)) FROM ledger.estimates WHERE metric = ''"
    ((count, distinct),) = estimated.warehouse(recorded)
    assert count == distinct, "a reason is recorded once"


def test_an_estimate_beyond_the_allowed_loss_is_a_warning_before_any_label(estimated):
    pipeline, model = estimated.pipeline(), version(estimated)
    start = datetime(2024, 3, 1, tzinfo=UTC)
    before = [
        GradedEstimate(
            *(day, start + timedelta(days=at), f"s{at}", 150, "auc", 0.8, 0.75, 0.85, "d", "logistic", None),
            *(0.8 + 0.01 * (at % 2), True, 0),
        )
        for at, day in enumerate(DAYS[:20])
    ]
    newest = replace(before[-1], partition_key=DAYS[20], truth=None, hit=None, side=None)

    def found(low, high):
        (finding,) = _expected(pipeline, model, [*before, replace(newest, value=(low + high) / 2, low=low, high=high)])
        return finding

    limit = 0.805 - 0.05 * 0.305
    bad = found(0.6, 0.7)
    assert (bad.state, bad.rule, bad.subject, bad.partition_key) == ("warning", "expected", "auc", DAYS[20])
    assert bad.threshold == pytest.approx(limit) and "0.6 to 0.7 is expected" in bad.cause and "0.805" in bad.cause
    assert found(0.7, 0.8).state == "ok" and found(0.78, 0.82).cause == ""
    assert _expected(pipeline, model, [*before[:5], replace(newest, low=0.1, high=0.2)])[0].state == "unjudged"


@pytest.mark.slice
def test_outcomes_that_no_longer_follow_the_features(estimated):
    estimated.source(f"UPDATE raw.outcomes SET returned = 1 - returned WHERE day >= '{DAYS[20]}' AND order_id % 2 = 0")
    estimated.run(*DAYS[25:])
    assert do(estimated, estimate_scored, DAYS[25:]).done == 6
    label(estimated)
    findings = {each.subject: each for each in do(estimated, estimate_findings) if each.rule == "one_sided"}
    found = findings["auc"]
    assert (found.state, found.event, found.rule, found.partition_key) == ("alarm", "estimate", "one_sided", DAYS[30])
    assert NO_LONGER in found.cause and "auc was below its estimate on 7 of 7" in found.cause
    assert found.value == 7 and found.threshold == 4 and found.chance == 0.007 and found.scoring_id
    shown = by_metric(do(estimated, read_estimates), DAYS[30])["auc"]
    assert shown.withdrawn and shown.text == "withdrawn: 0 of 11 estimates held"
    text = estimated.shell("estimate", "orders", "--last", "2")
    assert "withdrawn: 0 of 11 estimates held" in text and "In alarm: the outcome no longer follows" in text
    (auc,) = [
        each
        for each in json.loads(estimated.shell("estimate", "orders", "--json"))["estimates"]
        if each["metric"] == "auc"
    ]
    assert auc["withdrawn"] and auc["value"] is None and auc["low"] is None and auc["truth"] is not None


def test_a_range_of_partitions_is_shown_instead_of_the_newest(estimated):
    found = json.loads(estimated.shell("estimate", "orders", f"{DAYS[21]}..{DAYS[22]}", "--json"))["estimates"]
    assert {each["partition_key"] for each in found} == {*DAYS[21:23]}
    assert "no partition of this range is live" in estimated.shell("estimate", "orders", "2024-04-20", code=1)
    assert "not both" in estimated.shell("estimate", "orders", DAYS[21], "--last", "2", code=2)


@pytest.mark.slice
def test_another_version_has_estimates_of_its_own(estimated):
    estimated.registry.set_alias("returns", "champion", 2, by="ada", why="better")
    estimated.run(*DAYS[25:])
    found = do(estimated, estimate_scored, DAYS[25:], number=2)
    assert found.done == 0 and set(found.reasons) == {*DAYS[25:]}
    assert "no partition of v2 has labels that count yet" in found.reasons[DAYS[25]]
    label(estimated)
    assert "6 partitions of this version" not in (do(estimated, refit, number=2) or "")
    used = estimated.warehouse(
        "SELECT count(*) FROM ledger.estimates e JOIN ledger.calibrators c ON c.digest = e.calibrator_digest "
        "WHERE c.manifest_digest <> e.manifest_digest"
    )
    assert used == [(0,)]
    assert all(each.metric == "" for each in do(estimated, read_estimates, number=2))
    assert {each.partition_key for each in do(estimated, read_estimates)} == {*DAYS[20:25]}


def test_a_correction_is_estimated_again_and_a_rollback_shows_what_was_estimated_before(estimated):
    day = DAYS[22]
    before = by_metric(do(estimated, read_estimates), day)["base_rate"]
    estimated.source(f"UPDATE raw.orders SET quantity = quantity + 3 WHERE day = '{day}'")
    estimated.run(day)
    assert by_metric(do(estimated, read_estimates), day) == {}, "it is another scoring"
    assert do(estimated, estimate_scored, [day]).done == 1
    after = by_metric(do(estimated, read_estimates), day)["base_rate"]
    assert after.scoring_id != before.scoring_id and after.value > before.value
    value = "SELECT value FROM {} WHERE metric = 'base_rate' AND {}"
    old = f"scoring_id = '{before.scoring_id}'"
    assert estimated.warehouse(value.format("ledger.estimates", old)) == [(before.value,)]
    assert estimated.published(value.format("orders.estimates", f"partition_key = '{day}'")) == [(after.value,)]


def test_what_cannot_be_estimated_never_fails_a_run(estimated):
    declare(estimated, monitoring={"performance": {"segments": ["nowhere"]}})
    estimated.run(DAYS[25])
    found = do(estimated, estimate_scored, [DAYS[25]])
    assert found.done == 0 and "'nowhere'" in found.reasons[DAYS[25]] and "estimates: false" in found.reasons[DAYS[25]]
    reason = f"SELECT reason FROM orders.estimates WHERE partition_key = '{DAYS[25]}'"
    assert estimated.published(reason) == [(found.reasons[DAYS[25]],)], "recorded"
    declare(estimated, monitoring={"estimates": False})
    refused = estimated.shell("estimate", "orders", code=1)
    assert "has no estimates: they need `labels`" in refused


def checks(tiny, first, last):
    from pip_dagster.orchestration.definitions import build_definitions

    tags = {"dagster/asset_partition_range_start": first, "dagster/asset_partition_range_end": last}
    job = build_definitions(tiny.pipeline()).resolve_job_def("orders_job")
    result = job.execute_in_process(instance=dg.DagsterInstance.ephemeral(), tags=tags)
    assert result.success
    found = (each for each in result.all_events if each.event_type_value == "ASSET_CHECK_EVALUATION")
    events = [each.asset_check_evaluation_data for each in found]
    return {each.partition: each for each in events if each.check_name == "estimate" and each.partition}


@pytest.mark.slice
def test_a_run_estimates_its_partitions(estimated):
    found = checks(estimated, DAYS[25], DAYS[26])
    assert set(found) == {DAYS[25], DAYS[26]} and all(each.passed for each in found.values())
    of = found[DAYS[26]]
    assert MEANING in of.description and {"auc estimate", "auc low", "auc high"} <= {*of.metadata}
    shown = (
        f"SELECT partition_key FROM orders.estimates WHERE metric = 'auc' AND partition_key >= '{DAYS[25]}' ORDER BY 1"
    )
    assert estimated.published(shown) == [(DAYS[25],), (DAYS[26],)], "published"
    assert not pending_now(estimated.pipeline().project, within=5)
    estimated.tamper("ALTER TABLE ledger.calibrators DROP COLUMN covariances")
    (broken,) = checks(estimated, DAYS[27], DAYS[27]).values()
    assert broken.passed and "not estimated" in broken.description, "the run is not failed"


def test_segments_with_enough_labels_have_their_own_calibrator(estimated):
    declare(estimated, monitoring={"performance": {"segments": ["shop"]}})
    estimated.tamper("DELETE FROM ledger.calibrators", "DELETE FROM ledger.estimates")
    assert do(estimated, refit) is None
    ((segments, rows),) = estimated.warehouse("SELECT segments, curve_rows FROM ledger.calibrators")
    assert segments[0] is None and len(segments) == 5 and min(rows) >= 500
    assert do(estimated, estimate_stored, DAYS[20:25]).done == 5
    label(estimated)
    held = [each.hit for each in do(estimated, read_estimates)]
    assert len(held) == 30 and sum(held) >= 25


def test_without_labels_or_monitoring_nothing_is_estimated(tiny):
    tiny.declare(monitoring={})
    tiny.run("2024-03-01")
    assert tiny.warehouse("SELECT count(*) FROM ledger.estimates") == [(0,)]
    assert "has no estimates" in tiny.shell("estimate", "orders", code=1)


@pytest.mark.lake("only")
@pytest.mark.soak
def test_the_same_on_a_lake(tiny):
    declare(tiny)
    tiny.source(MORE, OUTCOMES)
    tiny.run(*DAYS[:7])
    assert label(tiny, *DAYS[:6]) is None
    assert do(tiny, estimate_scored, DAYS[6:7]).done == 1
    label(tiny, DAYS[6])
    assert by_metric(do(tiny, read_estimates), DAYS[6])["auc"].hit is not None
    assert tiny.published(GRADES.format(DAYS[6])) == tiny.warehouse(GRADES.format(DAYS[6]))


def test_a_rollback_shows_the_estimates_of_the_earlier_scoring(estimated):
    before = do(estimated, read_estimates)
    estimated.registry.set_alias("returns", "champion", 2, by="ada", why="better")
    estimated.run(DAYS[20])
    assert {each.partition_key for each in do(estimated, read_estimates)} == {*DAYS[21:25]}
    assert estimated.published(GRADES.format(DAYS[20])) == []
    estimated.shell("models", "rollback", "orders", "--to", "v1", "--why", "a test")
    assert do(estimated, read_estimates) == before
    assert len(estimated.published(GRADES.format(DAYS[20]))) == 6


def test_a_calibrator_is_fitted_once_a_day_and_only_on_other_labels(estimated):
    def calibrators():
        rows = estimated.warehouse("SELECT partitions, labels_digest, digest FROM ledger.calibrators ORDER BY made_at")
        assert len({row[2] for row in rows}) == len(rows)
        return [row[:2] for row in rows]

    ((_, first),) = calibrators()
    label(estimated, *DAYS[20:25])
    assert [count for count, _ in calibrators()] == [20], "it is not a day old"
    later = datetime.now(UTC) + timedelta(days=2)
    assert do(estimated, refit, now=later) is None and do(estimated, refit, now=later) is None
    assert [count for count, _ in calibrators()] == [20, 25]
    estimated.source(f"UPDATE raw.outcomes SET returned = 1 - returned WHERE day = '{DAYS[3]}'")
    label(estimated)
    assert [count for count, _ in calibrators()] == [20, 25], "within the day"
    assert do(estimated, refit, now=later) is None
    assert [count for count, _ in calibrators()] == [20, 25, 25] and len({digest for _, digest in calibrators()}) == 3


def test_execute_on_the_check_judges_the_newest_partition(estimated):
    from pip_dagster.orchestration.definitions import build_definitions

    job = build_definitions(estimated.pipeline()).get_repository_def().get_job("__ASSET_JOB")
    check = dg.AssetCheckKey(dg.AssetKey(["orders", "predictions"]), "estimate")
    alone = job.get_subset(asset_selection=set(), asset_check_selection={check})
    run = alone.execute_in_process(instance=dg.DagsterInstance.ephemeral())
    (found,) = run.get_asset_check_evaluations()
    assert found.passed and found.description.startswith(f"{DAYS[24]}: auc: 0.9")


def test_too_few_labels_are_no_calibrator(tiny):
    declare(tiny)
    tiny.source(MORE, OUTCOMES)
    tiny.run(*DAYS[:6])
    assert "4 partitions of this version with mature labels" in label(tiny, *DAYS[:4])
    tiny.source("UPDATE raw.outcomes SET returned = 0 WHERE order_id % 10 > 0")
    why = label(tiny, *DAYS[:6])
    assert "labels of the rarer outcome" in why and why.endswith("5 and 200 are needed")


def test_before_anything_is_scored_or_labelled(tiny):
    declare(tiny)
    assert "There is no warehouse" in tiny.shell("estimate", "orders", code=1)
    tiny.source(OUTCOMES)
    tiny.run("2024-03-01")
    text = tiny.shell("estimate", "orders")
    assert "no estimate: no calibrator of earlier partitions" in " ".join(text.replace("│", " ").split())
    assert "No calibrator was fitted now: no partition of this version has labels that count." in text
