"""Registering, from a file to a version on disk, through the probe's own process."""

import hashlib
import json
import os
import stat
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import xgboost as xgb

from pip_dagster.registry import (
    InvalidModel,
    InvalidSample,
    ModelNotFound,
    Registry,
    RegistryError,
    SignatureMismatch,
    sample,
)
from pip_dagster.registry.encoding import encode
from pip_dagster.registry.golden import largest_difference, read
from pip_dagster.registry.load import load_predictor


def test_a_version_is_a_read_only_folder_that_describes_itself(version, model_file):
    files = {path.name for path in version.path.iterdir()}
    assert files == {"model.ubj", "golden.parquet", "manifest.json", "manifest.sha256"}
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o444 for path in version.path.iterdir())
    manifest = version.manifest
    assert (manifest.model_name, manifest.version, manifest.registered_by) == ("delay", 1, "ada")
    assert manifest.registered_at.utcoffset().total_seconds() == 0
    assert manifest.metrics == {"auc": 0.72}
    assert manifest.training_window == ("2013-01-01", "2013-07-01")
    assert manifest.tags == {"commit": "abc"}
    assert version.digest == hashlib.sha256(model_file.read_bytes()).hexdigest()
    assert version.model_bytes() == model_file.read_bytes()
    assert version.manifest_digest == hashlib.sha256((version.path / "manifest.json").read_bytes()).hexdigest()
    version.verify()


def test_golden_rows_are_reproduced(version, booster, frame):
    predictor = load_predictor(version, nthread=1)
    golden = read(version)
    assert golden.rows.num_rows == 200
    assert golden.rows.column_names == ["distance", "stops", "night", "carrier"]
    assert golden.expected.dtype == np.float32
    np.testing.assert_array_equal(predictor.predict(encode(golden.rows, version.manifest)), golden.expected)
    assert largest_difference(version, predictor) == 0.0
    whole = predictor.predict(encode(pa.Table.from_pandas(frame), version.manifest))
    np.testing.assert_array_equal(whole, booster.predict(xgb.DMatrix(frame, enable_categorical=True)))


def test_reference_histograms_count_every_row_once(version, frame):
    manifest = version.manifest
    for histogram in (*manifest.feature_reference.values(), *manifest.score_reference.values()):
        assert sum(histogram.counts) + histogram.missing == len(frame)
    distance = manifest.feature_reference["distance"]
    assert len(distance.edges) == 19
    assert distance.missing == frame.distance.isna().sum()
    assert max(distance.counts) <= 0.07 * len(frame)
    carrier = manifest.feature_reference["carrier"]
    assert dict(zip(carrier.labels, carrier.counts, strict=True)) == frame.carrier.value_counts().to_dict()
    assert manifest.feature_reference["night"].counts == (0, int((~frame.night).sum()), int(frame.night.sum()), 0)
    assert set(manifest.score_reference) == {"score"}


def test_the_same_model_again_is_the_same_version_unless_that_is_damaged(registry, version, model_file, frame):
    again = registry.register("delay", model=model_file, sample=frame, description="again")
    assert again == version
    assert not again.created
    assert [each.version for each in registry.versions("delay")] == [1]
    _flip(version.path / "model.ubj")
    replacement = registry.register("delay", model=model_file, sample=frame)
    assert (replacement.version, replacement.created) == (2, True)
    replacement.verify()


def test_json_is_converted_whatever_the_suffix(booster, frame, tmp_path):
    path = tmp_path / "model.ubj"
    path.write_bytes(b"\n " + bytes(booster.save_raw("json")))
    frame.to_parquet(tmp_path / "sample.parquet")
    version = Registry(tmp_path / "r").register("m", model=path, sample=tmp_path / "sample.parquet")
    assert version.created
    assert version.model_bytes() == bytes(booster.save_raw("ubj"))
    assert version.manifest.features[3].categories == ("UA", "AA", "ZZ", "B6")


def test_many_outputs_have_golden_rows_and_references(train, frame, tmp_path):
    booster = train(frame, frame.stops % 3, objective="multi:softmax", num_class=3)
    booster.save_model(tmp_path / "m.json")
    table = pa.Table.from_pandas(frame, preserve_index=False)
    version = Registry(tmp_path / "r").register("m", model=tmp_path / "m.json", sample=table, classes=["a", "b", "c"])
    assert version.manifest.classes == ("a", "b", "c")
    assert set(version.manifest.score_reference) == {"score_a", "score_b", "score_c"}
    golden = read(version)
    assert golden.expected.shape == (200, 3)
    np.testing.assert_allclose(golden.expected.sum(axis=1), 1, rtol=1e-5)
    assert largest_difference(version, load_predictor(version, nthread=1)) == 0.0


def _edited(booster: xgb.Booster, path: Path, edit) -> Path:
    model = json.loads(bytes(booster.save_raw("json")))
    edit(model)
    path.write_text(json.dumps(model, separators=(",", ":")))
    return path


def test_a_tree_that_leads_out_of_memory_is_refused(booster, frame, tmp_path):
    def break_tree(model):
        model["learner"]["gradient_booster"]["model"]["trees"][0]["left_children"][0] = 2_000_000_000

    path = _edited(booster, tmp_path / "model.json", break_tree)
    registry = Registry(tmp_path / "r")
    with pytest.raises(InvalidModel, match="m: the file is damaged: tree 0 has a node whose child is not one of its"):
        registry.register("m", model=path, sample=frame)
    assert registry.models() == []


def test_a_file_that_crashes_xgboost_is_refused_and_this_process_lives(booster, frame, tmp_path, monkeypatch):
    (tmp_path / "sitecustomize.py").write_text(
        "import os, signal, sys\nif 'pip_dagster.registry.probe' in sys.orig_argv: os.kill(os.getpid(), signal.SIGSEGV)"
    )
    monkeypatch.syspath_prepend(tmp_path)
    path = _edited(booster, tmp_path / "model.json", lambda model: None)
    registry = Registry(tmp_path / "r")
    with pytest.raises(InvalidModel, match=r"m: loading or scoring the model crashed the process \(SIGSEGV\)"):
        registry.register("m", model=path, sample=frame)
    assert registry.models() == []
    assert list((tmp_path / "r" / "m").glob(".incoming-*")) == []


@pytest.mark.parametrize("seed", [1, 2])
def test_a_mutated_file_never_harms_this_process(model_file, frame, tmp_path, seed):
    data = bytearray(model_file.read_bytes())
    rng = np.random.default_rng(seed)
    for at in rng.integers(20, len(data), 4):
        data[at] ^= 1 << rng.integers(8)
    (tmp_path / "model.ubj").write_bytes(data)
    try:
        Registry(tmp_path / "r").register("m", model=tmp_path / "model.ubj", sample=frame).verify()
    except RegistryError as error:
        assert str(error).startswith("m: ")


def test_a_file_of_a_newer_xgboost_is_refused(booster, frame, tmp_path):
    path = _edited(booster, tmp_path / "model.json", lambda model: model.update(version=[99, 1, 0]))
    with pytest.raises(InvalidModel, match=r"written by XGBoost 99\.1\.0, newer than .* install xgboost>=99\.1"):
        Registry(tmp_path / "r").register("m", model=path, sample=frame)


def test_a_model_that_takes_too_long_is_refused(model_file, frame, tmp_path):
    with pytest.raises(InvalidModel, match=r"took more than 0\.05 s"):
        Registry(tmp_path / "r").register("m", model=model_file, sample=frame, time_limit=0.05)


def test_the_probes_own_refusals_keep_their_class(model_file, frame, tmp_path):
    with pytest.raises(SignatureMismatch, match=r"^m: the sample lacks 1 of 4 features"):
        Registry(tmp_path / "r").register("m", model=model_file, sample=frame.drop(columns="night"))


def test_a_sample_that_cannot_be_used_is_refused(model_file, frame, tmp_path):
    with pytest.raises(InvalidSample, match=r"^m: the sample has no rows"):
        Registry(tmp_path / "r").register("m", model=model_file, sample=frame.iloc[:0])
    with pytest.raises(InvalidSample, match=r"cannot read the sample .*gone\.parquet"):
        sample.read(tmp_path / "gone.parquet")
    (tmp_path / "text.parquet").write_text("a,b\n1,2\n")
    with pytest.raises(InvalidSample, match=r"cannot read the sample .*text\.parquet"):
        sample.read(tmp_path / "text.parquet")
    with pytest.raises(InvalidSample, match="is not a Parquet path, Arrow table or DataFrame"):
        Registry(tmp_path / "r").register("m", model=model_file, sample=[1, 2])


def test_a_metric_that_is_no_number_is_refused(model_file, frame, tmp_path):
    with pytest.raises(RegistryError, match=r"m: metrics\.auc: .*finite"):
        Registry(tmp_path / "r").register("m", model=model_file, sample=frame, metrics={"auc": float("nan")})


def test_abandoned_work_is_ignored_and_cleaned_when_old(registry, tmp_path):
    old, young = registry.root / "delay" / ".incoming-old", registry.root / "delay" / ".incoming-young"
    for folder in (old, young):
        folder.mkdir()
        (folder / "model.ubj").write_bytes(b"half")
    os.utime(old, (time.time() - 2 * 86400,) * 2)
    assert [each.version for each in registry.versions("delay")] == [1]
    with pytest.raises(ModelNotFound):
        registry.register("delay", model=tmp_path / "gone.ubj", sample="s.parquet")
    assert (old.exists(), young.exists()) == (False, True)


def test_a_sample_in_a_folder_that_looks_like_a_partition_gains_no_column(version, frame, tmp_path):
    folder = tmp_path / "stops=9"
    folder.mkdir()
    pq.write_table(pa.Table.from_pandas(frame, preserve_index=False), folder / "s.parquet")
    assert sample.read(folder / "s.parquet").column_names == list(frame.columns)


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.chmod(0o644)
    path.write_bytes(data)
