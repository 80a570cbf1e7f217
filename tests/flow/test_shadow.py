"""Challengers in shadow, and decisions over the scored row."""

import pytest

from pip_dagster.errors import DeclarationError

pytestmark = pytest.mark.lake


FIRST, SECOND = "2024-03-01", "2024-03-02"


@pytest.fixture
def challenged(tiny):
    tiny.registry.set_alias("returns", "challenger", 2, by="ada", why="to compare")
    return tiny.declare(scoring={"challengers": ["challenger"]})


def stored(tiny, role):
    return tiny.warehouse(
        "SELECT partition_key, model_version, status, rows_scored, score_digest FROM ledger.scorings "
        f"WHERE role = '{role}' ORDER BY ALL"
    )


class TestChallengers:
    def test_score_the_same_rows_and_are_never_live(self, challenged):
        results = challenged.run()
        assert challenged.scores() == challenged.expected(version=1)
        assert [row[1:4] for row in stored(challenged, "challenger")] == [(2, "scored", 50)] * 4
        shadow = dict(
            challenged.warehouse(
                "SELECT order_id, score FROM orders.scores JOIN ledger.scorings USING (scoring_id) "
                "WHERE role = 'challenger' ORDER BY ALL"
            )
        )
        assert shadow == challenged.expected(version=2)
        assert all(len(result.challengers) == 1 for result in results.values())
        assert challenged.published("SELECT DISTINCT model_version FROM orders.predictions") == [(1,)]

    def test_are_not_scored_again_with_the_same_inputs(self, challenged):
        challenged.run()
        before = stored(challenged, "challenger")
        again = challenged.run()
        assert stored(challenged, "challenger") == before
        assert all(len(result.challengers) == 1 for result in again.values())

    def test_score_what_the_champion_scored_before_they_were_declared(self, challenged):
        declared = challenged.pipeline().spec.scoring.challengers
        challenged.declare()
        challenged.run()
        challenged.declare(scoring={"challengers": list(declared)})
        results = challenged.run(features=False)
        assert all(result.reused and result.challengers for result in results.values())
        assert len(stored(challenged, "challenger")) == 4

    def test_leave_out_the_rows_that_the_champion_left_out(self, challenged):
        challenged.declare(scoring={"challengers": ["challenger"], "on_unseen_category": "quarantine"})
        challenged.source(f"UPDATE raw.orders SET shop = 'new' WHERE day = '{SECOND}' AND order_id % 50 < 3")
        challenged.run(SECOND)
        assert [row[3] for role in ("champion", "challenger") for row in stored(challenged, role)] == [47, 47]

    @pytest.mark.parametrize("spoil", ["no such alias", "a flipped bit", "a signature that does not fit"])
    def test_cannot_fail_the_champions_partitions(self, challenged, spoil, helpers):
        if spoil == "no such alias":
            challenged.declare(scoring={"challengers": ["nobody"]})
        elif spoil == "a flipped bit":
            file = challenged.registry.get("returns", 2).path / "model.ubj"
            data = bytearray(file.read_bytes())
            data[len(data) // 2] ^= 1
            file.chmod(0o644)
            file.write_bytes(bytes(data))
        else:
            history = helpers.orders(100, seed=3).rename(columns={"amount": "price"})
            booster = helpers.train(3, helpers.orders(100, seed=3))
            booster.feature_names = ["price", "quantity", "gift", "shop"]
            file = challenged.root / "other.ubj"
            booster.save_model(file)
            other = challenged.registry.register(
                "returns", model=file, sample=history, categories={"shop": helpers.SHOPS}, by="ada"
            )
            challenged.registry.set_alias("returns", "challenger", other.version, by="ada", why="to spoil")
        said = []
        results = challenged.run(progress=said.append)
        assert {result.error for result in results.values()} == {None}
        assert challenged.scores() == challenged.expected()
        assert any("was not scored" in line for line in said)


class TestDecisions:
    def test_are_made_in_sql_over_the_scored_row_beside_the_raw_score(self, tiny):
        tiny.declare(decisions={"late": "score >= 0.5", "gift_first": "late AND gift", "band": "round(score, 1)"})
        tiny.run()
        rows = tiny.published("SELECT order_id, score, gift, late, gift_first, band FROM orders.predictions ORDER BY 1")
        assert {row[0]: row[1] for row in rows} == tiny.expected()
        assert all(late == (score >= 0.5) and first == (late and gift) for _, score, gift, late, first, _ in rows)
        assert len({row[3] for row in rows}) == 2

    def test_a_changed_decision_is_a_new_scoring(self, tiny):
        tiny.declare(decisions={"late": "score >= 0.5"})
        tiny.run()
        tiny.declare(decisions={"late": "score >= 0.1"})
        assert not any(result.reused for result in tiny.run(features=False).values())
        assert tiny.published("SELECT count(*) FROM orders.predictions WHERE late <> (score >= 0.1)") == [(0,)]

    @pytest.mark.parametrize(
        "decisions",
        [{"late": "scor >= 0.5"}, {"score": "true"}, {"late": "score >="}, {"late": "x; DROP TABLE y"}],
        ids=["unknown column", "taken name", "no SQL", "two statements"],
    )
    def test_one_that_cannot_be_made_is_refused_before_anything_is_stored(self, tiny, decisions):
        tiny.declare(decisions=decisions)
        with pytest.raises(DeclarationError, match="decision"):
            tiny.run()
        assert not tiny.project.published_database.exists()

    def test_one_that_fails_on_a_row_fails_that_partition_alone(self, tiny):
        tiny.declare(decisions={"shop_number": "CASE WHEN shop = 'new' THEN shop::INT END"})
        tiny.source(f"UPDATE raw.orders SET shop = 'new' WHERE day = '{SECOND}' AND order_id % 50 = 3")
        results = tiny.run()
        assert [key for key, result in results.items() if result.error] == [SECOND]
        assert tiny.scores() == tiny.expected(f"day <> '{SECOND}'")
