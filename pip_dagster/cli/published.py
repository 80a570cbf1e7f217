"""Reading the published files for a command."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from pip_dagster.api.published import open_published, pipelines, rows_of

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

__all__ = ["check_pipeline", "open_published", "pipelines", "rows_of"]


def check_pipeline(con: DuckDBPyConnection, name: str) -> None:
    """Refuse the name of a pipeline without published partitions.

    Raises:
        click.ClickException: lists the pipelines that have some.
    """
    known = pipelines(con)
    if name not in known:
        listed = ", ".join(known) or "none"
        raise click.ClickException(f"No partition of a pipeline {name!r} is published; published pipelines: {listed}.")
