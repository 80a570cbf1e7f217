"""docs/distributed.md and the manifest that it links."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from pip_dagster.declaration.engine import RayEngine

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "docs" / "distributed.md").read_text(encoding="utf-8")


def test_every_key_of_the_engine_is_documented():
    assert [name for name in RayEngine.model_fields if f"\n| `{name}` |" not in DOCUMENT] == []


def test_the_manifest_has_the_tested_ray_and_one_volume_under_one_path():
    cluster = yaml.safe_load((ROOT / "examples" / "deploy" / "raycluster.yaml").read_text(encoding="utf-8"))["spec"]
    pinned = re.search(r"^ray==(.+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert pinned and cluster["rayVersion"] == pinned[1]
    pods = [each["template"]["spec"] for each in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"])]
    (mounts,) = {str(pod["containers"][0]["volumeMounts"]) for pod in pods}
    assert "'mountPath': '/mnt/shared'" in mounts
    assert len({pod["containers"][0]["image"] for pod in pods}) == 1
    assert "exchange: /mnt/shared/" in DOCUMENT
