"""What people see of deliveries: `status`, a rollback that is delivered at once, and the page's examples."""

import json
import re
from pathlib import Path

import pandas as pd
import pytest

PAGE = Path(__file__).parents[2] / "docs" / "delivery.md"


def test_status_shows_what_is_not_delivered_and_why(scored):
    scored.declare(deliver={"lake": {"parquet": "out"}, "own": {"python": "nowhere:take"}})
    scored.shell("deliver", "orders", "2024-03-01", "--target", "lake")
    scored.shell("deliver", "orders", "--target", "own", code=3)
    [summary] = json.loads(scored.shell("status", "--json"))
    lake, own = (summary["deliveries"][target] for target in ("lake", "own"))
    assert (lake["pending"], lake["error"], own["pending"]) == (3, "", 4)
    assert "No module named 'nowhere'" in own["error"]
    found = json.loads(scored.shell("status", "orders", "--json"))
    assert [each["undelivered"] for each in found][:2] == [["own"], ["lake", "own"]]
    assert "No module named 'nowhere'" in scored.shell("status", "orders")


def test_status_of_a_pipeline_without_targets_is_as_before(scored):
    assert "deliveries" not in json.loads(scored.shell("status", "--json"))[0]
    assert "Deliveries" not in scored.shell("status")


@pytest.mark.slice
def test_a_rollback_by_command_is_delivered_at_once(scored):
    scored.declare(deliver={"lake": {"parquet": "out"}})
    scored.run("2024-03-01", version=2)
    scored.shell("deliver", "orders")
    out = json.loads(scored.shell("models", "rollback", "orders", "2024-03-01", "--json"))
    assert out["targets"][0]["delivered"] == ["2024-03-01"]
    manifest = json.loads((scored.root / "out" / "2024-03-01" / "latest.json").read_text())
    assert manifest["kind"] == "rollback"


def test_a_partition_that_is_not_live_and_an_unknown_target_are_reported(scored):
    scored.declare(deliver={"lake": {"parquet": "out"}})
    assert "no scoring of it is live" in scored.shell("deliver", "orders", "2024-03-09", code=3)
    assert "has no target 'lke'; it has lake" in scored.shell("deliver", "orders", "--target", "lke", code=1)
    scored.declare()
    assert "declares no target" in scored.shell("deliver", "orders", code=1)


def test_the_page_says_how_to_read_the_files(scored, monkeypatch):
    scored.declare(deliver={"lake": {"parquet": "data/delivered/orders"}})
    scored.shell("deliver", "orders")
    monkeypatch.chdir(scored.root)
    duckdb_block, pandas_block, _ = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    names: dict = {}
    exec(duckdb_block.replace('con.sql("FROM', 'rows = con.sql("FROM'), names)
    assert len(names["rows"].fetchall()) == 200
    exec(pandas_block, names)
    assert isinstance(names["frame"], pd.DataFrame)
    assert len(names["frame"]) == 50
