"""What people see of deliveries: `status`, a rollback that is delivered at once, and the page's examples."""

import json
import re
import shutil
import time
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import pytest

from pip_dagster.cli.undelivered import Undelivered
from pip_dagster.delivery import outbox
from pip_dagster.errors import WarehouseError
from pip_dagster.ledger.deliveries import Pending

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
    metrics = scored.shell("metrics")
    assert 'pip_dagster_partitions_undelivered{pipeline="orders",target="lake"} 3' in metrics
    assert 'pip_dagster_oldest_undelivered_age_seconds{pipeline="orders",target="own"}' in metrics


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


def test_a_rollback_is_reported_although_nothing_could_be_delivered(scored, monkeypatch):
    def locked(project):
        raise WarehouseError("another process has it")

    scored.declare(deliver={"lake": {"parquet": "out"}})
    scored.run("2024-03-01", version=2)
    monkeypatch.setattr(outbox, "complete_publications", locked)
    text = scored.shell("models", "rollback", "orders", "2024-03-01")
    assert "1 partition rolled back from v2 to v1" in text
    assert "lake: another process has it" in text
    assert "pip-dagster deliver orders" in text


def test_a_partition_that_is_not_live_and_an_unknown_target_are_reported(scored):
    scored.declare(deliver={"lake": {"parquet": "out"}})
    assert "no scoring of it is live" in scored.shell("deliver", "orders", "2024-03-09", code=3)
    assert "has no target 'lke'; it has lake" in scored.shell("deliver", "orders", "--target", "lke", code=1)
    scored.declare()
    assert "declares no target" in scored.shell("deliver", "orders", code=1)


@pytest.mark.slice
def test_verify_fails_while_something_is_pending_or_differs(scored):
    """Exit code 0 means that the targets have everything."""
    scored.declare(deliver={"lake": {"parquet": "out"}, "own": {"python": "own:take"}})
    (scored.root / "own.py").write_text("def take(change, reader):\n    pass\n")
    assert "lake: 4 partitions pending" in scored.shell("deliver", "orders", "--verify", code=3)
    scored.shell("deliver", "orders", "2024-03-01", "--target", "lake")
    found = json.loads(scored.shell("deliver", "orders", "2024-03-01", "--target", "lake", "--verify", "--json"))
    assert found["pending"] == {"lake": 0}
    scored.shell("deliver", "orders")
    assert "own: nothing was read back" in scored.shell("deliver", "orders", "--verify")
    shutil.rmtree(scored.root / "out" / "2024-03-02")
    text = scored.shell("deliver", "orders", "--verify", code=3)
    assert "the target has nothing of it" in text
    command = "pip-dagster deliver orders 2024-03-02 --target lake"
    assert command in text
    scored.shell(*command.split()[1:])
    scored.shell("deliver", "orders", "--verify")


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


def test_status_of_many_partitions_takes_no_longer_for_each_of_them():
    pending = [Pending("lake", str(i), "c", "scored", datetime.now(UTC)) for i in range(20_000)]
    found = Undelivered({"orders": {"lake": pending}})
    began = time.process_time()
    assert all(found.targets("orders", each.partition_key) == ["lake"] for each in pending)
    assert found.targets("orders", "another") == []
    assert time.process_time() - began < 1
