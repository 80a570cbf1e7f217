"""Erasures and purges that were begun and not finished, or that no anchor vouches for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from pip_dagster.ledger.record import dicts

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

ANCHOR = "anchor"  # the last step, behind the certificate
_UNFINISHED = f"""
  SELECT e.erasure_id, any_value(kind) AS kind, arg_max(pipelines, e.made_at) AS pipelines,
         arg_max(why, e.made_at) AS why, min(e.made_at) AS began,
         coalesce(any_value(s.places), []) AS places, arg_max(state, e.made_at) = 'done' AS lacks_anchor
  FROM ledger.erasures e LEFT JOIN (
    SELECT erasure_id, list(place ORDER BY made_at) AS places FROM ledger.erasure_steps GROUP BY 1
  ) s ON s.erasure_id = e.erasure_id
  WHERE kind IN ('erase', 'purge') GROUP BY 1
  HAVING arg_max(state, e.made_at) = 'running'
      OR ({{anchored}} AND lacks_anchor AND NOT list_contains(places, '{ANCHOR}'))
  ORDER BY 1
"""


@dataclass(frozen=True)
class Unfinished:
    """An erasure or a purge, with the places that are done; `lacks_anchor`: all are, and nobody vouched for it."""

    erasure_id: str
    kind: str
    pipelines: Sequence[str]
    why: str
    began: datetime
    places: Sequence[str]
    lacks_anchor: bool


def unfinished(con: DuckDBPyConnection, *, anchored: bool) -> list[Unfinished]:
    """Oldest first; `anchored`: anchors are declared. The warehouse is the current catalog."""
    return [Unfinished(**row) for row in dicts(con.execute(_UNFINISHED.format(anchored=anchored)))]
