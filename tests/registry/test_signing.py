"""Signatures: who has not signed, signed with another key, or signed other bytes does not let a version score."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from pip_dagster.errors import DeclarationError
from pip_dagster.flow.model import ScoringModel
from pip_dagster.registry.errors import DigestMismatch, InvalidKey, SignatureMissing
from pip_dagster.registry.files import sha256
from pip_dagster.registry.signing import keygen, sign, verify_signers


@pytest.fixture
def keys(tmp_path: Path) -> tuple[Path, Path]:
    return keygen(tmp_path / "keys" / "ada")


def raw(public: Path) -> str:
    """The public key in base64, as it may stand in a declaration."""
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    return base64.b64encode(load_pem_public_key(public.read_bytes()).public_bytes_raw()).decode()  # type: ignore[union-attr]


def test_a_signed_version_verifies_by_file_and_by_base64(tiny: Any, keys: tuple[Path, Path]) -> None:
    private, public = keys
    assert private.stat().st_mode & 0o077 == 0
    version = tiny.registry.get("returns", 1)
    before = sorted(path.name for path in version.path.iterdir())
    path = sign(version, private)
    assert path.parent == tiny.registry.root / "returns" / "signatures" / "v1"
    assert sorted(path.name for path in version.path.iterdir()) == before  # the version is as it was
    verify_signers(version, [str(public), raw(public)])
    verify_signers(version, ["ada.pub.pem"], public.parent)
    verify_signers(tiny.registry.get("returns", 2), [])


def test_a_missing_signature_says_whose_and_how_to_sign(tiny: Any, keys: tuple[Path, Path]) -> None:
    with pytest.raises(SignatureMissing, match=r"returns v1: required signer .*ada.pub.pem.*models sign returns v1"):
        verify_signers(tiny.registry.get("returns", 1), [str(keys[1])])


def test_every_required_signer_must_have_signed(tiny: Any, keys: tuple[Path, Path], tmp_path: Path) -> None:
    version, other = tiny.registry.get("returns", 1), keygen(tmp_path / "keys" / "eve")
    sign(version, keys[0])
    with pytest.raises(SignatureMissing, match=r"eve.pub.pem"):
        verify_signers(version, [str(keys[1]), str(other[1])])


def test_a_signature_by_another_key_or_of_another_version_is_none(
    tiny: Any, keys: tuple[Path, Path], tmp_path: Path
) -> None:
    version, second = tiny.registry.get("returns", 1), tiny.registry.get("returns", 2)
    path = sign(version, keys[0])
    stolen = sign(version, keygen(tmp_path / "keys" / "eve")[0]).read_bytes()
    right = path.read_bytes()
    for forged in (stolen, right[:-1], b"", right[:-1] + bytes([right[-1] ^ 1])):
        path.write_bytes(forged)
        with pytest.raises(SignatureMissing, match="does not match this manifest.json"):
            verify_signers(version, [str(keys[1])])
    sign(second, keys[0]).write_bytes(right)
    with pytest.raises(SignatureMissing, match="returns v2"):
        verify_signers(second, [str(keys[1])])


def test_a_manifest_tampered_with_all_its_digests_is_found(tiny: Any, keys: tuple[Path, Path]) -> None:
    version = tiny.registry.get("returns", 1)
    sign(version, keys[0])
    manifest = json.loads((version.path / "manifest.json").read_bytes()) | {"description": "another"}
    data = json.dumps(manifest).encode()
    for name, content in (("manifest.json", data), ("manifest.sha256", sha256(data).encode())):
        (version.path / name).unlink()
        (version.path / name).write_bytes(content)
    tampered = tiny.registry.get("returns", 1)  # its digests agree
    with pytest.raises(SignatureMissing, match="one of the two was changed"):
        verify_signers(tampered, [str(keys[1])])
    with pytest.raises(SignatureMissing, match="changed while"):
        verify_signers(version, [str(keys[1])])


def test_what_is_damaged_is_not_signed_and_what_is_no_key_is_refused(tiny: Any, keys: tuple[Path, Path]) -> None:
    version = tiny.registry.get("returns", 1)
    with pytest.raises(InvalidKey, match="never overwritten"):
        keygen(keys[0].with_name("ada"))
    with pytest.raises(InvalidKey, match="is not a readable private key"):
        sign(version, keys[1])
    with pytest.raises(InvalidKey, match="neither a public key in base64"):
        verify_signers(version, ["nobody.pem"])
    model = version.path / "model.ubj"
    model.chmod(0o644)
    model.write_bytes(model.read_bytes() + b"x")
    with pytest.raises(DigestMismatch):
        sign(version, keys[0])


def test_a_pipeline_scores_only_with_a_signed_version(tiny: Any, keys: tuple[Path, Path]) -> None:
    tiny.declare(scoring={"required_signers": [str(keys[1])]})
    with pytest.raises(DeclarationError, match="has not signed it"):
        tiny.run("2024-03-01")
    sign(tiny.registry.get("returns", 1), keys[0])
    assert ScoringModel.resolve(tiny.pipeline(), 1).version.version == 1
    assert tiny.run("2024-03-01")["2024-03-01"].error is None
