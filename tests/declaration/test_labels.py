"""Labels are declared once: at the top level, or where they were before, in `gates`."""

import pytest
from pydantic import ValidationError

from pip_dagster.flow.plan import make_plan
from pip_dagster.promotion.check import check

SOURCES = {name: {"table": f"raw.{name}", "partition_column": "day"} for name in ("orders", "outcomes")}
LABELS = {"sql": "labels.sql", "outcome": "returned", "complete_after": "1 day"}
GATES = {"partitions": 3, "max_flip_rate": 0.6, "max_score_psi": 20, "segments": ["shop"]}


def declare(gated, **changes):
    return gated.declare(**{"sources": SOURCES, "gates": GATES, "labels": LABELS} | changes).pipeline()


def metric(gated):
    report = check(
        gated.pipeline(), gated.registry, gated.registry.get("returns", 1), 3, by="ada", progress=lambda text: None
    )
    return next(each for each in report.results if each.name == "metric")


def test_both_places_are_one_block(gated):
    old = declare(gated, gates=GATES | {"labels": LABELS}, labels=None)
    judged = metric(gated)
    new = declare(gated)
    assert new.labels == old.labels and new.label_key == old.label_key == ("order_id",)
    assert (new.labels_name, old.labels_name) == ("labels", "gates.labels")
    assert (new.scoring_digest, new.feature_parts) == (old.scoring_digest, old.feature_parts)
    assert metric(gated).text == judged.text and judged.judged
    plan = make_plan(new, gated.partitions("2024-03-02", "2024-03-03"))
    assert not plan.stale and not plan.on_hold
    without_gates = declare(
        gated, gates=None, scoring={"canary": {"arms": {"b": "5%"}, "salt": "s", "gate": {"labels": {}}}}
    )
    assert without_gates.labels == new.labels


def test_two_declarations_are_refused_with_what_to_do(gated):
    with pytest.raises(ValidationError, match="keep `labels` and remove `gates.labels`"):
        declare(gated, gates=GATES | {"labels": LABELS})
    with pytest.raises(ValidationError, match="`mature_after` is the former name of `complete_after`"):
        declare(gated, labels=LABELS | {"mature_after": "1 day"})
    with pytest.raises(ValidationError, match="`arrives_after` is longer than `complete_after`"):
        declare(gated, labels=LABELS | {"arrives_after": "2 days"})
    with pytest.raises(ValidationError, match=r"remove `gates.unit`"):
        declare(gated, labels=LABELS | {"unit": "shop"}, gates=GATES | {"unit": "shop"})


@pytest.mark.parametrize("place", ["labels", "gates"])
def test_the_former_name_is_read_in_both_places(gated, place):
    former = {"sql": "labels.sql", "outcome": "returned", "mature_after": "36 hours"}
    found = declare(
        gated, **({"labels": former} if place == "labels" else {"labels": None, "gates": {"labels": former}})
    )
    assert found.labels.complete_after.total_seconds() == 36 * 3600


def test_a_unit_of_the_labels_is_that_of_the_gates(gated):
    declare(gated, labels=LABELS | {"unit": "shop"})
    found = metric(gated)
    assert not found.judged and "10 are needed" in found.text, "four shops are four units"
    declare(gated, labels=LABELS | {"unit": "buyer"})
    with pytest.raises(Exception, match=r"labels.unit names 'buyer'.*have order_id"):
        metric(gated)
