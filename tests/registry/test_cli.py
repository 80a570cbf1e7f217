"""``pip-dagster models``: what it prints, its JSON, its exit codes, and what it must not import."""

import json
import subprocess
import sys

import pytest
import xgboost as xgb

from pip_dagster.cli.models import models
from pip_dagster.declaration.project import Project


@pytest.fixture
def cli(two_versions, helpers):
    def run(*arguments: str, code: int = 0, root=two_versions.root) -> str:
        place = Project(root, warehouse=root / "w.duckdb", registry=root, published=root / "published")
        result = helpers.invoke(models, arguments, obj=place)
        assert result.exit_code == code, result.output
        return result.output

    return run


def test_register_promote_show_history(cli, model_file, frame, tmp_path):
    frame.assign(carrier=frame.carrier.astype(str)).to_parquet(tmp_path / "s.parquet")
    (tmp_path / "c.json").write_text(json.dumps({"carrier": ["UA", "AA", "ZZ", "B6"]}))
    options = ["--model", str(model_file), "--sample", str(tmp_path / "s.parquet"), "--json"]
    options += ["--categories", str(tmp_path / "c.json"), "--classes", "on time,late", "--metric", "auc=.72"]
    options += [
        "--metric",
        "logloss=0.456",
        "--description",
        "the [first]",
        "--training-window",
        "2013-01-01..2013-07-01",
    ]
    root = tmp_path / "fresh"
    answer = json.loads(cli("register", "m", *options, "--alias", "champion", root=root))
    assert (answer["version"], answer["created"], answer["aliases"]) == (1, True, ["champion"])
    assert answer["metrics"] == {"auc": 0.72, "logloss": 0.456}
    shown = json.loads(cli("show", "m", "--json", root=root))
    assert shown["classes"] == ["on time", "late"]
    assert shown["training_window"] == ["2013-01-01", "2013-07-01"]
    assert shown["aliases"] == ["champion"]
    text = cli("show", "m", "v1", root=root)
    for part in ("the [first]", answer["digest"], "UA, AA, ZZ, B6", "auc 0.72, logloss 0.456", str(root)):
        assert part in text


def test_what_training_knew_is_declared_and_verified(cli, train, frame, label, tmp_path):
    sample = frame[["distance", "stops"]].assign(distance=frame.distance.fillna(-999), margin=frame.stops / 10)
    data = xgb.DMatrix(sample[["distance", "stops"]], label=label, missing=-999, base_margin=sample.margin)
    booster = xgb.train({"objective": "binary:logistic", "nthread": 1}, data, 5)
    booster.save_model(tmp_path / "m.ubj")
    sample.assign(trained=booster.predict(data)).to_parquet(tmp_path / "s.parquet")
    options = ["--model", str(tmp_path / "m.ubj"), "--sample", str(tmp_path / "s.parquet")]
    root = tmp_path / "fresh"
    assert "note: not verified against training" in cli("register", "other", *options, root=root)
    assert "not verified against training" in cli("show", "other", "v1", root=root)
    options += ["--training-scores", "trained"]
    refused = cli("register", "m", *options, code=1, root=root)
    assert "row 0" in refused and "Error" in refused
    text = cli("register", "m", *options, "--missing=-999", "--offset", "margin", root=root)
    assert "note" not in text
    shown = cli("show", "m", "v1", root=root)
    for part in ("verified against training on 300 rows", "missing value", "-999", "offset", "margin"):
        assert part in shown


def test_list_cuts_nothing_when_piped(cli, two_versions):
    text = cli("list")
    assert len(text.splitlines()) == 3
    assert "binary:logistic" in text
    assert "…" not in text
    listed = json.loads(cli("list", "delay", "--json"))
    assert [each["version"] for each in listed] == [1, 2]
    assert listed[0]["digest"] == two_versions.get("delay", 1).digest


def test_list_of_nothing_says_how_to_begin(cli, tmp_path):
    assert "models register NAME" in cli("list", root=tmp_path / "nothing")
    assert json.loads(cli("list", "--json", root=tmp_path / "nothing")) == []


def test_promote_moves_an_alias_and_history_tells(cli):
    assert "champion is now v1, was not set" in cli("promote", "delay", "v1", "--why", "first")
    assert "champion is now v2, was v1" in cli("promote", "delay", "2")
    assert "champion is v2 already" in cli("promote", "delay", "2")
    change = json.loads(cli("promote", "delay", "1", "--alias", "canary", "--json"))
    assert (change["alias"], change["version"], change["previous"], change["moved"]) == ("canary", 1, None, True)
    text = cli("history", "delay")
    assert [line.split()[3] for line in text.splitlines()[1:]] == ["champion", "champion", "canary"]
    assert "first" in text
    assert len(json.loads(cli("history", "delay", "--alias", "champion", "--json"))) == 2
    assert "champion" in cli("list").splitlines()[2]


def test_history_without_moves(cli):
    assert "no alias has been set yet" in cli("history", "delay")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["show", "dely"], 1, "no model 'dely'"),
        (["show", "delay"], 1, "no alias 'champion'"),
        (["promote", "delay", "v9"], 1, "no v9; versions: v1, v2"),
        (["history", "dely"], 1, "no model 'dely'"),
        (["register", "m", "--model", "gone.ubj", "--sample", "s.parquet"], 1, "cannot read the model file"),
        (["register", "m", "--model", "x", "--sample", "s", "--metric", "auc"], 2, "'auc' is not NAME=VALUE"),
        (["register", "m", "--model", "x", "--sample", "s", "--metric", "auc=high"], 2, "is not a number"),
        (["register", "m", "--model", "x", "--sample", "s", "--training-window", "2013"], 2, "is not FROM..TO"),
        (["register", "m", "--model", "x", "--sample", "s", "--categories", "no.json"], 1, "cannot read --categories"),
    ],
)
def test_errors_name_the_remedy(cli, arguments, code, message):
    assert message in cli(*arguments, code=code)


def test_a_damaged_model_is_not_promoted(cli, two_versions):
    path = two_versions.get("delay", 2).path / "model.ubj"
    path.chmod(0o644)
    path.write_bytes(b"{L")
    assert "has sha256" in cli("promote", "delay", "2", code=1)
    assert "has sha256" in cli("show", "delay", "2", code=1)


def test_listing_imports_no_engine(two_versions):
    code = f"""
import sys
from types import SimpleNamespace
from pip_dagster.cli.models import models
models(["list"], obj=SimpleNamespace(registry={str(two_versions.root)!r}), standalone_mode=False)
heavy = {{"xgboost", "pandas", "numpy", "pyarrow", "duckdb", "dagster"}} & set(sys.modules)
assert not heavy, heavy
"""
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
