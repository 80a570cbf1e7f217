"""`models compose` as typed: what it answers, and what show and lineage say of a composite."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from pip_dagster.cli.main import cli

YAML = """
segments:
  - {name: gifts, when: gift, model: returns, alias: champion}
  - {otherwise: true, ensemble: [{model: returns, version: v1, weight: 2}, {model: returns, version: 2, weight: 1}]}
"""


@pytest.fixture
def invoke(tiny: Any, helpers: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("PIP_DAGSTER_PROJECT", str(tiny.root))

    def _invoke(*arguments: str) -> Any:
        return helpers.invoke(cli, arguments)

    return _invoke


def test_compose_show_and_lineage(tiny: Any, invoke: Any, sample: pd.DataFrame, tmp_path: Path) -> None:
    (tmp_path / "model.yaml").write_text(YAML)
    stray = sample.iloc[:3].assign(shop="opened since")  # a category that no member knows
    pd.concat([sample, stray]).to_parquet(tmp_path / "sample.parquet")
    compose = (
        "models",
        "compose",
        "returns",
        str(tmp_path / "model.yaml"),
        "--sample",
        str(tmp_path / "sample.parquet"),
    )
    made = invoke(*compose)
    assert made.exit_code == 0, made.output
    assert "returns composed as v3" in made.output
    assert "gifts: returns v1, where gift" in made.output
    assert "otherwise: mean of scores: 0.667 returns v1 + 0.333 returns v2, where every other row" in made.output
    assert "is already registered as v3" in invoke(*compose).output
    assert json.loads(invoke(*compose, "--json").output)["created"] is False
    shown = invoke("models", "show", "returns", "v3").output
    assert "returns v1, champion at the time: member-01-returns-v1.ubj, sha256" in shown
    tiny.registry.set_alias("returns", "champion", 3, by="ada", why="a test")
    tiny.run("2024-03-01")
    assert "gifts: returns v1, where gift" in invoke("lineage", "orders", "2024-03-01").output


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("ensemble: [{model: returns, version: 1}", "not valid YAML"),
        ("segments: []\nsegments: []", "line 1 and again on line 2"),
        ("ensemble: [{model: returns, version: 012}]", "octal"),
        ("- 1", "is not a composition"),
        ("segments: [{when: gift, model: returns, version: one}]", "segments.0.version"),
        ("ensemble: [{model: nobody, version: 1}, {model: returns, version: 1}]", "no model 'nobody'"),
    ],
)
def test_what_is_wrong_is_said_in_one_message(invoke: Any, tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "model.yaml").write_text(text)
    found = invoke("models", "compose", "returns", str(tmp_path / "model.yaml"), "--sample", "nowhere.parquet")
    assert found.exit_code == 1 and told in found.output and "Traceback" not in found.output


def test_a_calibration_that_is_left_behind_is_told(
    tiny: Any, invoke: Any, helpers: Any, sample: pd.DataFrame, tmp_path: Path
) -> None:
    helpers.train(3, helpers.orders(300, seed=2)).save_model(tmp_path / "m.ubj")
    tiny.registry.register(
        "returns",
        model=tmp_path / "m.ubj",
        sample=sample,
        categories={"shop": helpers.SHOPS},
        calibration={"method": "platt", "slope": 1, "intercept": 0},
    )
    (tmp_path / "model.yaml").write_text("ensemble: [{model: returns, version: 1}, {model: returns, version: 3}]")
    sample.to_parquet(tmp_path / "s.parquet")
    arguments = ("models", "compose", "returns", str(tmp_path / "model.yaml"), "--sample", str(tmp_path / "s.parquet"))
    found = invoke(*arguments)
    assert "the calibration of returns v3 is not used" in found.output, found.output
