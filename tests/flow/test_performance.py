"""Labels that arrive show how good the stored scores were; what was found once stays, and what is live is shown."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import numpy as np
import pytest

from pip_dagster.flow.performance import evaluate
from pip_dagster.warehouse.connect import workspace

SOURCES = {name: {"table": f"raw.{name}", "partition_column": "day"} for name in ("orders", "outcomes")}
LABELS = {"sql": "labels.sql", "outcome": "returned"}
DAYS = ["2024-03-01", "2024-03-02", "2024-03-03", "2024-03-04"]
NOW = datetime(2024, 5, 1, tzinfo=UTC)


def auc(y, score):
    """The share of pairs in order; ties are half."""
    pairs = score[y == 1][:, None] - score[y == 0][None, :]
    return float(((pairs > 0) + (pairs == 0) / 2).mean())


@pytest.fixture
def judged(gated):
    """All days are live and labelled, with a segment."""
    return declare(gated)


def declare(gated, **changes):
    labels = LABELS | changes.pop("labels", {})
    performance = {"segments": ["shop"]} | changes.pop("performance", {})
    gated.declare(**{"sources": SOURCES, "labels": labels, "monitoring": {"performance": performance}} | changes)
    return gated


def run(gated, *partitions, now=NOW):
    with workspace(threads=1) as con:
        return evaluate(con, gated.pipeline(), set(partitions) or None, now=now)


FIGURES = """SELECT partition_key, segment, segment_value, metric, value, n, rows, labelled FROM orders.performance
ORDER BY ALL"""


def figures(gated, metric="auc", segment=None):
    """Partition, or segment value, → the live figure."""
    rows = gated.warehouse(FIGURES)
    return {
        (key if segment is None else (key, value)): figure
        for key, of, value, name, figure, *_ in rows
        if name == metric and of == segment
    }


def truth(gated, day, where="true"):
    """Scores and outcomes of a day, from the tables."""
    scores = dict(gated.warehouse(f"SELECT order_id, score FROM orders.predictions WHERE partition_key = '{day}'"))
    labels = gated.source_rows(
        f"SELECT l.order_id, l.returned FROM raw.outcomes l JOIN raw.orders o USING (order_id) "
        f"WHERE l.day = '{day}' AND {where}"
    )
    pairs = [(scores[key], y) for key, y in labels if key in scores and y is not None]
    return np.array([s for s, _ in pairs], np.float64), np.array([y for _, y in pairs])


def test_figures_are_those_of_the_stored_rows(judged):
    found = run(judged)
    assert found.done == DAYS and not found.problems and not found.unlabelled
    for day, found in figures(judged).items():
        score, y = truth(judged, day)
        assert found == pytest.approx(auc(y, score), abs=1e-9)
        assert figures(judged, "logloss")[day] == pytest.approx(
            -np.log(np.where(y == 1, score, 1 - score)).mean(), abs=1e-9
        )
    by_shop = figures(judged, segment="shop")
    score, y = truth(judged, DAYS[1], "shop = 'plain'")
    assert by_shop[DAYS[1], "plain"] == pytest.approx(auc(y, score), abs=1e-9)
    assert {value for _, value in by_shop} >= {"plain", "Zürich"}
    again = run(judged)
    assert again.unchanged == DAYS and not again.done, "nothing is evaluated twice"
    assert judged.published("SELECT count(DISTINCT partition_key) FROM orders.performance") == [(4,)]


def evaluations(gated, columns="partition_key, labelled, restates IS NOT NULL"):
    return gated.warehouse(f"SELECT {columns} FROM ledger.evaluations ORDER BY evaluation_id")


def test_labels_arrive_day_by_day_and_each_is_evaluated_by_itself(judged):
    judged.source("CREATE TABLE raw.later AS FROM raw.outcomes", "DELETE FROM raw.outcomes WHERE day > '2024-03-01'")
    assert run(judged).unlabelled == DAYS[1:]
    judged.source("INSERT INTO raw.outcomes FROM raw.later WHERE day = '2024-03-02'")
    assert run(judged).done == [DAYS[1]]
    assert [*figures(judged)] == DAYS[:2]


def test_restated_labels_append_and_say_so(judged):
    run(judged)
    before = figures(judged)
    judged.source("UPDATE raw.outcomes SET returned = 1 - returned WHERE day = '2024-03-02' AND order_id % 3 = 0")
    assert run(judged).done == [DAYS[1]]
    after = figures(judged)
    assert after[DAYS[1]] != before[DAYS[1]] and after[DAYS[0]] == before[DAYS[0]]
    assert [row[2] for row in evaluations(judged)] == [False] * 4 + [True]
    kept = judged.warehouse(
        "SELECT value, is_live FROM ledger.performance_figures WHERE metric = 'auc' AND segment IS NULL "
        f"AND partition_key = '{DAYS[1]}' ORDER BY evaluation_id"
    )
    assert kept == [(before[DAYS[1]], False), (after[DAYS[1]], True)], "the old figure stays and names its scoring"


def test_labels_that_are_gone_leave_no_live_figure(judged):
    run(judged)
    judged.source("DELETE FROM raw.outcomes WHERE day = '2024-03-02'")
    assert run(judged).done == [DAYS[1]]
    assert DAYS[1] not in figures(judged)
    assert evaluations(judged)[-1] == (DAYS[1], 0, True)


@pytest.mark.slice
@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("UPDATE raw.outcomes SET returned = 1 WHERE day = '2024-03-02'", None),  # one class
        ("INSERT INTO raw.outcomes SELECT 900000 + i, DATE '2024-03-02', 1 FROM range(9) t(i)", None),  # unknown keys
        ("INSERT INTO raw.outcomes FROM raw.outcomes WHERE day = '2024-03-02'", "more than one label"),
        ("UPDATE raw.outcomes SET returned = 7 WHERE day = '2024-03-02'", "must be 0 or 1"),
    ],
)
def test_unkind_labels_are_of_one_partition_only(judged, change, says):
    run(judged)
    before = figures(judged)
    judged.source(change)
    found = run(judged)
    after = figures(judged)
    others = [day for day in DAYS if day != DAYS[1]]
    assert {day: after[day] for day in others} == {day: before[day] for day in others}
    if says:
        assert [*found.problems] == [DAYS[1]] and says in found.problems[DAYS[1]]
        assert after == before, "what was known stays"
        assert "could not be evaluated" in judged.shell("performance", "orders", "--evaluate", code=1)
    elif "900000" in change:
        assert not found.done and after == before
    else:
        assert found.done == [DAYS[1]] and after[DAYS[1]] is None
        assert "logloss" in judged.shell("performance", "orders", "--partition", DAYS[1])


def test_what_all_partitions_have_is_reported_once(judged):
    judged.source("UPDATE raw.outcomes SET returned = 7")
    shown = judged.shell("performance", "orders", "--evaluate", code=1)
    assert "pip_outcome" not in shown and shown.count("must be 0 or 1") < len(DAYS)


def test_sql_that_ignores_the_bounds_changes_nothing(judged):
    run(judged)
    (judged.folder / "labels.sql").write_text("SELECT order_id, returned FROM raw.outcomes")
    assert run(judged).unchanged == DAYS


def test_a_rollback_shows_the_figures_of_what_is_live_again(judged):
    run(judged)
    weak = figures(judged)
    judged.registry.set_alias("returns", "champion", 1, by="ada", why="better")
    judged.declare(
        sources=SOURCES,
        labels=LABELS,
        monitoring={"performance": {"segments": ["shop"]}},
        reruns={"promotion": "all"},
    )
    judged.run()
    assert figures(judged) == {}, "the new scorings are not evaluated yet"
    assert run(judged).done == DAYS
    assert all(figures(judged)[day] > weak[day] for day in DAYS)
    judged.shell("models", "rollback", "orders", "--to", "v3", "--why", "a test", code=0)
    assert figures(judged) == weak and run(judged).unchanged == DAYS, "nothing is evaluated again"


def test_the_text_null_is_not_the_rows_without_a_value(gated):
    sql = (gated.folder / "features.sql").read_text()
    note = "CASE order_id % 4 WHEN 0 THEN 'NULL' WHEN 1 THEN NULL ELSE '' END AS note"
    (gated.folder / "features.sql").write_text(sql.replace("'not a feature' AS note", note))
    declare(gated, performance={"segments": ["note"]})
    gated.run(DAYS[0])
    run(gated, DAYS[0])
    found = gated.warehouse("SELECT DISTINCT segment_value, rows FROM orders.performance WHERE segment = 'note'")
    assert {value for value, _ in found} == {"NULL", "'NULL'", ""} and sum(rows for _, rows in found) == 150
    assert max(rows for value, rows in found if value) == 38


def test_a_segment_with_many_values_is_limited(judged):
    declare(judged, performance={"segments": ["order_id"]})
    run(judged, DAYS[1])
    values = judged.warehouse("SELECT DISTINCT segment_value FROM orders.performance WHERE segment = 'order_id'")
    assert len(values) == 51 and ("(other)",) in values


def test_half_of_the_labels_of_one_kind_are_marked_and_reweighted(judged):
    scores = judged.scores(where=f"partition_key = '{DAYS[1]}'")
    high = ", ".join(str(key) for key, _ in sorted(scores.items(), key=lambda each: -each[1])[: len(scores) // 2])
    judged.source(f"DELETE FROM raw.outcomes WHERE day = '{DAYS[1]}' AND order_id NOT IN ({high})")
    run(judged)
    marked = dict(judged.warehouse("SELECT partition_key, unlike_rest FROM ledger.live_evaluations"))
    assert marked == {day: day == DAYS[1] for day in DAYS}
    reweighted = judged.warehouse(
        "SELECT partition_key FROM orders.performance WHERE metric = 'logloss' AND segment IS NULL AND reweighted > 0"
    )
    assert reweighted == [(DAYS[1],)]
    assert "not like the rest" in judged.shell("performance", "orders", "--last", "4")


def test_the_states_of_labels(judged):
    from pip_dagster.monitoring.performance import read_performance

    def states(now, **labels):
        declare(judged, labels=labels)
        with workspace(threads=1) as con:
            return [each.state for each in read_performance(con, judged.pipeline(), now=now).partitions]

    judged.source("DELETE FROM raw.outcomes WHERE day >= '2024-03-03'")
    at = datetime(2024, 3, 5, tzinfo=UTC)
    declared = {"arrives_after": "36 hours", "complete_after": "3 days"}
    declare(judged, labels=declared)
    run(judged, now=at)
    assert states(at, **declared) == ["mature", "maturing", "waiting", "waiting"]
    later = datetime(2024, 3, 6, tzinfo=UTC)
    assert states(later, **declared) == ["mature", "mature", "overdue", "waiting"]
    undeclared = states(later)
    assert undeclared[2:] == ["waiting", "waiting"], "without a newer partition that counts nothing is overdue"


def test_labels_of_a_partition_that_was_scored_again_are_not_overdue(judged):
    run(judged)
    judged.source("DELETE FROM raw.orders WHERE day = '2024-03-02' AND order_id % 3 = 0")
    judged.run(DAYS[1], allow_fewer_rows=True)
    shown = json.loads(judged.shell("performance", "orders", "--last", "4", "--json"))
    assert {each["partition_key"]: each["state"] for each in shown}[DAYS[1]] == "waiting"
    assert run(judged).done == [DAYS[1]]


def test_nothing_is_declared_and_nothing_happens(gated):
    declare(gated, labels={}, monitoring=None)
    assert not gated.pipeline().evaluates and gated.pipeline().label_assets == ()
    gated.declare(sources=SOURCES, monitoring={})
    assert "declares no labels" in gated.shell("performance", "orders", code=1)


def test_columns_that_are_not_there_are_refused_and_sql_that_cannot_run_is_one_problem(judged):
    declare(judged, performance={"segments": ["store"]})
    assert "store, declared as segments of performance, is not among" in judged.shell(
        "performance", "orders", "--evaluate", code=1
    )
    declare(judged, labels={"unit": "buyer"})
    assert "buyer, declared as unit of labels" in judged.shell("performance", "orders", "--evaluate", code=1)
    declare(judged)
    (judged.folder / "labels.sql").write_text("SELECT order_id, nothing AS returned FROM raw.outcomes")
    found = run(judged)
    assert [*found.problems] == DAYS and len({*found.problems.values()}) == 1 and not found.done


def test_each_arm_of_a_split_is_evaluated_on_its_own_rows(judged):
    judged.registry.set_alias("returns", "challenger", 1, by="ada", why="to compare")
    split = {"arms": {"challenger": "40%"}, "salt": "spring"}
    judged.declare(sources=SOURCES, labels=LABELS, monitoring={}, scoring={"split": split})
    judged.run(DAYS[0])
    assert not run(judged, DAYS[0]).problems
    live = "SELECT order_id, score, arm FROM orders.predictions WHERE partition_key = '2024-03-01'"
    labels = dict(judged.source_rows("SELECT order_id, returned FROM raw.outcomes"))
    rows = judged.warehouse(live)
    found = judged.warehouse(
        "SELECT arm, value, rows, model_version FROM orders.performance "
        "WHERE metric = 'auc' AND segment IS NULL ORDER BY 1"
    )
    assert [(arm, version) for arm, *_, version in found] == [("challenger", 1), ("champion", 3)]
    for arm, value, count, _ in found:
        own = [(score, labels[key]) for key, score, of in rows if of == arm]
        score, y = (np.array(each, np.float64) for each in zip(*own, strict=True))
        assert count == len(own) and value == pytest.approx(auc(y, score), abs=1e-9)
    assert run(judged, DAYS[0]).unchanged == [DAYS[0]]


@pytest.mark.parametrize(
    ("objective", "metric", "options"),
    [("multi:softprob", "multi_logloss", {"num_class": 3}), ("reg:squarederror", "rmse", {})],
)
def test_classes_and_numbers_are_evaluated(gated, objective, metric, options):
    (gated.folder / "labels.sql").write_text(
        "SELECT order_id, quantity % 3 AS returned FROM raw.orders WHERE day >= $start_date AND day < $end_date"
    )
    gated.register(lambda frame: frame["quantity"] % 3, model="other", objective=objective, **options)
    gated.registry.set_alias("other", "champion", 1, by="ada", why="")
    declare(gated, scoring={"model_name": "other"}).run(DAYS[0])
    assert run(gated, DAYS[0]).done == [DAYS[0]]
    labels = dict(gated.source_rows("SELECT order_id, quantity % 3 FROM raw.orders"))
    columns = "score" if metric == "rmse" else "score_0, score_1, score_2"
    rows = gated.warehouse(f"SELECT order_id, {columns} FROM orders.predictions WHERE partition_key = '{DAYS[0]}'")
    y, scores = np.array([labels[row[0]] for row in rows]), np.array([row[1:] for row in rows], np.float64)
    if metric == "rmse":
        expected = np.sqrt(((y - scores[:, 0]) ** 2).mean())
    else:
        expected = -np.log(scores[np.arange(len(y)), y.astype(int)]).mean()
    assert figures(gated, metric)[DAYS[0]] == pytest.approx(expected, abs=1e-6)


def test_two_evaluations_at_once_store_each_figure_once(judged):
    ready = threading.Barrier(2)

    def at_once():
        ready.wait()
        return run(judged)

    with ThreadPoolExecutor(2) as pool:
        for each in [pool.submit(at_once) for _ in range(2)]:
            assert not each.result().problems
    sql = "SELECT count(*), count(DISTINCT (scoring_id, labels_digest)) FROM ledger.evaluations"
    ((count, distinct),) = judged.warehouse(sql)
    assert count == distinct == len(DAYS)
    assert judged.warehouse("SELECT count(*) - count(DISTINCT e.evaluation_id) FROM ledger.evaluations e") == [(0,)]
