"""The demo's every score of August, computed a second time by plain DuckDB, pandas and XGBoost: no code of ours."""

import json
import os
import shutil
import subprocess
import sys
from datetime import date, timedelta
from pathlib import Path
from types import SimpleNamespace

import duckdb
import numpy as np
import pandas as pd
import pytest
import xgboost as xgb
import yaml

from pip_dagster.declaration.pipeline import Pipeline
from pip_dagster.declaration.project import Project
from pip_dagster.declaration.spec import PipelineSpec
from pip_dagster.flow.materialize import materialize
from pip_dagster.ledger.record import RunInfo
from pip_dagster.orchestration.partitions import partitions_definition, partitions_of

REPOSITORY = Path(__file__).parents[1]
AUGUST = (date(2013, 8, 1), date(2013, 9, 1))

pytestmark = [pytest.mark.slow, pytest.mark.slice]  # the documents' commands run the demo too


def prepare(root):
    """Run the demo's own scripts in a folder of their own: sources from data/flight_delay, and two models."""
    shutil.copytree(REPOSITORY / "flights" / "defs" / "flight_delay", root / "defs")
    (root / "pyproject.toml").write_text("[tool.pip_dagster]\n")
    scripts = REPOSITORY / "flights"
    for command in (
        [scripts / "load_sources.py", REPOSITORY / "data" / "flight_delay", root / "data" / "sources.duckdb"],
        [scripts / "train.py", root],
    ):
        done = subprocess.run([sys.executable, *map(str, command)], capture_output=True, text=True, env=os.environ)
        assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def demo(tmp_path_factory, helpers):
    """A copy of what the demo's scripts make, with v2 as the champion."""
    root = helpers.shared(tmp_path_factory, "demo", prepare)
    sources, registry = root / "data" / "sources.duckdb", root / "data" / "registry"
    project = Project.at(root)
    declaration = yaml.safe_load((root / "defs" / "defs.yaml").read_text())["attributes"]
    pipeline = Pipeline.load(PipelineSpec.model_validate(declaration), root / "defs", project)
    grid = partitions_definition(pipeline.spec.partitions)

    def run(*days):
        keys = [str(day) for day in days]
        results = list(materialize(pipeline, partitions_of(grid, keys), RunInfo("demo", "a test")))
        return {result.partition.key: result for result in results}

    def promote(version):
        from pip_dagster.registry.store import Registry

        Registry(registry).set_alias("flight_delay", "champion", version, by="a test", why="a test")

    promote(2)
    return SimpleNamespace(root=root, sources=sources, registry=registry, project=project, run=run, promote=promote)


def dates(start, end):
    return [start + timedelta(days=i) for i in range((end - start).days)]


def independently(demo, start, end, version):
    """Key → float32 score of the flights of [start, end), from the files alone."""
    with duckdb.connect(str(demo.sources), read_only=True) as con:
        con.execute("SET TimeZone = 'UTC'")
        sql = (demo.root / "defs" / "features.sql").read_text(encoding="utf-8")
        parameters = {"start_date": start, "end_date": end}
        frame = con.execute(sql, parameters).to_arrow_table().to_pandas()
    folder = demo.registry / "flight_delay" / "versions" / str(version)
    manifest = json.loads((folder / "manifest.json").read_text())
    X = frame[[feature["name"] for feature in manifest["features"]]].copy()
    for feature in manifest["features"]:
        if feature["categories"]:
            values = X[feature["name"]].where(X[feature["name"]].isin(feature["categories"]))
            X[feature["name"]] = pd.Categorical(values, categories=feature["categories"])
    booster = xgb.Booster(model_file=str(folder / "model.ubj"))
    rounds = tuple(manifest["iteration_range"])
    scores = booster.predict(xgb.DMatrix(X, enable_categorical=True), iteration_range=rounds)
    assert scores.dtype == np.float32
    return pd.Series(scores, index=frame["flight_key"], name="expected")


def stored(demo, where="true"):
    with duckdb.connect(str(demo.project.published_database), read_only=True) as con:
        query = con.sql(
            f"SELECT flight_key, score, flight_date, model_version FROM flight_delay.predictions WHERE {where}"
        )
        return query.to_arrow_table().to_pandas().set_index("flight_key")


@pytest.mark.versions
@pytest.mark.parametrize("version", [2, 1])
def test_every_score_of_august_equals_an_independent_computation(demo, version):
    demo.promote(version)
    results = demo.run(*dates(*AUGUST))
    assert not any(result.error for result in results.values()) and len(results) == 31
    found = stored(demo, "flight_date BETWEEN '2013-08-01' AND '2013-08-31'")
    expected = independently(demo, *AUGUST, version)
    assert len(found) == len(expected) == 29_327
    assert found.index.is_unique and set(found.index) == set(expected.index)
    assert found["score"].dtype == np.float32 and (found["model_version"] == version).all()
    difference = (found["score"].astype(float) - expected.reindex(found.index).astype(float)).abs()
    assert difference.max() == 0.0
    assert found["score"].nunique() > (1000 if version == 2 else 100)
    demo.promote(2)


@pytest.mark.versions
def test_the_better_model_is_better_on_august(demo):
    """AUC by rank, from the labels: what the README says of the two models holds of what was registered."""
    with duckdb.connect(str(demo.sources), read_only=True) as con:
        labels = con.sql("SELECT flight_key, late15::INT AS late FROM raw.outcomes WHERE late15 IS NOT NULL")
        late = labels.to_arrow_table().to_pandas().set_index("flight_key")["late"]
    areas = []
    for version in (1, 2):
        both = pd.concat([independently(demo, *AUGUST, version), late], axis=1, join="inner")
        ranks = both["expected"].rank()
        positive = both["late"] == 1
        count = positive.sum()
        areas.append((ranks[positive].sum() - count * (count + 1) / 2) / (count * (~positive).sum()))
    assert areas[0] == pytest.approx(0.667, abs=0.01) and areas[1] == pytest.approx(0.722, abs=0.01)


def test_only_the_model_that_july_decided_nothing_about_has_july_as_held_out_rows(demo):
    manifests = [
        json.loads((demo.registry / "flight_delay" / "versions" / version / "manifest.json").read_text())
        for version in "12"
    ]
    held_out = manifests[0]["held_out"]
    assert held_out["metrics"]["auc"] == pytest.approx(manifests[0]["metrics"]["july_auc"], abs=1e-4)
    assert held_out["rows"] == 28_293 and not manifests[1].get("held_out")


@pytest.mark.soak
def test_a_planted_regression_is_seen_by_the_estimate_at_once_and_by_labels_a_week_later(demo):
    script = REPOSITORY / "examples" / "monitoring" / "planted.py"
    before = sorted(path for path in demo.root.rglob("*") if path.is_file())
    command = [sys.executable, "-W", "ignore", str(script), str(demo.root), "--days", "12"]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ)
    assert done.returncode == 0, done.stderr
    assert "By the estimate, which is below v2's median day: 2013-09-01." in done.stdout
    assert "By labels, an alarm: 2013-09-08." in done.stdout and "performance (trailing)" in done.stdout
    assert sorted(path for path in demo.root.rglob("*") if path.is_file()) == before


def unmet(result):
    return {(c.section, c.expectation_id, c.severity) for c in result.checks if c.status != "passed"}


@pytest.mark.versions
def test_the_day_without_weather_is_blocked_and_its_neighbour_is_not(demo):
    """No weather was observed after 30 December 19:00: all 776 flights of the 31st lack it."""
    results = demo.run("2013-12-30", "2013-12-31")
    last = results["2013-12-31"]
    assert ("sources.weather", "weather_was_loaded", "critical") in unmet(last)
    assert last.scoring.status == "blocked" and last.features.rows_extracted == 776
    before = results["2013-12-30"]
    assert before.scoring.status == "scored" and ("features", "weather_is_joined", "warning") in unmet(before)


@pytest.mark.versions
def test_the_expectations_find_the_flaws_of_the_data(demo):
    """1,048 mph at Newark on 12 February, cancellations on the 8th and 9th, planes the registry does not know."""
    results = demo.run("2013-02-09", "2013-02-10", "2013-02-12")
    (wind,) = [c for c in results["2013-02-12"].checks if c.section == "sources.weather" and c.status == "failed"]
    assert (wind.expectation_id, wind.unexpected_count) == ("wind_is_possible", 1)
    assert round(wind.rows[0]["wind_speed"]) == 1048
    for day, share in (("2013-02-09", 0.51), ("2013-02-10", 0.58)):
        (cancelled,) = [c for c in results[day].checks if c.expectation_id == "yesterday_was_usual"]
        assert cancelled.status == "failed" and round(float(cancelled.observed), 2) == share
    planes = [c for r in results.values() for c in r.checks if c.expectation_id == "planes_are_registered"]
    shares = [c.unexpected_count / c.element_count for c in planes]
    assert all(c.status == "failed" for c in planes) and min(shares) > 0.1 and max(shares) < 0.4


@pytest.mark.versions
def test_destinations_that_training_never_saw_are_counted(demo):
    found = {}
    for day, result in demo.run(*dates(date(2013, 7, 1), date(2013, 7, 8))).items():
        unseen = result.scoring.found.get("unseen_category", {}).get("rows", {})
        found[day] = unseen.get("dest", 0)
    with duckdb.connect(str(demo.sources), read_only=True) as con:
        expected = con.execute(
            "SELECT flight_date::VARCHAR, count(*) FROM raw.schedule "
            "WHERE flight_date BETWEEN '2013-07-01' AND '2013-07-07' "
            "AND dest NOT IN (SELECT dest FROM raw.schedule JOIN raw.outcomes USING (flight_key) "
            "WHERE raw.schedule.flight_date < '2013-07-01' AND late15 IS NOT NULL) GROUP BY 1"
        ).fetchall()
    assert {day: count for day, count in found.items() if count} == dict(expected) != {}


@pytest.mark.parametrize("changed", [date(2013, 3, 10), date(2013, 11, 3)])
def test_days_on_which_the_clocks_change_score_the_same_alone_and_in_a_range(demo, changed):
    days = [changed - timedelta(days=1), changed, changed + timedelta(days=1)]
    digests = {day: result.scoring.score_digest for day, result in demo.run(*days).items()}
    rows = stored(demo, f"flight_date BETWEEN '{days[0]}' AND '{days[-1]}'")
    demo.project.warehouse.unlink()
    shutil.rmtree(demo.project.published)
    alone = {}
    for day in (days[1], days[2], days[0]):
        alone |= {key: result.scoring.score_digest for key, result in demo.run(day).items()}
    assert alone == digests
    expected = independently(demo, days[0], days[-1] + timedelta(days=1), 2)
    assert (rows["score"] == expected.reindex(rows.index)).all() and len(rows) == len(expected) > 2000
