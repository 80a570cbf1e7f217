"""Durations as people write them."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated, Literal

from pydantic import BeforeValidator

from pip_dagster.plural import plural

_LONGEST = timedelta(days=36_500)  # subtracting centuries from a date leaves the range of dates
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
    elif isinstance(value, (int, float)) and value:  # pydantic takes it as seconds; who writes `lookback: 28`, as days
        raise ValueError(f"{value!r} has no unit; expected for example '{value} days' or '{value} minutes'")
    if isinstance(value, timedelta) and value > _LONGEST:
        raise ValueError(f"'{value.days} days' is too long; expected at most '{_LONGEST.days} days'")
    return value


Duration = Annotated[timedelta, BeforeValidator(_duration, json_schema_input_type=str | Literal[0])]


def doubled(wait: timedelta, times: int) -> timedelta:
    """The wait after that many doublings, capped so that adding it to a date stays in range."""
    if wait and 2 ** min(times, 64) > _LONGEST / wait:
        return _LONGEST
    return wait * 2**times


def as_declared(duration: timedelta) -> str:
    """A duration as one declares it: `28 days`, `90 minutes`."""
    for unit in ("day", "hour", "minute"):
        if not duration % timedelta(**{unit + "s": 1}):
            return plural(duration // timedelta(**{unit + "s": 1}), unit)
    return plural(duration // timedelta(seconds=1), "second")
