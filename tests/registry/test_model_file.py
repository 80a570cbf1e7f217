"""A model file is told by its bytes; what could run code, or cannot be read again, is refused unopened."""

import gzip
import io
import pickle
import zipfile
import zlib

import pytest

from pip_dagster.registry import ModelNotFound, Registry, UnsafeModelFile
from pip_dagster.registry.engines.xgboost.model_file import detect, written_by


class Bomb:
    """Unpickling this would raise in the test's process."""

    def __reduce__(self):
        return exec, ("raise SystemExit('unpickled')",)


def _zip() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("model", b"x")
    return buffer.getvalue()


REFUSED = {
    **{f"pickle {protocol}": pickle.dumps(Bomb(), protocol=protocol) for protocol in range(2, 6)},
    "pickle 0": pickle.dumps(Bomb(), protocol=0),
    "zip": _zip(),
    "gzip": gzip.compress(b"{"),
    "zlib": zlib.compress(b"{"),
    "numpy": b"\x93NUMPY\x01\x00",
    "old binary": b"binf\x00\x00\x00\x3f",
    "snapshot": b"CONFIG-offset:1234",
    "json dump": b'[\n  { "nodeid": 0 }]',
    "text dump": b"booster[0]:\n0:[f0<1] yes=1",
    "lightgbm": b"tree\nversion=v4\n",
    "empty": b"",
    "nothing known": b"\x00\x00\x00\x3f\x04\x00\x00\x00",
}


@pytest.mark.parametrize("kind", REFUSED)
def test_anything_else_is_refused_with_the_way_to_convert_it(kind, frame, tmp_path):
    path = tmp_path / "model.ubj"
    path.write_bytes(REFUSED[kind])
    with pytest.raises(UnsafeModelFile, match=r'booster\.save_model\("model\.ubj"\)') as caught:
        Registry(tmp_path / "r").register("m", model=path, sample=frame)
    assert str(path) in str(caught.value)
    if kind.startswith("pickle"):
        assert "pickle" in str(caught.value) or "not a format known" in str(caught.value)


def test_xgboosts_own_formats_and_writer_are_recognised(booster, tmp_path):
    import xgboost as xgb

    running = tuple(int(part) for part in xgb.__version__.split("."))
    for kind in ("ubj", "json"):
        data = bytes(booster.save_raw(kind))
        assert detect(data, tmp_path) == kind
        assert written_by(data) == running
    assert written_by(b"{}") is None


def test_a_missing_file_is_named(frame, tmp_path):
    with pytest.raises(ModelNotFound, match=r"cannot read the model file .*gone\.ubj"):
        Registry(tmp_path / "r").register("m", model=tmp_path / "gone.ubj", sample=frame)
