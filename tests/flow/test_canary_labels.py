"""A canary's limit by late labels: past scores of both versions, on the same labelled rows."""

import json

import numpy as np
import pytest
from pydantic import ValidationError

from pip_dagster.errors import DeclarationError
from pip_dagster.flow.label_metric import check_metric
from pip_dagster.orchestration.checks import split_outcome
from pip_dagster.statistics.interval import PairedRows, gain
from pip_dagster.statistics.metrics.measure import measure_arrays
from pip_dagster.statistics.metrics.spec import MetricSpec

DAYS = ("2024-03-01", "2024-03-02", "2024-03-03", "2024-03-04")
SOURCES = {name: {"table": f"raw.{name}", "partition_column": "day"} for name in ("orders", "outcomes")}
LABELS = {"sql": "labels.sql", "outcome": "returned"}
LOOSE = {"max_flip_rate": 1, "max_score_psi": 100}


def declare(gated, labels=None, gates=None, **gate):
    canary = {"arms": {"challenger": "40%"}, "salt": "spring", "gate": LOOSE | {"labels": labels or {}} | gate}
    return gated.declare(sources=SOURCES, gates={"labels": LABELS} | (gates or {}), scoring={"canary": canary})


@pytest.fixture
def canary(gated):
    """A good champion, v1, and as the arm the weak version, v3."""
    gated.registry.set_alias("returns", "champion", 1, by="ada", why="a good one")
    gated.registry.set_alias("returns", "challenger", 3, by="ada", why="to try")
    return declare(gated)


def check(results, key):
    found = [each for each in results[key].checks if each.expectation_id == "metric challenger"]
    return (found[0].status, json.loads(found[0].observed)) if found else None


def live(gated):
    rows = gated.warehouse("SELECT partition_key, count(DISTINCT arm) FROM orders.predictions GROUP BY 1 ORDER BY 1")
    return [key for key, arms in rows if arms == 2]


def stops(gated):
    return gated.warehouse("SELECT partition_key, why, figures FROM ledger.canaries WHERE action = 'stopped'")


@pytest.mark.slice
@pytest.mark.lake
def test_a_worse_arm_is_stopped_once_four_partitions_have_labels(canary, ledger_verify):
    results = canary.run(*DAYS[:3])
    assert check(results, DAYS[0]) == (
        "passed",
        "not judged yet: challenger (v3) and the champion (v1) have both scored 3 of 4 partitions",
    )
    assert live(canary) == [*DAYS[:3]] and not stops(canary)
    results = canary.run(DAYS[3])
    status, text = check(results, DAYS[3])
    assert status == "failed" and "analysis 1, of 4 partitions: auc" in text and "97.5% interval" in text
    assert live(canary) == [*DAYS[:3]], "those that it was live in stay as they are"
    ((key, why, figures),) = stops(canary)
    assert key == DAYS[3] and why == f"metric: {text}"
    frame, labels = canary.source_frame(), dict(canary.source_rows("SELECT order_id, returned FROM raw.outcomes"))
    columns = [
        np.array([of[key] for key in frame["order_id"]])
        for of in (labels, canary.expected(version=1), canary.expected(version=3))
    ]
    rows = PairedRows(*columns, np.arange(len(frame)), frame["day"].rank(method="dense").to_numpy(int))
    found, shown = gain("auc", rows, 0.975), json.loads(figures)["metric"]
    assert shown["figure"] == pytest.approx(found.gain) and shown["high"] == pytest.approx(found.high)
    assert shown["threshold"] == pytest.approx(-0.05 * (found.champion - 0.5))
    for name, scores in (("champion", columns[1]), ("candidate", columns[2])):
        of = {"score": scores, "pip_outcome": columns[0]}
        monitored = measure_arrays(MetricSpec("binary"), of).metrics["auc"].value
        assert shown[name] == pytest.approx(monitored, rel=1e-9), "monitoring has the same figure"
    assert (shown["metric"], shown["analysis"], shown["partitions"], shown["rows"]) == ("auc", 1, 4, 600)
    assert ledger_verify(canary) is None
    assert check(canary.run(DAYS[3]), DAYS[3]) is None, "a stopped arm is not judged"
    assert len(stops(canary)) == 1


@pytest.mark.soak
def test_partitions_from_before_it_was_resumed_do_not_count(canary):
    canary.run()
    shown = canary.shell("models", "canary", "orders", "--resume", "the labels were wrong")
    assert "while it passes its gate" in shown
    canary.source("UPDATE raw.orders SET quantity = quantity + 1 WHERE day = '2024-03-02'")
    results = canary.run()
    assert "have both scored 1 of 4 partitions" in check(results, DAYS[1])[1]
    assert len(stops(canary)) == 1


def test_an_arm_that_is_as_good_stays_live_and_what_the_labels_show_is_seen(canary):
    canary.registry.set_alias("returns", "challenger", 2, by="ada", why="a good one too")
    results = canary.run()
    status, text = check(results, DAYS[0])
    assert status == "passed" and text.startswith("analysis 1, of 4 partitions: auc")
    assert split_outcome(results[DAYS[0]].checks, DAYS[0])["metadata"]["metric challenger"] == text
    assert text.endswith("the next is of 8 partitions, 4 have their labels")
    assert live(canary) == [*DAYS]
    shown = canary.shell("models", "canary", "orders")
    assert "challenger by its labels: analysis 1, of 4 partitions" in " ".join(shown.split())
    assert json.loads(canary.shell("models", "canary", "orders", "--json"))[0]["labels"] == text


@pytest.mark.slice
def test_labels_that_are_not_complete_do_not_judge(canary):
    canary.source("DELETE FROM raw.outcomes WHERE day = '2024-03-04' AND returned = 0")
    assert check(canary.run(), DAYS[3]) == ("passed", "not judged yet: labels of 3 of 4 partitions are complete")
    canary.source("DELETE FROM raw.outcomes")
    assert check(canary.run(), DAYS[3])[1] == "not judged yet: labels of 0 of 4 partitions are complete"
    assert not stops(canary)


@pytest.mark.slice
def test_a_rerun_that_changes_nothing_is_no_news_although_labels_came(canary):
    canary.registry.set_alias("returns", "challenger", 2, by="ada", why="a good one")
    canary.run(*DAYS[:3])
    count = "SELECT count(*) FROM ledger.live_changes WHERE partition_key = '2024-03-01'"
    before = canary.warehouse(count)
    canary.run(DAYS[3])
    canary.run(DAYS[0])
    assert canary.warehouse(count) == before


@pytest.mark.slice
def test_labels_that_cannot_be_read_warn_and_stop_nothing(canary):
    for sql, says in (
        ("SELECT order_id, nothing AS returned FROM raw.outcomes", "nothing"),
        ("SELECT order_id::VARCHAR || 'x' AS order_id, returned FROM raw.outcomes", "cannot be compared"),
        ("SELECT order_id, returned FROM raw.outcomes UNION ALL FROM (VALUES (1, 0))", "more than one label"),
    ):
        (canary.folder / "labels.sql").write_text(sql)
        status, text = check(canary.run(), DAYS[0])
        assert status == "errored" and text.startswith("labels cannot judge it: Pipeline orders") and says in text
        assert live(canary) == [*DAYS] and not stops(canary)
        assert "metric challenger: not judged, see `models canary`" in canary.shell("status", "orders")
        assert text in canary.shell("models", "canary", "orders")


@pytest.mark.soak
def test_units_metric_and_limits_are_those_of_the_gates_unless_it_has_its_own(canary):
    """The same four shops each day: too few units say nothing, however many rows they have."""
    declare(canary, gates={"unit": "shop"})
    status, text = check(canary.run(), DAYS[0])
    assert status == "passed" and text.startswith("not judged: analysis 1") and "10 are needed" in text
    assert live(canary) == [*DAYS]
    declare(canary, labels={"metric": "macro_f1"})
    status, text = check(canary.run(DAYS[0]), DAYS[0])
    assert status == "errored" and "scoring.canary.gate.labels.metric is macro_f1" in text
    with pytest.raises(DeclarationError, match=r"scoring.canary.gate.labels.metric is macro_f1, which is not for"):
        check_metric(canary.pipeline())
    declare(canary, labels={"metric": "logloss", "max_loss": 1, "confidence": 0.9})
    status, text = check(canary.run(DAYS[0]), DAYS[0])
    assert status == "passed" and "logloss" in text and "95% interval" in text
    declare(canary, gates={"labels": None})
    with pytest.raises(ValidationError, match=r"declare `labels`, or remove it"):
        canary.pipeline()


@pytest.mark.soak
def test_models_with_several_classes_and_numbers_are_judged(gated, helpers):
    (gated.folder / "labels.sql").write_text(
        "SELECT order_id, quantity % 3 AS returned FROM raw.orders WHERE day >= $start_date AND day < $end_date"
    )
    several = {"objective": "multi:softprob", "num_class": 3}
    for model, metric, options in (
        ("several", "multi_logloss", several),
        ("number", "rmse", {"objective": "reg:squarederror"}),
    ):
        for rounds in (12, 1):
            gated.register(lambda frame: frame["quantity"] % 3, rounds=rounds, model=model, **options)
        gated.registry.set_alias(model, "champion", 1, by="ada", why="")
        gated.registry.set_alias(model, "challenger", 2, by="ada", why="")
        canary = {"arms": {"challenger": "40%"}, "salt": "spring", "gate": LOOSE | {"labels": {}}}
        gated.declare(sources=SOURCES, gates={"labels": LABELS}, scoring={"model_name": model, "canary": canary})
        status, text = check(gated.run(), DAYS[0])
        assert status == "failed" and f"partitions: {metric} " in text, text
