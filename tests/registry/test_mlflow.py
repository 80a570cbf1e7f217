"""A pipeline whose model is named in an MLflow registry: who is champion, what is mirrored, and what is refused."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import pytest

os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
mlflow = pytest.importorskip("mlflow")

from pip_dagster.cli.models import models  # noqa: E402
from pip_dagster.errors import DeclarationError, RegistryError, RollbackError  # noqa: E402
from pip_dagster.flow.model import ScoringModel  # noqa: E402
from pip_dagster.ledger.promotions import alias_moves, unrecorded  # noqa: E402
from pip_dagster.ledger.rollback import rollback  # noqa: E402
from pip_dagster.ledger.verify import verify  # noqa: E402
from pip_dagster.registry import AliasConflict, ModelNotFound, Registry  # noqa: E402
from pip_dagster.registry.choose import mlflow_registry  # noqa: E402
from pip_dagster.registry.errors import MixedRegistry, ReplacedVersion  # noqa: E402
from pip_dagster.registry.files import sha256  # noqa: E402
from pip_dagster.registry.mlflow_log import log_model  # noqa: E402
from pip_dagster.replay.replay import replay  # noqa: E402
from pip_dagster.warehouse.connect import open_warehouse, workspace  # noqa: E402

import xgboost as xgb  # noqa: E402  # isort: skip

NAME = "remote"


@pytest.fixture(scope="session")
def mlflow_template(tmp_path_factory: pytest.TempPathFactory, helpers: Any) -> Path:
    """An SQLite-backed MLflow with two versions of one model, champion on the first."""
    root = tmp_path_factory.mktemp("mlflow")
    point_at(root / "mlflow.db")
    mlflow.create_experiment("returns", artifact_location=(root / "artifacts").as_uri())
    history = helpers.orders(600, seed=2)
    history.loc[::7, "shop"] = None
    for seed in (1, 2):
        log(helpers, seed, history)
    mlflow.MlflowClient().set_registered_model_alias(NAME, "champion", "1")
    return root


def point_at(database: Path) -> None:
    mlflow.set_tracking_uri(f"sqlite:///{database}")
    mlflow.set_registry_uri(f"sqlite:///{database}")


def log(helpers: Any, seed: int, history: Any) -> int:
    mlflow.set_experiment("returns")
    with mlflow.start_run():
        mlflow.log_metric("auc", 0.7 + seed / 100)
        return log_model(
            helpers.train(seed, history),
            history,
            registered_model_name=NAME,
            categories={"shop": helpers.SHOPS},
            pip_requirements=["xgboost"],
        )


@pytest.fixture
def remote(tiny: Any, mlflow_template: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The small project with its model named in MLflow; a database of the test's own, the artifacts shared."""
    shutil.copy(mlflow_template / "mlflow.db", tiny.root / "mlflow.db")
    monkeypatch.setenv("PIP_DAGSTER_MLFLOW", "sqlite:///mlflow.db")
    point_at(tiny.root / "mlflow.db")
    return tiny.declare(scoring={"model_name": f"models:/{NAME}@champion"})


def client() -> Any:
    return mlflow.MlflowClient()


def model_file(version: int) -> Path:
    logged = client().get_logged_model(client().get_model_version(NAME, str(version)).source.rpartition("/")[2])
    return Path(urlparse(logged.artifact_location).path) / "model.ubj"


def live(tiny: Any) -> dict[str, int]:
    return dict(tiny.warehouse("SELECT partition_key, model_version FROM ledger.partitions WHERE is_live ORDER BY 1"))


def audited(tiny: Any) -> object:
    with workspace(threads=1) as con, open_warehouse(con, tiny.project.warehouse, purpose="test", read_only=True):
        return verify(con, moves=alias_moves(tiny.registry))


@pytest.mark.slice
def test_mlflows_alias_decides_and_what_scored_is_kept(remote: Any, helpers: Any) -> None:
    point_at(remote.root / "another.db")  # the project's own setting counts, whatever this process was pointed at
    first = remote.run("2024-03-01")["2024-03-01"].scoring
    assert not (remote.root / "another.db").exists()
    point_at(remote.root / "mlflow.db")
    assert (first.model_name, first.model_version) == (NAME, 1)
    mirrored = remote.registry.get(NAME, 1)
    assert (mirrored.path / "model.ubj").read_bytes() == model_file(1).read_bytes()
    origin = mirrored.manifest.origin
    assert (origin.uri, origin.model_sha256) == (f"models:/{NAME}/1", mirrored.digest)
    assert mirrored.manifest.metrics == {"auc": 0.71}
    shop = next(feature for feature in mirrored.manifest.features if feature.name == "shop")
    assert shop.categories == helpers.SHOPS
    client().set_registered_model_alias(NAME, "champion", "2")
    assert remote.run("2024-03-02")["2024-03-02"].scoring.model_version == 2
    moves = remote.registry.alias_history(NAME, "champion")
    assert [(move.version, move.by) for move in moves] == [(1, "MLflow"), (2, "MLflow")]
    assert "no gate was run" in moves[-1].why
    # MLflow is gone: what it decided is proven all the same.
    (remote.root / "mlflow.db").unlink()
    (found,) = replay(remote.pipeline(), [first])
    assert found.verdict == "identical"
    assert remote.registry.get(NAME, "champion").version == 2


@pytest.mark.slice
def test_promotion_goes_through_the_gates_and_moves_mlflows_alias(remote: Any, helpers: Any) -> None:
    remote.run("2024-03-01")

    def cli(*arguments: str, code: int = 0) -> Any:
        result = helpers.invoke(models, arguments, obj=remote.project)
        assert result.exit_code == code, result.output
        return result

    remote.declare(scoring={"model_name": f"models:/{NAME}@champion"}, gates={"max_flip_rate": 0})
    refused = cli("promote", NAME, "v2", code=1)
    assert "flip_rate" in refused.stderr and client().get_model_version_by_alias(NAME, "champion").version == 1
    remote.declare(scoring={"model_name": f"models:/{NAME}@champion"}, gates={"max_score_psi": 50})
    assert "champion is now v2, was v1" in cli("promote", f"models:/{NAME}", "v2", "--why", "better").stdout
    assert client().get_model_version_by_alias(NAME, "champion").version == 2
    move = remote.registry.alias_history(NAME, "champion")[-1]
    assert (move.version, move.previous) == (2, 1) and move.why.startswith("better; gates passed")
    assert json.loads(client().get_model_version(NAME, "2").tags["pip_dagster.alias.champion"])["why"] == move.why
    # the same alias is found by a run, and nothing more is noted
    assert remote.run("2024-03-01")["2024-03-01"].scoring.model_version == 2
    assert len(remote.registry.alias_history(NAME, "champion")) == 2
    assert audited(remote) is None
    result = rollback(remote.project, "orders", why="worse", by="eve")
    assert len(result.flips) == 1 and live(remote) == {"2024-03-01": 1}
    assert client().get_model_version_by_alias(NAME, "champion").version == 1, "else the next run would undo it"
    assert audited(remote) is None


def test_a_promotion_killed_after_mlflow_moved_is_known_by_who_and_why(remote: Any, monkeypatch: Any) -> None:
    registry = mlflow_registry(remote.project)
    registry.get(NAME, "champion")

    def killed_here(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Registry, "set_alias", killed_here)
        registry.set_alias(NAME, "champion", 2, by="eve", why="better", expect=1)
    registry.get(NAME, "champion")
    move = remote.registry.alias_history(NAME, "champion")[-1]
    assert (move.version, move.by, move.why) == (2, "eve", "better")
    with pytest.raises(AliasConflict, match=r"alias 'champion' is v2, but v1 was expected"):
        registry.set_alias(NAME, "champion", 1, by="bob", why="", expect=1)


def resolving(tiny: Any) -> str:
    with pytest.raises(DeclarationError) as caught:
        ScoringModel.resolve(tiny.pipeline(), 1)
    return str(caught.value)


def test_bytes_changed_in_mlflow_are_named_before_and_after_the_first_use(remote: Any, helpers: Any) -> None:
    history = helpers.orders(600, seed=2)
    client().set_registered_model_alias(NAME, "champion", str(version := log(helpers, 3, history)))
    file, original = model_file(version), model_file(version).read_bytes()
    file.write_bytes(original[:-40] + bytes([original[-40] ^ 1]) + original[-39:])
    assert f"models:/{NAME}/{version}: model.ubj in MLflow's artifacts has sha256" in resolving(remote)
    assert NAME not in remote.registry.models(), "nothing was mirrored"
    file.write_bytes(original)
    assert ScoringModel.resolve(remote.pipeline(), 1).version.version == version
    file.write_bytes(original + b" ")
    assert "but " in (said := resolving(remote)) and "the file has changed since" in said
    file.unlink()
    assert "MLflow holds no file 'model.ubj'" in resolving(remote)


def test_an_alias_or_model_that_is_not_there(remote: Any) -> None:
    remote.declare(scoring={"model_name": f"models:/{NAME}@champoin"})
    assert f"has no alias 'champoin' of {NAME}" in resolving(remote)
    remote.declare(scoring={"model_name": "models:/nothing@champion"})
    assert "has no registered model 'nothing'" in resolving(remote)
    with pytest.raises(ModelNotFound, match=rf"has no models:/{NAME}/9"):
        mlflow_registry(remote.project).get(NAME, 9)


def test_a_server_that_does_not_answer(remote: Any, monkeypatch: Any) -> None:
    remote.run("2024-03-01")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    for uri, said in (
        ("http://eve:secret@127.0.0.1:9", "MLflow at http://127.0.0.1:9 did not answer"),
        ("sqlite:///gone.db", "expected SQLite at"),
    ):
        monkeypatch.setenv("PIP_DAGSTER_MLFLOW", uri)
        message = resolving(remote)
        assert said in message and "declare `model_name: remote`" in message and "secret" not in message
        with pytest.raises(RollbackError, match="--keep-alias rolls back without MLflow"):
            rollback(remote.project, "orders", why="", by="eve", to_version=1)
    assert not (remote.root / "gone.db").exists()
    assert rollback(remote.project, "orders", why="", by="eve", to_version=1, keep_alias=True).kept == 1
    remote.declare(scoring={"model_name": NAME})  # the way out that the message names
    assert remote.run("2024-03-02")["2024-03-02"].scoring.model_version == 1
    monkeypatch.delenv("PIP_DAGSTER_MLFLOW")
    for variable in ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI"):
        monkeypatch.delenv(variable, raising=False)
    remote.declare(scoring={"model_name": f"models:/{NAME}"})
    assert "[tool.pip_dagster] mlflow = " in resolving(remote)


class _Dummy(mlflow.pyfunc.PythonModel):
    def predict(self, model_input: list[float]) -> list[float]:
        raise SystemExit("executed")


def test_another_flavour_is_refused_unopened(remote: Any) -> None:
    mlflow.set_experiment("returns")
    with mlflow.start_run():
        info = mlflow.pyfunc.log_model(
            name="model", python_model=_Dummy(), registered_model_name=NAME, pip_requirements=["x"]
        )
    client().set_registered_model_alias(NAME, "champion", info.registered_model_version)
    message = resolving(remote)
    assert "has flavor python_function, expected xgboost" in message and "mlflow.xgboost.log_model" in message


@pytest.mark.parametrize("lack", ["sample", "categories", "claims"])
def test_what_mlflow_lacks_is_asked_for(remote: Any, helpers: Any, lack: str) -> None:
    history = helpers.orders(600, seed=2)
    mlflow.set_experiment("returns")
    with mlflow.start_run():
        info = mlflow.xgboost.log_model(
            helpers.train(4, history),
            name="model",
            model_format="ubj",
            registered_model_name=NAME,
            pip_requirements=["xgboost"],
        )
        if lack != "sample":
            history.to_parquet(remote.root / "sample.parquet")
            mlflow.log_artifact(str(remote.root / "sample.parquet"), "pip_dagster")
        if lack == "claims":
            mlflow.log_dict({"catgories": {}}, "pip_dagster/claims.json")
    client().set_registered_model_alias(NAME, "champion", info.registered_model_version)
    said = {
        "sample": "MLflow holds no training sample of it",
        "categories": "such as categories and offset, is in pip_dagster/claims.json",
        "claims": "pip_dagster/claims.json: catgories: Extra inputs are not permitted; expected an object with any of "
        "categories",
    }
    message = resolving(remote)
    assert said[lack] in message
    if lack == "sample":
        assert "log_artifact(" in message
        history.to_parquet(remote.root / "sample.parquet")
        run = client().get_model_version(NAME, str(info.registered_model_version)).run_id
        client().log_artifact(run, str(remote.root / "sample.parquet"), "pip_dagster")
        client().log_dict(run, {"categories": {"shop": helpers.SHOPS}}, "pip_dagster/claims.json")
        assert ScoringModel.resolve(remote.pipeline(), 1).version.version == info.registered_model_version


def test_what_training_knew_is_logged_and_verified(remote: Any, helpers: Any) -> None:
    sample = helpers.orders(300, seed=4)[["amount", "quantity"]].fillna(-999.0)
    sample["margin"] = sample["quantity"] / 10
    features = sample[["amount", "quantity"]]
    data = xgb.DMatrix(features, label=sample["quantity"], missing=-999, base_margin=sample["margin"])
    booster = xgb.train({"nthread": 1}, data, 4)
    sample["trained"], sample["sold"] = booster.predict(data), sample["quantity"]
    options = {
        "outcome": "sold",
        "held_out": True,
        "missing": -999,
        "training_scores": "trained",
        "pip_requirements": ["xgboost"],
    }
    with mlflow.start_run():
        log_model(booster, sample, registered_model_name="known", offset="margin", **options)
    registry = mlflow_registry(remote.project)
    manifest = registry.get("known", 1).manifest
    assert (manifest.missing, manifest.offset, manifest.training_check.rows) == (-999, "margin", 300)
    error = sample["sold"] - sample["trained"].astype("float32")
    assert manifest.held_out.metrics["rmse"] == pytest.approx((error**2).mean() ** 0.5)
    with mlflow.start_run():
        log_model(booster, sample, registered_model_name="known", **options)
    with pytest.raises(RegistryError, match=r"models:/known/2: .*the scores are not those of training"):
        registry.get("known", 2)


def test_a_models_versions_come_from_one_place(remote: Any, helpers: Any) -> None:
    registry = mlflow_registry(remote.project)
    version = registry.get(NAME, 1)
    sample = helpers.orders(600, seed=2)
    with pytest.raises(MixedRegistry, match=rf"v1 is models:/{NAME}/1"):
        remote.registry.register(
            NAME, model=version.path / "model.ubj", sample=sample, categories={"shop": helpers.SHOPS}
        )
    client().rename_registered_model(NAME, "returns")
    with pytest.raises(MixedRegistry, match="was registered here, not mirrored"):
        registry.get("returns", 1)


def test_declared_names() -> None:
    from pip_dagster.declaration.spec import Scoring

    found = Scoring.model_validate({"model_name": "models:/returns@live"})
    assert (found.model_name, found.alias, found.registry) == ("returns", "live", "mlflow")
    assert Scoring(model_name="returns").registry == "folder"
    for wrong, said in (
        ({"model_name": "models:/returns@live", "alias": "champion"}, "use only one of them"),
        ({"model_name": "models:/returns/3"}, r"expected models:/NAME@ALIAS"),
        ({"model_name": "models:/returns@"}, r"expected models:/NAME@ALIAS"),
    ):
        with pytest.raises(ValueError, match=said):
            Scoring.model_validate(wrong)


def test_without_the_extra_the_error_says_what_to_install(remote: Any, monkeypatch: Any) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)
    assert "pip install 'pip-dagster[mlflow]'" in resolving(remote)


def test_a_project_without_mlflow_never_imports_it(tiny: Any) -> None:
    process = tiny.python(
        """
        import sys
        from pip_dagster.declaration.find import find_pipeline
        from pip_dagster.flow.model import ScoringModel
        from pip_dagster.declaration.project import Project
        ScoringModel.resolve(find_pipeline(Project.find(), "orders"), 1)
        assert not [name for name in sys.modules if name.startswith(("mlflow", "sqlalchemy"))]
        """
    )
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output


def test_a_mirror_that_was_replaced_is_refused_and_a_move_in_mlflow_is_a_finding(remote: Any) -> None:
    remote.run("2024-03-01")
    client().set_registered_model_alias(NAME, "champion", "2")
    remote.run("2024-03-02")
    with workspace(threads=1) as con, open_warehouse(con, remote.project.warehouse, purpose="test", read_only=True):
        found = [(move.by, move.version) for _, move in unrecorded(con, remote.registry)]
    assert ("MLflow", 2) in found
    path = remote.registry.get(NAME, 2).path
    data = (path / "manifest.json").read_bytes().replace(b'"description"', b' "description"')
    (path / "manifest.json").write_bytes(data)
    (path / "manifest.sha256").write_text(sha256(data))
    with pytest.raises(ReplacedVersion, match=r"manifest\.json has sha256"):
        remote.run("2024-03-03")
