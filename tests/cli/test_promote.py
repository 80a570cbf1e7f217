"""``models gate`` and ``models promote``: what is refused and said, and that the champion stays where it was."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml

from pip_dagster.cli.models import models

Run = Callable[..., Any]


@pytest.fixture
def cli(gated: Any, helpers: Any) -> Run:
    def run(*arguments: str, code: int = 0) -> Any:
        result = helpers.invoke(models, arguments, obj=gated.project)
        assert result.exit_code == code, result.output
        return result

    return run


def with_gates(gated: Any, **changes: Any) -> None:
    file = gated.folder / "defs.yaml"
    document = yaml.safe_load(file.read_text())
    document["attributes"]["gates"] |= changes
    file.write_text(yaml.safe_dump(document))


def test_gate_reports_and_promotes_nothing(gated: Any, cli: Run) -> None:
    result = cli("gate", "orders", "v1")
    assert "orders: returns v1 against champion (v3)" in result.output
    assert "passed segment_metric" in result.output
    assert "The rows that change most" in result.output
    assert gated.champion == 3
    found = json.loads(cli("gate", "orders", "v1", "--json").stdout)
    assert found["passed"] and [gate["name"] for gate in found["results"]][:2] == ["signature", "golden_rows"]
    with_gates(gated, max_flip_rate=0)
    failing = cli("gate", "orders", "v1", code=1)
    assert "FAILED flip_rate" in failing.output
    assert "orders: replaying 2024-03-01 to 2024-03-04 with returns v1 and returns v3" in failing.stderr


def test_a_promotion_that_passes_says_so_and_leaves_its_report(gated: Any, cli: Run) -> None:
    assert "returns: champion is now v1, was v3" in cli("promote", "returns", "v1", "--why", "better").stdout
    (change,) = json.loads(cli("history", "returns", "--json").stdout)[-1:]
    assert change["why"].startswith("better; gates passed (reports/")
    assert gated.champion == 1
    shown = cli("show", "returns", "v1").stdout
    assert "gates of orders" in shown and "passed flip_rate" in shown
    assert json.loads(cli("show", "returns", "v1", "--json").stdout)["gates"]["passed"] is True
    assert "gates of" not in cli("show", "returns", "v2").stdout
    again = cli("promote", "returns", "v1")
    assert "champion is v1 already" in again.stdout and not again.stderr  # nothing is replayed


def rewrite(folder: Path, **changes: Any) -> None:
    """Change a registered version's manifest as one would who can write its digest too."""
    manifest = json.loads((folder / "manifest.json").read_bytes()) | changes
    data = json.dumps(manifest).encode()
    for file, content in (("manifest.json", data), ("manifest.sha256", hashlib.sha256(data).hexdigest().encode())):
        (folder / file).chmod(0o644)
        (folder / file).write_bytes(content)


def reorder(folder: Path) -> None:
    rewrite(folder, features=json.loads((folder / "manifest.json").read_bytes())["features"][::-1])


def change_golden(folder: Path) -> None:
    file = folder / "golden.parquet"
    table = pq.read_table(file)
    scores = table.column("expected_score").to_numpy().copy()
    scores[0] += 0.001
    file.chmod(0o644)
    pq.write_table(table.set_column(table.schema.get_field_index("expected_score"), "expected_score", [scores]), file)
    files = json.loads((folder / "manifest.json").read_bytes())["files"]
    rewrite(folder, files=files | {"golden.parquet": hashlib.sha256(file.read_bytes()).hexdigest()})


@pytest.mark.parametrize(
    ("defect", "said"),
    [
        ("segment", "segment_metric: 1 of 4 segments"),
        ("renamed", "signature: "),
        ("reordered", "signature: "),
        ("golden", "golden_rows: golden scores are off by up to"),
        ("flips", "flip_rate: "),
    ],
)
def test_a_refused_promotion_says_which_gate_and_leaves_the_champion(
    gated: Any, cli: Run, helpers: Any, defect: str, said: str
) -> None:
    def one_shop(frame: Any) -> np.ndarray:
        return np.where(frame["shop"] == "東京", 1 - helpers.returned(frame), helpers.returned(frame))

    if defect == "segment":
        version = gated.register(one_shop)
    elif defect == "renamed":
        version = gated.register(helpers.returned, names={"amount": "amounts"})
    elif defect == "reordered":
        version = 2
        reorder(gated.registry.get("returns", 2).path)
    elif defect == "golden":
        version = 2
        change_golden(gated.registry.get("returns", 2).path)
    else:
        with_gates(gated, max_flip_rate=0.01)
        version = 2
    before = gated.registry.alias_history("returns", "champion")
    result = cli("promote", "returns", str(version), code=1)
    assert f"returns v{version} was not promoted, champion stays v3" in result.stderr
    assert said in result.stderr
    assert gated.registry.alias_history("returns", "champion") == before


def test_json_of_a_refusal_says_that_nothing_moved_and_which_gates_failed(gated: Any, cli: Run) -> None:
    with_gates(gated, max_flip_rate=0.01)
    refused = cli("promote", "returns", "v1", "--json", code=1)
    found = json.loads(refused.stdout)
    assert (found["alias"], found["version"], found["moved"]) == ("champion", 1, False)
    assert "flip_rate" in found["error"] and found["error"] in refused.stderr
    (report,) = found["gates"]
    assert [gate["name"] for gate in report["results"] if not gate["passed"]] == ["flip_rate"]
    moved = json.loads(cli("promote", "returns", "v1", "--json", "--override", "the shop").stdout)
    assert (moved["version"], moved["moved"], moved["error"]) == (1, True, None)


def test_an_override_is_kept_with_the_gates_that_failed(gated: Any, cli: Run) -> None:
    with_gates(gated, max_flip_rate=0.01)
    cli("promote", "returns", "v1", "--override", " ", code=2)
    cli("promote", "returns", "v1", "--override", "the shop asked for it")
    (change,) = json.loads(cli("history", "returns", "--json").stdout)[-1:]
    assert change["version"] == gated.champion == 1
    assert "override: the shop asked for it; failed gates: orders: flip_rate: " in change["why"]
    assert "at most 1.00% may" in change["why"]


def test_a_second_approver_is_somebody_else(gated: Any, cli: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOGNAME", "ada")
    with_gates(gated, approvers=2)
    for arguments in ((), ("--approved-by", "ada")):
        refused = cli("promote", "returns", "v1", *arguments, code=1)
        assert "needs a second approver" in refused.stderr and "--approved-by NAME" in refused.stderr
    assert gated.champion == 3
    cli("promote", "returns", "v1", "--approved-by", "grace")
    (change,) = json.loads(cli("history", "returns", "--json").stdout)[-1:]
    assert (change["by"], change["why"].rpartition("; ")[2]) == ("ada", "approved by grace")


def test_an_alias_that_no_pipeline_scores_by_moves_freely(gated: Any, cli: Run) -> None:
    result = cli("promote", "returns", "v3", "--alias", "archive")
    assert "archive is now v3, was not set" in result.stdout
    assert not (gated.registry.root / "returns" / "reports").exists()


def test_a_pipeline_whose_declaration_is_wrong_promotes_nothing(gated: Any, cli: Run) -> None:
    with_gates(gated, max_flips=0.1)
    assert "max_flips" in cli("promote", "returns", "v1", code=1).stderr
    assert gated.champion == 3


def test_registering_sets_an_alias_only_for_the_first_time(gated: Any, cli: Run, helpers: Any) -> None:
    version = gated.registry.get("returns", 2)
    options = ["--model", str(version.path / "model.ubj"), "--sample", str(gated.root / "sample.parquet")]
    helpers.orders(600, seed=2).to_parquet(gated.root / "sample.parquet")
    (gated.root / "shops.json").write_text(json.dumps({"shop": helpers.SHOPS}))
    options += ["--categories", str(gated.root / "shops.json")]
    refused = cli("register", "returns", *options, "--alias", "champion", code=1)
    assert "alias 'champion' stays v3" in refused.stderr
    assert "pip-dagster models promote returns v2 --alias champion" in refused.stderr
    assert gated.champion == 3
    found = json.loads(cli("register", "returns", *options, "--alias", "champion", "--json", code=1).stdout)
    assert (found["version"], found["aliases"]) == (2, []), "it is stored all the same"
    assert "alias 'champion' stays v3" in found["error"]
    cli("register", "returns", *options, "--alias", "fallback")
    cli("register", "returns", *options, "--alias", "fallback")  # the same again is no move
    assert len(gated.registry.alias_history("returns", "fallback")) == 1


def test_keys_are_made_and_a_version_signed(gated: Any, cli: Run) -> None:
    made = cli("keygen", str(gated.root / "ada"))
    assert "ada.pub.pem" in made.stdout
    file = gated.folder / "defs.yaml"
    document = yaml.safe_load(file.read_text())
    document["attributes"]["scoring"]["required_signers"] = ["ada.pub.pem"]
    file.write_text(yaml.safe_dump(document))
    refused = cli("promote", "returns", "v1", code=1)
    assert "signature: returns v1: required signer ada.pub.pem" in refused.stderr
    cli("sign", "returns", "v1", "--key", str(gated.root / "ada.pem"))
    cli("promote", "returns", "v1")
    assert gated.champion == 1
