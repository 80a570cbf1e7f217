"""Proof that features do not look into the future: built twice, from all rows and from those known at the time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from pip_dagster.declaration.partition import Partition
from pip_dagster.declaration.ranges import evenly
from pip_dagster.errors import DeclarationError
from pip_dagster.flow.engine import available_threads
from pip_dagster.flow.extract import close_of, known_by
from pip_dagster.flow.query import FeatureQuery
from pip_dagster.flow.reader import sources_alone
from pip_dagster.flow.stage import Stage, keep
from pip_dagster.ledger.record import dicts
from pip_dagster.privacy.suppressed import incoming
from pip_dagster.quoted import said
from pip_dagster.sql.names import literal, quote, quote_all
from pip_dagster.sql.row_sql import row_instant
from pip_dagster.warehouse.connect import workspace

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from pip_dagster.declaration.pipeline import Pipeline
    from pip_dagster.declaration.spec import PipelineSpec, Source

_EXAMPLES = 3
# Sums of the same numbers in another order may differ in their last bits.
_TOLERANCE = "1e-9"


@dataclass(frozen=True)
class Leak:
    """A feature whose value in some rows came from data that was not yet available, with examples."""

    feature: str
    rows: int
    examples: tuple[dict[str, Any], ...]


@dataclass(frozen=True)
class Proof:
    """What was compared, and the features that leak; the proof holds if there are none."""

    pipeline: str
    partition: str
    rows: int
    cutoffs: int
    cutoffs_tried: int
    limited_sources: tuple[str, ...]
    unlimited_sources: tuple[str, ...]
    leaks: tuple[Leak, ...]


def prove(
    pipeline: Pipeline,
    partition: Partition,
    *,
    sql: str | None = None,
    most_cutoffs: int = 100,
    as_known: bool = False,
) -> Proof:
    """Compare the partition's features with those built from the rows known at each row's cut-off.

    The SQL runs once for each cut-off, and builds the rows that have it. At most `most_cutoffs` are tried, evenly
    spaced. `sql` replaces the pipeline's own. `as_known`: compare with the features as known at the partition's close
    instead of those from all rows; only a declared cut-off can then show a difference.

    Raises:
        DeclarationError: no source declares when its rows are available, or the SQL or the cut-off cannot run.
        SourceError: a source cannot be read.
    """
    import duckdb

    spec, root = pipeline.spec, pipeline.project.root
    limited = tuple(name for name, source in spec.sources.items() if source.available_at)
    if not limited:
        raise DeclarationError(
            f"Pipeline {spec.name}: no source declares `available_at`, so nothing can be hidden and nothing proven. "
            "For each source that grows, declare when a row became known, for example `available_at: loaded_at`."
        )
    with workspace(threads=available_threads()) as con:
        stage = Stage(con)
        close = known_by(close_of(spec, partition)) if as_known else None
        with sources_alone(con, spec, root, known_at=close) as own:
            query = FeatureQuery.parse(own, spec, sql or pipeline.sql, partition, incoming(pipeline))
            stage.begin(query.columns)
            query.fill(own, stage, [partition])
        stage.arrive()
        cutoff = _cutoff(spec, partition, query.columns)
        try:
            made = keep(con, "from_all", f"SELECT *, {cutoff} AS pip_cutoff FROM {stage.features}")
        except duckdb.Error as error:
            raise DeclarationError(
                f"Pipeline {spec.name}: features.cutoff {spec.features.cutoff!r} fails on a row: {said(error)}"
            ) from error
        known = keep(con, "from_known", f"FROM {made} LIMIT 0")
        found = con.execute(f"SELECT DISTINCT pip_cutoff FROM {made} ORDER BY pip_cutoff").fetchall()
        cutoffs: list[datetime] = [row[0] for row in found if row[0] is not None]
        if len(cutoffs) < len(found):
            raise DeclarationError(
                f"Pipeline {spec.name}: features.cutoff {spec.features.cutoff!r} is NULL for some rows."
            )
        tried = evenly(cutoffs, most_cutoffs)
        for at in tried:
            # A declared cut-off is an exact instant; a partition's close allows for the time that a source takes.
            known_at = partial(_exactly, at) if spec.features.cutoff else known_by(at)
            with sources_alone(con, spec, root, known_at=known_at) as own:
                stage.begin(query.columns)
                query.fill(own, stage, [partition])
            stage.arrive()
            con.execute(
                f"INSERT INTO {known} SELECT s.*, a.pip_cutoff FROM {stage.features} s "
                f"JOIN {made} a USING ({quote_all(spec.features.key)}) WHERE a.pip_cutoff = $at",
                {"at": at},
            )
        con.execute(f"DELETE FROM {made} WHERE NOT list_contains($tried, pip_cutoff)", {"tried": tried})
        rows = con.execute(f"SELECT count(*) FROM {made}").fetchone()
        leaks = tuple(
            leak
            for name, sql_type in query.columns.items()
            if name not in spec.features.key
            and (leak := _compare(con, made, known, spec.features.key, (name, sql_type)))
        )
    unlimited = tuple(name for name in spec.sources if name not in limited)
    return Proof(
        *(spec.name, partition.key, rows[0] if rows else 0, len(cutoffs), len(tried), limited, unlimited, leaks)
    )


def _exactly(at: datetime, source: Source) -> datetime:
    return at


def _cutoff(spec: PipelineSpec, partition: Partition, columns: Mapping[str, str]) -> str:
    """SQL of each row's cut-off, over the feature columns."""
    if spec.features.cutoff is None:
        return f"{literal(close_of(spec, partition).isoformat())}::TIMESTAMPTZ"
    where = f"Pipeline {spec.name}: features.cutoff"
    zone = spec.partitions.time_zone
    return row_instant(spec.features.cutoff, columns, where=where, row="the features", time_zone=zone)


def _compare(
    con: DuckDBPyConnection, made: str, known: str, key: Sequence[str], column: tuple[str, str]
) -> Leak | None:
    """The rows in which a column differs; a row that is missing from the known ones differs in every column."""
    name, sql_type = column
    a, k = f"a.{quote(name)}", f"k.{quote(name)}"
    differs = f"{a} IS DISTINCT FROM {k}"
    if sql_type in ("FLOAT", "DOUBLE"):
        differs = f"({differs}) AND coalesce(abs({a} - {k}) > {_TOLERANCE} * greatest(abs({a}), abs({k})), true)"
    joined = f"FROM {made} a LEFT JOIN {known} k USING ({quote_all(key)}) WHERE {differs}"
    counted = con.execute(f"SELECT count(*) {joined}").fetchone()
    if not counted or not counted[0]:
        return None
    result = con.execute(
        f"SELECT {quote_all(key)}, a.pip_cutoff AS cutoff, {a} AS from_all_rows, {k} AS from_known_rows {joined} "
        f"ORDER BY {quote_all(key)} LIMIT {_EXAMPLES}"
    )
    return Leak(name, counted[0], tuple(dicts(result)))
