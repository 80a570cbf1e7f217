"""The time of records: this machine's clock, but never behind what is recorded already.

The order of records decides what is live. A clock that was set back must not change it, nor the clock of another
machine that is ahead. Whoever reads records calls `seen` with their newest instant; what is recorded next gets a later
one. This is a hybrid logical clock: without such a jump it is the wall clock.
"""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta

# No clock shows a later time; records are never moved behind one that claims to be.
LAST = datetime(9000, 1, 1, tzinfo=UTC)
# How an id begins: with the instant of its creation, so that ids sort by it.
OF_IDS = "%Y%m%dT%H%M%S%f"
_TICK = timedelta(microseconds=1)
# Clocks that are set by the network differ by less.
_APART = timedelta(minutes=5)
_lock = threading.Lock()
_latest = datetime.min.replace(tzinfo=UTC)


def wall() -> datetime:
    """This machine's clock."""
    return datetime.now(UTC)


def now() -> datetime:
    """The instant for a new record: later than every instant that was seen, or given before, in this process."""
    global _latest
    with _lock:
        _latest = max(wall(), _latest + _TICK)
        return _latest


def instant(micros: int) -> datetime:
    """The instant so many microseconds after 1970."""
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=micros)


def is_ahead(recorded: datetime, now: datetime) -> bool:
    """Whether a clock that was ahead recorded it: how long ago that was cannot be known."""
    return recorded > now + _APART


def seen(*instants: datetime | None) -> None:
    """Records of these instants exist. One that no clock shows is damage, and does not count."""
    global _latest
    with _lock:
        _latest = max(_latest, *(each for each in instants if each is not None and each < LAST), _latest)


def of_id(text: str) -> datetime | None:
    """The instant with which an id begins; None where it begins with none."""
    try:
        return datetime.strptime(text.partition("-")[0], OF_IDS).replace(tzinfo=UTC)
    except ValueError:
        return None
