"""Which partitions a schedule's tick requests: those that just closed, and the missed ones before them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime

from pip_dagster.declaration.partition import Partition


@dataclass(frozen=True)
class Closed:
    """A partition and the instant from which it can be built."""

    partition: Partition
    at: datetime


def requested_at(
    closed: Sequence[Closed],
    previous_tick: datetime,
    *,
    catch_up: int,
    requested: Collection[str],
    built: Collection[str],
    over: bool = False,
) -> list[Partition]:
    """What a tick requests, in the order of time.

    `closed` are the partitions that can be built at the tick, in order. Those that closed after the schedule's previous
    tick by the clock are requested, whether or not that tick happened. Of the `catch_up` before them, those that are
    not `built` and that no earlier tick has `requested`. Where none closed since, the newest is requested again, unless
    the grid is `over`: a schedule may tick several times a partition, to score what came in.
    """
    new = [each.partition for each in closed if each.at > previous_tick]
    older = [each.partition for each in closed[: len(closed) - len(new)]]
    missed = [each for each in older[-catch_up:] if each.key not in built] if catch_up else []
    wanted = [each for each in (*missed, *new) if each.key not in requested]
    if closed and not new and not over and closed[-1].partition not in wanted:
        wanted.append(closed[-1].partition)
    return wanted
