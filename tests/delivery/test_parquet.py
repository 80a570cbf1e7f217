"""A folder of Parquet files: what is left behind is removed, and places that cannot be written are reported."""

import json
import shutil
from contextlib import closing

import pytest
from delivery_killer import Killer
from delivery_kinds import ParquetKind

from pip_dagster.delivery import parquet
from pip_dagster.delivery.parquet import ParquetFolder
from pip_dagster.delivery.target import ChangeRows, DeliveryError


@pytest.fixture
def make(tmp_path):
    from test_contract import Maker

    return Maker(tmp_path)


def deliver(root, made, target="lake"):
    with closing(ParquetFolder("orders", target, root)) as folder:
        return folder.deliver(made.change, ChangeRows(made.file))


def folders(root, key="2024-03-01"):
    return sorted(path.name for path in (root / key).iterdir() if path.is_dir())


def test_what_no_manifest_shows_is_removed_after_a_time_of_grace(tmp_path, make, monkeypatch):
    root, first, second = tmp_path / "out", make(), make()
    deliver(root, first)
    deliver(root, second)
    assert len(folders(root)) == 2, "a reader may have the first one open"
    monkeypatch.setattr(parquet, "GRACE_SECONDS", 0.0)
    third = make()
    deliver(root, third)
    [left] = folders(root)
    assert left.startswith(third.change.change_id)
    assert [*(root / ".unreferenced").iterdir()] == []


def test_what_a_kill_leaves_is_removed_too(tmp_path, make, monkeypatch):
    root, kind = tmp_path / "out", ParquetKind(tmp_path / "out")
    with closing(Killer()) as killer:
        made = make()
        for at in (60, 75):
            assert not killer.deliver(kind, made.change, made.file, at)
    monkeypatch.setattr(parquet, "GRACE_SECONDS", 0.0)
    deliver(root, make())
    assert len(folders(root)) == 1


def test_a_place_of_another_target_is_refused(tmp_path, make):
    deliver(tmp_path / "out", make())
    with pytest.raises(
        DeliveryError, match="would replace what target lake of pipeline orders has delivered.*former name"
    ):
        deliver(tmp_path / "out", make(), target="other")
    shutil.rmtree(tmp_path / "out" / "2024-03-01")  # as it says
    deliver(tmp_path / "out", make(), target="other")


def test_a_place_that_cannot_be_written_and_a_damaged_manifest_are_reported(tmp_path, make):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(DeliveryError, match="partition 2024-03-01: target lake cannot be written in .*file"):
        deliver(tmp_path / "file", make())
    deliver(tmp_path / "out", make())
    latest = tmp_path / "out" / "2024-03-01" / "latest.json"
    latest.write_text(latest.read_text()[:-20])
    with pytest.raises(DeliveryError, match=r"latest\.json is not a manifest of delivered rows"):
        deliver(tmp_path / "out", make())
    latest.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DeliveryError, match=r"latest\.json is not a manifest of delivered rows"):
        deliver(tmp_path / "out", make())
    latest.write_text(json.dumps({"version": 99}))
    with pytest.raises(DeliveryError, match="newer pip_dagster"):
        deliver(tmp_path / "out", make())
