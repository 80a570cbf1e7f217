"""The rows that estimates are made of: live scored rows of some partitions, with or without their labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pip_dagster.errors import DeclarationError
from pip_dagster.flow.label_window import label_key_error, stage_labels
from pip_dagster.flow.stage import keep
from pip_dagster.ledger.estimates import StoredScoring
from pip_dagster.ledger.live_partitions import LivePartition
from pip_dagster.quoted import first
from pip_dagster.registry.composite import SEGMENT_COLUMN
from pip_dagster.registry.metric_spec import metric_spec
from pip_dagster.sql.names import among, quote, quote_all
from pip_dagster.warehouse.access import reading

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from pip_dagster.declaration.pipeline import Pipeline
    from pip_dagster.registry.manifest import Manifest
    from pip_dagster.statistics.metrics.spec import MetricSpec

# Rows of one chunk: in memory or spilled, whatever the partitions are.
CHUNK_PARTITIONS, _CHUNK_ROWS = 31, 1_000_000


@dataclass(frozen=True)
class Estimated:
    """What is estimated of a version: its metrics, and the column of which each value may have a calibrator of its own.

    `segment` is a feature, or the column of a composite that names the member; None without either.
    """

    spec: MetricSpec
    segment: str | None


def estimated_of(pipeline: Pipeline, manifest: Manifest, decisions: Sequence[str]) -> Estimated | str:
    """What is estimated of a version, or in words why nothing is."""
    spec = metric_spec(manifest, decisions=decisions)
    if spec is None or spec.quantiles or spec.kind in ("ranking", "survival"):
        what = "quantiles" if spec and spec.quantiles else f"{manifest.task} models with {manifest.objective}"
        return f"no estimator is known for {what}; labels show how good they are"
    if manifest.composite is not None and manifest.composite.routes:
        return Estimated(spec, SEGMENT_COLUMN)
    return Estimated(spec, pipeline.segments[0] if pipeline.segments else None)


def decisions_of(con: DuckDBPyConnection, pipeline: str) -> list[str]:
    """The BOOLEAN columns that the pipeline's scored rows have. The warehouse is the current catalog."""
    rows = con.execute(f"DESCRIBE {quote(pipeline)}.scores").fetchall()
    return [row[0] for row in rows if row[1] == "BOOLEAN"]


def chunks(scorings: Sequence[StoredScoring]) -> list[list[StoredScoring]]:
    """The scorings in order, as many in a list as are staged together."""
    found: list[list[StoredScoring]] = []
    rows = 0
    for each in scorings:
        if not found or len(found[-1]) == CHUNK_PARTITIONS or rows + each.rows > _CHUNK_ROWS:
            found.append([])
            rows = 0
        found[-1].append(each)
        rows += each.rows
    return found


def stage_scored(
    con: DuckDBPyConnection,
    pipeline: Pipeline,
    of: Estimated,
    scorings: Sequence[StoredScoring],
    *,
    keyed: bool = False,
) -> str:
    """The relation of their live rows: partition_key, scores, decisions and `pip_segment`; `keyed` adds the key.

    Raises:
        DeclarationError: the segment is no column of the stored features.
    """
    import duckdb

    name, key = pipeline.spec.name, pipeline.spec.features.key
    taken = dict.fromkeys(("partition_key", *(key if keyed else ()), *of.spec.scores, *of.spec.decisions))
    segment, join = "NULL", ""
    if of.segment == SEGMENT_COLUMN:
        segment = f"s.{quote(of.segment)}"
    elif of.segment is not None:
        segment = f"f.{quote(of.segment)}"
        revisions = among("revision", sorted({each.feature_revision for each in scorings}))
        join = (
            f"LEFT JOIN (SELECT * FROM {quote(name)}.features WHERE {revisions}) f "
            f"USING ({quote_all(['partition_key', *key])})"
        )
    keys = among("s.partition_key", [each.partition_key for each in scorings])
    ids = among("s.scoring_id", [each.scoring_id for each in scorings])
    columns = ", ".join("partition_key" if each == "partition_key" else f"s.{quote(each)}" for each in taken)
    select = (
        f"SELECT {columns}, {segment}::VARCHAR AS pip_segment FROM {quote(name)}.predictions s {join} "
        f"WHERE {keys} AND {ids}"
    )
    with reading(con, pipeline.project, purpose=f"{name}: reading scores to estimate"):
        try:
            return keep(con, "estimated", select)
        except duckdb.BinderException as error:
            raise DeclarationError(
                f"Pipeline {name}: scores cannot be read to estimate performance"
                + (f", by {of.segment!r}" if of.segment else "")
                + f": {first(error)} Set monitoring.estimates: false, or correct the segments."
            ) from error


def stage_labelled(
    con: DuckDBPyConnection,
    pipeline: Pipeline,
    manifest: Manifest,
    of: Estimated,
    scorings: Sequence[StoredScoring],
) -> str:
    """The relation of their live rows that have a label, with `pip_outcome`.

    Raises:
        DeclarationError: the labels' SQL cannot run, or its key cannot be compared.
        SourceError: a source cannot be read.
    """
    import duckdb

    live = [
        LivePartition(each.partition_key, each.partition_start, each.partition_end, each.scoring_id, "", each.rows)
        for each in scorings
    ]
    labels = stage_labels(con, pipeline, manifest, live)
    scored = stage_scored(con, pipeline, of, scorings, keyed=True)
    on = " AND ".join(f"l.{quote(name)} = s.{quote(name)}" for name in ("partition_key", *pipeline.label_key))
    try:
        return keep(con, "calibrating", f"SELECT s.*, l.pip_outcome FROM {scored} s JOIN {labels} l ON {on}")
    except duckdb.Error as error:
        raise label_key_error(pipeline, error) from error
