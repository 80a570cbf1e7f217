"""Reason codes: exact contributions of the declared rows, and where they are kept."""

import numpy as np
import pytest
from pydantic import ValidationError

from pip_dagster.errors import DeclarationError, PartitionError
from pip_dagster.flow.explain import check_explanations, explain, store_reasons
from pip_dagster.flow.score import score
from pip_dagster.flow.stage import Stage
from pip_dagster.ledger import record
from pip_dagster.ledger.live import live_change
from pip_dagster.registry import InvalidModel, SignatureMismatch
from pip_dagster.registry.load import load_predictor
from pip_dagster.warehouse.connect import open_warehouse, workspace
from pip_dagster.warehouse.published import publish_pending
from pip_dagster.warehouse.transaction import transaction

import xgboost as xgb  # isort: skip  # after pip_dagster: it keeps OpenMP's threads from spinning

pytestmark = pytest.mark.lake


FIRST, SECOND, THIRD, FOURTH = DAYS = ("2024-03-01", "2024-03-02", "2024-03-03", "2024-03-04")


class Explained:
    """The stored features of the declared pipeline, staged and scored as in a run, and explained."""

    def __init__(self, tiny, con, partitions=DAYS):
        pipeline, name = tiny.pipeline(), tiny.pipeline().spec.name
        self.con, self.spec, self.stage = con, pipeline.spec, Stage(con)
        version = tiny.registry.get(pipeline.spec.scoring.model_name, "champion")
        self.manifest, self.predictor = version.manifest, load_predictor(version, nthread=1)
        with open_warehouse(con, pipeline.project.warehouse, purpose="test"):
            entries = record.latest_extractions(con, name, list(DAYS))
            ((table),) = {entry.table_name for entry in entries.values()}
            self.stage.load(name, table, [entry.revision for entry in entries.values()])
        self.stage.admit_all()
        self.scoring = score(self.stage, self.spec, self.predictor, self.manifest, list(partitions))
        self.made = explain(self.stage, self.spec, self.predictor, self.manifest, self.scoring, list(partitions))

    def rows(self, what="*", where="true"):
        return self.con.execute(f"SELECT {what} FROM {self.stage.reasons} WHERE {where} ORDER BY ALL").fetchall()


@pytest.fixture
def con():
    with workspace(threads=1) as con:
        yield con


def of_all(tiny, **declared):
    return tiny.declare(explanations=declared)


class TestWhichRows:
    def test_none_where_none_are_declared(self, scored, con):
        assert Explained(scored, con).made is None

    def test_all_of_them_with_three_reasons_each_by_default(self, scored, con):
        explained = Explained(of_all(scored), con)
        assert explained.made.explained == dict.fromkeys(DAYS, 50)
        assert explained.made.reasons == dict.fromkeys(DAYS, 150)
        described = con.execute(f"DESCRIBE {explained.stage.reasons}").fetchall()
        assert {row[0]: row[1] for row in described} == explained.made.columns
        assert list(explained.made.columns) == [
            *("partition_key", "order_id", "rank", "output", "feature", "value", "contribution", "base")
        ]

    def test_those_that_the_condition_takes(self, scored, con):
        explained = Explained(of_all(scored, where="score >= 0.5 -- the likely ones"), con)
        expected = [(number,) for number, score in scored.scores().items() if score >= 0.5]
        assert 0 < len(expected) < 200 and explained.rows("DISTINCT order_id") == expected

    def test_the_highest_scores_where_there_are_more_than_at_most_then_by_key(self, scored, con):
        explained = Explained(of_all(scored, at_most=7, top=1), con)
        scores = scored.scores(where=f"partition_key = '{SECOND}'")
        highest = sorted(scores, key=lambda number: (-scores[number], number))[:7]
        assert explained.rows("order_id", f"partition_key = '{SECOND}'") == [(n,) for n in sorted(highest)]
        assert explained.made.explained == explained.made.reasons == dict.fromkeys(DAYS, 7)

    def test_ties_are_decided_by_key(self, scored, con, helpers):
        scored.source("UPDATE raw.orders SET amount = 1, quantity = 1, gift = true, shop = 'plain'")
        scored.run()
        explained = Explained(of_all(scored, at_most=2, top=1), con)
        assert explained.rows("order_id") == [(n + i,) for n in (0, 50, 100, 150) for i in (0, 1)]

    def test_only_the_partitions_asked_for(self, scored, con):
        explained = Explained(of_all(scored), con, (FIRST, THIRD))
        assert explained.rows("DISTINCT partition_key") == [(FIRST,), (THIRD,)]
        assert Explained(scored, con, ()).made.explained == {}

    @pytest.mark.parametrize(
        ("where", "message"),
        [
            ("scroe > 0.5", r"'scroe', .* which has partition_key, order_id, day, score; did you mean 'score'\?"),
            ("score", "is FLOAT; expected BOOLEAN"),
            ("true, score", "it gives several values"),
            ("score > 0.5) --", "is not a single SQL expression"),
            ("score > (SELECT avg(score) FROM memory.pip_stage.scores)", "a subquery"),
            ("score > random()", r"random\(\)"),
            ("row_number() OVER (ORDER BY score) < 5", "a window function"),
            ("current_setting('threads')::INT > 1", r"current_setting\(\)"),
        ],
    )
    def test_a_condition_that_is_none_is_refused(self, scored, con, where, message):
        of_all(scored, where=where)
        with pytest.raises(DeclarationError, match=message):
            Explained(scored, con)
        spec, manifest = scored.pipeline().spec, scored.registry.get("returns", 1).manifest
        columns = {"order_id": "BIGINT", "day": "DATE"}
        with pytest.raises(DeclarationError, match=message):
            check_explanations(spec, manifest, columns)

    def test_a_condition_over_the_key_passes_the_check_beforehand(self, scored):
        of_all(scored, where="order_id % 2 = 0 AND day > DATE '2024-03-01' AND score > 0")
        columns = {"order_id": "BIGINT", "day": "DATE"}
        check_explanations(scored.pipeline().spec, scored.registry.get("returns", 1).manifest, columns)

    @pytest.mark.parametrize("declared", [{"top": 0}, {"at_most": 0}, {"wher": "true"}])
    def test_what_cannot_be_declared(self, scored, declared):
        with pytest.raises(ValidationError):
            of_all(scored, **declared).pipeline()

    def test_a_key_with_the_name_of_a_reasons_column_is_refused(self, scored):
        scored.declare(features={"key": ["Feature"]}, explanations={})
        with pytest.raises(ValidationError, match="'Feature' is a column of the reasons"):
            scored.pipeline()
        scored.declare(features={"key": ["Feature"]}).pipeline()

    def test_another_selection_is_another_scoring_and_none_leaves_the_digest_as_it_was(self, scored):
        digests = [scored.pipeline().scoring_digest]
        digests += [of_all(scored, **declared).pipeline().scoring_digest for declared in ({}, {"top": 2})]
        assert len(set(digests)) == 3
        assert scored.declare().pipeline().scoring_digest == digests[0]


class TestWhatTheySay:
    def test_all_contributions_and_the_base_sum_to_the_margin(self, scored, con, helpers):
        explained = Explained(of_all(scored, top=99), con)
        frame = scored.source_frame()
        booster = xgb.Booster(model_file=str(scored.registry.get("returns", 1).path / "model.ubj"))
        margin = booster.predict(helpers.matrix(frame), output_margin=True)
        sums = explained.rows("order_id, sum(contribution) + any_value(base)", "true GROUP BY order_id")
        assert [number for number, _ in sums] == frame["order_id"].tolist()
        np.testing.assert_allclose([total for _, total in sums], margin, atol=1e-4)
        assert explained.made.reasons == dict.fromkeys(DAYS, 200)

    def test_are_xgboosts_own_by_size_with_the_value_as_it_was(self, scored, con, helpers):
        explained = Explained(of_all(scored), con)
        frame = scored.source_frame(f"day = '{SECOND}'")
        booster = xgb.Booster(model_file=str(scored.registry.get("returns", 1).path / "model.ubj"))
        exact = booster.predict(helpers.matrix(frame), pred_contribs=True)
        columns = "order_id, rank, feature, value, contribution, base, output"
        found = iter(explained.rows(columns, f"partition_key = '{SECOND}'"))
        for row, of_row in zip(frame.to_dict("records"), exact, strict=True):
            for rank, at in enumerate(np.argsort(-np.abs(of_row[:4]), kind="stable")[:3], start=1):
                number, found_rank, feature, value, contribution, base, output = next(found)
                assert (number, found_rank, feature, output) == (row["order_id"], rank, helpers.FEATURES[at], "score")
                assert (contribution, base) == (float(of_row[at]), float(of_row[4]))
                told = row[feature]
                expected = {"shop": told, "gift": str(told).lower(), "quantity": str(told)}.get(feature)
                if feature == "amount":
                    assert value is None if told is None or np.isnan(told) else float(value) == told
                else:
                    assert value == expected
        assert next(found, None) is None

    def test_a_key_that_is_named_as_a_column_inside(self, scored, con):
        """Such a name must not take a feature's place."""
        plain = Explained(of_all(scored), con).rows("order_id, rank, feature, value, contribution")
        sql = (
            (scored.folder / "features.sql")
            .read_text()
            .replace("order_id, day", "order_id AS f0, day, 1 AS t1, 2 AS s")
        )
        scored.declare(sql, features={"key": ["f0", "t1", "s"]}, explanations={})
        scored.run()
        assert Explained(scored, con).rows("f0, rank, feature, value, contribution") == plain

    def test_a_classifier_is_explained_for_the_class_it_predicts(self, scored, con, helpers):
        history = helpers.orders(600, seed=3)
        data = helpers.matrix(history, label=history["quantity"] % 3)
        booster = xgb.train({"objective": "multi:softmax", "num_class": 3, "nthread": 1, "max_depth": 3}, data, 6)
        file, labels = scored.root / "model.ubj", ["wenig", "mehr", "viel"]
        booster.save_model(file)
        options = {"sample": history, "categories": {"shop": helpers.SHOPS}, "classes": labels, "by": "ada"}
        scored.registry.register("kinds", model=file, **options)
        scored.registry.set_alias("kinds", "champion", 1, by="ada", why="the first")
        scored.declare(scoring={"model_name": "kinds"}, explanations={"top": 4})
        explained = Explained(scored, con)
        data = helpers.matrix(scored.source_frame())
        predicted = booster.predict(data).astype(int)
        margins = booster.predict(data, output_margin=True)
        assert set(predicted) == {0, 1, 2}
        rows = explained.rows(
            "order_id, output, predicted_class, sum(contribution) + any_value(base)", "true GROUP BY ALL"
        )
        assert [row[1:3] for row in rows] == [(f"score_{labels[i]}", labels[i]) for i in predicted]
        np.testing.assert_allclose([row[3] for row in rows], margins[np.arange(200), predicted], atol=1e-4)

    def test_several_targets_are_explained_one_by_one(self, scored, con, helpers):
        history = helpers.orders(600, seed=3)
        options = {"objective": "reg:quantileerror", "quantile_alpha": [0.1, 0.9], "nthread": 1, "max_depth": 3}
        booster = xgb.train(options, helpers.matrix(history, label=history["quantity"] * 1.5), 6)
        file = scored.root / "model.ubj"
        booster.save_model(file)
        scored.registry.register("range", model=file, sample=history, categories={"shop": helpers.SHOPS}, by="ada")
        scored.registry.set_alias("range", "champion", 1, by="ada", why="the first")
        explained = Explained(scored.declare(scoring={"model_name": "range"}, explanations={"top": 9}), con)
        margins = booster.predict(helpers.matrix(scored.source_frame()), output_margin=True)
        rows = explained.rows("order_id, output, sum(contribution) + any_value(base)", "true GROUP BY ALL")
        assert [row[1] for row in rows] == ["score_0", "score_1"] * 200
        np.testing.assert_allclose([row[2] for row in rows], margins.ravel(), atol=1e-4)
        assert explained.made.explained == dict.fromkeys(DAYS, 50)
        assert explained.made.reasons == dict.fromkeys(DAYS, 50 * 2 * 4)

    def test_a_matrix_of_another_width_is_refused(self, scored):
        predictor = load_predictor(scored.registry.get("returns", 1), nthread=1)
        with pytest.raises(SignatureMismatch, match=r"\(rows, 4\), got \(2, 3\)"):
            predictor.contributions(np.zeros((2, 3), dtype=np.float32))
        assert predictor.contributions(np.zeros((0, 4), dtype=np.float32)).shape == (0, 5)

    def test_a_model_that_this_xgboost_cannot_explain_is_refused(self, scored):
        rng = np.random.default_rng(1)
        X = rng.normal(size=(100, 2)).astype(np.float32)
        data = xgb.DMatrix(X, label=X * 2, feature_names=["a", "b"])
        options = {"objective": "reg:squarederror", "multi_strategy": "multi_output_tree", "nthread": 1}
        file = scored.root / "model.ubj"
        booster = xgb.train(options, data, 2)
        booster.save_model(file)
        import pandas as pd

        version = scored.registry.register("vector", model=file, sample=pd.DataFrame(X, columns=["a", "b"]), by="ada")
        predictor = load_predictor(version, nthread=1)
        if tuple(map(int, xgb.__version__.split(".")[:2])) < (3, 4):
            with pytest.raises(InvalidModel, match="cannot explain its scores"):
                predictor.contributions(X)
        else:
            margin = booster.predict(data, output_margin=True)
            np.testing.assert_allclose(predictor.contributions(X).sum(axis=2), margin, atol=1e-4)


class TestWhereTheyAreKept:
    def store(self, tiny, con, explained, key=SECOND):
        """As a run would, beside the live scoring of the partition; its id."""
        project = tiny.project
        with open_warehouse(con, project.warehouse, purpose="test"):
            live = live_change(con, "orders", key).scoring_id
            (entry,) = [each for each in record.scorings_of(con, "orders", [key]) if each.scoring_id == live]
            with transaction(con):
                store_reasons(explained.stage, explained.made, entry)
                con.execute("DELETE FROM ledger.publications")  # so that all is published again
            publish_pending(con, project)
        return live

    def test_with_the_scoring_that_they_explain(self, scored, con):
        explained = Explained(of_all(scored, where="score > 0.5"), con)
        live = self.store(scored, con, explained)
        kept = scored.warehouse("SELECT * FROM orders.reasons ORDER BY ALL")
        staged = explained.rows(where=f"partition_key = '{SECOND}'")
        assert kept == [(key, live, *rest) for key, *rest in staged] and kept
        assert scored.published("SELECT * FROM orders.reasons ORDER BY ALL") == kept

    def test_are_published_of_the_live_scoring_only(self, scored, con):
        self.store(scored, con, Explained(of_all(scored, top=1), con))
        assert scored.published("SELECT count(*) FROM orders.reasons") == [(50,)]
        scored.registry.set_alias("returns", "champion", 2, by="ada", why="better")
        scored.run(SECOND)
        published = scored.published("SELECT DISTINCT scoring_id FROM orders.reasons")
        live = scored.warehouse(f"SELECT scoring_id FROM ledger.live WHERE partition_key = '{SECOND}'")
        assert published in ([], live)  # none, until a run explains what it scores
        assert len(scored.warehouse("SELECT DISTINCT scoring_id FROM orders.reasons")) >= 1

    def test_a_row_that_is_lost_on_the_way_rolls_everything_back(self, scored, con):
        explained = Explained(of_all(scored), con)
        con.execute(f"DELETE FROM {explained.stage.reasons} WHERE order_id = 70 AND rank = 1")
        with pytest.raises(PartitionError, match="150 reasons were staged, 149 arrived"):
            self.store(scored, con, explained)
        assert scored.warehouse("SELECT count(*) FROM duckdb_tables() WHERE table_name LIKE 'reasons%'") == [(0,)]

    def test_no_rows_make_no_table(self, scored, con):
        self.store(scored, con, Explained(of_all(scored, where="score > 2"), con))
        assert scored.warehouse("SELECT count(*) FROM duckdb_tables() WHERE table_name LIKE 'reasons%'") == [(0,)]
