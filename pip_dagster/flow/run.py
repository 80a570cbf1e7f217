"""What every part of a run needs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pip_dagster.ledger.record import RunInfo, ScoringEntry

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from pip_dagster.declaration.pipeline import Pipeline
    from pip_dagster.flow.distributed.cluster import Cluster
    from pip_dagster.privacy.suppressed import Incoming
    from pip_dagster.registry.version import ModelVersion

    Stored = Callable[[DuckDBPyConnection, ModelVersion, Sequence[ScoringEntry]], None]


@dataclass(frozen=True)
class Run:
    """The connection that a run works on, its pipeline, who requested it and why, and where it reports progress.

    `allow_fewer_rows`: whether a person accepts partitions with far fewer rows than before. `as_known`: whether
    features are built from the rows that were known at each partition's close. `stored` is called with the champion's
    scorings of each transaction, right after it, while the warehouse is open. `cluster`: where it extracts and scores,
    if not in its own process. `people`: what happened to their rows when the run began, where the pipeline declares
    `privacy`.
    """

    con: DuckDBPyConnection
    pipeline: Pipeline
    info: RunInfo
    progress: Callable[[str], None]
    allow_fewer_rows: bool = False
    as_known: bool = False
    stored: Stored | None = None
    cluster: Cluster | None = None
    people: Incoming | None = None
