"""Gates by labels: which labels judge, whose rows count as one, and what happens where they are too few."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from pip_dagster.cli.models import models
from pip_dagster.errors import DeclarationError
from pip_dagster.flow.label_metric import check_metric
from pip_dagster.promotion.check import check
from pip_dagster.statistics.gate_result import GateReport, GateResult
from pip_dagster.statistics.interval import PairedRows, gain
from pip_dagster.statistics.judge import judge
from pip_dagster.statistics.metrics.measure import measure_arrays
from pip_dagster.statistics.metrics.spec import MetricSpec
from pip_dagster.statistics.segments import judge_segments

SOURCES = {name: {"table": f"raw.{name}", "partition_column": "day"} for name in ("orders", "outcomes")}
QUANTITY = "SELECT order_id, quantity % 3 AS returned FROM raw.orders WHERE day >= $start_date AND day < $end_date"


def gates_of(gated: Any, version: int, model: str = "returns") -> GateReport:
    registry = gated.registry
    seen = registry.alias(model, "champion")
    return check(gated.pipeline(), registry, registry.get(model, version), seen, by="ada", progress=lambda text: None)


def by_name(report: GateReport) -> dict[str, GateResult]:
    return {result.name: result for result in report.results}


def with_gates(gated: Any, **changes: Any) -> None:
    attributes = yaml.safe_load((gated.folder / "defs.yaml").read_text())["attributes"]
    gated.declare(sources=SOURCES, gates=attributes["gates"] | changes, scoring=attributes["scoring"])


@pytest.fixture
def promote(gated: Any, helpers: Any) -> Any:
    def run(*arguments: str, code: int) -> Any:
        result = helpers.invoke(models, ["promote", "returns", *arguments], obj=gated.project)
        assert result.exit_code == code, result.output
        return result

    return run


def one_shop(helpers: Any) -> Any:
    return lambda frame: np.where(frame["shop"] == "東京", 1 - helpers.returned(frame), helpers.returned(frame))


def test_late_labels_judge_by_the_newest_partitions_that_have_them(gated: Any, helpers: Any) -> None:
    """The newest two partitions have no label yet; before, nothing was judged and everything passed."""
    gated.source("DELETE FROM raw.outcomes WHERE day >= '2024-03-03'")
    with_gates(gated, partitions=1, labels={"sql": "labels.sql", "outcome": "returned", "rows": 100})
    version = gated.register(one_shop(helpers))
    report = gates_of(gated, version)
    assert report.partitions == ("2024-03-04",)
    metric = by_name(report)["metric"]
    assert metric.details["rows"] == 150, "the newest labelled partition is enough for 100 rows"
    assert "labels of 1 partitions, 2024-03-02 to 2024-03-02; 2 newer ones have none yet" in metric.text
    with_gates(gated, labels={"sql": "labels.sql", "outcome": "returned"})
    found = by_name(gates_of(gated, version))
    assert found["metric"].details["rows"] == 300, "all labelled partitions"
    assert found["replay"].text.startswith("150 of 150 live rows"), "rows that are there for labels do not count"
    assert found["segment_metric"].state == "failed" and "東京" in found["segment_metric"].text


@pytest.mark.slice
def test_outcomes_that_are_no_numbers_and_labels_without_a_key(gated: Any) -> None:
    file = gated.folder / "labels.sql"
    before = by_name(gates_of(gated, 1))["metric"].details["rows"]
    text = file.read_text().strip().rstrip(";")
    bounds = text[text.index("WHERE") :]
    no_key = (
        f"{text} UNION ALL BY NAME SELECT NULL::BIGINT AS order_id, 1 AS returned FROM range(2), raw.orders {bounds}"
    )
    file.write_text(no_key)
    assert by_name(gates_of(gated, 1))["metric"].details["rows"] == before, "two of one key would be refused"
    file.write_text(f"SELECT * REPLACE (if(returned = 1, 'yes', 'no') AS returned) FROM ({text})")
    with pytest.raises(DeclarationError, match="outcomes, '(yes|no)' among them, are not numbers. Map them in the SQL"):
        gates_of(gated, 1)


@pytest.mark.slice
def test_partitions_that_are_still_being_labelled_do_not_judge(gated: Any) -> None:
    """Of the newest partition, only returned orders are known: a label that arrives early is of one kind."""
    gated.source("DELETE FROM raw.outcomes WHERE day = '2024-03-04' AND returned = 0")
    metric = by_name(gates_of(gated, 1))["metric"]
    assert metric.details["rows"] == 450 and "1 newer ones have none yet, or not all" in metric.text
    with_gates(gated, labels={"sql": "labels.sql", "outcome": "returned", "mature_after": "1 day"})
    assert by_name(gates_of(gated, 1))["metric"].details["rows"] > 450, "declared: all those are mature"
    with_gates(gated, labels={"sql": "labels.sql", "outcome": "returned", "mature_after": "36000 days"})
    assert by_name(gates_of(gated, 1))["metric"].state == "unjudged"


@pytest.mark.slice
def test_without_labels_a_promotion_is_refused_until_somebody_accepts_it(
    gated: Any, promote: Any, helpers: Any
) -> None:
    gated.source("DELETE FROM raw.outcomes")
    report = gates_of(gated, 1)
    assert not report.passed and not report.failed
    assert {result.name for result in report.unjudged} == {"metric", "segment_metric"}
    text = by_name(report)["metric"].text
    assert "no replayed row has a label" in text and "labelled rows of at least 10 units are needed" in text
    gate = helpers.invoke(models, ["gate", "orders", "v1"], obj=gated.project)
    assert gate.exit_code == 2 and "UNJUDGED metric" in gate.output
    refused = promote("v1", code=1)
    assert "metric is not judged" in refused.output and '--accept-unjudged "REASON"' in refused.output
    promote("v1", "--accept-unjudged", " ", code=2)
    promote("v1", "--accept-unjudged", "labels come in May", code=0)
    why = gated.registry.alias_history("returns", "champion")[-1].why
    assert why.startswith("accepted unjudged: labels come in May; orders: metric is not judged")
    audited = gated.warehouse("SELECT details FROM ledger.audit WHERE action = 'promotion' ORDER BY made_at")[-1][0]
    assert json.loads(audited)["why"] == why


def test_a_gate_that_fails_is_not_excused_by_accepting_unjudged_ones(gated: Any, promote: Any) -> None:
    gated.source("DELETE FROM raw.outcomes")
    with_gates(gated, max_flip_rate=0)
    assert "flip_rate" in promote("v1", "--accept-unjudged", "labels come in May", code=1).output
    assert gated.champion == 3
    with_gates(gated, max_flip_rate=1, unjudged="pass")
    promote("v1", code=0)


def test_where_nothing_is_live_labels_cannot_judge(gated: Any) -> None:
    gated.begin_again()
    report = gates_of(gated, 1)
    assert {result.name for result in report.unjudged} == {"metric", "segment_metric"}
    assert "no partition is live" in report.refusal


def test_rows_of_one_unit_are_not_independent(gated: Any) -> None:
    """The same 30 buyers on all days: 600 rows are worth far fewer."""
    sql = (gated.folder / "features.sql").read_text().replace("amount,", "amount, order_id % 30 AS buyer,")
    gated.declare(
        sql, sources=SOURCES, gates=yaml.safe_load((gated.folder / "defs.yaml").read_text())["attributes"]["gates"]
    )
    gated.source("UPDATE raw.outcomes SET returned = (order_id % 30 < 12)::INT")
    assert all(result.scoring for result in gated.run().values())
    by_row = by_name(gates_of(gated, 1))["metric"].details
    with_gates(gated, unit="buyer")
    by_unit = by_name(gates_of(gated, 1))["metric"].details
    assert (by_row["units"], by_unit["units"], by_unit["rows"], by_unit["days"]) == (600, 30, 600, 4)
    labels = dict(gated.source_rows("SELECT order_id, returned FROM raw.outcomes"))
    keys = np.array(sorted(labels))
    columns = [np.array([of[key] for key in keys]) for of in (labels, *(gated.expected(version=v) for v in (3, 1)))]
    for shown, unit in ((by_row, keys), (by_unit, keys % 30)):
        found = gain("auc", PairedRows(*columns, unit, keys // 150))
        assert found and shown["se"] == pytest.approx(found.se, rel=1e-6) and shown["gain"] == pytest.approx(found.gain)
    assert by_row["se"] != pytest.approx(by_unit["se"], rel=0.05)


def test_the_gate_computes_what_the_statistics_do(gated: Any) -> None:
    """Rows, units, days and segments arrive as they are: the same figures from the source tables and plain scores."""
    frame = gated.source_frame()
    labels = dict(gated.source_rows("SELECT order_id, returned FROM raw.outcomes"))
    old, new = (gated.expected(version=version) for version in (3, 1))
    columns = [np.array([of[key] for key in frame["order_id"]]) for of in (labels, old, new)]
    rows = PairedRows(*columns, np.arange(len(frame)), pd.factorize(frame["day"])[0])
    verdict = judge("auc", rows)
    found = by_name(gates_of(gated, 1))
    assert verdict.gain and verdict.margin
    for name in ("gain", "low", "high", "se"):
        assert found["metric"].details[name] == pytest.approx(getattr(verdict.gain, name), rel=1e-6), name
    for name, scores in (("champion", old), ("candidate", new)):
        of = {"score": [scores[key] for key in frame["order_id"]], "pip_outcome": columns[0]}
        monitored = measure_arrays(MetricSpec("binary"), of).metrics["auc"].value
        assert found["metric"].details[name] == pytest.approx(monitored, rel=1e-9), "monitoring has the same figure"
    assert found["metric"].threshold == pytest.approx(-verdict.margin.value)
    codes, values = pd.factorize(frame["shop"])
    of = judge_segments("auc", rows, {"shop": (list(values), codes)}, verdict.margin.value)
    shown = {each["value"]: (each["gain"], each["p"]) for each in found["segment_metric"].details["segments"]}
    assert shown == {
        each.value: (pytest.approx(each.gain.gain), pytest.approx(each.p)) for each in of.segments if each.gain
    }
    assert "refused with a probability of 80%" in found["segment_metric"].text


@pytest.mark.slice
@pytest.mark.parametrize("named", [False, True])
def test_models_with_several_classes_are_judged_by_labels(gated: Any, helpers: Any, named: bool) -> None:
    for rounds in (1, 12):
        version = gated.register(
            lambda frame: frame["quantity"] % 3,
            rounds=rounds,
            max_depth=min(4, rounds),
            model="other",
            objective="multi:softprob",
            num_class=3,
        )
        if named:
            of = gated.registry.get("other", version)
            gated.registry.register(
                "named",
                model=of.path / "model.ubj",
                sample=helpers.orders(600, seed=2),
                categories={"shop": helpers.SHOPS},
                classes=["none", "one", "two"],
                by="ada",
            )
    model = "named" if named else "other"
    gated.registry.set_alias(model, "champion", 1, by="ada", why="")
    sql = QUANTITY.replace("quantity % 3 AS", "(['none', 'one', 'two'])[quantity % 3 + 1] AS") if named else QUANTITY
    (gated.folder / "labels.sql").write_text(sql)

    def declared(metric: str | None) -> None:
        gates = {"labels": {"sql": "labels.sql", "outcome": "returned"}, "metric": metric, "segments": ["shop"]}
        gates |= {"max_flip_rate": 1, "max_score_psi": 100}
        gated.declare(sources=SOURCES, gates=gates, scoring={"model_name": model})

    declared(None)
    assert all(result.scoring for result in gated.run().values())
    report = gates_of(gated, 2, model)
    assert report.passed, report.refusal
    gated.registry.set_alias(model, "champion", 2, by="ada", why="the better one")
    for metric in (None,) if named else (None, "accuracy", "macro_f1", "ovr_auc"):  # the classes' names matter once
        declared(metric)
        found = by_name(gates_of(gated, 1, model))["metric"]
        assert (found.details["metric"], found.state) == (metric or "multi_logloss", "failed")
    if named:
        (gated.folder / "labels.sql").write_text(sql.replace("'two'", "'both'"))
        with pytest.raises(
            DeclarationError, match="'both' among them, are not a class of named v2, which has none, one"
        ):
            gates_of(gated, 1, model)


@pytest.mark.parametrize(
    ("objective", "metric", "message"),
    [
        ("rank:pairwise", None, "no default.*comparable within a group"),
        ("survival:cox", None, "no default.*censored.*Declare auc or rmse"),
        ("reg:quantileerror", None, "no default.*quantile is not"),
        ("count:poisson", "auc", "is auc, which is not for other v1.*expected poisson_deviance or rmse"),
        ("multi:softprob", "auc", "is auc, which is not for other v1.*expected multi_logloss"),
        ("binary:logistic", "macro_f1", "is macro_f1, which is not for other v1.*expected auc"),
        ("rank:pairwise", "auc", None),
        ("reg:gamma", None, None),
    ],
)
def test_a_metric_that_does_not_fit_the_model_is_refused_when_the_pipeline_loads(
    gated: Any, objective: str, metric: str | None, message: str | None
) -> None:
    options = {"multi:softprob": {"num_class": 9}, "reg:quantileerror": {"quantile_alpha": 0.9}}.get(objective, {})
    gated.register(lambda frame: frame["quantity"], model="other", objective=objective, **options) if objective != (
        "binary:logistic"
    ) else gated.register(lambda frame: frame["quantity"] > 3, model="other")
    gated.registry.set_alias("other", "champion", 1, by="ada", why="")
    labels = {"sql": "labels.sql", "outcome": "returned"}
    gated.declare(sources=SOURCES, gates={"labels": labels, "metric": metric}, scoring={"model_name": "other"})
    if message is None:
        check_metric(gated.pipeline())
        return
    with pytest.raises(DeclarationError, match=f"Pipeline orders: gates.metric .*{message}"):
        check_metric(gated.pipeline())


@pytest.mark.parametrize("key", ["min_gain", "min_segment_gain", "min_segment_rows"])
def test_a_former_key_says_what_to_write_instead(gated: Any, key: str) -> None:
    with pytest.raises(ValueError, match=rf"`{key}`: .* Remove {key}"):
        with_gates(gated, **{key: 0})
        gated.pipeline()


def calibrated_of(gated: Any, helpers: Any, version: int, **calibration: Any) -> int:
    """The same model, registered with a calibration."""
    of, history = gated.registry.get("returns", version), helpers.orders(600, seed=2)
    options = {"sample": history, "categories": {"shop": helpers.SHOPS}, "by": "ada", "calibration": calibration}
    return int(gated.registry.register("returns", model=of.path / "model.ubj", **options).version)


def test_a_calibrated_version_is_judged_by_its_calibrated_score(gated: Any, helpers: Any) -> None:
    """Its raw scores are the champion's; calibrated wrongly, log loss refuses it and PSI says nothing."""
    gated.registry.set_alias("returns", "champion", 1, by="ada", why="the good one")
    with_gates(gated, metric="logloss", max_score_psi=0)
    same = calibrated_of(gated, helpers, 1, method="platt", slope=1.0, intercept=0.0)
    report = gates_of(gated, same)
    assert report.passed, report.refusal
    found = by_name(report)
    assert (
        found["score_psi"].state == "unjudged" and "only one of the versions is calibrated" in found["score_psi"].text
    )
    assert found["flip_rate"].figure == 0
    wrong = calibrated_of(gated, helpers, 1, method="platt", slope=1.0, intercept=3.0)
    found = by_name(gates_of(gated, wrong))
    assert found["metric"].state == "failed"
    assert (found["flip_rate"].figure or 0) > 0, "the default decision is over the calibrated score"
    with_gates(gated, decision="calibrated >= 0.9", unjudged="pass")
    assert "`calibrated >= 0.9` change" in by_name(gates_of(gated, wrong))["flip_rate"].text


def test_flips_are_those_of_the_declared_decisions(gated: Any) -> None:
    attributes = yaml.safe_load((gated.folder / "defs.yaml").read_text())["attributes"]
    decisions = {"call": "score >= 0.25", "gift_late": "call AND gift", "price": "score * 10"}
    gated.declare(sources=SOURCES, gates=attributes["gates"], decisions=decisions)
    flips = by_name(gates_of(gated, 1))["flip_rate"]
    old, new = (
        np.array(list(gated.expected("day >= '2024-03-02'", version).values()), np.float32) for version in (3, 1)
    )
    assert "`call, gift_late`" in flips.text
    assert flips.figure == np.mean((old >= 0.25) != (new >= 0.25)), "gift_late only flips where call does"
