"""Reading the published files for a command."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import click

from pip_dagster.api.published import open_published, pipelines, rows_of
from pip_dagster.declaration.find import find_pipeline
from pip_dagster.declaration.key_order import start_of
from pip_dagster.errors import DeclarationError

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from pip_dagster.cli.selection import Selection
    from pip_dagster.declaration.project import Project
    from pip_dagster.declaration.spec import Partitions

__all__ = ["check_pipeline", "named_keys", "open_published", "pipelines", "rows_of", "starts_of"]

_KEYS = (
    "SELECT partition_key, epoch_us(max(partition_start)) AS start FROM ledger.partitions WHERE pipeline = $pipeline "
    "GROUP BY partition_key ORDER BY start"
)
_EPOCH = datetime.fromtimestamp(0, UTC)


def check_pipeline(con: DuckDBPyConnection, name: str) -> None:
    """Refuse the name of a pipeline without published partitions.

    Raises:
        click.ClickException: lists the pipelines that have some.
    """
    known = pipelines(con)
    if name not in known:
        listed = ", ".join(known) or "none"
        raise click.ClickException(f"No partition of a pipeline {name!r} is published; published pipelines: {listed}.")


def starts_of(con: DuckDBPyConnection, pipeline: str) -> dict[str, datetime]:
    """Partition → when it begins, of all that are published, in the order of time."""
    rows = rows_of(con, _KEYS, {"pipeline": pipeline})
    return {row["partition_key"]: _EPOCH + timedelta(microseconds=row["start"]) for row in rows}


def named_keys(
    project: Project,
    pipeline: str,
    selected: Selection,
    published: Mapping[str, datetime],
    pending: Sequence[str] = (),
) -> list[str]:
    """Those of the partitions that a command names, in the order of time; `published`: partition → when it begins.

    Raises:
        click.ClickException: there are none.
        DeclarationError: a bound is no key.
    """
    grid = _grid(project, pipeline)
    starts = dict(published)
    for key in pending:
        if grid and key not in starts:
            starts[key] = start_of(grid, key)
    ordered = sorted(starts, key=starts.__getitem__)
    ranges = selected.between(pipeline, grid, starts)
    found = [key for key in ordered if any(each.has(starts[key]) for each in ranges)]
    if not found:
        known = f"{ordered[0]} to {ordered[-1]}" if ordered else "none"
        raise click.ClickException(
            f"Pipeline {pipeline} has no attempt at any of these partitions; it has {known}. "
            f"`pip-dagster plan {pipeline}` lists what is stale."
        )
    return found


def _grid(project: Project, pipeline: str) -> Partitions | None:
    """The declared grid; None where the pipeline is no longer declared, or not valid: what is published stays."""
    try:
        return find_pipeline(project, pipeline).spec.partitions
    except DeclarationError:
        return None
