"""Ed25519 signatures of contents that can be written as canonical JSON, and the keys that are trusted."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pip_dagster.declaration.canonical import canonical
from pip_dagster.registry.signing import key_id, public_key

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey


def signature(content: Mapping[str, Any], key: Ed25519PrivateKey) -> str:
    """The signature of the content in base64."""
    return base64.b64encode(key.sign(canonical(content).encode())).decode()


def check_signature(
    content: Mapping[str, Any], signed: object, key: str, signers: Mapping[str, Ed25519PublicKey], *, trusted: str
) -> None:
    """Check that the key of this id, one of `signers`, signed the content; `trusted` says of messages what those are.

    Raises:
        ValueError: there is no signature, the key is not trusted, or the content is not what it signed.
    """
    from cryptography.exceptions import InvalidSignature

    try:
        data = base64.b64decode(str(signed or ""), validate=True)
    except binascii.Error:
        data = b""
    if not data:
        raise ValueError("it is not signed")
    if key not in signers:
        raise ValueError(f"it is signed by the key {key}, which is not {trusted}")
    try:
        signers[key].verify(data, canonical(content).encode())
    except InvalidSignature:
        raise ValueError("its signature does not match: it was edited") from None


def trusted_keys(root: Path, signers: Sequence[str]) -> dict[str, Ed25519PublicKey]:
    """The public keys by id; files are relative to `root`.

    Raises:
        InvalidKey: an entry is not a key.
    """
    return {key_id(key): key for key in (public_key(each, root) for each in signers)}
