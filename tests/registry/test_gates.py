"""Gates: each planted defect is found by the gate that is for it, with its figure; the champion stays."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pip_dagster.errors import DeclarationError
from pip_dagster.promotion.check import check
from pip_dagster.promotion.promote import attempt
from pip_dagster.promotion.reports import newest_report
from pip_dagster.registry.errors import AliasConflict, PromotionRefused
from pip_dagster.statistics.gate_result import GateReport, GateResult

pytestmark = pytest.mark.lake


def gates_of(gated: Any, version: int) -> GateReport:
    registry = gated.registry
    seen = registry.alias("returns", "champion")
    return check(
        gated.pipeline(), registry, registry.get("returns", version), seen, by="ada", progress=lambda text: None
    )


def failed(report: GateReport) -> dict[str, GateResult]:
    return {result.name: result for result in report.failed}


def rewrite(folder: Path, file: str, content: bytes) -> None:
    """Replace a file of a version and make every digest agree: what no digest can find."""
    manifest = json.loads((folder / "manifest.json").read_bytes())
    if file == "manifest.json":
        manifest = json.loads(content)
    else:
        (folder / file).unlink()
        (folder / file).write_bytes(content)
        manifest["files"][file] = hashlib.sha256(content).hexdigest()
    data = json.dumps(manifest).encode()
    for name, written in (
        ("manifest.json", data),
        ("manifest.sha256", f"{hashlib.sha256(data).hexdigest()}  manifest.json\n".encode()),
    ):
        (folder / name).unlink()
        (folder / name).write_bytes(written)


def planted(helpers: Any, shop: str) -> Callable[[Any], np.ndarray]:
    """Labels that are right but for one shop, where they are the other way round."""
    return lambda frame: np.where(frame["shop"] == shop, 1 - helpers.returned(frame), helpers.returned(frame))


def test_a_better_model_passes_every_gate(gated: Any) -> None:
    report = gates_of(gated, 1)
    assert report.passed, report.refusal
    assert [result.name for result in report.results] == [
        *("signature", "golden_rows", "replay", "flip_rate", "score_psi", "metric", "segment_metric", "throughput")
    ]
    assert report.partitions == ("2024-03-02", "2024-03-03", "2024-03-04")
    figures = {result.name: result for result in report.results}
    assert figures["replay"].text.startswith("450 of 450 live rows")
    assert figures["metric"].details["rows"] == 600, "labels are older than the replayed partitions"
    assert figures["metric"].details["gain"] > 0.05 and figures["metric"].details["low"] > 0
    assert {each.value for each in report.segments} == {"Zürich", "東京", 'O\'Hare "B"', "plain"}
    assert sum(each.rows for each in report.segments) == 450
    assert len(report.movers) == 10
    changes = [abs(mover.candidate - mover.champion) for mover in report.movers]
    assert changes == sorted(changes, reverse=True)


def test_flips_psi_and_movers_agree_with_numpy(gated: Any) -> None:
    report = gates_of(gated, 1)
    where = "day >= '2024-03-02'"
    old, new = (gated.expected(where, version) for version in (3, 1))
    a, b = np.array(list(old.values()), np.float32), np.array(list(new.values()), np.float32)
    figures = {result.name: result.figure for result in report.results}
    assert figures["flip_rate"] == np.mean((a >= 0.5) != (b >= 0.5))
    edges = np.quantile(a, np.arange(1, 10) / 10, method="inverted_cdf")
    p, q = (np.bincount(np.searchsorted(edges, each), minlength=10) for each in (a, b))
    filled = (p > 0) | (q > 0)
    p, q = ((each[filled] + 0.5) / (len(a) + filled.sum() / 2) for each in (p, q))
    assert figures["score_psi"] == pytest.approx(np.sum((q - p) * np.log(q / p)))
    furthest = max(old, key=lambda key: abs(np.float32(new[key]) - np.float32(old[key])))
    assert abs(old[int(report.movers[0].key)] - new[int(report.movers[0].key)]) == abs(old[furthest] - new[furthest])


def test_a_regression_in_one_segment_is_found_though_the_whole_is_better(gated: Any, helpers: Any) -> None:
    version = gated.register(planted(helpers, "東京"))
    report = gates_of(gated, version)
    assert set(failed(report)) == {"segment_metric"}, report.refusal
    assert "shop 東京: auc" in report.refusal and "1 of 4 segments" in report.refusal
    worst = failed(report)["segment_metric"].details["segments"][0]
    assert (worst["segment"], worst["value"]) == ("shop", "東京")
    assert worst["gain"] < -0.3 and worst["high"] < 0


def test_a_model_that_is_worse_beyond_doubt_is_refused(gated: Any, helpers: Any) -> None:
    gated.registry.set_alias("returns", "champion", 1, by="ada", why="the good one")
    report = gates_of(gated, 3)
    assert "metric" in failed(report)
    assert failed(report)["metric"].details["high"] < 0


def test_a_renamed_feature_is_refused_with_the_nearest_name(gated: Any, helpers: Any) -> None:
    report = gates_of(gated, gated.register(helpers.returned, names={"amount": "amounts"}))
    assert set(failed(report)) == {"signature"}
    assert "'amounts' is missing (there is 'amount')" in report.refusal
    assert report.partitions == ()  # what does not fit is not scored


def test_without_stored_features_the_champions_signature_is_asked(gated: Any, helpers: Any) -> None:
    gated.project.warehouse.unlink()
    shutil.rmtree(gated.project.published)
    with_gates(gated, unjudged="pass")
    assert gates_of(gated, 1).passed
    report = gates_of(gated, gated.register(helpers.returned, names={"amount": "amounts"}))
    assert "'amounts' is not among those of v3" in failed(report)["signature"].text


def test_a_reordered_signature_is_refused(gated: Any) -> None:
    folder = gated.registry.get("returns", 1).path
    manifest = json.loads((folder / "manifest.json").read_bytes())
    manifest["features"][0], manifest["features"][1] = manifest["features"][1], manifest["features"][0]
    rewrite(folder, "manifest.json", json.dumps(manifest).encode())
    assert "signature" in failed(gates_of(gated, 1))
    assert "its manifest's" in failed(gates_of(gated, 1))["signature"].text


def test_golden_rows_that_differ_are_refused_unless_another_xgboost_is_excused(gated: Any) -> None:
    folder = gated.registry.get("returns", 1).path
    golden = pq.read_table(folder / "golden.parquet")
    scores = golden.column("expected_score").to_numpy().copy()
    scores[3] += np.float32(0.001)
    sink = pa.BufferOutputStream()
    position = golden.schema.get_field_index("expected_score")
    pq.write_table(golden.set_column(position, "expected_score", pa.array(scores)), sink)
    rewrite(folder, "golden.parquet", sink.getvalue().to_pybytes())
    gated.registry.get("returns", 1).verify()  # no digest tells
    found = failed(gates_of(gated, 1))
    assert set(found) == {"golden_rows"}
    assert found["golden_rows"].figure == pytest.approx(0.001, rel=0.01)

    with_gates(gated, golden_tolerance=0.01)
    assert set(failed(gates_of(gated, 1))) == {"golden_rows"}  # the same XGBoost: no excuse
    manifest = json.loads((folder / "manifest.json").read_bytes()) | {"xgboost_version": "2.0.0"}
    rewrite(folder, "manifest.json", json.dumps(manifest).encode())
    assert gates_of(gated, 1).passed


def gated_gates(gated: Any) -> dict[str, Any]:
    import yaml

    return dict(yaml.safe_load((gated.folder / "defs.yaml").read_text())["attributes"]["gates"])


def with_gates(gated: Any, **changes: Any) -> Any:
    import yaml

    attributes = yaml.safe_load((gated.folder / "defs.yaml").read_text())["attributes"]
    return gated.declare(sources=attributes["sources"], gates=attributes["gates"] | changes)


def test_too_many_flips_and_another_distribution_are_refused(gated: Any, helpers: Any) -> None:
    with_gates(gated, labels=None, max_flip_rate=0.2, max_score_psi=0.25)
    report = gates_of(gated, gated.register(lambda frame: 1 - helpers.returned(frame)))
    assert set(failed(report)) == {"flip_rate", "score_psi"}
    assert "at most 20.00% may" in failed(report)["flip_rate"].text
    assert (failed(report)["flip_rate"].figure or 0) > 0.5


def test_the_declared_decision_is_the_one_that_counts(gated: Any) -> None:
    with_gates(gated, decision="score >= 2", max_flip_rate=0)
    assert gates_of(gated, 1).passed
    with_gates(gated, decision="scores > 1")
    with pytest.raises(
        DeclarationError, match=r"gates.decision 'scores > 1'.*which has partition_key, order_id, day, sc"
    ):
        gates_of(gated, 1)
    with_gates(gated, decision="score >= 2 -- never", max_flip_rate=0)
    assert gates_of(gated, 1).passed


@pytest.mark.parametrize(
    ("decision", "says"),
    [
        ("score > (SELECT avg(score) FROM memory.pip_stage.scores)", "a subquery"),
        ("rank() OVER (ORDER BY score) < 5", "a window function"),
        ("score >= 0.5) , (SELECT 1", "is not a single SQL expression"),
        ("current_setting('threads') > 1", r"current_setting\(\)"),
        ("day::VARCHAR::INTEGER > 1", "fails on a row scored by returns v3"),
    ],
)
def test_a_decision_that_cannot_judge_a_row_is_refused(gated: Any, decision: str, says: str) -> None:
    with_gates(gated, decision=decision)
    with pytest.raises(DeclarationError, match=f"Pipeline orders: gates.decision .*{says}"):
        gates_of(gated, 1)


@pytest.mark.slice
def test_a_much_larger_model_is_refused_for_its_throughput_only_where_a_limit_is_declared(
    gated: Any, helpers: Any
) -> None:
    version = gated.register(helpers.returned, rounds=100, max_depth=6, eta=0.05)
    report = gates_of(gated, version)
    assert report.passed and "reported only" in {r.name: r for r in report.results}["throughput"].text
    with_gates(gated, min_throughput=0.5)
    found = failed(gates_of(gated, version))
    assert set(found) == {"throughput"}
    assert 0 < found["throughput"].details["high"] < 0.5


def test_a_candidate_that_would_fail_partitions_is_refused(gated: Any, helpers: Any) -> None:
    """With `on_unseen_category: error`, a model that has not learnt a shop would end the next run."""
    with_gates(gated)
    gated.declare(
        **{"sources": gated_sources(gated), "gates": gated_gates(gated)}, scoring={"on_unseen_category": "error"}
    )
    version = gated.register(helpers.returned)
    folder = gated.registry.get("returns", version).path
    manifest = json.loads((folder / "manifest.json").read_bytes())
    (shop,) = (feature for feature in manifest["features"] if feature["name"] == "shop")
    shop["categories"][-1] = "another"
    rewrite(folder, "manifest.json", json.dumps(manifest).encode())
    found = failed(gates_of(gated, version))
    assert "replay" in found
    assert found["replay"].figure == 1.0
    assert "2024-03-02: returns v4 would not score it" in found["replay"].text


def gated_sources(gated: Any) -> dict[str, Any]:
    import yaml

    return dict(yaml.safe_load((gated.folder / "defs.yaml").read_text())["attributes"]["sources"])


def test_a_model_that_needs_a_new_feature_is_replayed_on_the_newer_revision(gated: Any, helpers: Any) -> None:
    version = gated.register(helpers.returned, names={"amount": "price"})
    assert "signature" in failed(gates_of(gated, version))
    sql = helpers.SQL.replace("amount,", "amount, amount AS price,")
    gated.declare(sql, sources=gated_sources(gated), gates=gated_gates(gated))
    gated.run(predictions=False)
    report = gates_of(gated, version)
    assert report.passed, report.refusal
    assert len(report.partitions) == 3


def test_rows_that_were_kept_apart_are_not_compared(gated: Any) -> None:
    (gated.folder / "expectations.yaml").write_text(
        "features:\n- type: expect_column_values_to_be_between\n  kwargs: {column: quantity, max_value: 7}\n"
    )
    gated.declare(
        sources=gated_sources(gated),
        gates=gated_gates(gated),
        quality={"expectations": "expectations.yaml", "max_quarantined": 1},
    )
    gated.run()
    sound = len(gated.source_frame("day >= '2024-03-02' AND quantity <= 7"))
    report = gates_of(gated, 1)
    assert report.passed, report.refusal
    assert {result.name: result for result in report.results}["replay"].text.startswith(f"{sound} of {sound} live rows")


def test_the_first_version_needs_only_signature_and_golden_rows(gated: Any) -> None:
    (gated.registry.root / "returns" / "aliases" / "champion.json").unlink()
    tried = attempt(gated.project, gated.registry.get("returns", 1), "champion", by="ada", progress=lambda text: None)
    assert [result.name for result in tried.reports[0].results] == ["signature", "golden_rows"]
    assert tried.commit().previous is None


def test_a_damaged_champion_is_a_failed_gate_that_can_be_overridden(gated: Any) -> None:
    model = gated.registry.get("returns", 3).path / "model.ubj"
    model.chmod(0o644)
    model.write_bytes(model.read_bytes()[:-1])
    tried = attempt(gated.project, gated.registry.get("returns", 1), "champion", by="ada", progress=lambda text: None)
    assert set(failed(tried.reports[0])) == {"champion"}
    with pytest.raises(PromotionRefused):
        tried.commit()
    assert tried.commit(override="v3 is damaged").version == 1


@pytest.mark.slice
def test_of_two_promotions_at_once_one_wins_and_the_other_is_told(gated: Any) -> None:
    code = """
        import sys
        from pip_dagster.declaration.project import Project
        from pip_dagster.registry.errors import AliasConflict
        from pip_dagster.promotion.promote import attempt
        from pip_dagster.registry.store import Registry
        project = Project.find()
        version = Registry(project.registry).get("returns", sys.argv[1])
        tried = attempt(project, version, "champion", by="ada", progress=lambda text: None)
        print("ready", tried.refusal, flush=True)
        sys.stdin.readline()
        try:
            print("moved", tried.commit().version)
        except AliasConflict as error:
            print("told", error)
    """
    import subprocess
    import sys
    import textwrap

    processes = [
        subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(code), ref],
            cwd=gated.root,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        for ref in ("v1", "v2")
    ]
    for process in processes:
        assert process.stdout and process.stdout.readline() == "ready None\n"
    for process in processes:
        assert process.stdin
        process.stdin.write("\n")
        process.stdin.flush()
    said = sorted(process.communicate(timeout=60)[0] for process in processes)
    assert [text.split()[0] for text in said] == ["moved", "told"]
    assert "somebody moved it" in said[1]
    assert gated.champion == int(said[0].split()[1])
    assert len(gated.registry.alias_history("returns", "champion")) == 3


def test_a_promotion_whose_alias_moved_meanwhile_leaves_it_there(gated: Any) -> None:
    tried = attempt(gated.project, gated.registry.get("returns", 1), "champion", by="ada", progress=lambda text: None)
    gated.registry.set_alias("returns", "champion", 2, by="eve", why="meanwhile")
    with pytest.raises(AliasConflict):
        tried.commit()
    assert gated.champion == 2


def test_reports_are_kept_and_read_again_whole(gated: Any) -> None:
    tried = attempt(gated.project, gated.registry.get("returns", 1), "champion", by="ada", progress=lambda text: None)
    assert tried.files[0].parent == gated.registry.root / "returns" / "reports"
    kept = newest_report(gated.registry.root, "returns", 1)
    assert kept is not None and kept.passed
    assert (kept.results[3].name, kept.results[3].figure) == ("flip_rate", tried.reports[0].results[3].figure)
    assert kept.movers == tried.reports[0].movers
    assert newest_report(gated.registry.root, "returns", 2) is None


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("SELECT order_id, returned FROM raw.outcome WHERE day >= $start_date", "labels.sql: .*raw.outcome"),
        ("SELECT order_id, returned FROM raw.outcomes WHERE day >= $since", r"labels.sql: \$since is no parameter"),
        (
            "SELECT order_id, returned + 1 AS returned FROM raw.outcomes",
            "Pipeline orders: gates.metric auc is for outcomes 0 and 1",
        ),
        ("SELECT order_id, 1 AS returned FROM raw.outcomes, range(2)", "have more than one label"),
        ("SELECT order_id FROM raw.outcomes", "returned"),
        ("SELECT 1; SELECT 2", "has 2 statements; expected exactly one SELECT"),
    ],
)
def test_labels_that_cannot_be_used_are_named(gated: Any, sql: str, message: str) -> None:
    (gated.folder / "labels.sql").write_text(sql)
    with pytest.raises(DeclarationError, match=f"(?s){message}"):
        gates_of(gated, 1)


@pytest.mark.slice
@pytest.mark.parametrize(
    ("objective", "parameters", "gates"),
    [
        ("reg:squarederror", {}, ["replay", "score_psi", "metric", "segment_metric", "throughput"]),
        ("count:poisson", {}, ["replay", "score_psi", "metric", "segment_metric", "throughput"]),
    ],
)
def test_each_kind_of_model_has_the_gates_that_make_sense_for_it(
    gated: Any, objective: str, parameters: dict[str, Any], gates: list[str]
) -> None:
    options = {"model": "other", "objective": objective} | parameters
    for rounds in (1, 6):
        gated.register(lambda frame: frame["quantity"] % 3, rounds=rounds, max_depth=min(4, rounds), **options)
    gated.registry.set_alias("other", "champion", 1, by="ada", why="")
    (gated.folder / "labels.sql").write_text(
        "SELECT order_id, quantity % 3 AS returned FROM raw.orders WHERE day >= $start_date AND day < $end_date"
    )
    with_gates(gated, labels={"sql": "labels.sql", "outcome": "returned"}, min_throughput=0)
    gated.declare(sources=gated_sources(gated), gates=gated_gates(gated), scoring={"model_name": "other"})
    assert all(result.scoring for result in gated.run().values())
    candidate = gated.registry.get("other", 2)
    report = check(gated.pipeline(), gated.registry, candidate, 1, by="ada", progress=lambda text: None)
    assert report.passed, report.refusal
    assert [result.name for result in report.results[2:]] == gates
    figures = {result.name: result for result in report.results}
    assert figures["metric"].details["metric"] == {"reg:squarederror": "rmse"}.get(objective, "poisson_deviance")
    assert figures["metric"].details["low"] > 0


def test_declarations_that_name_nothing_are_refused(gated: Any) -> None:
    with_gates(gated, segments=["store"])
    with pytest.raises(DeclarationError, match=r"gates.segments names 'store'.*have order_id"):
        gates_of(gated, 1)
    with_gates(gated, segments=[], unit="buyer")
    with pytest.raises(DeclarationError, match=r"gates.unit names 'buyer'.*have order_id"):
        gates_of(gated, 1)
    with_gates(gated, segments=[], labels={"sql": "label.sql", "outcome": "returned"})
    with pytest.raises(
        DeclarationError, match=r"gates.labels.sql names 'label.sql'.*there is features.sql, labels.sql"
    ):
        gated.pipeline()
