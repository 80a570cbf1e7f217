"""What came of the arms of a split: the figures are those of plain numpy, the intervals cover what they should."""

import hashlib
import json

import numpy as np
import pytest
from click.testing import CliRunner

from pip_dagster.cli.main import cli
from pip_dagster.statistics.metrics.measure import measure_arrays
from pip_dagster.statistics.metrics.spec import MetricSpec


def in_arm(key, salt="spring", buckets=5_000):
    text = f"{len(salt)}:{salt}{len(str(key))}:{key}"
    return int(hashlib.md5(text.encode()).hexdigest()[:15], 16) % 10_000 < buckets


@pytest.fixture
def parted(gated, helpers):
    gated.registry.set_alias("returns", "challenger", 2, by="ada", why="to compare")
    sources = {name: {"table": f"raw.{name}", "partition_column": "day"} for name in ("orders", "outcomes")}
    split = {"arms": {"challenger": "50%"}, "salt": "spring"}
    gated.declare(sources=sources, gates=helpers.GATES, scoring={"split": split})
    assert all(result.live_arms for result in gated.run().values())
    return gated


def compared(tiny, *options):
    result = CliRunner().invoke(cli, ["--project", str(tiny.root), "models", "compare", "orders", "--arms", *options])
    assert result.exit_code == 0, (result.output, result.exception)
    return result.output


def test_each_arm_is_judged_on_its_own_rows(parted):
    found = {each["arm"]: each for each in json.loads(compared(parted, "--json"))}
    live = {
        key: (version, score)
        for key, version, score in parted.published("SELECT order_id, model_version, score FROM orders.predictions")
    }
    labels = dict(parted.source_rows("SELECT order_id, returned FROM raw.outcomes"))
    assert list(found) == ["champion", "challenger"] and len(labels) == 600
    for arm, of_arm in (("challenger", True), ("champion", False)):
        keys = [key for key in labels if in_arm(key) is of_arm]
        y, scores = np.array([labels[k] for k in keys]), np.array([live[k][1] for k in keys])
        each = found[arm]
        assert (each["rows"], each["units"], each["labelled"], each["partitions"]) == (*[len(keys)] * 3, 4)
        assert each["outcome"]["value"] == pytest.approx(y.mean())
        assert each["outcome"]["low"] < y.mean() < each["outcome"]["high"]
        pairs = scores[y == 1][:, None] - scores[y == 0][None, :]
        assert each["metric"]["value"] == pytest.approx((pairs > 0).mean() + (pairs == 0).mean() / 2)
        monitored = measure_arrays(MetricSpec("binary"), {"score": scores, "pip_outcome": y}).metrics["auc"].value
        assert each["metric"]["value"] == pytest.approx(monitored, rel=1e-9), "monitoring has the same figure"
    # What came of the orders does not depend on the scores here, how good those are does: v2 is the better model.
    outcome, metric = found["challenger"]["outcome"], found["challenger"]["metric"]
    assert outcome["difference_low"] < 0 < outcome["difference_high"]
    assert metric["difference_low"] > 0


def test_the_table_says_what_is_missing(parted, helpers):
    assert "mean returned" in compared(parted)
    sources = {name: {"table": f"raw.{name}", "partition_column": "day"} for name in ("orders", "outcomes")}
    parted.declare(sources=sources, scoring={"split": {"arms": {"challenger": "50%"}, "salt": "spring"}})
    assert "Declare labels" in compared(parted)
    parted.declare(sources=sources)
    assert "has no split" in parted.shell("models", "compare", "orders", "--arms", code=1)


def test_arms_of_models_with_several_classes_have_a_metric(gated):
    """No mean outcome: the mean number of a class means nothing."""
    options = {"model": "other", "objective": "multi:softprob", "num_class": 3}
    for rounds in (1, 12):
        gated.register(lambda frame: frame["quantity"] % 3, rounds=rounds, max_depth=min(4, rounds), **options)
    for alias, version in (("champion", 1), ("challenger", 2)):
        gated.registry.set_alias("other", alias, version, by="ada", why="")
    (gated.folder / "labels.sql").write_text(
        "SELECT order_id, quantity % 3 AS returned FROM raw.orders WHERE day >= $start_date AND day < $end_date"
    )
    sources = {name: {"table": f"raw.{name}", "partition_column": "day"} for name in ("orders", "outcomes")}
    split = {"arms": {"challenger": "50%"}, "salt": "spring"}
    for metric in ("multi_logloss", "accuracy"):
        gates = {"labels": {"sql": "labels.sql", "outcome": "returned"}, "metric": metric}
        gated.declare(sources=sources, gates=gates, scoring={"model_name": "other", "split": split})
        assert all(result.live_arms for result in gated.run().values())
        found = {each["arm"]: each for each in json.loads(compared(gated, "--json"))}
        assert {each["outcome"] for each in found.values()} == {None}
        of = found["challenger"]["metric"]
        better = (of["difference_low"], -of["difference_high"])[metric == "multi_logloss"]
        assert found["challenger"]["metric_name"] == metric and better > 0
    live = gated.published(
        "SELECT order_id, score_0, score_1, score_2 FROM orders.predictions WHERE arm = 'challenger'"
    )
    truth = dict(gated.source_rows("SELECT order_id, quantity % 3 FROM raw.orders"))
    right = [int(np.argmax(scores)) == truth[key] for key, *scores in live]
    assert of["value"] == pytest.approx(np.mean(right))
