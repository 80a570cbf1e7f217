"""Durations as people write them."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated

from pydantic import BeforeValidator

_DURATION = re.compile(r"^\s*(\d+)\s*(second|minute|hour|day|week)s?\s*$")


def _duration(value: object) -> object:
    if isinstance(value, str):
        match = _DURATION.match(value)
        if not match:
            raise ValueError(f"{value!r} is not a duration; expected for example '28 days' or '6 hours'")
        return timedelta(**{match[2] + "s": int(match[1])})
    return value


Duration = Annotated[timedelta, BeforeValidator(_duration)]
