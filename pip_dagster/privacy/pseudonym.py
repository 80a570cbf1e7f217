"""What stands for a person: HMAC-SHA256 of the subject in a domain, by a secret (RFC 2104; 128 bits are kept).

The same in Python and in DuckDB, to the bit. In SQL the secret is only in parameters, so that no error, log or plan of
a query shows it.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field

from pip_dagster.declaration.privacy import LOCAL
from pip_dagster.sql.names import literal

META = "pseudonyms"  # what names of check values begin with
_BLOCK = 64  # bytes that SHA-256 takes at once
_DIGITS = 32  # hex digits, 128 bits
_SEPARATOR = "\x1f"


@dataclass(frozen=True)
class PseudonymKey:
    """A secret with its version, which each pseudonym begins with, for one domain."""

    version: str
    secret: bytes = field(repr=False)
    domain: str

    def pseudonym(self, subject: str) -> str:
        """Of a subject as text, as DuckDB casts it to VARCHAR."""
        value = subject.encode()
        message = f"{self.domain}{_SEPARATOR}{len(value)}:".encode() + value
        return f"{self.version}_{hmac.new(self.secret, message, hashlib.sha256).hexdigest()[:_DIGITS]}"

    @property
    def suppressing(self) -> PseudonymKey:
        """The key of the list of suppressed subjects: what is on it must not be equal to what was erased."""
        return PseudonymKey(self.version, self.secret, f"{self.domain} suppressed")

    @property
    def check(self) -> str:
        """A value by which another secret under the same version is noticed; nobody can be looked up by it."""
        return hmac.new(self.secret, f"pip_dagster check{_SEPARATOR}{self.domain}".encode(), hashlib.sha256).hexdigest()

    @property
    def name(self) -> str:
        """Of its check value in `ledger.meta`."""
        return f"{META}:{self.domain}:{self.version}"

    def is_other(self, kept: Mapping[str, str]) -> bool:
        """Whether it is not the secret by which something is stored, by the check values by name.

        Who suppresses by a secret keeps its check value, except that of the local one, which nobody declares.
        """
        return kept.get(self.name, self.check if self.version == LOCAL else None) != self.check

    def sql(self, column: str) -> str:
        """SQL of the pseudonym of a column, with the parameters of `values`; NULL where that is NULL."""
        inner, outer = self._names
        value = f"{column}::VARCHAR"
        message = f"encode(concat({literal(self.domain)}, chr(31), strlen({value}), ':', {value}))"
        digest = f"sha256(${outer}::BLOB || unhex(sha256(${inner}::BLOB || {message})))"
        return f"CASE WHEN {column} IS NOT NULL THEN {literal(self.version + '_')} || left({digest}, {_DIGITS}) END"

    @property
    def values(self) -> Mapping[str, bytes]:
        """The parameters of `sql`."""
        key = self.secret if len(self.secret) <= _BLOCK else hashlib.sha256(self.secret).digest()
        padded = key.ljust(_BLOCK, b"\0")
        pads = (bytes(byte ^ pad for byte in padded) for pad in (0x36, 0x5C))
        return dict(zip(self._names, pads, strict=True))

    @property
    def _names(self) -> tuple[str, str]:
        return f"pip_inner_{self.version}", f"pip_outer_{self.version}"
