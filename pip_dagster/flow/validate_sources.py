"""Expectations on the source tables: judged on each partition's own rows while the sources are open."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pip_dagster.declaration.partition import Partition
from pip_dagster.flow.sources import columns_of, local_time, rows_of, view_of
from pip_dagster.flow.stage import keep, partition_grid
from pip_dagster.flow.validate import Validation, Verdicts, blocking_reason, validate
from pip_dagster.quality.suite import check_columns
from pip_dagster.sql.names import quote

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from pip_dagster.declaration.pipeline import Pipeline

WHOLE = ""  # the partition of a table that has none


def validate_sources(con: DuckDBPyConnection, pipeline: Pipeline, partitions: Sequence[Partition]) -> Validation:
    """Judge each source with expectations on the rows whose partition column lies in the partition, without lookback.

    A source without a partition column is judged once, and its verdicts hold for every partition. Inside
    `open_sources`.

    Raises:
        SuiteError: an expectation is on a column that is not there.
    """
    spec = pipeline.spec
    verdicts: dict[str, Verdicts] = {partition.key: () for partition in partitions}
    grid = partition_grid(con, "TIMESTAMP", [(p.key, p.start_local, p.end_local) for p in partitions])
    for name, expectations in pipeline.suites.sources.items():
        source = spec.sources[name]
        columns = columns_of(con, source)
        check_columns(expectations, columns)
        expectations = tuple(each.on(columns) for each in expectations)
        local = None
        if source.partition_column:
            column = f"s.{quote(source.partition_column)}"
            local = local_time(columns[source.partition_column], column, spec.partitions.time_zone)
        # No more columns than are judged, and the partition column to name a row by.
        needed = {c for e in expectations for c in e.columns} | {source.partition_column or next(iter(columns))}
        kept = {column: kind for column, kind in columns.items() if column in needed}
        listed = "".join(f", s.{quote(column)}" for column in kept)
        select = f"{listed} FROM {view_of(source)} s"
        if local:
            select = f"SELECT p.partition_key{select} JOIN {grid} p ON {local} >= p.first AND {local} < p.last"
        else:
            select = f"SELECT '{WHOLE}' AS partition_key{select}"
        with rows_of(spec, name, source):
            rows = keep(con, "source_rows", select)
        keys = [partition.key for partition in partitions] if local else [WHOLE]
        found = validate(con, pipeline, expectations, rows, kept, keys)
        for key in verdicts:
            verdicts[key] += found.verdicts[key if local else WHOLE]
        con.execute(f"DROP TABLE {rows}")
    blocked = {key: reason for key, of in verdicts.items() if (reason := blocking_reason(of, rows_quarantined=False))}
    return Validation(verdicts, blocked)
