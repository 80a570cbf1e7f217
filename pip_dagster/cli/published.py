"""Reading the published files for a command."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from pip_dagster.api.published import open_published, pipelines, rows_of

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

__all__ = ["check_partitions", "check_pipeline", "open_published", "pipelines", "rows_of"]

_KEYS = "SELECT DISTINCT partition_key FROM ledger.partitions WHERE pipeline = $pipeline"


def check_pipeline(con: DuckDBPyConnection, name: str) -> None:
    """Refuse the name of a pipeline without published partitions.

    Raises:
        click.ClickException: lists the pipelines that have some.
    """
    known = pipelines(con)
    if name not in known:
        listed = ", ".join(known) or "none"
        raise click.ClickException(f"No partition of a pipeline {name!r} is published; published pipelines: {listed}.")


def check_partitions(con: DuckDBPyConnection, pipeline: str, first: str, last: str) -> None:
    """Refuse a range of keys that has none of a pipeline's published partitions.

    Raises:
        click.ClickException: says from where to where it has some.
    """
    keys = sorted(row["partition_key"] for row in rows_of(con, _KEYS, {"pipeline": pipeline}))
    if not any(first <= key <= last for key in keys):
        raise click.ClickException(
            f"No partition of pipeline {pipeline} in this range is published; it has {keys[0]} to {keys[-1]}. "
            f"`pip-dagster plan {pipeline}` lists what is stale."
        )
