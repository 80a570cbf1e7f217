"""Ranges, reruns, failures and promotions: what is stored, what is live, what is published."""

import shutil
import time

import pytest
import xgboost

from pip_dagster.declaration.lake import Lake
from pip_dagster.declaration.partition import Partition
from pip_dagster.errors import DeclarationError

pytestmark = pytest.mark.lake


FIRST, SECOND, THIRD, FOURTH = "2024-03-01", "2024-03-02", "2024-03-03", "2024-03-04"
ALL_DAYS = (FIRST, SECOND, THIRD, FOURTH)


def digests(results):
    return {key: result.scoring.score_digest for key, result in results.items()}


def ledger_rows(tiny):
    return [
        tiny.warehouse(f"SELECT count(*) FROM ledger.{table}")[0][0]
        for table in ("extractions", "scorings", "live_changes", "publications")
    ]


def fail(tiny, key=SECOND):
    tiny.source(f"UPDATE raw.orders SET amount = 'inf' WHERE day = '{key}' AND order_id % 50 = 7")


@pytest.fixture(scope="module")
def in_one_run(template, helpers, tmp_path_factory):
    root = tmp_path_factory.mktemp("range") / "shop"
    shutil.copytree(template, root)
    return digests(helpers.Tiny(root).run(*ALL_DAYS))


class TestTheSameRowsAndScores:
    @pytest.mark.parametrize(
        "runs",
        [
            [(FIRST,), (SECOND,), (THIRD,), (FOURTH,)],
            [(FOURTH,), (SECOND,), (FIRST,), (THIRD,)],
            [(THIRD, FIRST, FOURTH, SECOND)],
            [(FIRST, FOURTH), (THIRD, SECOND)],
            [(FIRST, SECOND, THIRD), (SECOND, THIRD, FOURTH)],
        ],
        ids=["day by day", "shuffled", "shuffled in one run", "with gaps", "overlapping"],
    )
    def test_however_the_days_are_grouped(self, tiny, in_one_run, runs):
        made = {}
        for keys in runs:
            made |= digests(tiny.run(*keys))
        assert made == in_one_run
        assert tiny.scores() == tiny.expected()

    def test_whatever_the_order_of_the_source_rows(self, tiny, in_one_run):
        tiny.source("CREATE OR REPLACE TABLE raw.orders AS FROM raw.orders ORDER BY md5(order_id::VARCHAR)")
        assert digests(tiny.run()) == in_one_run

    def test_features_first_and_predictions_from_what_is_stored(self, tiny, in_one_run):
        features = tiny.run(predictions=False)
        assert all(result.scoring is None and result.features for result in features.values())
        assert not tiny.project.published_database.exists(), "features alone are nothing to publish"
        tiny.source("DELETE FROM raw.orders")  # scored is the snapshot, not what the sources hold by now
        assert digests(tiny.run(features=False)) == in_one_run

    def test_in_small_batches_and_chunks(self, tiny, in_one_run, monkeypatch):
        monkeypatch.setattr("pip_dagster.flow.materialize.CHUNK_ROWS", 60)
        assert digests(tiny.declare(scoring={"batch_rows": 2048}).run()) == in_one_run


class TestARerun:
    def test_of_unchanged_partitions_scores_and_writes_nothing(self, scored, monkeypatch):
        before, rows = ledger_rows(scored), scored.scores()
        calls = []
        monkeypatch.setattr("pip_dagster.flow.model.load_predictor", lambda *args, **kwargs: calls.append(args))
        results = scored.run()
        assert all(result.reused for result in results.values()) and not calls
        assert ledger_rows(scored) == before
        assert scored.scores() == rows

    def test_of_a_changed_partition_scores_that_one(self, scored):
        scored.source("UPDATE raw.orders SET quantity = 8 WHERE order_id = 60")
        results = scored.run()
        assert [key for key, result in results.items() if not result.reused] == [SECOND]
        assert scored.scores() == scored.expected()
        assert scored.warehouse("SELECT count(*) FROM orders.scores") == [(250,)], "the old scores are kept"

    def test_after_the_declaration_changed_scores_all(self, scored):
        results = scored.declare(scoring={"on_unseen_category": "error"}).run()
        assert not any(result.reused for result in results.values())
        assert len({result.scoring.code_digest for result in results.values()}) == 1

    def test_by_another_library_version_scores_anew_and_both_are_in_the_ledger(self, scored, monkeypatch):
        monkeypatch.setattr("pip_dagster.flow.model.library_versions", lambda *_: {"xgboost": "9.9.9"})
        assert not scored.run(FIRST)[FIRST].reused
        engines = scored.warehouse(f"SELECT DISTINCT engine FROM ledger.scorings WHERE partition_key = '{FIRST}'")
        assert len(engines) == 2


class TestABadDay:
    @pytest.mark.lake("always")
    def test_fails_alone_and_its_past_stays_live_and_published(self, scored):
        old = scored.scores()
        published = f"SELECT * FROM orders.predictions WHERE partition_key = '{SECOND}' ORDER BY ALL"
        old_rows = scored.published(published)
        scored.source("UPDATE raw.orders SET quantity = 8 WHERE order_id % 50 = 3")
        fail(scored)
        results = scored.run()
        assert [key for key, result in results.items() if result.error] == [SECOND]
        fresh = scored.expected(f"day <> '{SECOND}'")
        assert scored.scores() == {order: fresh.get(order, score) for order, score in old.items()}
        assert scored.scores() != old
        assert scored.published(published) == old_rows
        attempts = scored.published(
            f"SELECT status, is_live FROM ledger.partitions WHERE partition_key = '{SECOND}' ORDER BY scoring_id"
        )
        assert attempts == [("scored", True), ("failed", False)]

    def test_that_was_never_scored_has_nothing_live(self, tiny):
        fail(tiny)
        tiny.run()
        assert tiny.published("SELECT partition_key FROM ledger.partitions WHERE is_live ORDER BY ALL") == [
            (key,) for key in ALL_DAYS if key != SECOND
        ]

    def test_is_mended_by_a_rerun(self, tiny):
        fail(tiny)
        assert tiny.run()[SECOND].error
        tiny.source("UPDATE raw.orders SET amount = 5 WHERE isinf(amount)")
        results = tiny.run()
        assert [key for key, result in results.items() if not result.reused] == [SECOND]
        assert tiny.scores() == tiny.expected()

    def test_without_features_is_told_to_make_them(self, tiny):
        tiny.run(FIRST, predictions=False)
        results = tiny.run(FIRST, SECOND, features=False)
        assert results[FIRST].scoring and "materialize orders/features" in results[SECOND].error


class TestAPromotion:
    def promote(self, tiny, version):
        tiny.registry.set_alias("returns", "champion", version, by="ada", why="a test")

    def test_and_a_rerun_of_predictions_score_the_same_features_by_the_new_model(self, scored):
        assert scored.expected() != scored.expected(version=2)
        self.promote(scored, 2)
        results = scored.run(features=False)
        assert scored.scores() == scored.expected(version=2)
        assert scored.published("SELECT DISTINCT model_version FROM orders.predictions") == [(2,)]
        revisions = scored.warehouse("SELECT partition_key, feature_revision FROM ledger.scorings")
        assert len(revisions) == 8 and len(set(revisions)) == 4
        assert all(result.scoring.model_version == 2 for result in results.values())
        assert scored.warehouse("SELECT count(*) FROM ledger.extractions") == [(4,)]

    def test_back_makes_the_old_scores_live_again_without_scoring(self, scored):
        old = scored.scores()
        self.promote(scored, 2)
        scored.run(features=False)
        self.promote(scored, 1)
        results = scored.run(features=False)
        assert all(result.reused for result in results.values())
        assert scored.scores() == old
        assert scored.warehouse("SELECT count(*) FROM ledger.scorings") == [(8,)]

    def test_without_a_rerun_changes_nothing(self, scored):
        old = scored.scores()
        self.promote(scored, 2)
        assert scored.scores() == old


def test_a_partition_of_a_range_has_its_own_share_of_what_the_range_cost(tiny):
    tiny.source(f"DELETE FROM raw.orders WHERE day = '{SECOND}' AND order_id % 10 > 0")
    began, cpu = time.monotonic(), time.process_time()
    tiny.run()
    wall, cpu = time.monotonic() - began, time.process_time() - cpu
    for table, rows in (("extractions", "rows_extracted"), ("scorings", "rows_in")):
        costs = tiny.warehouse(f"SELECT {rows}, seconds, cpu_seconds, peak_memory FROM ledger.{table}")
        assert sum(cost[1] for cost in costs) < wall and sum(cost[2] for cost in costs) < cpu
        of_row = {round(cost[1] / cost[0], 9) for cost in costs}
        assert max(of_row) < 1.01 * min(of_row), "by rows: equal for each row"
        assert all(cost[2] > 0 and cost[3] > 20e6 for cost in costs)


def test_the_ledger_says_all_that_a_prediction_is_a_function_of(scored):
    version = scored.registry.get("returns", 1)
    [row] = scored.warehouse(
        f"""SELECT model_name, model_version, model_digest, manifest_digest, device, run_id, made_by, rows_in,
        rows_scored, rows_quarantined, partition_start::VARCHAR, partition_end::VARCHAR, threads > 0,
        seconds > 0, min_score <= mean_score AND mean_score <= max_score
        FROM ledger.scorings WHERE partition_key = '{SECOND}'"""
    )
    bounds = ("2024-03-02 00:00:00+00", "2024-03-03 00:00:00+00")
    model = ("returns", 1, version.digest, version.manifest_digest, "cpu")
    assert row == (*model, "run-1", "a test", 50, 50, 0, *bounds, True, True, True)
    [(engine, sources, mean)] = scored.warehouse(
        f"SELECT engine, source_digests, mean_score FROM ledger.scorings WHERE partition_key = '{SECOND}'"
    )
    assert f'"xgboost":"{xgboost.__version__}"' in engine and '"rows":50' in sources
    expected = scored.expected(f"day = '{SECOND}'")
    assert mean == pytest.approx(sum(expected.values()) / 50, abs=1e-9)


@pytest.mark.parametrize("missing", ["model", "alias"])
def test_without_a_model_nothing_is_made_and_the_way_to_one_is_named(tiny, missing):
    scoring = {"model_name": "refunds"} if missing == "model" else {"alias": "challenger"}
    tiny.declare(scoring=scoring)
    with pytest.raises(DeclarationError, match="pip-dagster models register.*pip-dagster models promote"):
        tiny.run()
    assert isinstance(tiny.project.warehouse, Lake) or not tiny.project.warehouse.exists()


def test_columns_may_change_from_one_day_to_the_next(tiny, helpers):
    tiny.run(FIRST)
    tiny.declare(helpers.SQL.replace("'not a feature' AS note", "12 AS other, order_id AS copy")).run(SECOND)
    assert tiny.scores() == tiny.expected(f"day <= '{SECOND}'")
    assert tiny.warehouse("SELECT note, other, count(*) FROM orders.features GROUP BY ALL ORDER BY ALL") == [
        ("not a feature", None, 50),
        (None, 12, 50),
    ]
    both = tiny.run(FIRST, SECOND, features=False)
    assert all(result.reused for result in both.values())


def test_a_partition_is_made_as_long_as_it_is_asked_for_whatever_its_key(tiny):
    [day] = tiny.partitions(FIRST)
    odd = Partition("Ω/first: 'day'?", day.start, day.end)
    assert tiny.run_partitions([odd])[odd.key].scoring.rows_scored == 50
    assert tiny.published("SELECT DISTINCT partition_key FROM orders.predictions") == [(odd.key,)]
