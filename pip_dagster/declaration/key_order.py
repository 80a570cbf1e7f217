"""Partition keys in the order of time.

Where the clocks repeat an hour, texts are in another order: 02:00+0100 comes after 02:55 and its text before.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from pip_dagster.declaration.grid import instant
from pip_dagster.sql.names import literal

if TYPE_CHECKING:
    from pip_dagster.declaration.spec import Partitions

_NEVER = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True)
class Between:
    """The partitions that begin from `first` to `last`, both included; None is an open end."""

    first: datetime | None = None
    last: datetime | None = None

    def has(self, start: datetime) -> bool:
        """Whether a partition that begins at this instant is among them."""
        return (self.first is None or self.first <= start) and (self.last is None or start <= self.last)

    def sql(self, column: str = "partition_start") -> str:
        """The same of a column with such instants, as a SQL condition."""
        bounds = ((f"{column} >=", self.first), (f"{column} <=", self.last))
        return " AND ".join(f"{of} {literal(at.isoformat())}::TIMESTAMPTZ" for of, at in bounds if at) or "TRUE"


def between(declared: Partitions, first: str | None, last: str | None) -> Between:
    """The partitions of a range whose ends are keys, dates or times; a date is the whole of it, None an open end.

    Raises:
        ValueError: a bound is none of them, or the last is before the first; the text says so.
    """
    found = Between(
        None if first is None else instant(declared, first),
        None if last is None else instant(declared, last, at_end=True),
    )
    if found.first and found.last and found.last < found.first:
        raise ValueError(f"no partition lies from {first} to {last}, which is earlier")
    return found


def start_of(declared: Partitions, key: str) -> datetime:
    """When the partition begins that a key names; before all others, if it is not the key of a partition."""
    try:
        at = datetime.fromisoformat(f"{key[:10]}T{key[11:]}" if len(key) > len("2024-03-01") else key)
    except ValueError:
        return _NEVER
    return (at if at.tzinfo else at.replace(tzinfo=declared.zone)).astimezone(UTC)


def in_order(declared: Partitions, keys: Iterable[str]) -> list[str]:
    """The keys in the order of time."""
    return sorted(keys, key=lambda key: (start_of(declared, key), key))
