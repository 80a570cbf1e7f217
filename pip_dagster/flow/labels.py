"""How many rows of each partition have a label by now."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pip_dagster.declaration.partition import Partition
from pip_dagster.errors import DeclarationError, NoWarehouseError, OlderWarehouseError
from pip_dagster.flow.label_query import label_query
from pip_dagster.flow.query import sql_bounds
from pip_dagster.flow.reader import sources_alone
from pip_dagster.ledger.lost_rows import lost_rows
from pip_dagster.ledger.performance import live_parts
from pip_dagster.quoted import said
from pip_dagster.sql.names import quote
from pip_dagster.warehouse.access import reading
from pip_dagster.warehouse.connect import workspace
from pip_dagster.warehouse.digest import row_set_sql

if TYPE_CHECKING:
    from pip_dagster.declaration.pipeline import Pipeline


@dataclass(frozen=True)
class LabelSet:
    """A partition's labelled rows: their number, and a digest of keys and outcomes."""

    rows: int
    digest: str


def live_bases(pipeline: Pipeline, keys: Sequence[str]) -> dict[str, str]:
    """Each of these partitions that is live → what decides whose rows are, as `Part.basis`; of a split, every arm.

    And the erasure after which they are others.

    Raises:
        WarehouseError: the warehouse is locked, or cannot be read.
    """
    found: dict[str, list[str]] = {}
    with workspace(threads=1) as con:
        try:
            with reading(con, pipeline.project, purpose=f"{pipeline.spec.name}: reading the ledger"):
                lost = lost_rows(con, pipeline.spec.name)
                for part in live_parts(con, pipeline.spec.name, keys):
                    scoring = part.live.scoring_id
                    named = (part.basis, scoring, *([lost[scoring]] if scoring in lost else []))
                    found.setdefault(part.live.key, []).append(":".join(named))
        except (NoWarehouseError, OlderWarehouseError):
            return {}
    return {key: ",".join(dict.fromkeys(listed)) for key, listed in found.items()}


def label_sets(pipeline: Pipeline, partitions: Sequence[Partition]) -> dict[str, LabelSet]:
    """Partition → its labels, for those that have any; the sources are open for reading as long as that takes.

    Raises:
        DeclarationError: the labels' SQL cannot run.
        SourceError: a source cannot be read.
    """
    import duckdb

    labels = pipeline.labels
    assert labels and pipeline.labels_sql is not None
    columns = (*pipeline.label_key, labels.outcome)
    found: dict[str, LabelSet] = {}
    with workspace(threads=1) as outer, sources_alone(outer, pipeline.spec, pipeline.project.root) as con:
        try:
            sql, of_people, _ = label_query(con, pipeline)
            wanted = con.extract_statements(sql)[0].named_parameters
            for partition in partitions:
                row = con.execute(
                    f"SELECT {row_set_sql(columns)} FROM (\n{sql}\n) WHERE {quote(labels.outcome)} IS NOT NULL",
                    {name: value for name, value in sql_bounds([partition]).items() if name in wanted} | {**of_people},
                ).fetchone()
                if row and row[0]:
                    found[partition.key] = LabelSet(row[0], f"{row[0]}:{row[1] % 2**32:08x}{row[2] % 2**32:08x}")
        except (duckdb.Error, IndexError) as error:
            raise DeclarationError(f"Pipeline {pipeline.spec.name}, {labels.sql}: {said(error)}") from error
    return found
