"""An anchor: one line of JSON that names an entry of the audit by number and hash, signed with Ed25519."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from pip_dagster.declaration.canonical import canonical
from pip_dagster.evidence.signed import check_signature, signature

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

FORMAT = "pip_dagster anchor 2"
# It had neither the anchor before nor what was accepted.
_FORMER = "pip_dagster anchor 1"


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
        accepts: The entries in which a person accepted or rewrote something, which who signs vouches for.
        format: How the line is written.
    """

    ledger: str
    entry: int
    hash: str
    made_at: str
    key: str
    previous: str = ""
    accepts: tuple[int, ...] = ()
    format: str = FORMAT

    @property
    def names_previous(self) -> bool:
        """Whether it names the line before it."""
        return self.format == FORMAT

    def line(self, key: Ed25519PrivateKey) -> str:
        """The signed line."""
        return canonical({**self.content, "signature": signature(self.content, key)})

    @property
    def content(self) -> dict[str, Any]:
        """What the signature covers."""
        found = asdict(self)
        return found if self.names_previous else {k: v for k, v in found.items() if k not in ("previous", "accepts")}

    def is_in(self, line: str) -> bool:
        """Whether a line says the same of the audit, by the same key; whether it is whole is not judged."""
        try:
            found = json.loads(line)
            same = all(found[name] == getattr(self, name) for name in ("ledger", "entry", "hash", "key"))
            return same and {*found.get("accepts", ())} >= {*self.accepts}
        except (ValueError, KeyError, TypeError, AttributeError):
            return False


def digest(line: str) -> str:
    """What the next line of the same place has as `previous`."""
    return hashlib.sha256(line.encode()).hexdigest()


def parse(line: str, signers: Mapping[str, Ed25519PublicKey]) -> Statement:
    """The statement of a line; `signers` holds the trusted public keys by id.

    Raises:
        ValueError: it is no anchor, its key is not trusted, or its signature does not match.
    """
    try:
        found = json.loads(line)
        signed, kind = found.pop("signature"), found["format"]
        statement = Statement(**found | {"accepts": tuple(found.get("accepts", ()))})
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ValueError("it is no anchor") from None
    if kind not in (FORMAT, _FORMER):
        raise ValueError(f"its format is {kind!r}, which this version does not know")
    check_signature(statement.content, signed, statement.key, signers, trusted="among `signers`")
    return statement
