"""What has changed on disk is noticed before it is used."""

import hashlib
import json

import pytest

from pip_dagster.registry import CorruptRegistry, DigestMismatch, Registry
from pip_dagster.registry.golden import read
from pip_dagster.registry.load import load_predictor


def _rewrite(path, data: bytes) -> None:
    path.chmod(0o644)
    path.write_bytes(data)


@pytest.mark.parametrize("at", [0.1, 0.5, 0.99])
def test_a_flipped_bit_in_the_model_never_reaches_xgboost(version, at):
    path = version.path / "model.ubj"
    data = bytearray(path.read_bytes())
    data[int(at * len(data))] ^= 1
    _rewrite(path, data)
    with pytest.raises(DigestMismatch, match=r"delay v1: model\.ubj has sha256 .* was registered.*Restore") as caught:
        load_predictor(version, nthread=1)
    assert caught.value.expected == version.digest
    assert caught.value.found == hashlib.sha256(data).hexdigest()
    with pytest.raises(DigestMismatch):
        version.verify()


def test_changed_golden_rows_are_not_read(version):
    _rewrite(version.path / "golden.parquet", b"PAR1")
    with pytest.raises(DigestMismatch, match=r"golden\.parquet"):
        read(version)
    with pytest.raises(DigestMismatch):
        version.verify()


def test_a_changed_manifest_is_not_believed(version, registry):
    path = version.path / "manifest.json"
    _rewrite(path, path.read_bytes().replace(b'"UA"', b'"AA"', 1).replace(b'"AA"', b'"UA"', 1) + b" ")
    for use in (lambda: registry.get("delay", 1), lambda: registry.versions("delay"), version.verify):
        with pytest.raises(DigestMismatch, match=r"manifest\.json"):
            use()


def test_a_manifest_changed_together_with_its_digest_is_noticed_by_who_knew_it(version):
    path = version.path / "manifest.json"
    data = path.read_bytes() + b" "
    _rewrite(path, data)
    _rewrite(version.path / "manifest.sha256", hashlib.sha256(data).hexdigest().encode())
    with pytest.raises(DigestMismatch, match=r"manifest\.json"):
        version.verify()


@pytest.mark.parametrize("file", ["model.ubj", "manifest.json", "manifest.sha256", "golden.parquet"])
def test_a_lost_file_is_named(version, file):
    (version.path / file).unlink()
    with pytest.raises(CorruptRegistry, match=rf"delay v1: cannot read .*{file}"):
        version.verify()


@pytest.mark.parametrize("change", [{"format": 2}, {"surprise": 1}, {"version": 7}])
def test_a_manifest_this_code_does_not_understand_is_refused(version, registry, change):
    path = version.path / "manifest.json"
    data = json.dumps(json.loads(path.read_bytes()) | change).encode()
    _rewrite(path, data)
    _rewrite(version.path / "manifest.sha256", hashlib.sha256(data).hexdigest().encode())
    with pytest.raises(CorruptRegistry, match=r"upgrade this one|moved or copied by hand"):
        registry.get("delay", 1)


def test_a_copied_version_folder_is_noticed(version, registry):
    version.path.rename(version.path.with_name("3"))
    with pytest.raises(CorruptRegistry, match="holds delay v1, not delay v3"):
        Registry(registry.root).get("delay", 3)
