"""A canary: a split that stops by itself where its scores are too far from the champion's."""

import json
import re

import numpy as np
import pytest
from click.testing import CliRunner

from pip_dagster.cli.main import cli
from pip_dagster.errors import PipelineError
from pip_dagster.statistics.paired import wilson_low

DAYS = ("2024-03-01", "2024-03-02", "2024-03-03", "2024-03-04")
LOOSE = {"max_flip_rate": 1, "max_score_psi": 100}
CANARY = {"arms": {"challenger": "40%"}, "salt": "spring"}


@pytest.fixture
def canary(tiny):
    tiny.registry.set_alias("returns", "challenger", 2, by="ada", why="to try")
    return tiny


def declare(tiny, **gate):
    return tiny.declare(scoring={"canary": CANARY | {"gate": LOOSE | gate}})


def versions(tiny):
    rows = tiny.published(
        "SELECT partition_key, list(DISTINCT model_version ORDER BY model_version) FROM orders.predictions GROUP BY 1"
    )
    return dict(rows)


def verdict(tiny, key, name="arm challenger"):
    rows = tiny.published(
        "SELECT status, observed FROM ledger.checks c JOIN (SELECT DISTINCT change_id FROM ledger.arms "
        f"WHERE partition_key = '{key}') a ON a.change_id = c.entry_id WHERE expectation_id = '{name}'"
    )
    return (rows[0][0], json.loads(rows[0][1])) if rows else None


def command(tiny, *arguments, code=0):
    result = CliRunner().invoke(cli, ["--project", str(tiny.root), *arguments])
    error = result.exception
    assert result.exit_code == code or (code and isinstance(error, PipelineError | SystemExit)), (result.output, error)
    return result.output


def flips(tiny, key):
    a, b = (np.array(list(tiny.expected(f"day = '{key}'", version=v).values())) >= 0.5 for v in (1, 2))
    return float((a != b).mean())


def beyond_chance(tiny, key):
    return wilson_low(round(flips(tiny, key) * 50), 50)


def weak(tiny, helpers):
    """Point the arm at a version whose scores have another distribution."""
    file, history = tiny.root / "weak.ubj", helpers.orders(600, seed=2)
    helpers.train(1, history, rounds=1).save_model(file)
    options = {"sample": history, "categories": {"shop": helpers.SHOPS}, "by": "ada"}
    version = tiny.registry.register("returns", model=file, **options).version
    tiny.registry.set_alias("returns", "challenger", version, by="ada", why="a weak one")
    return version


def test_one_that_passes_is_live_for_its_share(canary):
    declare(canary).run()
    assert versions(canary) == dict.fromkeys(DAYS, [1, 2])
    status, text = verdict(canary, DAYS[0], "flip_rate challenger")
    assert status == "passed" and f"{flips(canary, DAYS[0]):.2%}" in text


@pytest.mark.slice
def test_one_that_fails_is_stopped_and_stays_so_until_it_is_resumed(canary, ledger_verify):
    worst = max(DAYS, key=lambda day: flips(canary, day))
    others = [day for day in DAYS if day != worst]
    limit = beyond_chance(canary, worst) - 1e-6
    assert all(beyond_chance(canary, day) < limit for day in others), "one day must be the worst"
    declare(canary, max_flip_rate=limit).run(others[0])
    canary.run(worst)
    assert versions(canary) == {others[0]: [1, 2], worst: [1]}
    canary.run(*others)
    assert versions(canary) == {others[0]: [1, 2], worst: [1], others[1]: [1], others[2]: [1]}
    status, text = verdict(canary, others[1])
    assert status == "failed" and f"stopped by partition {worst}: flip_rate" in text and f"{limit:.2%}" in text
    ((figures, why),) = canary.warehouse("SELECT figures, why FROM ledger.canaries")
    assert json.loads(figures)["flip_rate"] == {"figure": pytest.approx(flips(canary, worst)), "threshold": limit}
    assert canary.warehouse("SELECT count(*) FROM ledger.audit WHERE action = 'canary'") == [(1,)]
    assert ledger_verify(canary) is None
    assert "was stopped by partition" in command(canary, "models", "canary", "orders")
    # The arm goes on being scored, so that it can be watched.
    assert canary.warehouse("SELECT count(*) FROM ledger.scorings WHERE role = 'arm'") == [(4,)]

    assert "while it passes its gate" in command(canary, "models", "canary", "orders", "--resume", "a data error")
    canary.run(*others)
    assert versions(canary)[others[1]] == [1, 2]
    assert ledger_verify(canary) is None
    canary.run(worst)
    assert versions(canary)[worst] == [1], "the gate is asked again"
    states = json.loads(command(canary, "models", "canary", "orders", "--json"))
    assert [event["action"] for event in states[0]["events"]] == ["stopped", "resumed", "stopped"]


def test_another_version_is_not_stopped_by_the_stop_of_the_one_before(canary, helpers):
    declare(canary, max_flip_rate=0).run(DAYS[0])
    assert versions(canary) == {DAYS[0]: [1]}
    file = canary.root / "third.ubj"
    history = helpers.orders(300, seed=9)
    helpers.train(3, history).save_model(file)
    canary.registry.register("returns", model=file, sample=history, categories={"shop": helpers.SHOPS}, by="ada")
    canary.registry.set_alias("returns", "challenger", 3, by="ada", why="mended")
    declare(canary).run(DAYS[1])
    assert versions(canary)[DAYS[1]] == [1, 3]


def test_every_limit_stops(canary, helpers):
    weak(canary, helpers)
    for gate, name in (({"max_score_psi": 0}, "score_psi"), ({"max_mean_shift": 0}, "mean_shift")):
        declare(canary, **gate).run(DAYS[0])
        status, text = verdict(canary, DAYS[0], f"{name} challenger")
        assert status == "failed" and text
        assert versions(canary) == {DAYS[0]: [1]}
        command(canary, "models", "canary", "orders", "--resume", "next limit")


def flips_by_shop(tiny, key):
    """Shop → changed decisions and rows of a day, in another way than the gate's."""
    frame = tiny.source_frame(f"day = '{key}'")
    a, b = (np.array(list(tiny.expected(f"day = '{key}'", version=v).values())) >= 0.5 for v in (1, 2))
    return {
        shop: (int((a != b)[at].sum()), int(at.sum()))
        for shop in set(frame["shop"])
        if (at := frame["shop"] == shop).any()
    }


@pytest.mark.slice
def test_a_limit_in_a_segment_stops_where_the_whole_is_within_its_own(canary, ledger_verify):
    counts = flips_by_shop(canary, DAYS[0])
    worst = max(counts, key=lambda shop: counts[shop][0] / counts[shop][1])
    gate = {"segments": ["shop"], "min_rows": 5, "max_segment_psi": 100}
    declare(canary, **gate, max_segment_flip_rate=0.99).run(DAYS[0])
    assert versions(canary) == {DAYS[0]: [1, 2]}, "within every limit"
    status, text = verdict(canary, DAYS[0], "segment_flip_rate challenger")
    assert status == "passed" and f"shop {worst}: {counts[worst][0]} of {counts[worst][1]} decisions change" in text
    declare(canary, **gate, max_segment_flip_rate=0).run(DAYS[1])
    assert versions(canary)[DAYS[1]] == [1]
    ((figures, why),) = canary.warehouse("SELECT figures, why FROM ledger.canaries")
    assert set(json.loads(figures)) == {"segment_flip_rate"} and "at most 0.00% in a segment" in why
    assert ledger_verify(canary) is None


def test_segments_with_few_rows_are_not_judged_and_unknown_ones_are_refused(canary):
    declare(canary, segments=["shop"], max_segment_flip_rate=0, min_rows=50).run(DAYS[0])
    assert versions(canary) == {DAYS[0]: [1, 2]}
    assert "no segment has 50 rows" in verdict(canary, DAYS[0], "segment_flip_rate challenger")[1]
    checks = [str(check) for check in declare(canary, segments=["shops"]).run(DAYS[1])[DAYS[1]].checks]
    assert [check for check in checks if "canary.gate.segments names shops; expected feature columns" in check]
    assert versions(canary)[DAYS[1]] == [1]


def test_few_rows_are_not_judged(canary):
    declare(canary, max_flip_rate=0, min_rows=51).run(DAYS[0])
    assert versions(canary) == {DAYS[0]: [1, 2]}
    assert "fewer than" in verdict(canary, DAYS[0], "score_psi challenger")[1]


@pytest.mark.slice
def test_is_stopped_and_resumed_by_hand(canary):
    declare(canary).run(DAYS[0])
    assert "stopped by" in command(canary, "models", "canary", "orders", "--stop", "complaints")
    command(canary, "models", "canary", "orders", "--stop", "again", code=1)
    canary.run()
    assert versions(canary) == {DAYS[0]: [1, 2], DAYS[1]: [1], DAYS[2]: [1], DAYS[3]: [1]}
    command(canary, "models", "canary", "orders", "--resume", "", code=2)
    command(canary, "models", "canary", "orders", "--resume", "a", "--arm", "nobody", code=2)
    canary.declare()
    command(canary, "models", "canary", "orders", code=1)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE ledger.canaries SET action = 'resumed'",
        "DELETE FROM ledger.canaries",
        "INSERT INTO ledger.canaries SELECT 'x', * EXCLUDE (event_id) FROM ledger.canaries",
    ],
)
def test_a_changed_stop_is_found_by_the_audit(canary, ledger_verify, statement):
    declare(canary, max_flip_rate=0).run(DAYS[0])
    assert ledger_verify(canary) is None
    ledger_verify.tamper(canary, statement)
    assert ledger_verify(canary).kind == "ledger"


@pytest.mark.parametrize(
    ("decision", "says"),
    [
        ("score > (SELECT avg(score) FROM memory.pip_stage.scores)", "a subquery"),
        ("rank() OVER (ORDER BY score) < 5", "a window function"),
        ("scoring_id > 'a'", "scoring_id.*, which is not a column of the stored scores"),
        ("score >= 0.5) , (SELECT 1", "is not a single SQL expression"),
        ("day::VARCHAR::INTEGER > 1", "fails on a stored row"),
    ],
)
def test_a_decision_that_cannot_judge_a_row_leaves_it_to_the_champion(canary, decision, says):
    canary.declare(gates={"decision": decision}, scoring={"canary": CANARY | {"gate": LOOSE}})
    checks = [str(check) for check in canary.run(DAYS[0])[DAYS[0]].checks]
    assert [check for check in checks if re.search(f"not decided: Pipeline orders: gates.decision .*{says}", check)]
    assert versions(canary) == {DAYS[0]: [1]}


@pytest.mark.slice
def test_a_calibrated_version_can_challenge_one_that_is_not(canary, helpers):
    """Its rows have the column; in the champion's it is NULL, because there is no calibrated score."""
    of, history = canary.registry.get("returns", 2), helpers.orders(600, seed=2)
    options = {"sample": history, "categories": {"shop": helpers.SHOPS}, "by": "ada"}
    calibration = {"method": "platt", "slope": 1.0, "intercept": 0.5}
    version = canary.registry.register(
        "returns", model=of.path / "model.ubj", calibration=calibration, **options
    ).version
    canary.registry.set_alias("returns", "challenger", version, by="ada", why="calibrated")
    canary.declare(scoring={"canary": CANARY | {"gate": {"max_flip_rate": 1, "max_score_psi": 0}}}).run(DAYS[0])
    assert versions(canary) == {DAYS[0]: [1, version]}
    assert "only one of the versions is calibrated" in verdict(canary, DAYS[0], "score_psi challenger")[1]
    rows = canary.published("SELECT arm, count(*), count(calibrated) FROM orders.predictions GROUP BY 1")
    counts = {arm: (rows, calibrated) for arm, rows, calibrated in rows}
    assert counts["champion"][1] == 0 and counts["challenger"][0] == counts["challenger"][1] > 0
    canary.declare(scoring={"canary": CANARY | {"gate": {"max_flip_rate": 0}}}).run(DAYS[1])
    arm = {key: score + 0.5 for key, score in logits(canary, DAYS[1]).items()}
    flipped = np.mean(
        [(arm[key] >= 0) != (score >= 0.5) for key, score in canary.expected(f"day = '{DAYS[1]}'").items()]
    )
    assert f"{flipped:.2%}" in verdict(canary, DAYS[1], "flip_rate challenger")[1], "by its calibrated score"


def logits(tiny, key):
    return {key: np.log(p / (1 - p)) for key, p in tiny.expected(f"day = '{key}'", version=2).items()}
