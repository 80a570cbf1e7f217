"""Tasks that each do a share of a partition do together what one process does; here in this process, without Ray."""

from __future__ import annotations

import dataclasses
import json
import pickle
import re
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from pip_dagster.declaration.engine import RayEngine
from pip_dagster.declaration.lake import Lake
from pip_dagster.errors import ClusterError, DeclarationError, SourceError
from pip_dagster.flow import materialize as materializing
from pip_dagster.flow.distributed.cluster import Cluster, Trouble, check_node, versions
from pip_dagster.flow.distributed.exchange import check_exchanged, exchange_folder, share_of
from pip_dagster.flow.distributed.extract_shares import for_tasks
from pip_dagster.flow.distributed.model_files import ModelFiles
from pip_dagster.flow.distributed.places import Places
from pip_dagster.flow.distributed.score_shares import merged_profiles
from pip_dagster.registry import DigestMismatch
from pip_dagster.warehouse.connect import workspace

FIRST, SECOND = "2024-03-01", "2024-03-02"
SCORINGS = (
    "SELECT partition_key, status, reason, role, model_version, manifest_digest, feature_digest, source_digests, "
    "code_digest, engine, device, rows_in, rows_scored, rows_quarantined, findings, min_score, max_score, "
    "round(mean_score, 6), score_digest, inputs_digest FROM ledger.scorings ORDER BY ALL"
)
CHECKS = (
    "SELECT partition_key, expectation_id, status, unexpected_count, element_count, unexpected_percent, error "
    "FROM ledger.checks WHERE section <> 'split' ORDER BY ALL"
)
QUARANTINED = "SELECT order_id, broken, quantity, shop FROM orders.quarantine ORDER BY ALL"
REASONS = "SELECT * EXCLUDE (scoring_id) FROM orders.reasons ORDER BY ALL"
PROFILES = (
    "SELECT partition_key, column_kind, name, segment, segment_value, rows, counts, missing, unseen, round(mean, 4), "
    "round(sd, 4), round(gain, 9) FROM ledger.profiles ORDER BY ALL"
)
PREDICTIONS = "SELECT * EXCLUDE (scored_at, feature_revision, scoring_id) FROM orders.predictions ORDER BY ALL"


class Here(Cluster):
    """Tasks in this process, which get and return what a network could carry."""

    software = "ray of this test"

    def map(self, task, items, *common):
        results = []
        for item in items:
            found = pickle.loads(pickle.dumps(task(item, *pickle.loads(pickle.dumps(common)))))
            if isinstance(found, Trouble):
                raise found.error()
            results.append(found)
        return results


@pytest.fixture
def here(monkeypatch):
    """A pipeline that declares `engine: ray` gets a cluster of this process."""

    @contextmanager
    def connected(pipeline, progress):
        engine = pipeline.spec.scoring.ray
        if engine is None:
            yield None
            return
        with exchange_folder(pipeline.project.root / engine.exchange) as folder:
            yield Here(folder, engine.tasks, engine.cpus, progress)

    monkeypatch.setattr(materializing, "connected", connected)


def shares(tiny, tasks=3, **more):
    """The same declaration, with its rows scored by tasks."""
    file = tiny.folder / "defs.yaml"
    document = yaml.safe_load(file.read_text())
    document["attributes"]["scoring"]["engine"] = {"name": "ray", "tasks": tasks, "cpus": 1} | more
    file.write_text(yaml.safe_dump(document, allow_unicode=True, sort_keys=False))


def both_ways(tiny, *queries, keys=(FIRST, SECOND), **options):
    """What these queries of the warehouse show after one process, and after tasks."""
    errors = {key: result.error for key, result in tiny.run(*keys, **options).items()}
    alone = [tiny.warehouse(query) for query in (SCORINGS, *queries)]
    tiny.begin_again()
    shares(tiny)
    assert {key: result.error for key, result in tiny.run(*keys, **options).items()} == errors
    together = [tiny.warehouse(query) for query in (SCORINGS, *queries)]
    assert together == alone
    assert all(alone)
    return errors


def expect(tiny, max_quarantined=0.5, **sections):
    (tiny.folder / "expectations.yaml").write_text(yaml.safe_dump(sections, allow_unicode=True), encoding="utf-8")
    return {"quality": {"expectations": "expectations.yaml", "max_quarantined": max_quarantined}}


BETWEEN = {
    "type": "expect_column_values_to_be_between",
    "kwargs": {"column": "quantity", "min_value": 2, "max_value": 8},
    "name": "quantity_is_possible",
}
ROWS = {"type": "expect_table_row_count_to_be_between", "kwargs": {"min_value": 50, "max_value": 50}, "name": "all"}
MEAN = {"type": "expect_column_mean_to_be_between", "kwargs": {"column": "score", "min_value": 0, "max_value": 1}}


@pytest.mark.usefixtures("here")
class TestOneScoring:
    @pytest.mark.slice
    def test_with_expectations_decisions_reasons_and_profiles(self, tiny):
        tiny.declare(
            decisions={"high": "score > 0.5", "large": "high AND amount > 50"},
            explanations={"top": 2, "where": "high", "at_most": 7},
            monitoring={},
            **expect(tiny, features=[BETWEEN, ROWS], predictions=[MEAN]),
        )
        errors = both_ways(tiny, CHECKS, QUARANTINED, REASONS, PROFILES, PREDICTIONS)
        assert set(errors.values()) == {None}
        where = "3 tasks on 1 node of a Ray cluster"
        told = tiny.warehouse("SELECT DISTINCT cluster, tasks, nodes, threads, device_reason FROM ledger.scorings")
        assert told == [(Here.software, 3, 1, 1, where)]

    @pytest.mark.slice
    def test_profiles_by_segment(self, tiny):
        tiny.declare(monitoring={"segments": ["shop"]})
        both_ways(tiny, PROFILES)

    @pytest.mark.parametrize(
        "policy", [*(pytest.param(each, marks=pytest.mark.slice) for each in ("missing", "error")), "quarantine"]
    )
    def test_unseen_categories(self, tiny, policy):
        tiny.source(f"UPDATE raw.orders SET shop = 'new' WHERE day = '{SECOND}' AND order_id % 50 < 9")
        tiny.declare(scoring={"on_unseen_category": policy})
        errors = both_ways(tiny)
        assert ("shop in 9 rows" in (errors[SECOND] or "")) == (policy == "error")

    @pytest.mark.slice
    def test_too_many_rows_in_quarantine_block_the_partition(self, tiny):
        tiny.source(f"UPDATE raw.orders SET quantity = 99 WHERE day = '{SECOND}' AND order_id % 50 < 9")
        tiny.declare(**expect(tiny, 0.1, features=[BETWEEN | {"kwargs": {"column": "quantity", "max_value": 8}}]))
        errors = both_ways(tiny, QUARANTINED)
        assert "9 of 50 rows are in quarantine" in errors[SECOND]

    def test_a_critical_expectation_on_the_partition_blocks_it(self, tiny):
        tiny.source(f"DELETE FROM raw.orders WHERE day = '{SECOND}' AND order_id % 50 < 9")
        tiny.declare(**expect(tiny, features=[ROWS]))
        assert "blocked" in both_ways(tiny, CHECKS)[SECOND]

    @pytest.mark.slice
    def test_values_that_must_not_be_scored_are_counted_in_all_shares(self, tiny):
        tiny.source(f"UPDATE raw.orders SET amount = 'inf' WHERE day = '{SECOND}' AND order_id % 50 < 9")
        assert "amount in 9 rows" in both_ways(tiny)[SECOND]

    @pytest.mark.slice
    def test_keys_that_occur_twice_fail_the_partition(self, tiny):
        tiny.source(f"INSERT INTO raw.orders FROM raw.orders WHERE day = '{SECOND}' AND order_id % 50 = 7")
        assert "1 key (order_id) occurs more than once, in 2 rows" in both_ways(tiny)[SECOND]

    @pytest.mark.slice
    def test_a_decision_that_fails_on_a_row_fails_the_partition(self, tiny):
        tiny.source("UPDATE raw.orders SET quantity = 0 WHERE order_id = 61")
        tiny.declare(decisions={"each": "CAST(CASE quantity WHEN 0 THEN 'none' ELSE '1' END AS INTEGER)"})
        errors = both_ways(tiny, PREDICTIONS)
        assert errors[FIRST] is None
        assert "scoring or deciding fails" in errors[SECOND]

    @pytest.mark.slice
    def test_an_empty_partition(self, tiny):
        tiny.source(f"DELETE FROM raw.orders WHERE day = '{SECOND}'")
        tiny.declare(min_row_share=0)
        both_ways(tiny)

    @pytest.mark.slice
    def test_challengers_and_arms(self, tiny):
        tiny.registry.set_alias("returns", "challenger", 2, by="ada", why="to compare")
        tiny.declare(scoring={"split": {"arms": {"challenger": "40%"}, "salt": "spring"}})
        both_ways(tiny, PREDICTIONS)
        assert tiny.published("SELECT DISTINCT model_version FROM orders.predictions ORDER BY 1") == [(1,), (2,)]

    @pytest.mark.slice
    def test_as_known(self, tiny):
        source = {"table": "raw.orders", "partition_column": "day", "available_at": "day + to_days(order_id % 3)"}
        tiny.declare(sources={"orders": source})
        both_ways(tiny, PREDICTIONS, as_known=True)

    @pytest.mark.lake
    def test_from_stored_features(self, tiny):
        shares(tiny)
        tiny.run(FIRST, SECOND, predictions=False)
        results = tiny.run(FIRST, SECOND, features=False)
        assert [result.error for result in results.values()] == [None, None]
        assert tiny.scores() == tiny.expected(f"day <= '{SECOND}'")
        assert tiny.warehouse("SELECT DISTINCT cluster FROM ledger.scorings") == [(Here.software,)]

    @pytest.mark.slice
    def test_the_other_engine_finds_nothing_to_do_and_a_replay_on_this_machine_agrees(self, tiny):
        from pip_dagster.flow.plan import make_plan
        from pip_dagster.replay.replay import replay

        shares(tiny)
        entries = [result.scoring for result in tiny.run(FIRST, SECOND).values()]
        tiny.declare()
        assert tiny.run(FIRST)[FIRST].reused
        assert not make_plan(tiny.pipeline(), tiny.partitions(FIRST, SECOND)).stale
        assert {each.verdict for each in replay(tiny.pipeline(), entries)} == {"identical"}


@pytest.mark.slice
@pytest.mark.parametrize(
    ("select", "rows"),
    [
        ("{} QUALIFY row_number() OVER (PARTITION BY order_id // 7 ORDER BY day) = 1", 28_572),
        ("{} LIMIT 150000", 150_000),
    ],
)
def test_sql_that_chooses_among_equal_rows_is_run_once(tiny, here, select, rows):
    """Each task would choose others: of 57,143 rows 202 were missing, and 42 there twice."""
    copies = "raw.orders o, range(4000) t(d) WHERE o.order_id < 50"
    tiny.source(
        f"CREATE OR REPLACE TABLE raw.orders AS SELECT o.* REPLACE (order_id + 50 * d AS order_id, "
        f"DATE '{FIRST}' AS day) FROM {copies}"
    )
    tiny.declare(select.format("SELECT * FROM raw.orders WHERE day >= $start_date AND day < $end_date"))
    shares(tiny, 4, cpus=2)
    assert tiny.run(FIRST)[FIRST].error is None
    counts = "SELECT count(*), count(DISTINCT order_id), count(DISTINCT order_id // 7) FROM orders"
    ((stored, keys, groups),) = tiny.warehouse(f"{counts}.features")
    assert (stored, keys) == (rows, rows)
    assert tiny.warehouse(f"{counts}.predictions") == [(stored, keys, groups)]
    assert groups == 28_572 or "LIMIT" in select
    assert tiny.warehouse("SELECT tasks FROM ledger.scorings") == [(4,)]


@pytest.mark.usefixtures("here")
def test_a_task_that_is_repeated_does_not_touch_the_rows_of_the_first(tiny, monkeypatch):
    """Ray repeats the tasks of a node that seems lost, and may be at work still."""
    from pip_dagster.flow.distributed import extract_shares

    def repeated(share, to):
        first = extract_share(share, to)
        written = {file: Path(file).read_bytes() for of in first.files.values() for file in of}
        extract_share(share, to)
        assert {file: Path(file).read_bytes() for file in written} == written
        (written_again,) = {Path(file).parent for file in written}
        assert len(list(written_again.parent.iterdir())) > 1
        return first

    extract_share = extract_shares.extract_share
    monkeypatch.setattr(extract_shares, "extract_share", repeated)
    shares(tiny)
    assert tiny.run(FIRST)[FIRST].error is None
    assert tiny.scores() == tiny.expected(f"day = '{FIRST}'")


def test_a_disk_that_fails_the_run_itself_is_one_sentence(tmp_path):
    with (
        pytest.raises(ClusterError, match="exchange cannot be used: .*absent.*Stored partitions are unchanged"),
        exchange_folder(tmp_path) as folder,
        workspace(threads=1) as con,
    ):
        con.execute(f"FROM read_parquet('{folder}/absent.parquet')")


def test_folders_of_killed_runs_are_removed_and_others_stay(tmp_path):
    with exchange_folder(tmp_path) as mine:
        machine, _, _ = mine.name.removeprefix("pip_dagster_exchange_").split("_")
        dead = tmp_path / f"pip_dagster_exchange_{machine}_999999999_1"
        other = tmp_path / "pip_dagster_exchange_0123456789abcdef_999999999_1"
        for each in (dead, other):
            each.mkdir()
        with exchange_folder(tmp_path):
            assert mine.is_dir()
            assert other.is_dir()
            assert not dead.exists()
    assert [each.name for each in tmp_path.iterdir()] == [other.name]


@pytest.mark.slice
def test_scores_that_are_not_finite_refuse_the_partition(tiny, here):
    import numpy as np
    import pandas as pd
    import xgboost as xgb

    frame = pd.DataFrame({"amount": np.random.default_rng(1).random(200)})
    data = xgb.DMatrix(frame, label=np.exp(2 * frame.amount))
    booster = xgb.train({"booster": "gblinear", "objective": "count:poisson", "nthread": 1}, data, 30)
    booster.save_model(tiny.root / "linear.ubj")
    tiny.registry.register("linear", model=tiny.root / "linear.ubj", sample=frame, by="ada")
    tiny.registry.set_alias("linear", "champion", 1, by="ada", why="a test")
    tiny.source("UPDATE raw.orders SET amount = (order_id % 10) / 10.0")
    tiny.source(f"UPDATE raw.orders SET amount = 1e6 WHERE day = '{SECOND}' AND order_id % 50 < 9")
    sql = "SELECT order_id, day, amount FROM raw.orders WHERE day >= $start_date AND day < $end_date"
    tiny.declare(sql, scoring={"model_name": "linear"})
    errors = both_ways(tiny)
    assert "score in 9 rows" in errors[SECOND]
    assert "in 9 rows" in errors[SECOND]


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.tuples(st.integers(-5, 5) | st.none(), st.text(max_size=2) | st.none()), max_size=60),
    st.integers(1, 9),
)
def test_every_row_is_in_exactly_one_share_and_equal_keys_in_the_same(rows, count):
    with workspace(threads=1) as con:
        con.execute("CREATE TABLE t (a INTEGER, b VARCHAR)")
        if rows:
            con.executemany("INSERT INTO t VALUES ($1, $2)", rows)
        share = share_of(["a", "b"], count)
        found = [con.execute(f"SELECT a, b FROM t WHERE {share} = {i}").fetchall() for i in range(count)]
        assert sorted(sum(found, []), key=str) == sorted(rows, key=str)
        keys = [set(each) for each in found]
        assert sum(map(len, keys)) == len(set(rows))


@pytest.mark.slice
def test_merged_profiles_without_values_have_no_mean(tiny, here):
    tiny.source(f"UPDATE raw.orders SET amount = NULL WHERE day = '{FIRST}'")
    tiny.declare(monitoring={})
    both_ways(tiny, PROFILES, keys=(FIRST,))
    assert merged_profiles([]) == {}


class TestTheNodes:
    def test_other_versions_are_refused_by_name(self, tmp_path):
        there = json.loads(versions()) | {"duckdb": "0.1"}
        found = check_node(json.dumps(there), str(tmp_path))
        assert found and "duckdb" in found.text and "not 0.1" in found.text
        assert "xgboost" not in found.text
        assert check_node(versions(), str(tmp_path)) is None

    def test_an_exchange_that_a_node_does_not_see(self, tmp_path):
        found = check_node(versions(), str(tmp_path / "absent"))
        assert found and str(tmp_path / "absent") in found.text
        assert isinstance(found.error(), ClusterError)

    def test_sources_that_a_node_cannot_read_or_that_changed(self, tiny):
        places = Places.of(tiny.pipeline())
        assert places.trouble() is None
        tiny.source("DELETE FROM raw.orders WHERE order_id = 0", "CHECKPOINT")
        changed = places.trouble()
        assert changed and "changed while tasks read it" in changed.text
        (tiny.root / "sources.duckdb").unlink()
        absent = places.trouble()
        assert absent and f"{tiny.root / 'sources.duckdb'} of source 'orders' cannot be read here" in absent.text
        assert isinstance(absent.error(), SourceError)

    def test_files_of_a_pattern(self, tiny):
        (tiny.root / "rows").mkdir()
        for name in "ab":
            tiny.source(f"COPY raw.orders TO '{tiny.root}/rows/{name}.parquet'")
        tiny.declare(
            sources={"orders": {"table": "raw.orders", "parquet": "rows/*.parquet", "partition_column": "day"}}
        )
        places = Places.of(tiny.pipeline())
        assert len(places.files["orders"]) == 2
        (tiny.root / "rows" / "b.parquet").unlink()
        absent = places.trouble()
        assert absent and "rows/b.parquet" in absent.text

    def test_a_model_that_changed_on_the_way_is_refused(self, tiny):
        version = tiny.registry.get("returns", "champion")
        files = ModelFiles.of(version)
        assert files.predictor(1)[0].manifest == version.manifest
        data = bytearray(files.files["model.ubj"])
        data[len(data) // 2] ^= 1
        broken = dataclasses.replace(files, files=files.files | {"model.ubj": bytes(data)})
        from pip_dagster.flow.distributed import model_files

        model_files._loaded.clear()
        with pytest.raises(DigestMismatch):
            broken.predictor(1)

    def test_tasks_get_no_passwords(self, tiny):
        pipeline = tiny.declare(alerts={"command": ["notify", "s3cret"], "events": ["run_failed"]}).pipeline()
        lake = Lake.parse("ducklake:postgres:host=db user=pip password=s3cret", tiny.root, "lake")
        project = dataclasses.replace(pipeline.project, warehouse=lake, mlflow="https://ada:s3cret@mlflow")
        sent = for_tasks(dataclasses.replace(pipeline, project=project))
        assert b"s3cret" not in pickle.dumps(sent)
        assert (sent.spec.alerts, sent.project.mlflow, sent.project.warehouse) == (None, None, sent.project.root)


@pytest.mark.usefixtures("here")
def test_what_goes_wrong_in_a_task_names_the_node_and_leaves_what_was_stored(tiny, monkeypatch):
    from pip_dagster.flow.distributed import tasks

    tiny.run(FIRST)
    before = tiny.warehouse("FROM ledger.scorings")
    shares(tiny)

    def full(*_):
        raise OSError(28, "No space left on device", "/mnt/exchange/00001.parquet")

    monkeypatch.setattr(tasks, "write", full)
    with pytest.raises(ClusterError, match=r"orders, 2024-03-02: On the Ray node .*No space left.*/mnt/exchange/00001"):
        tiny.run(SECOND)
    assert tiny.warehouse("FROM ledger.scorings") == before


class TestDeclared:
    def test_a_word_or_a_block(self, tiny):
        assert tiny.declare(scoring={"engine": "ray"}).pipeline().spec.scoring.ray == RayEngine()
        assert tiny.declare(scoring={"engine": "local"}).pipeline().spec.scoring.ray is None

    def test_the_engine_changes_no_digest(self, tiny):
        alone = tiny.pipeline()
        tasks = tiny.declare(scoring={"engine": "ray"}).pipeline()
        assert (tasks.scoring_digest, tasks.sql_digest) == (alone.scoring_digest, alone.sql_digest)

    @pytest.mark.parametrize(
        ("scoring", "words"),
        [
            ({"engine": "spark"}, "expected `local`, `ray`"),
            ({"engine": {"name": "ray", "tasks": 0}}, "greater than or equal to 1"),
            ({"engine": "ray", "device": "cuda"}, "scores on CPUs"),
            ({"engine": {"name": "ray", "address": "local"}}, "starts no cluster of its own"),
            ({"engine": {"name": "ray", "exchange": "s3://bucket/x"}}, "a folder that every node mounts"),
        ],
    )
    def test_what_means_nothing_is_refused(self, tiny, scoring, words):
        with pytest.raises(ValueError, match=words):
            tiny.declare(scoring=scoring).pipeline()

    @pytest.mark.parametrize(
        ("value", "named"),
        [
            ("now()", "now()"),
            ("current_date", "current_date"),
            ("(SELECT random())", "random()"),
            ("age(day)", "age()"),
            ("abs(quantity) + length('now()')", None),
            ("age(day, day)", None),
            ('sum(amount) OVER (ORDER BY order_id) + (SELECT max("day") FROM raw.orders).month', None),
        ],
    )
    def test_sql_that_differs_each_time_it_runs_is_refused_for_tasks_alone(self, tiny, value, named):
        sql = f"SELECT *, {value} AS other FROM raw.orders WHERE day >= $start_date AND day < $end_date"
        tiny.declare(sql).pipeline()
        tiny.declare(sql, scoring={"engine": "ray"})
        if named is None:
            tiny.pipeline()
            return
        with pytest.raises(DeclarationError, match=re.escape(f"features.sql: {named} differs each time")):
            tiny.pipeline()

    def test_a_sample_is_refused(self, tiny):
        sql = "SELECT * FROM raw.orders TABLESAMPLE 10% WHERE day >= $start_date AND day < $end_date"
        with pytest.raises(DeclarationError, match="a sample differs"):
            tiny.declare(sql, scoring={"engine": "ray"}).pipeline()

    def test_columns_that_parquet_changes(self):
        with pytest.raises(DeclarationError, match="'n' is HUGEINT"):
            check_exchanged("orders", {"n": "HUGEINT"})


class TestNoCluster:
    """Before anything is read: the sources of these are not even there."""

    @pytest.fixture(autouse=True)
    def _no_sources(self, tiny, monkeypatch):
        (tiny.root / "sources.duckdb").unlink()
        monkeypatch.delenv("RAY_ADDRESS", raising=False)

    def test_none_is_named(self, tiny):
        pytest.importorskip("ray")
        with pytest.raises(ClusterError, match="no cluster is named.*RAY_ADDRESS.*engine: local.*Nothing was read"):
            tiny.declare(scoring={"engine": "ray"}).run(FIRST)

    @pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1"])
    def test_nobody_answers(self, tiny, address):
        pytest.importorskip("ray")
        with pytest.raises(ClusterError, match=f"{address}: .*refused.*Nothing was read"):
            tiny.declare(scoring={"engine": {"name": "ray", "address": address}}).run(FIRST)

    def test_ray_is_not_installed(self, tiny, monkeypatch):
        monkeypatch.setitem(sys.modules, "ray", None)
        with pytest.raises(DeclarationError, match=r"pip-dagster\[ray\]"):
            tiny.declare(scoring={"engine": "ray"}).run(FIRST)
