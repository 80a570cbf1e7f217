"""What a notebook or a service does with an open project, and how it looks there."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

import pip_dagster
from pip_dagster import api
from pip_dagster.errors import (
    DeclarationError,
    MissingPackageError,
    NotFoundError,
    PipelineError,
    ProjectError,
    RangeError,
    StorageError,
    WarehouseError,
)
from pip_dagster.registry.errors import AliasConflict, ModelNotFound


@pytest.fixture
def project(scored):
    return pip_dagster.open(scored.root)


@pytest.fixture
def orders(project):
    return project["orders"]


def test_importing_the_package_costs_nothing():
    code = "import time; t = time.process_time(); import pip_dagster; t = time.process_time() - t\n"
    code += "import sys, json; print(json.dumps([t, [m for m in sys.modules if m.startswith('pip_dagster.')]]))"
    seconds, modules = json.loads(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout)
    assert modules == [] and seconds < 0.1


class TestProjects:
    def test_it_is_found_as_the_commands_find_it(self, scored, monkeypatch, tmp_path):
        monkeypatch.setenv("PIP_DAGSTER_PROJECT", str(scored.root))
        assert pip_dagster.open().pipelines == ("orders",)
        monkeypatch.delenv("PIP_DAGSTER_PROJECT")
        monkeypatch.chdir(scored.folder)
        assert pip_dagster.open().project.root == scored.root
        monkeypatch.chdir(tmp_path)
        with pytest.raises(
            ProjectError, match="No pip_dagster project in .* `pip-dagster init NAME` writes a new project"
        ):
            pip_dagster.open()
        with pytest.raises(ProjectError, match="nowhere is not a folder"):
            pip_dagster.open(tmp_path / "nowhere")

    def test_it_is_a_mapping_of_its_pipelines(self, project, scored):
        assert list(project) == ["orders"] and len(project) == 1 and "orders" in project and "x" not in project
        with pytest.raises(NotFoundError, match="declares no pipeline 'x'; it declares orders") as caught:
            project["x"]
        assert isinstance(caught.value, LookupError) and (caught.value.name, caught.value.known) == ("x", ("orders",))
        (scored.folder / "defs.yaml").write_text(
            "type: pip_dagster.components.InferencePipeline\nattributes: {name: x}"
        )
        with pytest.raises(DeclarationError, match="defs.yaml"):
            pip_dagster.open(scored.root)["x"]

    def test_get_gives_a_default_and_a_pipeline_is_as_it_is_declared_now(self, project, scored):
        assert project.get("x") is None and project.get("x", 1) == 1 and project.get("orders").name == "orders"
        file = scored.folder / "defs.yaml"
        file.write_text(file.read_text().replace("Which orders will be returned.", "Changed."))
        assert project["orders"].pipeline.spec.description == "Changed."


@pytest.mark.lake
class TestPredictions:
    def test_live_rows_in_each_form(self, orders, scored):
        rows = orders.predictions("2024-03-02", "2024-03-03")
        assert dict(zip(*(rows.arrow()[name].to_pylist() for name in ("order_id", "score")), strict=True)) == (
            scored.scores(where="day IN ('2024-03-02', '2024-03-03')")
        )
        assert len(rows.df()) == 100 and sum(map(len, rows.reader())) == 100
        assert rows.df()["order_id"].is_monotonic_increasing
        assert rows.write(scored.root / "p.parquet").stat().st_size > 0
        assert len(orders.predictions(version=2).arrow()) == 0

    def test_every_stored_scoring_by_version(self, orders, scored):
        scored.run("2024-03-02", version=2)
        assert set(orders.predictions("2024-03-02", "2024-03-02").df()["model_version"]) == {2}
        stored = orders.predictions("2024-03-01", "2024-03-02", live=False).df()
        assert stored.groupby(["partition_key", "model_version"]).size().to_dict() == {
            ("2024-03-01", 1): 50,
            ("2024-03-02", 1): 50,
            ("2024-03-02", 2): 50,
        }
        only = orders.predictions("2024-03-02", "2024-03-02", version=1, live=False)
        assert dict(only.df()[["order_id", "score"]].to_numpy()) == scored.expected("day = '2024-03-02'")

    def test_a_range_of_minutes_that_the_clocks_repeat_is_that_of_time(self, tiny):
        at = "TIMESTAMPTZ '2024-10-27 00:00:00+02' + to_minutes(order_id::INT * 3)"
        sql = f"SELECT * EXCLUDE (day), {at} AS at FROM raw.orders WHERE {at} >= $start AND {at} < $end"
        grid = {"every": "30 minutes", "start": "2024-10-27", "time_zone": "Europe/Berlin", "end": "2024-10-28"}
        tiny.declare(sql, partitions=grid, features={"partition_column": "at"})
        keys = [f"2024-10-27-{time}" for time in ("01:30", "02:00", "02:30", "02:00+0100", "02:30+0100")]
        tiny.run(*keys)
        orders = pip_dagster.open(tiny.root)["orders"]
        for first, last in ((0, 1), (2, 3), (0, 4), (3, 3)):
            for live in (True, False):
                found = orders.predictions(keys[first], keys[last], live=live).arrow()["partition_key"]
                assert {*found.to_pylist()} == {*keys[first : last + 1]}

    def test_where_nothing_is_published_it_says_so(self, tiny):
        with pytest.raises(WarehouseError, match="Nothing is published yet"):
            pip_dagster.open(tiny.root)["orders"].predictions("2024-03-01", "2024-03-02").arrow()

    def test_without_polars_the_error_has_the_command_that_installs_it(self, orders, monkeypatch):
        monkeypatch.setitem(sys.modules, "polars", None)
        with pytest.raises(MissingPackageError, match="pip install polars"):
            orders.predictions("2024-03-01", "2024-03-01").pl()


def test_polars_gets_the_same_rows_of_the_same_types(orders):
    polars = pytest.importorskip("polars")
    for rows in (orders.predictions("2024-03-01", "2024-03-02"), orders.features("2024-03-01", "2024-03-02")):
        frame, table = rows.pl(), rows.arrow()
        assert frame.height == 100 and frame.to_dicts() == table.to_pylist()
    types = dict(frame.schema)
    assert (types["day"], types["gift"], types["quantity"]) == (polars.Date, polars.Boolean, polars.Int32)
    assert frame["amount"].null_count() == table["amount"].null_count > 0, "a missing number is null, not NaN"
    none = orders.predictions("2024-03-01", "2024-03-01", version=2).pl()
    assert none.height == 0 and none.columns == orders.predictions("2024-03-01", "2024-03-01").pl().columns


def test_what_is_no_model_file_name_or_bound_is_refused_in_a_sentence(orders, project, scored, tmp_path):
    with pytest.raises(TypeError, match="`model` is a NoneType; expected an XGBoost Booster, or the path"):
        project.models.register("returns", model=None, sample=tmp_path / "sample.parquet")
    rows = orders.predictions("2024-03-01", "2024-03-01")
    with pytest.raises(StorageError, match="is not the name of a file; expected for example 'rows.parquet'"):
        rows.write("")
    with pytest.raises(StorageError, match="is a folder; expected the name of a Parquet file"):
        rows.write(tmp_path)
    for bound in (20240301, 1.5):
        with pytest.raises(RangeError, match=f"{bound} is no date, time or partition key; expected for example"):
            orders.predictions(bound)
        with pytest.raises(RangeError, match=f"{bound} is no date"):
            orders.features(end=bound)
    with pytest.raises(ProjectError, match="is not a pip_dagster project: expected a pyproject.toml"):
        pip_dagster.open(tmp_path)


def test_a_plan_of_a_range_outside_the_grid_is_refused(orders):
    with pytest.raises(RangeError, match="none of its partitions begins from 2023-01-01 to 2023-02-01; it has 2024-03"):
        orders.plan("2023-01-01", "2023-02-01")
    assert len(orders.plan("2023-01-01", "2024-03-04").plan.stale) == 0


def test_lineage_has_every_attempt_and_the_live_one(orders, scored):
    scored.run("2024-03-02", version=2)
    found = orders.lineage("2024-03-02")
    assert [entry["model_version"] for entry in found] == [1, 2]
    assert found.live is found[1] and found.live["source_digests"]["orders"]["rows"] == 50
    text = repr(found)
    assert "the live scoring, 2 attempts" in text and found.live["score_digest"] in text
    with pytest.raises(NotFoundError, match="has no partition '2024-04-01'; the ledger has 2024-03-01 to 2024-03-04"):
        orders.lineage("2024-04-01")


@pytest.mark.lake
def test_replay_of_the_live_scoring_and_of_an_earlier_version(orders, scored):
    scored.run("2024-03-02", version=2)
    assert orders.replay("2024-03-02").identical
    earlier = orders.replay("2024-03-02", version=1)
    assert [each.entry.model_version for each in earlier] == [1] and earlier.identical
    assert "identical" in repr(earlier) and "v1" in repr(earlier)
    with pytest.raises(PipelineError, match="has no scoring by v7 of partition '2024-03-02'"):
        orders.replay("2024-03-02", version=7)


def test_the_plan_is_that_of_the_command(orders, scored):
    scored.source("DELETE FROM raw.orders WHERE order_id = 60")
    plan = orders.plan("2024-03-01", "2024-03-03")
    assert [each.partition.key for each in plan.stale] == ["2024-03-02"] and plan.current == 2
    assert "source changed: orders 2024-03-02 (-1 row)" in repr(plan)
    shell = json.loads(scored.shell("plan", "orders", "--from", "2024-03-01", "--to", "2024-03-03", "--json"))
    assert [each["partition"] for each in shell["stale"]] == ["2024-03-02"]


class TestModels:
    def test_register_a_booster_with_what_it_was_trained_on(self, shop, helpers):
        models = pip_dagster.open(shop.root).models
        rows = shop.rows(labelled_only=True)
        frame = rows.df()
        booster = helpers.train(3, frame)
        version = models.register(
            "returns",
            model=booster,
            sample=frame,
            categories={"shop": helpers.SHOPS},
            training_set=rows,
            tags={"a": "b"},
        )
        manifest = version.manifest
        assert (version.version, version.created, manifest.training_window) == (3, True, ("2024-03-01", "2024-03-04"))
        assert manifest.tags == {
            **{"training_set": rows.manifest.digest, "training_rows": "180", "point_in_time_proof": "not provable"},
            "a": "b",
        }
        again = models.register("returns", model=booster, sample=frame, categories={"shop": helpers.SHOPS})
        assert again.version == 3 and not again.created
        with pytest.raises(AliasConflict, match="models promote returns v3"):
            models.register(
                "returns", model=booster, sample=frame, categories={"shop": helpers.SHOPS}, alias="champion"
            )
        assert [each.version for each in models.versions("returns")] == [1, 2, 3]
        assert models.names == ("returns",) and models.get("returns").version == 1
        assert "v1       champion" in repr(models.versions())
        with pytest.raises(ModelNotFound):
            models.versions("nothing")

    def test_rows_in_place_of_their_training_set_are_refused(self, shop, helpers):
        frame = shop.rows(labelled_only=True).df()
        with pytest.raises(TypeError, match="`training_set` is a DataFrame; expected a TrainingSet or the path"):
            pip_dagster.open(shop.root).models.register(
                "returns", model=helpers.train(3, frame), sample=frame, training_set=frame
            )

    def test_gates(self, gated):
        gating = pip_dagster.open(gated.root).models.gate("orders", 2)
        assert gating.passed and not gating.failed
        assert "orders: returns v2 against champion (v3): passed" in repr(gating)
        stored = json.loads(gated.shell("models", "show", "returns", "v2", "--json"))
        assert stored["gates"]["passed"]


class TestHowTheyLook:
    def test_html_is_escaped_and_long_lists_end(self):
        from pip_dagster.api.shown import Shown, ShownTable

        class Odd(Shown):
            def _table(self):
                return ShownTable("<b>&", ("<i>",), [(f"<script>{i}\x1b[31m",) for i in range(100)])

        shown = Odd()
        html = shown._repr_html_()
        assert "&lt;b&gt;&amp;" in html and "<script>" not in html and "\x1b" not in html + repr(shown)
        assert "… and 70 more" in html and "… and 70 more" in repr(shown)

    def test_showing_reads_neither_sources_nor_warehouse(self, project, orders, scored):
        rows, predictions = orders.training_set("2024-03-01", "2024-03-02"), orders.predictions()
        plan, lineage = orders.plan(), orders.lineage("2024-03-01")
        for file in (scored.root / "sources.duckdb", scored.project.warehouse, scored.project.published_database):
            file.unlink()
        texts = [repr(each) for each in (project, orders, project.models, rows, predictions, plan, lineage)]
        assert all(texts) and "not read yet" in texts[3] and "Which orders will be returned." in texts[0]
        assert all(each._repr_html_().startswith("<p><strong>") for each in (project, orders, rows, plan, lineage))

    def test_all_names_of_the_api_are_there_and_documented(self):
        for name in api.__all__:
            found = getattr(api, name)
            assert found.__doc__, name
            for attribute, value in vars(found).items() if isinstance(found, type) else ():
                if not attribute.startswith("_") and (callable(value) or isinstance(value, property)):
                    assert value.__doc__, f"{name}.{attribute}"
        with pytest.raises(AttributeError):
            _ = api.nothing


class TestExport:
    def test_it_writes_a_training_set_and_says_what_it_left_out(self, shop):
        shop.tiny.source("INSERT INTO raw.orders FROM raw.orders WHERE order_id = 60")
        file = str(shop.root / "train.parquet")
        words = ("features", "export", "orders", "--from", "2024-03-01", "--to", "2024-03-04", "-o", file)
        shown = shop.tiny.shell(*words, "--labels", "--labelled-only", "--column", "amount")
        assert f"{file}: 135 rows, 135 with a label, of 3 partitions from 2024-03-01 to 2024-03-04." in shown
        assert "Left out: 1 partition that scoring would refuse." in shown and "2024-03-02: 1 key" in shown
        assert "Point in time: not provable" in shown
        found = json.loads(shop.tiny.shell(*words, "--json"))
        assert found["rows"] == 150 and found["outcome"] is None and found["proof"]["verdict"] == "not provable"

    def test_it_is_recorded_with_the_model(self, shop, helpers):
        file, model = shop.root / "train.parquet", shop.root / "m.ubj"
        shop.rows().write(file)
        helpers.train(4, shop.orders.features("2024-03-01", "2024-03-04").df()).save_model(model)
        (shop.root / "categories.json").write_text(json.dumps({"shop": helpers.SHOPS}))
        words = ["models", "register", "returns", "--model", str(model), "--sample", str(file), "--json"]
        words += ["--training-set", str(file), "--categories", str(shop.root / "categories.json")]
        version = json.loads(shop.tiny.shell(*words))["version"]
        tags = pip_dagster.open(shop.root).models.get("returns", version).manifest.tags
        assert tags["training_rows"] == "200" and tags["training_set"].startswith("dh1:")

    def test_what_cannot_be_is_an_error_with_exit_code(self, shop):
        words = ("features", "export", "orders", "-o", str(shop.root / "x.parquet"))
        assert "is no date, time or partition key" in shop.tiny.shell(*words, "--from", "x", code=1)
        assert "add --labels" in shop.tiny.shell(*words, "--labelled-only", code=2)
