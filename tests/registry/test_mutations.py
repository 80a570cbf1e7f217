"""Damaged model files: none reaches this process unexamined; each is refused with a reason, or scores as examined.

What counts: `register` returns or raises a RegistryError, and nothing else, within its time limit. A file that is
accepted although a byte of it differs (a leaf's value, a parameter that scoring does not use) is a sound model of its
own: loaded here it must give the very scores that the probe's process gave. In a registered version any change is
refused by digest, before XGBoost sees a byte.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pip_dagster.registry import DigestMismatch, InvalidModel, Registry, RegistryError, UnsafeModelFile
from pip_dagster.registry.golden import largest_difference
from pip_dagster.registry.load import load_predictor

KINDS = ("flip a bit", "set a byte", "truncate", "insert bytes", "cut out", "splice", "swap halves", "huge count")


def mutations(original: bytes, other: bytes, seed: int) -> Iterator[tuple[str, bytes]]:
    """Endlessly: what was done to ``original``, and the bytes that came of it. ``other`` is spliced in."""
    chance = random.Random(seed)
    while True:
        for kind in KINDS:
            data, at = bytearray(original), chance.randrange(len(original))
            if kind == "flip a bit":
                data[at] ^= 1 << chance.randrange(8)
            elif kind == "set a byte":
                data[at] = chance.choice([0, 0x7F, 0x80, 0xFF, data[at] ^ 0x55])
            elif kind == "truncate":
                del data[at:]
            elif kind == "insert bytes":
                data[at:at] = chance.randbytes(chance.randint(1, 64))
            elif kind == "cut out":
                del data[at : at + chance.randint(1, 64)]
            elif kind == "splice":
                data[at:] = other[min(at, len(other) - 1) :]
            elif kind == "swap halves":
                data = data[at:] + data[:at]
            else:  # a count or length that asks for more than there is
                data[at : at + 8] = b"\x7f\xff\xff\xff\xff\xff\xff\xff"
            if bytes(data) != original:
                yield f"{kind} at {at}", bytes(data)


# Loads an accepted version and compares its scores with those of the probe. Apart from the tests' own process, so that
# a crash is a failure with a name.
LOAD = """
import sys
from pip_dagster.registry import Registry
from pip_dagster.registry.golden import largest_difference
from pip_dagster.registry.load import load_predictor
version = Registry(sys.argv[1]).get("m", int(sys.argv[2]))
version.verify()
print(largest_difference(version, load_predictor(version, nthread=1)), flush=True)
"""


def examined(data: bytes, folder: Path, frame: Any, what: str) -> str:
    """What became of one damaged file."""
    path = folder / "damaged.model"
    path.write_bytes(data)
    registry = Registry(folder / "r")
    try:
        version = registry.register("m", model=path, sample=frame, time_limit=30)
    except RegistryError as error:
        assert len(str(error)) > 40, f"{what}: {error!r} gives no reason"
        if isinstance(error, InvalidModel) and "crashed the process" in str(error):
            return "refused: it crashed the probe"
        return f"refused: {type(error).__name__}"
    # A file damaged where it does no harm was once seen to give its answer, and its process to abort as it ended, under
    # load; never again in a row. So the answer counts, and that the process can end well.
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-c", LOAD, str(registry.root), str(version.version)],
            capture_output=True,
            text=True,
            timeout=60,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
        assert done.stdout, f"{what}: accepted, and then it could not be loaded: {done.returncode}, {done.stderr}"
        if done.returncode == 0:
            break
    assert done.returncode == 0, f"{what}: accepted, and then loading it ended with {done.returncode}: {done.stderr}"
    assert float(done.stdout) == 0.0, f"{what}: the scores differ by {done.stdout} from those of the probe"
    return "accepted, scores equal"


def examine(
    booster: Any, train: Any, frame: Any, label: Any, folder: Path, kind: str, times: int, seed: int
) -> Counter[str]:
    other = train(frame, label, rounds=3)
    found: Counter[str] = Counter()
    damaged = mutations(bytes(booster.save_raw(kind)), bytes(other.save_raw(kind)), seed)
    for what, data in itertools.islice(damaged, times):
        found[examined(data, folder, frame, f"{kind}, {what}")] += 1
    assert not list((folder / "r" / "m").glob(".incoming-*"))
    assert sum(found.values()) == times
    assert sum(count for outcome, count in found.items() if outcome.startswith("refused")) > times / 2, found
    return found


@pytest.mark.slice
@pytest.mark.parametrize("kind", ["ubj", pytest.param("json", marks=pytest.mark.soak)])
def test_damaged_model_files(booster: Any, train: Any, frame: Any, label: Any, tmp_path: Path, kind: str) -> None:
    examine(booster, train, frame, label, tmp_path, kind, times=8, seed=3)


@pytest.mark.soak
@pytest.mark.parametrize("kind", ["ubj", "json"])
def test_a_hundred_damaged_model_files(
    booster: Any, train: Any, frame: Any, label: Any, tmp_path: Path, kind: str
) -> None:
    print(kind, json.dumps(examine(booster, train, frame, label, tmp_path, kind, times=100, seed=11)))


def test_damage_to_a_registered_version_is_refused_by_digest_before_it_is_loaded(
    version: Any, train: Any, frame: Any, label: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("bytes that are not the registered ones reached XGBoost")

    monkeypatch.setattr("pip_dagster.registry.engines.xgboost.predictor.load_booster", never)
    other = bytes(train(frame, label, rounds=3).save_raw("ubj"))
    for file in ("model.ubj", "golden.parquet", "manifest.json"):
        path = version.path / file
        original = path.read_bytes()
        path.chmod(0o644)
        for what, data in itertools.islice(mutations(original, other, seed=5), 64):
            path.write_bytes(data)
            with pytest.raises(DigestMismatch, match=file.replace(".", r"\.")):
                version.verify()
                pytest.fail(f"{file}, {what}: was not noticed")
            if file == "model.ubj":
                with pytest.raises(DigestMismatch):
                    load_predictor(version, nthread=1)
        path.write_bytes(original)
    monkeypatch.undo()
    assert largest_difference(version, load_predictor(version, nthread=1)) == 0.0


def test_what_is_refused_by_its_first_bytes_starts_no_probe(
    frame: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "pip_dagster.registry.sandbox.run", lambda *_: pytest.fail("the probe was started for what is no model")
    )
    (tmp_path / "x").write_bytes(b"\x80\x04K")
    with pytest.raises(UnsafeModelFile):
        Registry(tmp_path / "r").register("m", model=tmp_path / "x", sample=frame)


def _first(tree: dict[str, Any]) -> int:
    return next(i for i, child in enumerate(tree["left_children"]) if child != -1 and i)


LEADS_NOWHERE = {
    "child beyond the end": lambda model: model["trees"][0]["left_children"].__setitem__(
        _first(model["trees"][0]), 10**6
    ),
    "a node that is its own ancestor": lambda model: model["trees"][0]["left_children"].__setitem__(
        _first(model["trees"][0]), 0
    ),
    "feature beyond the end": lambda model: model["trees"][0]["split_indices"].__setitem__(
        _first(model["trees"][0]), 10**6
    ),
    "output beyond the end": lambda model: model["tree_info"].__setitem__(0, 7),
    "rounds beyond the end": lambda model: model["iteration_indptr"].__setitem__(-1, 99),
}


@pytest.mark.parametrize("defect", LEADS_NOWHERE)
def test_a_tree_that_leads_out_of_its_memory_is_refused_whether_or_not_the_sample_goes_there(
    defect: str, booster: Any, frame: Any, tmp_path: Path
) -> None:
    """XGBoost loads each of them, and crashes at the row that comes that way, or later."""
    document = json.loads(bytes(booster.save_raw("json")))
    LEADS_NOWHERE[defect](document["learner"]["gradient_booster"]["model"])
    (tmp_path / "model.json").write_text(json.dumps(document))
    with pytest.raises(InvalidModel):
        Registry(tmp_path / "r").register("m", model=tmp_path / "model.json", sample=frame.head(1))


def test_sound_boosters_of_every_kind_pass(train: Any, frame: Any, label: Any) -> None:
    from pip_dagster.registry.engines.xgboost.trees import check_trees

    for rounds, parameters in (
        (3, {"objective": "binary:logistic"}),
        (3, {"objective": "binary:logistic", "max_cat_to_onehot": 1, "gamma": 2.0}),  # pruned
        (3, {"booster": "dart", "rate_drop": 0.5}),
        (2, {"objective": "multi:softprob", "num_class": 3, "num_parallel_tree": 2}),
    ):
        check_trees(train(frame, label, rounds=rounds, **parameters))
    check_trees(train(frame.drop(columns="carrier"), label, booster="gblinear"))
