"""What became of one partition in a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from pip_dagster.declaration.partition import Partition
from pip_dagster.ledger.arms import Arm
from pip_dagster.ledger.checks import CheckEntry
from pip_dagster.ledger.record import ExtractionEntry, ScoringEntry


@dataclass(frozen=True)
class Refusal:
    """Why an arm's version did not score; `transient`: something went wrong, rather than that it is not meant to."""

    text: str
    transient: bool


@dataclass(frozen=True)
class PartitionResult:
    """A partition's features, its scoring, or why not.

    `reused`: the same scoring was there and nothing was scored. `columns`: the scored rows' SQL types by name.
    `challengers`: what other versions scored beside it, whatever came of that. `arms`: the same by the alias of an arm,
    and `refused`: arm → why its version could not even try. `live_arms`: the buckets of a partition that is split.
    """

    partition: Partition
    features: ExtractionEntry | None = None
    scoring: ScoringEntry | None = None
    reused: bool = False
    error: str | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    checks: tuple[CheckEntry, ...] = ()
    challengers: tuple[ScoringEntry, ...] = ()
    arms: Mapping[str, ScoringEntry] = field(default_factory=dict)
    refused: Mapping[str, Refusal] = field(default_factory=dict)
    live_arms: tuple[Arm, ...] = ()
