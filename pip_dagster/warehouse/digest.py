"""Fingerprints of rows, order-free and additive, computed in DuckDB."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache

from pip_dagster.sql.names import literal, quote

# Identifies how a digest is computed, so that digests computed differently are never compared.
ALGORITHM = "dh1"
_DIGITS = 32


@dataclass(frozen=True)
class RowSet:
    """A multiset of rows by count, sum and xor of their 64-bit hashes.

    The sum sees a row that occurs twice, which the xor alone cancels (two equal rows equal none). Both add up
    over disjoint sets, so a window's fingerprint comes from those of its days.
    """

    rows: int = 0
    total: int = 0
    xor: int = 0

    def __add__(self, other: RowSet) -> RowSet:
        return RowSet(self.rows + other.rows, self.total + other.total, self.xor ^ other.xor)

    def __sub__(self, other: RowSet) -> RowSet:
        """The rows without `other`, all of whose rows are in this one."""
        return RowSet(self.rows - other.rows, self.total - other.total, self.xor ^ other.xor)

    def digest(self, columns: Mapping[str, str]) -> str:
        """A short text that differs when a row, a column's name or its type differs."""
        digest = _of_columns(tuple(columns.items())).copy()
        digest.update(f"{self.rows}|{self.total}|{self.xor}".encode())
        return f"{ALGORITHM}:{digest.hexdigest()[:_DIGITS]}"


@lru_cache(maxsize=64)
def _of_columns(columns: tuple[tuple[str, str], ...]) -> hashlib._Hash:
    """The start of a digest, computed once for thousands of partitions."""
    return hashlib.sha256(_begin(columns).encode())


def _begin(columns: tuple[tuple[str, str], ...]) -> str:
    return f"{ALGORITHM}|{list(columns)}|"


def digest_sql(columns: Mapping[str, str], rows: str, total: str, xor: str) -> str:
    """SQL of `RowSet.digest`, of three expressions."""
    content = f"concat({literal(_begin(tuple(columns.items())))}, {rows}, '|', {total}, '|', {xor})"
    return f"concat('{ALGORITHM}:', left(sha256({content}), {_DIGITS}))"


# SQL of a digest of hashed rows, h, whatever their order; of 64-bit hashes that DuckDB of another version may compute
# otherwise.
OF_HASHES = "md5(concat_ws('|', count(*), sum(h::HUGEINT), bit_xor(h)))"


def row_set_sql(columns: Iterable[str], key: str | None = None) -> str:
    """Three aggregates over the rows of a group: count, sum, xor. The hash is the same in DuckDB 1.3 to 2.0.

    `key`: the partition_key of all rows, which is hashed once then.
    """
    named = [literal(key) if key is not None and name == "partition_key" else quote(name) for name in columns]
    hashed = f"hash({', '.join(named)})"
    return f"count(*), coalesce(sum({hashed}::HUGEINT), 0), coalesce(bit_xor({hashed}), 0)"
