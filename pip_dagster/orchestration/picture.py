"""A line of the mean score over the partitions, as metadata.

Dagster plots the metadata of the newest 120 partitions before now, so nothing where the grid has ended long ago.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from contextlib import suppress
from html import escape
from typing import TYPE_CHECKING, Any

import dagster as dg

from pip_dagster import clock
from pip_dagster.declaration.grid import grid_end
from pip_dagster.warehouse.access import reading
from pip_dagster.warehouse.connect import workspace
from pip_dagster.warehouse.lock import waiting_at_most

if TYPE_CHECKING:
    from pip_dagster.declaration.pipeline import Pipeline

_LAST = 400  # a year of days
_NEWEST = (
    "SELECT s.partition_key, s.mean_score FROM ledger.scorings s JOIN ledger.live l "
    "USING (pipeline, partition_key, scoring_id) WHERE s.pipeline = $pipeline AND s.mean_score IS NOT NULL "
    f"ORDER BY s.partition_start DESC LIMIT {_LAST}"
)
# The page shows 340 pixels, and clips what is wider.
_WIDTH, _HEIGHT, _LEFT, _TOP, _BOTTOM = 340, 120, 46, 8, 22


def mean_scores(pipeline: Pipeline) -> dict[str, Any]:
    """The picture, where the grid has ended and two partitions or more are live; nothing if it cannot be read soon."""
    end = grid_end(pipeline.spec.partitions)
    if end is None or end > clock.wall():
        return {}
    with suppress(Exception), waiting_at_most(2), workspace(threads=1) as con:
        with reading(con, pipeline.project, purpose="drawing the mean scores"):
            points = con.execute(_NEWEST, {"pipeline": pipeline.spec.name}).fetchall()[::-1]
        if len(points) > 1:
            svg = base64.b64encode(drawn(points).encode()).decode()
            return {
                "mean score over partitions": dg.MetadataValue.md(f"![mean score](data:image/svg+xml;base64,{svg})")
            }
    return {}


def drawn(points: Sequence[tuple[str, float]]) -> str:
    """An SVG of values by partition, in order."""
    values = [value for _, value in points]
    low, high = min(values), max(values)
    room = (high - low) or 1.0
    across, down = (_WIDTH - _LEFT - 6) / (len(points) - 1), _HEIGHT - _TOP - _BOTTOM
    places = [f"{_LEFT + i * across:.1f},{_TOP + (high - value) / room * down:.1f}" for i, value in enumerate(values)]
    text = 'font-family="sans-serif" font-size="10" fill="#5f6b7a"'
    first, last = escape(points[0][0]), escape(points[-1][0])
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{_HEIGHT}">'
        f'<path d="M{_LEFT} {_TOP}V{_TOP + down}H{_WIDTH - 6}" fill="none" stroke="#c5ccd6"/>'
        f'<polyline points="{" ".join(places)}" fill="none" stroke="#4f43dd" stroke-width="1.5"/>'
        f'<text x="{_LEFT - 4}" y="{_TOP + 8}" text-anchor="end" {text}>{high:.3g}</text>'
        f'<text x="{_LEFT - 4}" y="{_TOP + down}" text-anchor="end" {text}>{low:.3g}</text>'
        f'<text x="{_LEFT}" y="{_HEIGHT - 6}" {text}>{first}</text>'
        f'<text x="{_WIDTH - 6}" y="{_HEIGHT - 6}" text-anchor="end" {text}>{last}</text></svg>'
    )
