"""A line of the mean score over the partitions, as metadata.

Dagster plots the metadata of the newest 120 partitions before now, so nothing where the grid has ended long ago.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from contextlib import suppress
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
# The page shows 340 pixels, and no text of 1,000 characters or more without a click.
_WIDTH, _HEIGHT, _MOST = 340, 80, 60


def mean_scores(pipeline: Pipeline) -> dict[str, Any]:
    """The picture, where the grid has ended and two partitions or more are live; nothing if it cannot be read soon."""
    end = grid_end(pipeline.spec.partitions)
    if end is None or end > clock.wall():
        return {}
    with suppress(Exception), waiting_at_most(2), workspace(threads=1) as con:
        with reading(con, pipeline.project, purpose="drawing the mean scores"):
            points = con.execute(_NEWEST, {"pipeline": pipeline.spec.name}).fetchall()[::-1]
        if len(points) > 1:
            return {"mean score over partitions": dg.MetadataValue.md(drawn(points))}
    return {}


def drawn(points: Sequence[tuple[str, float]]) -> str:
    """Markdown with a line of values by partition, in order; of many, of the means of neighbors."""
    size = -(-len(points) // _MOST)
    groups = [[value for _, value in points[at : at + size]] for at in range(0, len(points), size)]
    values = [sum(group) / len(group) for group in groups]
    low, high = min(values), max(values)
    across, room = _WIDTH / max(len(values) - 1, 1), (high - low) or 1.0
    places = (f"{i * across:.0f} {2 + (high - value) / room * (_HEIGHT - 4):.0f}" for i, value in enumerate(values))
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{_HEIGHT}">'
        f'<polyline points="{" ".join(places)}" fill="none" stroke="#4f43dd"/></svg>'
    )
    picture = base64.b64encode(svg.encode()).decode()
    between = f"{points[0][0]} to {points[-1][0]}: {low:.3g} to {high:.3g}"
    return f"{between}\n\n![mean score](data:image/svg+xml;base64,{picture})"
