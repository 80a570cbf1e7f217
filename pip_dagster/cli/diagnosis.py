"""What `pip-dagster doctor` finds: one line for each thing it looks at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "warning", "problem"]


@dataclass(frozen=True)
class Diagnosis:
    """One line: how it is, what was looked at, what was found, and what to do where something is wrong."""

    level: Level
    what: str
    text: str
    remedy: str = ""
