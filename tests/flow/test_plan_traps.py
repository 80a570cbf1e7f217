"""What a plan by the newest ledger entry alone gets wrong."""

from datetime import UTC, datetime, timedelta

import pytest

from pip_dagster.flow.plan import make_plan
from pip_dagster.ledger.rollback import rollback

FIRST, SECOND = "2024-03-01", "2024-03-02"
BREAK = f"UPDATE raw.orders SET amount = 'inf' WHERE day = '{SECOND}' AND amount = 7"
MEND = "UPDATE raw.orders SET amount = 7 WHERE isinf(amount)"


@pytest.fixture
def shop(tiny):
    tiny.declare(reruns={"promotion": "all"})
    tiny.source(f"UPDATE raw.orders SET amount = 7 WHERE day = '{SECOND}'")
    assert not any(result.error for result in tiny.run().values())
    assert due(tiny) == {}
    return tiny


def the_plan(shop, later=timedelta(0)):
    return make_plan(shop.pipeline(), shop.partitions(), now=datetime.now(UTC) + later)


def due(shop, later=timedelta(0)):
    return {each.partition.key: [reason.kind for reason in each.reasons] for each in the_plan(shop, later).stale}


def held(shop):
    return {each.partition.key: [reason.kind for reason in each.reasons] for each in the_plan(shop).on_hold}


def test_features_that_were_made_and_not_scored_are_due(shop):
    """A run killed between the two, or somebody who made the features alone."""
    shop.source(f"UPDATE raw.orders SET quantity = quantity + 1 WHERE day = '{FIRST}'")
    shop.run(FIRST, predictions=False)
    assert due(shop) == {FIRST: ["features_changed"]}
    shop.run(FIRST)
    assert due(shop) == {}


def test_features_that_were_made_first_of_all_are_missing_scores(tiny):
    tiny.declare()
    tiny.run(FIRST, predictions=False)
    assert due(tiny)[FIRST] == ["missing"]


@pytest.mark.slice
def test_a_source_that_was_broken_and_is_as_before_comes_to_rest(shop):
    """Its old scoring serves again: nothing is scored, and nothing says that the failure is over but that."""
    shop.source(BREAK)
    assert shop.run(SECOND)[SECOND].error
    shop.source(MEND)
    for _ in range(2):
        for key in due(shop, timedelta(days=1)):
            assert not shop.run(key)[key].error
    assert due(shop, timedelta(days=1)) == {} and held(shop) == {}


def test_a_key_that_was_twice_and_is_once_again_comes_to_rest(shop):
    """The features could not even be made, and nothing new of them is kept when they can be again."""
    shop.source(f"INSERT INTO raw.orders FROM raw.orders WHERE day = '{SECOND}' LIMIT 1")
    assert "more than once" in shop.run(SECOND)[SECOND].error
    shop.source("CREATE OR REPLACE TABLE raw.orders AS SELECT DISTINCT * FROM raw.orders")
    for key in due(shop, timedelta(days=1)):
        assert not shop.run(key)[key].error
    assert due(shop, timedelta(days=1)) == {} and held(shop) == {}


@pytest.mark.slice
def test_sql_that_fails_for_a_day_is_tried_so_often_and_no_more(shop, helpers):
    """Its old features are of the old SQL for ever; each attempt at the new is an attempt at the same."""
    shop.declare(helpers.SQL.replace("order_id,", f"if(day = '{SECOND}', 1, order_id) AS order_id,"))
    numbers = []
    for days in range(1, 8):
        plan = the_plan(shop, timedelta(days=days))
        numbers += [each.attempt for each in plan.stale if each.partition.key == SECOND]
        if plan.stale:
            shop.run(*(each.partition.key for each in plan.stale))
    assert numbers == [1, 2, 3]
    assert held(shop) == {SECOND: ["failed"]}


@pytest.mark.soak
def test_a_source_that_is_as_it_was_once_is_another_ask(shop):
    """A run key is honoured once: from one state to another and back, the third ask is not the first one again."""
    change, back = (f"UPDATE raw.orders SET quantity = quantity {sign} 1 WHERE day = '{FIRST}'" for sign in "+-")
    asked = []
    for statement in (change, back, change, back):
        shop.source(statement)
        [once] = the_plan(shop).stale
        asked.append(once.wanted)
        shop.run(FIRST)
    assert len(set(asked)) == 4
    shop.source(change)
    assert the_plan(shop).stale[0].wanted == the_plan(shop).stale[0].wanted


@pytest.fixture
def rolled_back(shop):
    """Two days by v1 again, by somebody's decision, while the alias names v2."""
    shop.registry.set_alias("returns", "champion", 2, by="ada", why="better")
    assert set(due(shop)) == {FIRST, SECOND, "2024-03-03", "2024-03-04"}
    shop.run()
    assert due(shop) == {}
    rollback(shop.project, "orders", to_version=1, partitions=(FIRST, SECOND), why="v2 is wrong here", by="bob")
    return shop


@pytest.mark.slice
def test_what_was_rolled_back_is_not_scored_away(rolled_back):
    assert due(rolled_back) == {}
    rolled_back.source(f"UPDATE raw.orders SET quantity = quantity + 1 WHERE day IN ('{FIRST}', '2024-03-03')")
    assert due(rolled_back) == {"2024-03-03": ["source_changed"]}
    assert "source_changed" in held(rolled_back)[FIRST]


@pytest.mark.slice
def test_a_later_promotion_is_the_newer_word(rolled_back):
    for version in (1, 2):
        rolled_back.registry.set_alias("returns", "champion", version, by="ada", why="mended")
    assert due(rolled_back) == {FIRST: ["model_promoted"], SECOND: ["model_promoted"]}


@pytest.mark.slice
def test_a_whole_rollback_leaves_nothing_due_and_corrections_still_count(shop):
    shop.registry.set_alias("returns", "champion", 2, by="ada", why="better")
    shop.run()
    rollback(shop.project, "orders", why="v2 is worse", by="bob")
    assert due(shop) == {} and shop.registry.alias("returns", "champion") == 1
    shop.source(f"UPDATE raw.orders SET quantity = quantity + 1 WHERE day = '{FIRST}'")
    assert due(shop) == {FIRST: ["source_changed"]}


SPLIT = {"arms": {"challenger": "40%"}, "salt": "spring"}


@pytest.fixture
def parted(tiny):
    """A split, and a day that is divided by it."""
    tiny.registry.set_alias("returns", "challenger", 2, by="ada", why="to compare")
    tiny.declare(scoring={"split": SPLIT}).run(FIRST)
    return tiny


def told(shop):
    return {
        each.partition.key: [reason.text for reason in each.reasons]
        for each in the_plan(shop).on_hold
        if each.reasons[0].kind == "arms_changed"
    }


class Killed(BaseException):
    pass


def killed_before_arms_are_decided(shop, monkeypatch, *keys):
    from pip_dagster.flow import materialize

    def die(*_):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(materialize, "split", die)
        with pytest.raises(Killed):
            shop.run(*keys)


@pytest.mark.slice
def test_arms_that_a_kill_left_undecided_are_due(parted, monkeypatch):
    killed_before_arms_are_decided(parted, monkeypatch, SECOND)
    assert due(parted)[SECOND] == ["arms_undecided"] and FIRST not in due(parted)
    assert parted.run(SECOND)[SECOND].live_arms
    assert SECOND not in due(parted) and told(parted) == {}


@pytest.mark.slice
def test_undecided_arms_of_a_split_that_is_not_declared_any_more_are_nobodys(parted, monkeypatch):
    killed_before_arms_are_decided(parted, monkeypatch, SECOND)
    parted.declare()
    assert SECOND not in due(parted)
    assert told(parted) == {FIRST: ["no split is declared any more, this one is still live here"]}


@pytest.mark.slice
def test_a_split_is_about_what_is_made_from_now_on(shop):
    shop.registry.set_alias("returns", "challenger", 2, by="ada", why="to compare")
    shop.declare(reruns={"promotion": "all"}, scoring={"split": SPLIT})
    assert due(shop) == {} and told(shop)[FIRST] == ["split 'spring': declared since, not live here"]
    shop.run(FIRST)
    assert FIRST not in told(shop) and len(told(shop)) == 3
    shop.declare(reruns={"promotion": "all"}, scoring={"split": SPLIT | {"arms": {"challenger": "50%"}}})
    assert told(shop)[FIRST] == ["split 'spring': shares or unit changed since, not live here"]
    shop.declare(reruns={"promotion": "all"}, scoring={"split": SPLIT | {"salt": "summer"}})
    assert told(shop)[FIRST] == ["split 'summer': declared since, not live here"]
    shop.run()
    assert told(shop) == {} and due(shop) == {}


@pytest.mark.slice
def test_an_arm_that_was_refused_is_decided(parted):
    """The canary's gate stopped it: every row is the champion's, and that is the decision."""
    gate = {"max_flip_rate": 0, "max_score_psi": 0}
    parted.declare(scoring={"canary": SPLIT | {"gate": gate}})
    parted.run()
    assert not any(arm for result in parted.run().values() for arm in result.live_arms)
    assert due(parted) == {} and told(parted) == {}


@pytest.mark.slice
def test_arms_of_a_rolled_back_partition_are_left_alone(parted):
    parted.run()
    rollback(parted.project, "orders", to_version=1, partitions=(FIRST, FIRST), why="v2 is wrong here", by="bob")
    assert FIRST not in due(parted) and FIRST not in told(parted)


def test_all_partitions_when_none_are_named(shop):
    from pip_dagster.declaration.grid import closed_partitions

    now = datetime(2024, 3, 6, 12, tzinfo=UTC)
    plan = make_plan(shop.pipeline(), now=now)
    assert [each.partition.key for each in plan.stale] == ["2024-03-05"] and plan.current == 4
    assert plan == make_plan(shop.pipeline(), closed_partitions(shop.pipeline().spec.partitions, now), now=now)
