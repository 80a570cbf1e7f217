"""Ed25519 signatures of manifest.json, which holds the digest of every file of a version.

They are detached, in `<model>/signatures/v<version>/<key id>.sig`: a version's own folder never changes.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from pip_dagster.registry.errors import InvalidKey, SignatureMissing
from pip_dagster.registry.files import of_registry, replace_atomically, sha256
from pip_dagster.registry.version import MANIFEST_FILE, ModelVersion
from pip_dagster.warehouse.faults import of_files

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey


def keygen(path: Path) -> tuple[Path, Path]:
    """Write a new key pair, `<path>.pem` (readable by its owner only) and `<path>.pub.pem`; the two files.

    Raises:
        InvalidKey: one of them exists, since a key in use must not be lost; or they cannot be written.
    """
    from cryptography.hazmat.primitives import serialization as ser
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    private, public = path.with_name(path.name + ".pem"), path.with_name(path.name + ".pub.pem")
    for file in (private, public):
        if file.exists():
            raise InvalidKey(f"{file} exists; choose another name, a key is never overwritten")
    key = Ed25519PrivateKey.generate()
    secret = key.private_bytes(ser.Encoding.PEM, ser.PrivateFormat.PKCS8, ser.NoEncryption())
    with of_files(f"The key {private}", InvalidKey):
        path.parent.mkdir(parents=True, exist_ok=True)
        with os.fdopen(os.open(private, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as out, _whole(private):
            out.write(secret)
            out.flush()
            public.write_bytes(key.public_key().public_bytes(ser.Encoding.PEM, ser.PublicFormat.SubjectPublicKeyInfo))
    return private, public


@contextmanager
def _whole(private: Path) -> Iterator[None]:
    """Remove the private key where its public key could not be written: the same command must work later."""
    try:
        yield
    except OSError:
        private.unlink()
        raise


def sign(version: ModelVersion, key_file: Path) -> Path:
    """Sign a version, whose files are verified first; the signature's file.

    Raises:
        CorruptRegistry: a file of the version cannot be read.
        DigestMismatch: a file is not the registered one.
        InvalidKey: the file is not an Ed25519 key.
        RegistryUnwritable: the signature cannot be written.
    """
    key = private_key(key_file)
    version.verify()
    path = _signature_file(version, key.public_key())
    with of_registry(path.parent):
        replace_atomically(path, key.sign(_manifest_bytes(version)))
    return path


def verify_signers(version: ModelVersion, required: Sequence[str], root: Path = Path()) -> None:
    """Check that every required signer has signed this manifest; without any, return.

    `required` holds public keys: base64 of the 32 bytes, or PEM files, relative to `root`.

    Raises:
        InvalidKey: an entry is not a key.
        SignatureMissing: a signer has not signed.
    """
    if not required:
        return
    from cryptography.exceptions import InvalidSignature

    data = _manifest_bytes(version)
    for signer in required:
        key = public_key(signer, root)
        path = _signature_file(version, key)
        remedy = f"`pip-dagster models sign {version.name} v{version.version} --key PRIVATE.pem`"
        try:
            key.verify(path.read_bytes(), data)
        except FileNotFoundError:
            raise SignatureMissing(
                f"{version}: required signer {signer} (key {key_id(key)}) has not signed it; sign it with {remedy}"
            ) from None
        except InvalidSignature:
            raise SignatureMissing(
                f"{version}: the signature {path} of {signer} (key {key_id(key)}) does not match this manifest.json: "
                f"one of the two was changed. Find out which; if the version is unchanged, sign it again with {remedy}"
            ) from None


def key_id(key: Ed25519PublicKey) -> str:
    """The first 16 hex digits of the public key's sha256."""
    return hashlib.sha256(key.public_bytes_raw()).hexdigest()[:16]


def _manifest_bytes(version: ModelVersion) -> bytes:
    """The bytes of the manifest that `version` was read from."""
    data = (version.path / MANIFEST_FILE).read_bytes()
    if sha256(data) != version.manifest_digest:
        raise SignatureMissing(f"{version}: {MANIFEST_FILE} changed while it was being verified; try again")
    return data


def _signature_file(version: ModelVersion, key: Ed25519PublicKey) -> Path:
    return version.path.parents[1] / "signatures" / f"v{version.version}" / f"{key_id(key)}.sig"


def private_key(file: Path) -> Ed25519PrivateKey:
    """The private key in a PEM file without a password.

    Raises:
        InvalidKey: it cannot be read, or is of another kind.
    """
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(file.read_bytes(), password=None)
    except (OSError, ValueError, TypeError) as error:
        raise InvalidKey(f"{file} is not a readable private key in PEM without a password: {error}") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise InvalidKey(f"{file} is not an Ed25519 key; create one with `pip-dagster models keygen PATH`")
    return key


def public_key(signer: str, root: Path) -> Ed25519PublicKey:
    """A public key: base64 of its 32 bytes, or a PEM file, relative to `root`.

    Raises:
        InvalidKey: it is neither.
    """
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        return Ed25519PublicKey.from_public_bytes(base64.b64decode(signer, validate=True))
    except (binascii.Error, ValueError):
        pass  # then it is a file
    file = root / signer
    try:
        key = load_pem_public_key(file.read_bytes())
    except (OSError, ValueError) as error:
        raise InvalidKey(
            f"required signer {signer!r} is neither a public key in base64 (32 bytes) nor a PEM file at {file}: {error}"
        ) from error
    if not isinstance(key, Ed25519PublicKey):
        raise InvalidKey(f"{file} is not an Ed25519 public key")
    return key
