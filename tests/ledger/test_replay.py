"""Replay: the same features and model give the same scores, and whatever has been changed since is named."""

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from pip_dagster.registry.engines.xgboost.predictor import BoosterPredictor
from pip_dagster.replay import recall
from pip_dagster.replay.compare import INCOMPARABLE, compare, ulps
from pip_dagster.replay.replay import replay
from pip_dagster.warehouse.connect import open_warehouse, workspace

import xgboost as xgb  # isort: skip  # after pip_dagster: it keeps OpenMP's threads from spinning

pytestmark = pytest.mark.lake


FIRST, SECOND, THIRD, FOURTH = DAYS = ("2024-03-01", "2024-03-02", "2024-03-03", "2024-03-04")
ROOT = Path(__file__).parents[2]


def replayed(tiny, partition=None, keys=(), **wanted):
    pipeline = tiny.pipeline()
    with workspace(threads=1) as con:
        entries = recall.find(con, pipeline, partition=partition, **wanted)
    return {each.entry.partition_key: each for each in replay(pipeline, entries, keys=keys)}


def write(tiny, *statements):
    """Change the warehouse behind the pipeline's back."""
    with workspace(threads=1) as con, open_warehouse(con, tiny.project.warehouse, purpose="a forger"):
        for statement in statements:
            con.execute(statement)


def table(tiny, base):
    """The only table of this kind."""
    ((name,),) = tiny.warehouse(
        f"SELECT table_name FROM duckdb_tables() WHERE table_name LIKE '{base}\\_\\_%' ESCAPE '\\'"
    )
    return f'orders."{name}"'


def flip(path, at=-200):
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def others_are_identical(results, but=SECOND):
    assert {key: each.verdict for key, each in results.items() if key != but} == dict.fromkeys(
        set(results) - {but}, "identical"
    )
    return results[but]


class TestNothingHasChanged:
    @pytest.mark.lake("always")
    def test_every_partition_is_identical_to_the_bit(self, scored):
        results = replayed(scored)
        assert [each.verdict for each in results.values()] == ["identical"] * 4
        for each in results.values():
            found = each.comparison
            assert (found.compared, found.equal, found.differing, found.missing, found.extra) == (50, 50, 0, 0, 0)
            assert (found.max_ulps, found.max_absolute) == (0, 0.0)
            assert each.reasons == () and each.engine_differences == {}
            assert each.engine_now["device"] == "cpu" and each.engine_now["xgboost"] == xgb.__version__

    def test_a_scoring_that_is_live_no_more_is_replayed_by_its_own_model(self, scored):
        old = scored.warehouse(f"SELECT scoring_id FROM ledger.live WHERE partition_key = '{SECOND}'")[0][0]
        scored.registry.set_alias("returns", "champion", 2, by="ada", why="better")
        scored.run(SECOND)
        live = replayed(scored, SECOND)[SECOND]
        assert (live.entry.model_version, live.verdict) == (2, "identical")
        past = replayed(scored, scoring_id=old)[SECOND]
        assert (past.entry.model_version, past.verdict) == (1, "identical")
        assert {key: each.entry.model_version for key, each in replayed(scored).items()} == dict(
            zip(DAYS, (1, 2, 1, 1), strict=True)
        )

    def test_revised_features_leave_the_scoring_of_the_earlier_revision_replayable(self, scored):
        old = scored.warehouse(f"SELECT scoring_id FROM ledger.live WHERE partition_key = '{SECOND}'")[0][0]
        scored.source(f"UPDATE raw.orders SET quantity = 1 WHERE day = '{SECOND}'")
        scored.run(SECOND)
        first, second = replayed(scored, scoring_id=old)[SECOND], replayed(scored, SECOND)[SECOND]
        assert (first.verdict, second.verdict) == ("identical", "identical")
        assert first.entry.feature_revision != second.entry.feature_revision

    def test_a_declaration_made_anew_changes_nothing(self, scored):
        sql = (scored.folder / "features.sql").read_text().replace("amount,", "-1.0 AS amount,")
        scored.declare(sql, scoring={"on_unseen_category": "error"}, features={"key": ["order_id", "day"]})
        assert {each.verdict for each in replayed(scored).values()} == {"identical"}

    @pytest.mark.parametrize("limit", ["_CHUNK_PARTITIONS", "_CHUNK_ROWS"])
    def test_a_few_partitions_at_a_time(self, scored, limit, monkeypatch):
        monkeypatch.setattr(f"pip_dagster.replay.replay.{limit}", 1)
        told = []
        pipeline = scored.pipeline()
        with workspace(threads=1) as con:
            entries = recall.find(con, pipeline)
        assert {each.verdict for each in replay(pipeline, entries, progress=told.append)} == {"identical"}
        assert len(told) == 4 and "3 done" in told[-1]

    @pytest.mark.lake("never")
    def test_keys_of_every_type_and_spelling(self, tiny):
        sql = """
        SELECT order_id::HUGEINT + 10::HUGEINT ** 30 AS order_id,
          shop::ENUM('Zürich', '東京', 'O''Hare "B"', 'plain') AS mood,
          order_id::DECIMAL(18, 3) / 7 AS "x ""y"" é", {'a': order_id, 'b c': shop} AS both, day,
          timezone('Asia/Kolkata', day::TIMESTAMP) AS at, gift, shop, quantity, amount, order_id AS missing
        FROM raw.orders WHERE day >= $start_date AND day < $end_date
        """
        tiny.declare(sql, features={"key": ["order_id", "mood", 'x "y" é', "both", "at", "missing"]})
        assert {result.error for result in tiny.run().values()} == {None}
        results = replayed(tiny)
        assert {(each.verdict, each.reasons) for each in results.values()} == {("identical", ())}

    def test_an_empty_partition(self, scored):
        scored.run("2024-03-05")
        each = replayed(scored, "2024-03-05")["2024-03-05"]
        assert (each.verdict, each.comparison.compared, each.comparison.max_ulps) == ("identical", 0, None)

    @pytest.mark.parametrize("sample", [1, 2, 3, 4, 9])
    def test_a_sample_is_evenly_spread_and_the_same_each_time(self, scored, sample):
        chosen = {1: [THIRD], 2: [FIRST, FOURTH], 3: [FIRST, THIRD, FOURTH]}.get(sample, list(DAYS))
        assert list(replayed(scored, sample=sample)) == list(replayed(scored, sample=sample)) == chosen


class TestRowsKeptApart:
    @pytest.fixture
    def apart(self, tiny):
        """Three rows that break an expectation, and two of an unknown shop, in a key of two columns."""
        rule = {
            "type": "expect_column_values_to_be_between",
            "kwargs": {"column": "quantity", "max_value": 8},
            "name": "possible",
        }
        (tiny.folder / "expectations.yaml").write_text(yaml.safe_dump({"features": [rule]}))
        tiny.declare(
            quality={"expectations": "expectations.yaml", "max_quarantined": 0.5},
            scoring={"on_unseen_category": "quarantine"},
            features={"key": ["shop", "order_id"]},
        )
        tiny.source(
            f"UPDATE raw.orders SET quantity = 99 WHERE day = '{SECOND}' AND order_id % 50 < 3",
            f"UPDATE raw.orders SET shop = 'nobody''s' WHERE day = '{SECOND}' AND order_id % 50 IN (10, 11)",
        )
        results = tiny.run()
        assert results[SECOND].scoring.rows_quarantined == 5
        return tiny

    def test_are_left_out_again(self, apart):
        results = replayed(apart)
        assert {each.verdict for each in results.values()} == {"identical"}
        assert results[SECOND].comparison.compared == 45

    def test_whatever_is_declared_today(self, apart):
        apart.declare()
        assert {each.verdict for each in replayed(apart).values()} == {"identical"}

    def test_one_that_is_gone_from_the_quarantine_is_named(self, apart):
        write(apart, f"DELETE FROM {table(apart, 'quarantine')} WHERE order_id = 50")
        each = others_are_identical(replayed(apart))
        assert each.verdict == "differs" and each.comparison.missing == 1
        assert "quarantine: 5 rows recorded, 4 stored" in each.reasons[0]
        assert "1 row without a stored score, such as shop = " in each.reasons[1] and "order_id = 50" in each.reasons[1]

    def test_are_shown_by_key(self, apart):
        shop, number = apart.warehouse(f"SELECT shop, order_id FROM {table(apart, 'quarantine')} WHERE order_id = 50")[
            0
        ]
        scored_shop = apart.warehouse("SELECT shop FROM orders.scores WHERE order_id = 60 + 2")[0][0]
        keys = [json.dumps([shop, number]), json.dumps([scored_shop, 62]), json.dumps(["no shop", 1])]
        kept, good, absent = replayed(apart, SECOND, keys)[SECOND].rows
        assert kept.quarantined and kept.features["quantity"] == 99 and kept.stored is None is kept.replayed
        assert not good.quarantined and good.features["order_id"] == 62 and good.stored == good.replayed
        assert set(good.stored) == {"score"}
        assert absent.features is None is absent.stored
        (each,) = replayed(apart, SECOND, ["62"]).values()
        assert each.verdict == "cannot replay" and "JSON list of 2 values" in each.reasons[0]


class TestWhatHasChangedIsNamed:
    def test_a_byte_of_the_model(self, scored):
        flip(scored.registry.get("returns", 1).path / "model.ubj")
        each = replayed(scored, SECOND)[SECOND]
        assert each.verdict == "cannot replay" and each.comparison is None
        assert "returns v1: model.ubj has sha256" in each.reasons[0]

    def test_a_byte_of_the_manifest(self, scored):
        flip(scored.registry.get("returns", 1).path / "manifest.json")
        each = replayed(scored, SECOND)[SECOND]
        assert each.verdict == "cannot replay" and "returns v1: manifest.json has sha256" in each.reasons[0]

    def test_a_byte_of_the_golden_rows(self, scored):
        flip(scored.registry.get("returns", 1).path / "golden.parquet")
        each = replayed(scored, SECOND)[SECOND]
        assert each.verdict == "cannot replay" and "returns v1: golden.parquet has sha256" in each.reasons[0]

    def test_a_manifest_forged_with_its_digest(self, scored):
        from hashlib import sha256

        path = scored.registry.get("returns", 1).path
        data = (path / "manifest.json").read_bytes().replace(b'"ada"', b'"eve"')
        (path / "manifest.json").write_bytes(data)
        (path / "manifest.sha256").write_text(sha256(data).hexdigest())
        each = replayed(scored, SECOND)[SECOND]
        assert each.verdict == "cannot replay"
        assert "manifest.json has sha256" in each.reasons[0] and "the ledger recorded" in each.reasons[0]

    def test_a_version_that_is_gone(self, scored):
        import shutil

        shutil.rmtree(scored.registry.get("returns", 1).path)
        each = replayed(scored, SECOND)[SECOND]
        assert each.verdict == "cannot replay" and "there is no v1" in each.reasons[0]

    def test_a_feature_value(self, scored):
        write(scored, f"UPDATE {table(scored, 'features')} SET quantity = quantity + 5 WHERE order_id = 70")
        each = others_are_identical(replayed(scored))
        assert each.verdict == "differs"
        assert each.reasons[0].startswith(f"features: revision {each.entry.feature_revision} has digest dh1:")
        assert each.entry.feature_digest in each.reasons[0] and "a stored feature has changed" in each.reasons[0]

    def test_a_column_that_the_model_does_not_read(self, scored):
        write(scored, f"UPDATE {table(scored, 'features')} SET note = 'other' WHERE order_id = 70")
        each = others_are_identical(replayed(scored))
        assert each.verdict == "differs" and len(each.reasons) == 1 and each.reasons[0].startswith("features: ")
        assert each.comparison.same

    def test_a_score_by_one_ulp(self, scored):
        scores = table(scored, "scores")
        ((score,),) = scored.warehouse(f"SELECT score FROM {scores} WHERE order_id = 70")
        nudged = float(np.nextafter(np.float32(score), np.float32(2)))
        write(scored, f"UPDATE {scores} SET score = {nudged!r}::DOUBLE::FLOAT WHERE order_id = 70")
        each = others_are_identical(replayed(scored))
        found = each.comparison
        assert each.verdict == "differs"
        assert (found.compared, found.equal, found.differing, found.max_ulps) == (50, 49, 1, 1)
        assert found.max_absolute == nudged - score
        assert each.reasons[0].startswith("scores: the stored rows have digest dh1:")
        assert "1 of 50 scored rows differ, score in 1 by up to 1 ULPs" in each.reasons[1]
        assert "such as order_id = 70" in each.reasons[1]
        assert found.examples["differing"][0]["score"] == {"stored": nudged, "replayed": score}

    @pytest.mark.parametrize("value", ["'nan'::FLOAT", "NULL"])
    def test_a_score_made_no_number(self, scored, value):
        write(scored, f"UPDATE {table(scored, 'scores')} SET score = {value} WHERE order_id = 70")
        each = others_are_identical(replayed(scored))
        assert (each.verdict, each.comparison.differing, each.comparison.max_ulps) == ("differs", 1, 0)
        assert "1 with a number on one side only" in each.reasons[1]

    def test_a_score_row_deleted(self, scored):
        write(scored, f"DELETE FROM {table(scored, 'scores')} WHERE order_id = 70")
        each = others_are_identical(replayed(scored))
        assert (each.verdict, each.comparison.missing, each.comparison.extra) == ("differs", 1, 0)
        assert "(49 rows)" in each.reasons[0]
        assert each.reasons[1] == f"1 row without a stored score, such as order_id = 70, day = {SECOND}"

    @pytest.mark.parametrize("change", ["order_id + 1000 AS order_id", "score / 2 AS score", "order_id AS order_id"])
    def test_a_score_row_added(self, scored, change):
        scores = table(scored, "scores")
        write(scored, f"INSERT INTO {scores} SELECT * REPLACE ({change}) FROM {scores} WHERE order_id = 70")
        each = others_are_identical(replayed(scored))
        assert (each.verdict, each.comparison.missing, each.comparison.extra) == ("differs", 0, 1)
        assert each.comparison.differing == 0
        assert "1 stored scores have no row that was scored, such as order_id = " in each.reasons[1]

    def test_a_score_row_added_in_another_table(self, scored):
        scores = table(scored, "scores")
        write(scored, f"CREATE TABLE orders.scores__other AS FROM {scores} WHERE order_id = 70")
        each = others_are_identical(replayed(scored))
        assert each.verdict == "differs"
        assert each.reasons == ("1 row of this scoring in orders.scores__other, where it did not write",)

    def test_features_that_are_gone(self, scored):
        write(scored, f"DELETE FROM {table(scored, 'features')} WHERE day = '{SECOND}'")
        each = others_are_identical(replayed(scored))
        assert each.verdict == "differs" and "(0 rows)" in each.reasons[0] and each.comparison.extra == 50

    def test_a_value_that_the_guard_refuses(self, scored):
        write(scored, f"UPDATE {table(scored, 'features')} SET amount = 'inf' WHERE order_id = 70")
        each = others_are_identical(replayed(scored))
        assert each.verdict == "differs" and "the guard refuses the recorded features: " in each.reasons[1]

    def test_another_engine_is_said_beside_the_result(self, scored):
        write(scored, 'UPDATE ledger.scorings SET engine = replace(engine, \'"xgboost":"\', \'"xgboost":"0.\')')
        results = replayed(scored)
        assert {each.verdict for each in results.values()} == {"identical"}
        assert results[SECOND].engine_differences == {"xgboost": ("0." + xgb.__version__, xgb.__version__)}

    def test_digests_of_another_algorithm_are_not_compared(self, scored):
        write(scored, "UPDATE ledger.scorings SET score_digest = replace(score_digest, 'dh1:', 'dh9:')")
        each = replayed(scored, SECOND)[SECOND]
        assert each.verdict == "cannot replay" and "was not made by dh1" in each.reasons[0]

    def test_a_zero_of_another_sign_is_a_difference_of_no_distance(self):
        bits = "CASE order_id % 2 WHEN 0 THEN '0' ELSE '-0.0' END::FLOAT AS score"
        with workspace(threads=1) as con:
            con.execute(f"CREATE TABLE a AS SELECT order_id, {bits} FROM range(10) t(order_id)")
            con.execute("CREATE TABLE b AS SELECT order_id, '0'::FLOAT AS score FROM a")
            found = compare(
                con, "(SELECT rowid, * FROM a)", "(SELECT rowid, * FROM b)", ["order_id"], {"score": "FLOAT"}
            )
        assert (found.compared, found.differing, found.max_ulps, found.max_absolute) == (10, 5, 0, 0.0)

    def test_another_device_is_said_beside_the_result(self, scored):
        write(scored, "UPDATE ledger.scorings SET device = 'cuda'")
        each = replayed(scored, SECOND)[SECOND]
        assert each.engine_then["device"] == "cuda"
        assert each.engine_differences.get("device") in (None, ("cuda", "cpu"))  # where there is no GPU

    def test_an_engine_that_scores_otherwise_is_told_from_a_changed_record(self, scored, monkeypatch):
        def off(self, X):
            return np.nextafter(predict(self, X), np.float32(2))

        predict = BoosterPredictor.predict
        monkeypatch.setattr(BoosterPredictor, "predict", off)
        each = replayed(scored, SECOND)[SECOND]
        assert (each.verdict, each.comparison.differing, each.comparison.max_ulps) == ("differs", 50, 1)
        assert each.reasons[0].startswith("50 of 50 scored rows differ")
        assert each.reasons[1].startswith("the replayed scores have digest dh1:") and len(each.reasons) == 2

    def test_a_failed_attempt_has_nothing_to_replay(self, scored):
        scored.source(f"UPDATE raw.orders SET amount = 'inf'::DOUBLE WHERE day = '{SECOND}' AND order_id = 70")
        failed = scored.run(SECOND)[SECOND].scoring.scoring_id
        with pytest.raises(recall.ReplayError, match="stored no scores, it is failed"):
            replayed(scored, scoring_id=failed)
        with pytest.raises(recall.ReplayError, match="has no live scoring of partition 'never'"):
            replayed(scored, "never")


def other_models(tiny, helpers):
    """A multi-class model and a regression of the same orders, each a pipeline's champion; their pipelines' names."""
    history = helpers.orders(600, seed=3)
    frame = helpers.matrix(history, label=history["quantity"] % 3)
    classes = xgb.train({"objective": "multi:softprob", "num_class": 3, "nthread": 1, "max_depth": 3}, frame, 6)
    frame = helpers.matrix(history, label=history["quantity"] * 1.7 - history["gift"])
    amounts = xgb.train({"objective": "reg:squarederror", "nthread": 1, "max_depth": 3}, frame, 6)
    names = {"kinds": (classes, ["wenig", "mehr", "viel"]), "refunds": (amounts, None)}
    for name, (booster, labels) in names.items():
        file = tiny.root / "model.ubj"
        booster.save_model(file)
        options = {"sample": history, "categories": {"shop": helpers.SHOPS}, "classes": labels, "by": "ada"}
        tiny.registry.register(name, model=file, **options)
        tiny.registry.set_alias(name, "champion", 1, by="ada", why="the first")
    return list(names)


@pytest.fixture
def three_kinds(scored, helpers):
    """The project with a binary, a multi-class and a regression model, all days scored by each."""
    for name in other_models(scored, helpers):
        scored.declare(name=name, scoring={"model_name": name})
        assert {result.error for result in scored.run().values()} == {None}
        folder = scored.folder.parent / name
        folder.mkdir()
        for file in ("defs.yaml", "features.sql"):
            (folder / file).write_bytes((scored.folder / file).read_bytes())
    scored.declare()
    return scored


@pytest.mark.parametrize(("name", "columns"), [("kinds", 4), ("refunds", 1)])
def test_multi_class_and_regression_replay_to_the_bit(three_kinds, name, columns):
    three_kinds.declare(name=name, scoring={"model_name": name})
    results = replayed(three_kinds)
    assert [each.verdict for each in results.values()] == ["identical"] * 4
    assert {each.comparison.equal for each in results.values()} == {50}
    assert {len(each.comparison.columns) for each in results.values()} == {columns}


@pytest.mark.slice
def test_another_predicted_class_is_a_difference(three_kinds):
    write(
        three_kinds,
        "UPDATE kinds.\"{}\" SET predicted_class = 'viel' WHERE predicted_class = 'wenig'".format(
            three_kinds.warehouse(
                "SELECT table_name FROM duckdb_tables() WHERE schema_name = 'kinds' AND table_name LIKE 'scores%'"
            )[0][0]
        ),
    )
    three_kinds.declare(name="kinds", scoring={"model_name": "kinds"})
    each = replayed(three_kinds, SECOND)[SECOND]
    found = each.comparison
    assert each.verdict == "differs" and found.differing == found.columns["predicted_class"].differing > 0
    assert found.max_ulps == 0 and "predicted_class in " in each.reasons[1]


def version_of(engine):
    return tuple(map(int, engine["xgboost"].split(".")[:2]))


@pytest.mark.skipif("PIP_DAGSTER_OTHER_PYTHON" not in os.environ, reason="names a Python with another xgboost")
@pytest.mark.parametrize("name", ["orders", "kinds", "refunds"])
def test_another_python_with_an_xgboost_as_new_replays_to_the_bit(three_kinds, name):
    python = os.environ["PIP_DAGSTER_OTHER_PYTHON"]
    command = [
        python,
        "-m",
        "pip_dagster.cli.main",
        "--project",
        str(three_kinds.root),
        "replay",
        name,
        "--all",
        "--json",
    ]
    done = subprocess.run(
        command, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)}, cwd=three_kinds.root
    )
    partitions = json.loads(done.stdout)["partitions"]
    if version_of(partitions[0]["engine_now"]) < version_of(partitions[0]["engine_then"]):
        # It might load the file and score it otherwise without a word, so it is not asked to.
        assert done.returncode == 2
        assert all("newer than the" in each["reasons"][0] for each in partitions)
        return
    assert done.returncode == 0, done.stdout + done.stderr
    assert [each["verdict"] for each in partitions] == ["identical"] * 4
    assert all(each["engine_differences"] for each in partitions)


class TestUlps:
    numbers = arrays(np.float32, 20, elements=st.floats(width=32))

    @given(numbers, numbers)
    def test_is_symmetric_and_none_only_between_equal_numbers(self, a, b):
        found = ulps(a, b)
        np.testing.assert_array_equal(found, ulps(b, a))
        np.testing.assert_array_equal(found == 0, (a == b) | (np.isnan(a) & np.isnan(b)))
        np.testing.assert_array_equal(found == INCOMPARABLE, np.isnan(a) ^ np.isnan(b))
        assert found.dtype == np.int64 and (found <= INCOMPARABLE).all()

    @given(arrays(np.float32, 20, elements=st.floats(width=32, allow_nan=False, allow_infinity=False)), st.booleans())
    def test_the_next_number_is_one_away(self, a, up):
        with np.errstate(over="ignore"):  # the next number after the greatest is infinite
            after = np.nextafter(a, np.float32(np.inf if up else -np.inf))
        np.testing.assert_array_equal(ulps(a, after), 1)

    @given(arrays(np.float32, (20, 3), elements=st.floats(width=32, allow_nan=False)))
    def test_distances_add_up_along_the_line(self, points):
        low, middle, high = np.sort(points, axis=1).T
        np.testing.assert_array_equal(ulps(low, middle) + ulps(middle, high), ulps(low, high))
