"""A keyed A/B split: who decides about which rows, and that it stays so."""

import hashlib
import json

import numpy as np
import pytest
from pydantic import ValidationError

from pip_dagster.declaration.split import Canary, Split
from pip_dagster.errors import DeclarationError
from pip_dagster.flow.sample_ratio import Counted, chi_squared, sample_ratio
from pip_dagster.ledger.rollback import rollback
from pip_dagster.warehouse.buckets import bucket_sql
from pip_dagster.warehouse.connect import workspace

FIRST, SECOND = "2024-03-01", "2024-03-02"
SPLIT = {"arms": {"challenger": "40%"}, "salt": "spring"}


def bucket(salt, *values):
    """The documented assignment, in plain Python."""
    text = "".join(f"{len(str(value))}:{value}" for value in (salt, *values))
    return int(hashlib.md5(text.encode()).hexdigest()[:15], 16) % 10_000


def expected(tiny, salt="spring", buckets=4_000, where="true"):
    """Key → version and score by the documented assignment and plain XGBoost."""
    of = {version: tiny.expected(where, version=version) for version in (1, 2)}
    chosen = {key: 2 if bucket(salt, key) < buckets else 1 for key in of[1]}
    return {key: (version, of[version][key]) for key, version in chosen.items()}


def shown(tiny, read="published"):
    rows = getattr(tiny, read)("SELECT order_id, model_version, score, arm FROM orders.predictions ORDER BY order_id")
    assert all(arm == ("challenger" if version == 2 else "champion") for _, version, _, arm in rows)
    return {key: (version, score) for key, version, score, _ in rows}


def checks(tiny, key=FIRST):
    """What the ledger says of the live change of a partition: check → status and what was observed."""
    rows = tiny.published(
        "SELECT expectation_id, status, observed FROM ledger.checks c JOIN (SELECT DISTINCT change_id FROM ledger.arms "
        f"WHERE partition_key = '{key}') a ON a.change_id = c.entry_id WHERE section = 'split' ORDER BY made_at"
    )
    return {name: (status, json.loads(observed)) for name, status, observed in rows}


@pytest.fixture
def parted(tiny):
    tiny.registry.set_alias("returns", "challenger", 2, by="ada", why="to compare")
    return tiny.declare(scoring={"split": SPLIT})


class TestTheSplit:
    def test_the_live_row_is_its_arms(self, parted):
        results = parted.run()
        assert shown(parted) == shown(parted, "warehouse") == expected(parted)
        assert {version for version, _ in shown(parted).values()} == {1, 2}
        assert checks(parted)["arm challenger"] == ("passed", "v2 decides about 40%")
        ratio = checks(parted)["sample_ratio"]
        assert ratio[0] == "passed" and sum(ratio[1][arm]["rows"] for arm in ("champion", "challenger")) == 50
        assert [(arm.arm, arm.low, arm.high) for arm in results[FIRST].live_arms] == [
            ("challenger", 0, 4_000),
            ("champion", 4_000, 10_000),
        ]

    @pytest.mark.slice
    def test_a_rerun_a_backfill_and_another_process_give_the_same_arms(self, parted, helpers):
        parted.run(SECOND)
        first = shown(parted)
        changes = parted.warehouse("SELECT count(*) FROM ledger.live_changes")
        parted.run(SECOND)
        assert parted.warehouse("SELECT count(*) FROM ledger.live_changes") == changes, "nothing moved"
        process = parted.python(
            """
            import json, sys
            from datetime import datetime, timedelta, timezone
            from pip_dagster.flow.materialize import materialize
            from pip_dagster.declaration.partition import Partition
            from pip_dagster.ledger.record import RunInfo
            from pip_dagster.declaration.find import find_pipeline
            from pip_dagster.declaration.project import Project
            starts = [datetime(2024, 3, day, tzinfo=timezone.utc) for day in (1, 2, 3, 4)]
            partitions = [Partition(f"{at:%Y-%m-%d}", at, at + timedelta(days=1)) for at in starts]
            results = list(materialize(find_pipeline(Project.find(), "orders"), partitions, RunInfo("other", "x")))
            assert all(result.live_arms and not result.error for result in results), results
            """
        )
        output, _ = process.communicate(timeout=120)
        assert process.returncode == 0, output
        assert shown(parted) == expected(parted)
        assert {key: row for key, row in shown(parted).items() if key in first} == first

    def test_corrected_features_change_scores_and_no_arm(self, parted):
        parted.run(FIRST)
        before = shown(parted)
        parted.source(f"UPDATE raw.orders SET quantity = 9 - quantity WHERE day = '{FIRST}'")
        parted.run(FIRST)
        assert shown(parted) == expected(parted, where=f"day = '{FIRST}'") != before
        assert {k: v for k, (v, _) in shown(parted).items()} == {k: v for k, (v, _) in before.items()}

    def test_several_arms_and_a_whole_without_a_champion(self, parted, helpers):
        third = helpers.orders(300, seed=9)
        file = parted.root / "third.ubj"
        helpers.train(3, third).save_model(file)
        parted.registry.register("returns", model=file, sample=third, categories={"shop": helpers.SHOPS}, by="ada")
        parted.registry.set_alias("returns", "other", 3, by="ada", why="third")
        parted.declare(scoring={"split": {"arms": {"challenger": "40%", "other": "60%"}, "salt": "spring"}})
        parted.run()
        versions = dict(parted.published("SELECT order_id, model_version FROM orders.predictions"))
        assert versions == {key: 2 if bucket("spring", key) < 4_000 else 3 for key in versions} and len(versions) == 200

    def test_another_unit_is_carried_and_decides(self, parted):
        parted.declare(scoring={"split": SPLIT | {"unit": "shop"}})
        parted.run()
        rows = parted.published("SELECT shop, model_version, count(*) FROM orders.predictions GROUP BY ALL")
        assert {(shop, version) for shop, version, _ in rows} == {
            (shop, 2 if bucket("spring", shop) < 4_000 else 1) for shop, _, _ in rows
        }
        assert sum(count for *_, count in rows) == 200

    @pytest.mark.parametrize("unit", [None, ["läden", "at"], ["day"]])
    def test_keys_of_several_columns_and_types(self, parted, unit):
        sql = """
        SELECT order_id // 2 AS half, 'a "b" ' || (order_id % 2) AS "läden", (order_id / 4)::DECIMAL(9, 2) AS dec,
               day + INTERVAL (order_id) HOUR AS at, day, gift, shop, quantity, amount, order_id
        FROM raw.orders WHERE day >= $start_date AND day < $end_date
        """
        split = SPLIT | ({"unit": unit} if unit else {})
        parted.declare(sql, features={"key": ["half", "läden", "dec"]}, scoring={"split": split})
        parted.run()
        rows = parted.published(
            'SELECT half, "läden", dec::VARCHAR, day::VARCHAR, arm'
            + (', epoch_us("at")::VARCHAR' if unit and "at" in unit else ", NULL")
            + " FROM orders.predictions"
        )
        assert len(rows) == 200
        for half, shop, dec, day, arm, at in rows:
            of = {"half": half, "läden": shop, "dec": dec, "day": day, "at": at}
            texts = [of[name] for name in sorted(unit or ["half", "läden", "dec"])]
            assert arm == ("challenger" if bucket("spring", *texts) < 4_000 else "champion")

    def test_an_empty_partition_is_no_error(self, parted):
        result = parted.run("2024-03-10")["2024-03-10"]
        assert not result.error and result.live_arms
        assert "not_tested" in checks(parted, "2024-03-10")["sample_ratio"][1]

    @pytest.mark.slice
    def test_ends_by_a_pointer_and_without_a_prediction(self, parted, monkeypatch):
        parted.run()
        parted.declare()
        monkeypatch.setattr("pip_dagster.registry.engines.xgboost.predictor.BoosterPredictor.predict", None)
        assert not any(result.error for result in parted.run().values())
        assert parted.scores() == parted.expected(version=1)
        assert parted.published("SELECT DISTINCT arm FROM orders.predictions") == [("champion",)]

    @pytest.mark.slice
    def test_another_salt_assigns_anew_without_a_prediction(self, parted, monkeypatch):
        parted.run()
        parted.declare(scoring={"split": SPLIT | {"salt": "summer"}})
        monkeypatch.setattr("pip_dagster.registry.engines.xgboost.predictor.BoosterPredictor.predict", None)
        parted.run()
        assert shown(parted) == shown(parted, "warehouse") == expected(parted, "summer") != expected(parted)

    def test_reasons_are_those_of_the_live_rows(self, parted):
        parted.declare(scoring={"split": SPLIT}, explanations={"top": 1})
        parted.run(FIRST)
        found = parted.published(
            "SELECT p.order_id, p.scoring_id = r.scoring_id FROM orders.predictions p JOIN orders.reasons r "
            "USING (order_id)"
        )
        assert len(found) == 50 and all(same for _, same in found)


class TestAnArmThatCannotBeLive:
    @pytest.mark.parametrize(
        "spoil", ["no such alias", "a flipped bit", "the champion's own version", "an expectation"]
    )
    def test_leaves_all_its_rows_to_the_champion_and_says_so(self, parted, spoil):
        if spoil == "no such alias":
            parted.declare(scoring={"split": {"arms": {"nobody": "10%", "challenger": "40%"}, "salt": "spring"}})
        elif spoil == "a flipped bit":
            file = parted.registry.get("returns", 2).path / "model.ubj"
            data = bytearray(file.read_bytes())
            data[len(data) // 2] ^= 1
            file.chmod(0o644)
            file.write_bytes(bytes(data))
        elif spoil == "the champion's own version":
            parted.registry.set_alias("returns", "challenger", 1, by="ada", why="to spoil")
        else:
            mean = float(np.mean(list(parted.expected(f"day = '{FIRST}'", version=1).values())))
            limits = {"column": "score", "min_value": mean - 1e-4, "max_value": mean + 1e-4}
            expectation = {"type": "expect_column_mean_to_be_between", "kwargs": limits}
            text = json.dumps({"predictions": [expectation | {"severity": "critical"}]})
            (parted.folder / "expectations.yaml").write_text(text)
            parted.declare(scoring={"split": SPLIT}, quality="expectations.yaml")
        results = parted.run(FIRST)
        assert not results[FIRST].error
        if spoil == "no such alias":
            assert {v for v, _ in shown(parted).values()} == {1, 2}
            status, text = checks(parted)["arm nobody"]
            assert status == "failed" and "nobody" in text
            assert checks(parted)["arm challenger"][0] == "passed"
            assert [(a.arm, a.low, a.high) for a in results[FIRST].live_arms] == [
                ("champion", 0, 1_000),
                ("challenger", 1_000, 5_000),
                ("champion", 5_000, 10_000),
            ]
        else:
            assert parted.scores() == parted.expected(f"day = '{FIRST}'", version=1)
            status, text = checks(parted)["arm challenger"]
            words = {
                "a flipped bit": "sha256",
                "the champion's own version": "own version",
                "an expectation": "blocked",
            }
            assert status == "failed" and words[spoil] in text
        assert any(check.status == "failed" for check in results[FIRST].checks)

    @pytest.mark.slice
    def test_one_that_was_live_stays_so_where_nothing_but_a_rerun_goes_wrong(self, parted):
        parted.run(FIRST)
        before = shown(parted)
        file = parted.registry.get("returns", 2).path / "manifest.json"
        file.chmod(0o644)
        file.write_text(file.read_text().replace("returns", "changed"))
        results = parted.run(FIRST)
        assert shown(parted) == before
        assert "stays live" in checks(parted)["arm challenger"][1] and len(results[FIRST].live_arms) == 2
        parted.source(f"UPDATE raw.orders SET quantity = 9 - quantity WHERE day = '{FIRST}'")
        parted.run(FIRST)
        assert parted.scores() == parted.expected(f"day = '{FIRST}'"), "scores of other features do not"

    def test_units_that_are_missing_belong_to_no_arm(self, parted):
        parted.declare(scoring={"split": SPLIT | {"unit": "shop"}})
        parted.source(f"UPDATE raw.orders SET shop = NULL WHERE day = '{FIRST}' AND order_id % 50 < 3")
        parted.run(FIRST, SECOND)
        assert checks(parted)["arm challenger"] == ("failed", "3 of 50 rows have no shop: they belong to no arm")
        assert parted.scores(where=f"partition_key = '{FIRST}'") == parted.expected(f"day = '{FIRST}'")
        assert checks(parted, SECOND)["arm challenger"][0] == "passed"

    def test_one_that_the_policy_refuses_is_not_live(self, parted):
        parted.declare(scoring={"split": SPLIT, "on_unseen_category": "quarantine"})
        parted.source(f"UPDATE raw.orders SET shop = 'new' WHERE day = '{SECOND}' AND order_id % 50 < 3")
        parted.run(SECOND)
        assert len(shown(parted)) == 47 and {v for v, _ in shown(parted).values()} == {1, 2}


class TestKilledBetween:
    @pytest.mark.slice
    def test_the_partition_is_the_champions_a_check_says_so_and_the_next_run_completes_it(self, parted, monkeypatch):
        def killed(*_):
            raise KeyboardInterrupt

        with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
            patched.setattr("pip_dagster.flow.shadow._score", killed)
            parted.run(FIRST)
        assert parted.scores() == parted.expected(f"day = '{FIRST}'")
        assert checks(parted)["arms"] == ("failed", "its split is decided once the arms have scored")
        with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
            patched.setattr("pip_dagster.flow.split._split", killed)
            parted.run(FIRST)
        assert parted.scores() == parted.expected(f"day = '{FIRST}'")
        monkeypatch.setattr("pip_dagster.registry.engines.xgboost.predictor.BoosterPredictor.predict", None)
        parted.run(FIRST)
        assert shown(parted) == expected(parted, where=f"day = '{FIRST}'")
        assert "arms" not in checks(parted)

    def test_inside_the_transaction_nothing_is_split(self, parted, monkeypatch):
        with monkeypatch.context() as patched:
            patched.setattr("pip_dagster.flow.split.count_units", lambda *_: 1 / 0)
            results = parted.run(FIRST)
        assert [check.status for check in results[FIRST].checks] == ["failed"] and not results[FIRST].error
        assert parted.warehouse("SELECT count(*) FROM ledger.arms") == [(0,)]
        assert parted.scores() == parted.expected(f"day = '{FIRST}'")


class TestTheDeclaration:
    @pytest.mark.parametrize(
        ("split", "message"),
        [
            ({"arms": {"a": "60%", "b": "50%"}, "salt": "s"}, "sum to 110%"),
            ({"arms": {"a": "0%"}, "salt": "s"}, "more than 0%"),
            ({"arms": {"a": "-5%"}, "salt": "s"}, "percentage"),
            ({"arms": {"a": 0.1}, "salt": "s"}, "percentage"),
            ({"arms": {"a": "101%"}, "salt": "s"}, "at most 100%"),
            ({"arms": {"a": "0.001%"}, "salt": "s"}, "steps of 0.01%"),
            ({"arms": {}, "salt": "s"}, "at least 1"),
            ({"arms": {"a": "5%"}}, "salt"),
            ({"arms": {"a": "5%"}, "salt": ""}, "at least 1"),
            ({"arms": {"champion": "5%"}, "salt": "s"}, "another alias"),
            ({"arms": {"a": "5%"}, "salt": "s", "unit": ["x", "X"]}, "twice"),
        ],
    )
    def test_what_means_nothing_is_refused(self, tiny, split, message):
        with pytest.raises(ValidationError, match=message):
            tiny.declare(scoring={"split": split}).pipeline()

    def test_a_split_and_a_canary_are_one_thing(self, tiny):
        with pytest.raises(ValidationError, match="not both"):
            tiny.declare(scoring={"split": SPLIT, "canary": SPLIT}).pipeline()

    @pytest.mark.parametrize(("unit", "message"), [("shopp", "did you mean 'shop'"), ("amount", "is DOUBLE")])
    def test_a_unit_that_cannot_be_is_refused_before_anything_is_stored(self, parted, unit, message):
        parted.declare(scoring={"split": SPLIT | {"unit": unit}})
        with pytest.raises(DeclarationError, match=message):
            parted.run(FIRST)
        assert not parted.project.published_database.exists()


class TestTheAssignment:
    def buckets(self, salt, keys=100_000):
        with workspace(threads=2) as con:
            sql = bucket_sql(salt, {"k": "text"})
            return con.execute(
                f"SELECT {sql} AS b FROM (SELECT i AS k FROM range({keys}) t(i)) ORDER BY k"
            ).fetchnumpy()["b"]

    @pytest.mark.parametrize("salt", ["spring-2013", "a", "東京", 'it\'s; -- "quoted"'])
    def test_is_that_of_plain_python_and_even_over_a_hundred_thousand_keys(self, salt):
        found = self.buckets(salt)
        assert [bucket(salt, key) for key in (0, 7, 99_999)] == [found[0], found[7], found[99_999]]
        arms = {"a": int((found < 1_000).sum()), "b": int(((found >= 1_000) & (found < 3_500)).sum())}
        arms["champion"] = len(found) - sum(arms.values())
        assert chi_squared(arms, {"a": 1_000, "b": 2_500, "champion": 6_500})[1] > 0.001
        each = np.bincount(found // 100, minlength=100)
        assert (
            chi_squared({str(i): int(n) for i, n in enumerate(each)}, dict.fromkeys(map(str, range(100)), 100))[1]
            > 0.001
        )

    def test_of_two_salts_are_independent(self):
        a, b = self.buckets("spring") < 1_000, self.buckets("summer") < 1_000
        both = {f"{x}{y}": int(((a == x) & (b == y)).sum()) for x in (True, False) for y in (True, False)}
        assert chi_squared(both, {"TrueTrue": 100, "TrueFalse": 900, "FalseTrue": 900, "FalseFalse": 8_100})[1] > 0.001

    def test_tells_columns_apart_and_no_widths_of_integers(self):
        with workspace(threads=1) as con:
            sql = bucket_sql("s", {"a": "text", "b": "text"})
            pairs = "SELECT 'a' AS a, 'bc' AS b UNION ALL SELECT 'ab', 'c'"
            assert len({row[0] for row in con.execute(f"SELECT {sql} FROM ({pairs})").fetchall()}) == 2
            one = bucket_sql("s", {"a": "text"})
            widths = [
                con.execute(f"SELECT {one} FROM (SELECT 17::{t} AS a)").fetchone()
                for t in ("TINYINT", "BIGINT", "VARCHAR")
            ]
            assert len(set(widths)) == 1
            instant = bucket_sql("s", {"a": "instant"})
            rows = []
            for zone in ("UTC", "Asia/Tokyo"):
                con.execute(f"SET TimeZone = '{zone}'")
                rows.append(
                    con.execute(f"SELECT {instant} FROM (SELECT '2024-03-01 00:00:00+00'::TIMESTAMPTZ AS a)").fetchone()
                )
            assert rows[0] == rows[1]

    def test_grows_without_moving_the_units_it_has(self):
        small, large = (Split(arms={"a": share}, salt="s").ranges[0] for share in ("5%", "10%"))
        assert small.low == large.low and small.high < large.high
        assert Canary(arms={"a": "5%"}, salt="s").kind == "canary"

    def test_a_ratio_that_is_off_is_told(self):
        share = {"challenger": 1_000, "champion": 9_000}
        assert sample_ratio({"challenger": Counted(100, 100), "champion": Counted(900, 900)}, share)[1]
        name, passed, figures = sample_ratio({"challenger": Counted(200, 200), "champion": Counted(800, 800)}, share)
        assert (name, passed) == ("sample_ratio", False) and figures["p"] < 1e-9
        assert "not_tested" in sample_ratio({"champion": Counted(10, 10)}, share)[2]


class TestTheLedger:
    @pytest.mark.parametrize(
        "statement",
        [
            "UPDATE ledger.arms SET low = 5000 WHERE arm = 'champion' AND partition_key = '2024-03-02'",
            "UPDATE ledger.arms SET salt = 'x'",
            "DELETE FROM ledger.arms WHERE partition_key = '2024-03-02'",
            "UPDATE ledger.scorings SET score_digest = 'dh1:0' WHERE role = 'arm'",
            "INSERT INTO ledger.arms SELECT (SELECT min(change_id) FROM ledger.live_changes), * EXCLUDE (change_id) "
            "FROM ledger.arms LIMIT 1",
        ],
    )
    def test_a_changed_row_of_arms_is_found(self, parted, ledger_verify, statement):
        parted.run(FIRST, SECOND)
        assert ledger_verify(parted) is None
        ledger_verify.tamper(parted, statement)
        assert ledger_verify(parted) is not None and ledger_verify(parted).kind == "ledger"

    def test_a_rollback_makes_the_whole_partition_the_named_versions(self, parted, ledger_verify):
        parted.run()
        result = rollback(parted.project, "orders", to_version=1, why="the split is wrong", by="eve")
        assert result.complete and len(result.flips) == 4 and result.flips[0].before.label == "v1 and v2 in an arm"
        assert parted.scores() == parted.expected(version=1)
        assert parted.published("SELECT DISTINCT arm FROM orders.predictions") == [("champion",)]
        assert ledger_verify(parted) is None
        assert rollback(parted.project, "orders", to_version=1, why="", by="eve").kept == 4

    def test_a_rollback_to_an_instant_brings_the_arms_back(self, parted, ledger_verify):
        parted.run(FIRST)
        then = parted.warehouse("SELECT max(made_at) FROM ledger.live_changes")[0][0]
        split = shown(parted)
        rollback(parted.project, "orders", to_version=1, why="", by="eve")
        rollback(parted.project, "orders", as_of=then, keep_alias=True, why="", by="eve")
        assert shown(parted) == split == shown(parted, "warehouse")
        assert ledger_verify(parted) is None

    @pytest.mark.slice
    def test_a_withdrawn_version_is_withdrawn_from_arms_as_well(self, parted):
        parted.run(FIRST)
        parted.registry.set_alias("returns", "champion", 2, by="eve", why="better")
        parted.declare()
        parted.run(SECOND)
        result = rollback(parted.project, "orders", keep_alias=True, why="worse", by="eve")
        assert [flip.partition_key for flip in result.flips] == [FIRST] and len(result.missing) == 1
        assert parted.scores(where=f"partition_key = '{FIRST}'") == parted.expected(f"day = '{FIRST}'")
