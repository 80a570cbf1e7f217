"""Every feature name that XGBoost can train with scores, explains and replays; or is refused with the remedy."""

import json

import numpy as np
import pandas as pd
import pytest

from pip_dagster.registry.errors import InvalidModel, SignatureMismatch
from pip_dagster.replay import recall
from pip_dagster.replay.replay import replay
from pip_dagster.warehouse.connect import workspace

import xgboost as xgb  # isort: skip  # after pip_dagster: it keeps OpenMP's threads from spinning

FIRST = "2024-03-01"
NAMES = (
    *(
        "age<18",
        "band[0]",
        "[",
        "]]",
        '"quoted"',
        "it's",
        "a.b.c",
        " leading space ",
        "two\nlines\t",
        "東京 é",
        "%s {x}",
    ),
    *("x" * 70 + "1", "x" * 70 + "2", "score", "f0", "k1", "select", "$start", "; --", "\\", "calibrated", "e\u0301"),
)


def model(tmp_path, names, booster="gbtree", objective="binary:logistic", **parameters):
    """A Booster with these names, which Python's DMatrix may refuse; its sample, and plain XGBoost's own scores."""
    rng = np.random.default_rng(3)
    X = rng.normal(size=(300, len(names))).astype(np.float32)
    label = (X.sum(axis=1) > 0).astype(int)
    plain = xgb.train(
        {"booster": booster, "objective": objective, "max_depth": 3} | parameters, xgb.DMatrix(X, label), 5
    )
    document = json.loads(plain.save_raw("json").decode())
    document["learner"]["feature_names"], document["learner"]["feature_types"] = list(names), ["float"] * len(names)
    file = tmp_path / f"{booster}.json"
    file.write_text(json.dumps(document, ensure_ascii=False), encoding="utf-8")
    return file, pd.DataFrame(X, columns=list(names)), plain.predict(xgb.DMatrix(X))


@pytest.mark.parametrize("booster", ["gbtree", "dart", "gblinear"])
def test_any_name_scores_explains_and_replays(tiny, tmp_path, booster):
    file, sample, expected = model(tmp_path, NAMES, booster)
    tiny.registry.register("named", model=file, sample=sample, by="ada")
    next_file, sample, _ = model(tmp_path, NAMES, booster, eta=0.1)
    tiny.registry.register("named", model=next_file, sample=sample, by="ada")
    tiny.registry.set_alias("named", "champion", 1, by="ada", why="the first")
    tiny.registry.set_alias("named", "challenger", 2, by="ada", why="the next")
    rows = sample.assign(order_id=range(len(sample)), day=pd.Timestamp(FIRST).date())
    rows.to_parquet(tiny.root / "rows.parquet")
    tiny.declare(
        "SELECT * FROM raw.orders WHERE day >= $start_date AND day < $end_date",
        source_database=None,
        sources={"orders": {"table": "raw.orders", "partition_column": "day", "parquet": "rows.parquet"}},
        scoring={"model_name": "named", "challengers": ["challenger"]},
        decisions={"flag": '"age<18" > 0 AND "two\nlines\t" < 1'},
        explanations={"top": len(NAMES), "at_most": 10},
    )
    result = tiny.run(FIRST)[FIRST]
    assert result.error is None
    scores = tiny.warehouse("SELECT score FROM orders.predictions ORDER BY order_id")
    assert np.array_equal(np.float32([each[0] for each in scores]), expected)
    explained = {name for (name,) in tiny.warehouse("SELECT DISTINCT feature FROM orders.reasons")}
    assert explained == set(NAMES)
    pipeline = tiny.pipeline()
    with workspace(threads=1) as con:
        entries = recall.find(con, pipeline)
    assert [each.verdict for each in replay(pipeline, entries)] == ["identical"]


@pytest.mark.parametrize("names", [["a", "partition_key"], ["Scoring_ID", "b"], ["reasons", "x"], ["a", "row_key"]])
def test_a_name_that_no_column_can_have_is_refused_with_the_remedy(tiny, tmp_path, names):
    file, sample, _ = model(tmp_path, names)
    with pytest.raises(SignatureMismatch, match=r"have names that no column .*; rename them and train again"):
        tiny.registry.register("named", model=file, sample=sample, by="ada")
    assert not list(tiny.registry.root.glob("named/versions/*"))


def test_an_unexpected_error_of_the_probe_says_what_it_is(tiny, tmp_path):
    file, sample, _ = model(tmp_path, ["a", "b"])
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\n"
        "if 'pip_dagster.registry.probe' in ' '.join(sys.orig_argv):\n"
        "    from pip_dagster.registry import describe\n"
        "    def broken(*_, **__): raise ZeroDivisionError('of a library')\n"
        "    describe.describe = broken\n"
    )
    import sys

    sys.path.insert(0, str(tmp_path))
    try:
        with pytest.raises(InvalidModel, match="unexpected ZeroDivisionError: of a library") as found:
            tiny.registry.register("named", model=file, sample=sample, by="ada")
    finally:
        sys.path.remove(str(tmp_path))
    assert "damaged" not in str(found.value)
