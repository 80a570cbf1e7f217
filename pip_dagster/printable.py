"""Text that may hold what a source's rows hold, for people: no character that a terminal or a page would obey."""

from __future__ import annotations

import re

# Control characters except tab and line feed, overrides of the direction of text, other line ends, lone surrogates.
_OBEYED = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str) -> str:
    """The text with every character that would be obeyed as an escape, such as `\\x1b`."""
    return _OBEYED.sub(lambda found: repr(found[0])[1:-1], text)
