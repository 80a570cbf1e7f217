"""The base of every declared block, and the types that several blocks share."""

from __future__ import annotations

import re
from typing import Annotated
from zoneinfo import available_timezones

from pydantic import AfterValidator, BaseModel, ConfigDict


class StrictModel(BaseModel):
    """A declared block: immutable, and a key that it does not know is an error."""

    # An error does not print what was declared: it may be a misplaced secret.
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


def _identifier(value: str) -> str:
    if not re.fullmatch(r"[a-z][a-z0-9_]{0,62}", value):
        raise ValueError(
            f"{value!r} is not a valid name; expected lower-case letters, digits and _, starting with a letter"
        )
    return value


def _time_zone(value: str) -> str:
    if value not in available_timezones():
        raise ValueError(f"{value!r} is not an IANA time zone; expected for example 'Europe/Berlin' or 'UTC'")
    return value


Identifier = Annotated[str, AfterValidator(_identifier)]
TimeZone = Annotated[str, AfterValidator(_time_zone)]
