"""Composites: each row by its segment's model, ensembles as the mean, under every guarantee of a plain version."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from pip_dagster.errors import DeclarationError
from pip_dagster.ledger.verify import verify
from pip_dagster.promotion.check import check
from pip_dagster.registry import RegistryError
from pip_dagster.registry.errors import DigestMismatch, InvalidSample, SignatureMismatch
from pip_dagster.registry.files import sha256
from pip_dagster.registry.golden import largest_difference
from pip_dagster.registry.load import load_predictor
from pip_dagster.replay import recall
from pip_dagster.replay.replay import replay
from pip_dagster.warehouse.connect import open_warehouse, workspace

import xgboost as xgb  # isort: skip


def member(version: int, model: str = "returns", **more: Any) -> dict[str, Any]:
    return {"model": model, "version": version} | more


def seg(*segments: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    return {"segments": list(segments)} | more


OTHER = {"otherwise": True, "model": "returns", "version": 1}


def promote(tiny: Any, version: int) -> None:
    tiny.registry.set_alias("returns", "champion", version, by="ada", why="a test")


def replayed(tiny: Any) -> list[Any]:
    with workspace(threads=1) as con:
        entries = recall.find(con, tiny.pipeline())
    return list(replay(tiny.pipeline(), entries))


def segment_of(shop: Any) -> str:
    return "far" if shop in ("Zürich", "東京") else "quoted" if shop == 'O\'Hare "B"' else "rest"


def of_small(tiny: Any, frame: pd.DataFrame) -> np.ndarray:
    booster = xgb.Booster(model_file=str(tiny.registry.get("small", 1).path / "model.ubj"))
    codes = frame["shop"].map({"plain": 0.0, 'O\'Hare "B"': 1.0})
    X = np.column_stack([codes.astype(float), frame["quantity"]]).astype(np.float32)
    return booster.predict(xgb.DMatrix(X, feature_names=["shop", "quantity"], feature_types=["c", "int"]))


# ---- segments


def test_each_row_is_scored_by_the_model_of_its_segment(composed: Any) -> None:
    composed.source("UPDATE raw.orders SET shop = NULL WHERE order_id % 17 = 0")
    promote(composed, 3)
    results = composed.run()
    assert not any(result.error for result in results.values())
    rows = composed.published("SELECT order_id, score, model_segment, model_version FROM orders.predictions")
    frame = composed.source_frame().set_index("order_id")
    assert len(rows) == len(frame)
    by = {name: composed.expected(version=version) for name, version in (("rest", 1), ("far", 2))}
    by["quoted"] = dict(zip(frame.index, map(float, of_small(composed, frame)), strict=True))
    for order, score, segment, version in rows:
        shop = frame.loc[order, "shop"]
        assert segment == segment_of(shop) and version == 3
        assert score == by[segment][order]
    assert {row[2] for row in rows} == {"far", "quoted", "rest"}
    # NULL is a shop to no condition: those rows are the rest's, and that is counted.
    nulls = frame["shop"].isna().groupby(frame["day"].astype(str)).sum().to_dict()
    for key, result in results.items():
        assert json.loads(result.scoring.findings)["segment_condition_null"] == nulls[key[:10]]


def test_only_members_of_a_row_judge_its_categories(composed: Any) -> None:
    """'Zürich' is unknown to the small model, which scores none of those rows."""
    promote(composed, 3)
    composed.declare(scoring={"on_unseen_category": "error"})
    assert not any(result.error for result in composed.run().values())
    composed.source("UPDATE raw.orders SET shop = 'nowhere' WHERE order_id IN (1, 2)")
    results = composed.run()
    assert "shop in 2 rows" in results["2024-03-01"].error
    assert not results["2024-03-02"].error


def test_a_row_of_no_segment_is_kept_apart_or_refused(composed: Any, sample: pd.DataFrame) -> None:
    only = {"segments": [{"when": "shop IN ('Zürich', 'plain')", **member(1)}]}
    frame = sample.copy()
    with pytest.raises(RegistryError, match="otherwise: true.*unmatched: error.*unmatched: quarantine"):
        composed.registry.compose("returns", only, sample=frame)
    with pytest.raises(SignatureMismatch, match=r"rows of the sample belong to no segment, such as \{'shop'"):
        composed.registry.compose("returns", only | {"unmatched": "error"}, sample=frame)
    known = frame[frame["shop"].isin(["Zürich", "plain"])]
    for policy, rows in (("error", known), ("quarantine", frame)):
        promote(composed, composed.registry.compose("returns", only | {"unmatched": policy}, sample=rows).version)
        result = composed.run("2024-03-01")["2024-03-01"]
        inside = composed.source_frame("day = '2024-03-01'")["shop"].isin(["Zürich", "plain"])
        if policy == "error":
            assert f"model_segment in {(~inside).sum()} rows" in result.error and "of no segment" in result.error
            continue
        assert result.error is None
        assert (result.scoring.rows_scored, result.scoring.rows_quarantined) == (inside.sum(), (~inside).sum())
        assert composed.warehouse("SELECT DISTINCT broken FROM orders.quarantine") == [(["no_segment"],)]
    assert [each.verdict for each in replayed(composed)] == ["identical"]


def test_a_condition_that_ends_in_an_error_refuses_the_partition(composed: Any, sample: pd.DataFrame) -> None:
    when = {"segments": [{"when": "note::INT > 5", **member(1)}, {"otherwise": True, **member(2)}]}
    with pytest.raises(SignatureMismatch, match="end in an error for 400 of 400 rows"):
        composed.registry.compose("returns", when, sample=sample)
    notes = [str(i % 10) for i in range(400)]
    promote(composed, composed.registry.compose("returns", when, sample=sample.assign(note=notes)).version)
    assert "a segment's condition ends in an error" in composed.run("2024-03-01")["2024-03-01"].error


@pytest.mark.parametrize(
    ("sql", "told"),
    [
        ("SELECT order_id, day, gift, shop, quantity, amount FROM raw.orders", "'note' is missing"),
        ("SELECT order_id, day, gift, shop, quantity, amount, 5 AS note FROM raw.orders", "'note' is INTEGER"),
    ],
)
def test_a_column_that_only_a_condition_reads_is_part_of_the_signature(composed: Any, sql: str, told: str) -> None:
    promote(composed, 3)
    composed.declare(sql + " WHERE day >= $start_date AND day < $end_date")
    with pytest.raises(DeclarationError, match="segments cannot be read") as error:
        composed.run("2024-03-01")
    assert told in str(error.value)


def test_a_column_of_a_condition_may_have_other_capitals(composed: Any) -> None:
    promote(composed, 3)
    before = composed.run("2024-03-01")["2024-03-01"].scoring
    composed.declare(
        "SELECT order_id, day, gift, Shop AS SHOP, quantity, amount, 'not a feature' AS Note FROM raw.orders "
        "WHERE day >= $start_date AND day < $end_date"
    )
    after = composed.run("2024-03-01")["2024-03-01"]
    assert after.error is None and after.scoring.mean_score == before.mean_score


def test_reordered_features_change_nothing(composed: Any) -> None:
    promote(composed, 3)
    composed.run("2024-03-01")
    before = composed.scores()
    composed.declare(
        "SELECT 'not a feature' AS note, amount, shop, day, order_id, quantity, gift FROM raw.orders "
        "WHERE day >= $start_date AND day < $end_date"
    )
    result = composed.run("2024-03-01")["2024-03-01"]
    assert not result.reused and composed.scores() == before


def test_a_decision_on_a_column_called_like_the_segment_is_refused(composed: Any) -> None:
    promote(composed, 3)
    composed.declare(
        "SELECT *, 'x' AS note, 'gold' AS model_segment FROM raw.orders WHERE day >= $start_date AND day < $end_date",
        decisions={"gold": "model_segment = 'gold'"},
    )
    with pytest.raises(DeclarationError, match="'model_segment' is a key"):
        composed.run("2024-03-01")


def test_decisions_may_go_by_the_segment(composed: Any) -> None:
    promote(composed, 3)
    composed.declare(decisions={"late": "score >= CASE model_segment WHEN 'far' THEN 0.2 ELSE 0.8 END"})
    assert composed.run("2024-03-01")["2024-03-01"].error is None
    rows = composed.published("SELECT late, score >= if(model_segment = 'far', 0.2, 0.8) FROM orders.predictions")
    assert rows and all(a == b for a, b in rows)


# ---- a version like any other


@pytest.mark.slice
def test_promotion_rollback_and_replay(composed: Any) -> None:
    composed.run()
    plain = composed.scores()
    for version in (3, 4):
        promote(composed, version)
        assert not any(result.error for result in composed.run().values())
        assert [each.verdict for each in replayed(composed)] == ["identical"] * 4
        assert composed.scores() != plain
    promote(composed, 1)
    assert all(result.reused for result in composed.run().values())
    assert composed.scores() == plain


@pytest.mark.slice
def test_gates_compare_a_composite_with_a_plain_version_both_ways(composed: Any) -> None:
    composed.declare(gates={"max_flip_rate": 1.0, "max_score_psi": 50, "min_throughput": 0.001})
    for champion, candidate in ((1, 3), (3, 1), (4, 3)):
        promote(composed, champion)
        composed.run()
        registry = composed.registry
        report = check(
            composed.pipeline(), registry, registry.get("returns", candidate), champion, by="a", progress=lambda _: None
        )
        assert report.passed, report.refusal
        assert {"golden_rows", "flip_rate", "throughput"} <= {result.name for result in report.results}


def test_challengers_of_either_kind(composed: Any) -> None:
    composed.registry.set_alias("returns", "challenger", 3, by="ada", why="a test")
    composed.declare(scoring={"challengers": ["challenger"]})
    for champion, challenger in ((1, 3), (4, 1)):
        promote(composed, champion)
        composed.registry.set_alias("returns", "challenger", challenger, by="ada", why="a test")
        (result,) = composed.run("2024-03-01").values()
        assert result.error is None
        assert [(e.status, e.model_version, e.rows_scored) for e in result.challengers] == [("scored", challenger, 50)]


def test_one_flipped_byte_in_any_member_is_named(composed: Any) -> None:
    version = composed.registry.get("returns", 3)
    promote(composed, 3)
    composed.run("2024-03-01")
    members = [each for each in version.manifest.files if each.startswith("member-")]
    assert members == ["member-01-returns-v2.ubj", "member-02-small-v1.ubj", "member-03-returns-v1.ubj"]
    for file in members:
        path = version.path / file
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.chmod(0o644)
        path.write_bytes(data)
        with pytest.raises(DigestMismatch, match=file):
            load_predictor(version, nthread=1)
        with pytest.raises(DigestMismatch, match=file):
            version.verify()
        (found,) = replayed(composed)
        assert found.verdict == "cannot replay" and file in found.reasons[0]
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    assert [each.verdict for each in replayed(composed)] == ["identical"]


def test_members_may_vanish_and_their_aliases_move(composed: Any) -> None:
    promote(composed, 3)
    composed.run("2024-03-01")
    shutil.rmtree(composed.registry.root / "small")
    shutil.rmtree(composed.registry.get("returns", 2).path)
    composed.source("UPDATE raw.orders SET quantity = quantity + 1")
    assert composed.run("2024-03-01")["2024-03-01"].error is None
    assert [each.verdict for each in replayed(composed)] == ["identical"]


def test_the_digest_is_that_of_sha256sum(composed: Any) -> None:
    import subprocess

    version = composed.registry.get("returns", 3)
    command = "sha256sum member-*.ubj | sha256sum | cut -d' ' -f1"
    said = subprocess.run(command, shell=True, cwd=version.path, capture_output=True, text=True, check=True)
    assert version.digest == said.stdout.strip()


def test_the_same_composition_is_found_again(composed: Any, sample: pd.DataFrame, segments: Any) -> None:
    again = composed.registry.compose("returns", segments, sample=sample, by="bob")
    assert (again.version, again.created) == (3, False)
    other = json.loads(json.dumps(segments))
    other["segments"][0]["when"] = "shop = '東京'"
    assert composed.registry.compose("returns", other, sample=sample).version == 5
    del other["segments"][2]
    outcomes = sample.assign(late=sample["quantity"] > 4)
    measured = composed.registry.compose(
        "returns", other | {"unmatched": "quarantine"}, sample=outcomes, outcome="late", held_out=outcomes
    )
    matched = outcomes["shop"].isin(["東京", 'O\'Hare "B"'])
    assert measured.manifest.held_out.rows == matched.sum(), "rows of no segment have no score"
    assert measured.manifest.held_out.outcome_mean == outcomes["late"][matched].mean()


def test_golden_rows_prove_every_segment_however_rare(composed: Any, sample: pd.DataFrame, segments: Any) -> None:
    from pip_dagster.registry import golden
    from pip_dagster.registry.encoding import segments_of

    frame = pd.concat([sample] * 8, ignore_index=True)
    frame.loc[:, "shop"] = "plain"
    frame.loc[7, "shop"] = "東京"
    frame.loc[8, "shop"] = 'O\'Hare "B"'
    version = composed.registry.compose("rare", segments, sample=frame)
    rows = golden.read(version).rows
    assert set(segments_of(rows, version.manifest.composite)) == {0.0, 1.0, 2.0}
    assert largest_difference(version, load_predictor(version, nthread=2)) == 0.0
    frame.loc[8, "shop"] = "plain"
    with pytest.raises(InvalidSample, match="no row of the sample belongs to segment 'quoted'"):
        composed.registry.compose("rare", segments, sample=frame)


# ---- reasons


def test_reasons_are_those_of_the_rows_own_member(composed: Any) -> None:
    promote(composed, 3)
    composed.declare(explanations={"top": 4})
    assert composed.run("2024-03-01")["2024-03-01"].error is None
    rows = composed.published(
        "SELECT p.model_segment, p.score, sum(r.contribution) + any_value(r.base) FROM orders.predictions p "
        "JOIN orders.reasons r USING (order_id) GROUP BY order_id, p.model_segment, p.score"
    )
    assert {row[0] for row in rows} == {"far", "quoted", "rest"}
    for _, score, margin in rows:
        assert 1 / (1 + np.exp(-margin)) == pytest.approx(score, abs=1e-5)
    strangers = composed.published(
        "SELECT max(abs(contribution)) FROM orders.reasons JOIN orders.predictions USING (order_id) "
        "WHERE model_segment = 'quoted' AND feature IN ('amount', 'gift')"
    )
    assert strangers[0][0] in (None, 0.0)


def test_an_ensemble_of_probabilities_has_no_reasons_one_of_margins_has(composed: Any, sample: pd.DataFrame) -> None:
    promote(composed, 4)
    composed.declare(explanations={"top": 4})
    with pytest.raises(DeclarationError, match="combine: margin"):
        composed.run("2024-03-01")
    margins = {"ensemble": [member(1), member(2)], "combine": "margin"}
    promote(composed, composed.registry.compose("returns", margins, sample=sample).version)
    assert composed.run("2024-03-01")["2024-03-01"].error is None
    rows = composed.published(
        "SELECT any_value(p.score), sum(r.contribution) + any_value(r.base) FROM orders.predictions p "
        "JOIN orders.reasons r USING (order_id) GROUP BY order_id"
    )
    for score, margin in rows:
        assert 1 / (1 + np.exp(-margin)) == pytest.approx(score, abs=1e-5)


# ---- ensembles


def test_an_ensemble_is_the_weighted_mean_of_its_members_scores(composed: Any) -> None:
    promote(composed, 4)
    composed.run()
    first, second = composed.expected(version=1), composed.expected(version=2)
    for order, score in composed.scores().items():
        assert score == float(np.float32((first[order] * 0.7 + second[order] * 0.3) / (0.7 + 0.3)))
    columns = composed.published("DESCRIBE orders.predictions")
    assert "model_segment" not in {row[0] for row in columns}


@pytest.mark.parametrize(
    "parameters",
    [
        {"objective": "binary:logistic"},
        {"objective": "multi:softprob", "num_class": 3},
        {"objective": "reg:squarederror"},
        pytest.param({"objective": "count:poisson"}, marks=pytest.mark.slow),
        pytest.param({"objective": "reg:squarederror", "booster": "gblinear"}, marks=pytest.mark.slow),
        pytest.param({"objective": "binary:logistic", "booster": "dart", "rate_drop": 0.3}, marks=pytest.mark.slow),
    ],
    ids=lambda p: "-".join(map(str, p.values())),
)
def test_ensembles_of_real_boosters_equal_numpy(
    tmp_path: Path, parameters: dict[str, Any], sample: pd.DataFrame
) -> None:
    from pip_dagster.registry import Registry

    registry, rng = Registry(tmp_path / "registry"), np.random.default_rng(3)
    X = rng.normal(size=(400, 4)).astype(np.float32)
    names = [list("abcd"), list("dbca"), list("bd")]
    frame = pd.DataFrame(X, columns=list("abcd"))
    label = {"binary:logistic": frame.a > 0, "count:poisson": rng.poisson(np.exp(frame.a))}.get(
        parameters["objective"], rng.integers(0, 3, 400)
    )
    own, margins = [], []
    for i, features in enumerate(names):
        data = xgb.DMatrix(frame[features], label=label)
        booster = xgb.train({"nthread": 1, "seed": i, "eta": 0.2 + i / 10} | parameters, data, 5)
        booster.save_model(tmp_path / "m.ubj")
        registry.register("m", model=tmp_path / "m.ubj", sample=frame, by="ada")
        loaded = load_predictor(registry.get("m", i + 1), nthread=1)
        own.append(loaded.predict(frame[features].to_numpy()))
        margins.append(booster.predict(data, output_margin=True).astype(np.float64))
    listed = [member(i, "m") for i in (1, 2, 3)]
    version = registry.compose("m", {"ensemble": listed}, sample=frame)
    assert [feature.name for feature in version.manifest.features] == list("abcd")
    scores = load_predictor(version, nthread=2).predict(X)
    assert scores.dtype == np.float32
    np.testing.assert_array_equal(scores, np.mean(np.array(own, dtype=np.float64), axis=0).astype(np.float32))
    by_margin = load_predictor(
        registry.compose("m", {"ensemble": listed, "combine": "margin"}, sample=frame), nthread=1
    ).predict(X)
    mean = np.mean(margins, axis=0)
    expected = {"reg:squarederror": mean, "count:poisson": np.exp(mean), "binary:logistic": 1 / (1 + np.exp(-mean))}
    softmax = np.exp(mean) / np.exp(mean).sum(axis=-1, keepdims=True)
    np.testing.assert_allclose(by_margin, expected.get(parameters["objective"], softmax), rtol=1e-6)
    assert largest_difference(version, load_predictor(version, nthread=1)) == 0.0


def test_a_segment_may_be_an_ensemble_and_the_whole_calibrated(composed: Any, sample: pd.DataFrame) -> None:
    composition = {
        "segments": [
            {"name": "far", "when": "shop = '東京'", "ensemble": [member(1), member(2)]},
            {"otherwise": True, **member(1)},
        ]
    }
    version = composed.registry.compose(
        "returns", composition, sample=sample, calibration={"method": "platt", "slope": 1, "intercept": 0.5}
    )
    promote(composed, version.version)
    composed.run()
    first, second = composed.expected(version=1), composed.expected(version=2)
    rows = composed.published("SELECT order_id, score, model_segment, calibrated FROM orders.predictions")
    for order, score, segment, calibrated in rows:
        assert score == (float(np.float32((first[order] + second[order]) / 2)) if segment == "far" else first[order])
        assert calibrated > score
    assert {row[2] for row in rows} == {"far", "otherwise"}


def test_whole_numbers_to_one_and_numbers_to_the_other(tmp_path: Path, sample: pd.DataFrame) -> None:
    """pandas makes floats of whole numbers that have gaps: a fraction is refused where a member counts on none."""
    from pip_dagster.flow.guard_composite import encode_model
    from pip_dagster.registry import Registry

    registry = Registry(tmp_path / "registry")
    frame = pd.DataFrame({"n": np.arange(100) % 7, "gift": np.arange(100) % 2 == 0})
    for kind in (np.int32, np.float32):
        own = frame[["n"]].astype(kind)
        xgb.train({"nthread": 1}, xgb.DMatrix(own, label=frame["n"]), 2).save_model(tmp_path / "m.ubj")
        registry.register("m", model=tmp_path / "m.ubj", sample=own, by="ada")
    composition = seg({"when": "gift", **member(1, "m")}, {"otherwise": True, **member(2, "m")})
    version = registry.compose("m", composition, sample=frame)
    assert [feature.type for feature in version.manifest.features] == ["float"]
    encoded = encode_model(version.manifest, {"n": "DOUBLE", "gift": "BOOLEAN"}, where="test")
    import duckdb

    found = duckdb.sql(
        f"SELECT {encoded[0].invalid} "
        "FROM (VALUES (0.5::DOUBLE, true), (0.5, false), (1, true), ('inf', false)) t(n, gift)"
    ).fetchall()
    assert [row[0] for row in found] == [True, False, False, True]


def test_nan_is_null_to_a_condition(tmp_path: Path, composed: Any, sample: pd.DataFrame) -> None:
    """DuckDB holds NaN for greater than any number; to a model it is missing."""
    composition = seg({"name": "dear", "when": "amount > 50", **member(1)}, OTHER)
    version = composed.registry.compose("returns", composition, sample=sample)
    promote(composed, version.version)
    composed.source("UPDATE raw.orders SET amount = 'nan' WHERE order_id % 5 = 0")
    composed.run()
    rows = composed.published("SELECT order_id, model_segment FROM orders.predictions")
    amounts = composed.source_frame().set_index("order_id")["amount"]
    assert all((segment == "dear") == bool(amounts[order] > 50) for order, segment in rows)


def test_arrow_dictionaries_are_plain_values_to_a_condition(composed: Any, sample: pd.DataFrame, segments: Any) -> None:
    table = pa.Table.from_pandas(sample.assign(shop=lambda f: f["shop"].astype("category")))
    version = composed.registry.compose("returns", segments | {"combine": "score"}, sample=table)
    assert version.manifest.composite.columns == {"shop": "text", "note": "text"}


def test_column_lineage_of_the_segment_is_what_the_conditions_read(composed):
    from pip_dagster.orchestration.column_lineage import lineage_metadata

    composed.registry.set_alias("returns", "champion", 3, by="ada", why="segments")
    result = composed.run("2024-03-01")["2024-03-01"]
    metadata = lineage_metadata(composed.pipeline(), result.scoring, result.columns)
    found = {
        column: {f"{dep.asset_key.path[1]}.{dep.column_name}" for dep in deps}
        for column, deps in metadata["dagster/column_lineage"].deps_by_column.items()
    }
    assert found["model_segment"] == {"features.shop", "features.note"}
    assert found["score"] == {f"features.{name}" for name in ("amount", "quantity", "gift", "shop", "note")}


def test_a_member_that_was_replaced_in_the_registry_is_a_finding_and_scores_as_before(composed):
    promote(composed, 3)
    before = composed.run("2024-03-01")["2024-03-01"].scoring
    path = composed.registry.get("small", 1).path
    data = (path / "manifest.json").read_bytes().replace(b'"description"', b' "description"')
    (path / "manifest.json").write_bytes(data)
    (path / "manifest.sha256").write_text(sha256(data))
    assert composed.run("2024-03-01")["2024-03-01"].scoring == before, "it has a copy"
    place = composed.project.warehouse
    with workspace(threads=1) as con, open_warehouse(con, place, purpose="test", read_only=True):
        assert "its member small v1 has the manifest" in str(verify(con, registry=composed.registry))
