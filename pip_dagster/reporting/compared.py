"""Two versions, or two arms, of a pipeline side by side."""

from __future__ import annotations

from dataclasses import dataclass

from pip_dagster.reporting.content import Distribution, Figure, Origin


@dataclass(frozen=True)
class Comparison:
    """The content of the page of a comparison."""

    schema: str
    pipeline: str
    origin: Origin
    scores: tuple[Distribution, ...] = ()
    difference: Figure = None
