"""Durations as people write them."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated

from pydantic import BeforeValidator

_LONGEST = timedelta(days=36_500)  # a date less some centuries is no date any more
_DURATION = re.compile(r"^\s*(\d+)\s*(second|minute|hour|day|week)s?\s*$")


def _duration(value: object) -> object:
    if isinstance(value, str):
        match = _DURATION.match(value)
        if not match:
            raise ValueError(f"{value!r} is not a duration; expected for example '28 days' or '6 hours'")
        try:
            value = timedelta(**{match[2] + "s": int(match[1])})
        except OverflowError:
            raise ValueError(f"{value!r} is too long; expected at most '{_LONGEST.days} days'") from None
    elif isinstance(value, (int, float)) and value:  # of seconds, to pydantic; of days, to whoever reads `lookback: 28`
        raise ValueError(f"{value!r} has no unit; expected for example '{value} days' or '{value} minutes'")
    if isinstance(value, timedelta) and value > _LONGEST:
        raise ValueError(f"{value.days} days are too long; expected at most '{_LONGEST.days} days'")
    return value


Duration = Annotated[timedelta, BeforeValidator(_duration)]


def doubled(wait: timedelta, times: int) -> timedelta:
    """The wait after so many doublings; ever longer, yet never so long that no date lies that far."""
    if wait and 2 ** min(times, 64) > _LONGEST / wait:
        return _LONGEST
    return wait * 2**times
