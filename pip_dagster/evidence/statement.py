"""An anchor: one line of JSON that names an entry of the audit by number and hash, signed with Ed25519."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from pip_dagster.declaration.canonical import canonical

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

FORMAT = "pip_dagster anchor 1"


@dataclass(frozen=True)
class Statement:
    """What is signed.

    Attributes:
        ledger: The hash of the audit's first entry, by which ledgers are distinguished.
        entry: The number of the newest entry.
        hash: Its hash, which all entries up to it determine.
        made_at: When, in ISO 8601.
        key: The id of the key that signs: the first 16 hex digits of the public key's sha256.
        previous: The sha256 of the line before it in the same place; empty for the first, and where none can be read.
        accepts: The entries in which a person accepted something, which who signs vouches for.
    """

    ledger: str
    entry: int
    hash: str
    made_at: str
    key: str
    previous: str = ""
    accepts: tuple[int, ...] = ()

    def line(self, key: Ed25519PrivateKey) -> str:
        """The signed line."""
        signature = base64.b64encode(key.sign(self._bytes())).decode()
        return canonical({"format": FORMAT, **asdict(self), "signature": signature})

    def is_in(self, line: str) -> bool:
        """Whether a line says the same of the audit, by the same key; whether it is whole is not judged."""
        try:
            found = json.loads(line)
            same = all(found[name] == getattr(self, name) for name in ("ledger", "entry", "hash", "key"))
            return same and {*found["accepts"]} >= {*self.accepts}
        except (ValueError, KeyError, TypeError):
            return False

    def _bytes(self) -> bytes:
        return canonical({"format": FORMAT, **asdict(self)}).encode()


def digest(line: str) -> str:
    """What the next line of the same place has as `previous`."""
    return hashlib.sha256(line.encode()).hexdigest()


def parse(line: str, signers: Mapping[str, Ed25519PublicKey]) -> Statement:
    """The statement of a line; `signers` holds the trusted public keys by id.

    Raises:
        ValueError: it is no anchor, its key is not trusted, or its signature does not match.
    """
    from cryptography.exceptions import InvalidSignature

    try:
        found = json.loads(line)
        signature = base64.b64decode(found.pop("signature"), validate=True)
        kind = found.pop("format")
        statement = Statement(**found | {"accepts": tuple(found.get("accepts", ()))})
    except (ValueError, KeyError, TypeError, AttributeError, binascii.Error):
        raise ValueError("it is no anchor") from None
    if kind != FORMAT:
        raise ValueError(f"its format is {kind!r}, which this version does not know")
    if statement.key not in signers:
        raise ValueError(f"it is signed by the key {statement.key}, which is not among `signers`")
    try:
        signers[statement.key].verify(signature, statement._bytes())
    except InvalidSignature:
        raise ValueError("its signature does not match: the line was edited") from None
    return statement
