"""What a target gets of rows: which columns under which names, and which rows."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from pip_dagster.errors import DeclarationError
from pip_dagster.flow.scored_row import scored_columns
from pip_dagster.sql.names import quote
from pip_dagster.sql.row_sql import row_condition

if TYPE_CHECKING:
    from pip_dagster.declaration.deliver import DeclaredTarget
    from pip_dagster.declaration.pipeline import Pipeline
    from pip_dagster.registry.manifest import Manifest

KEY = "partition_key"
# What predictions have beside scored rows; name → SQL type.
_BESIDE = {
    **{"scoring_id": "VARCHAR", "model_name": "VARCHAR", "model_version": "BIGINT", "feature_revision": "VARCHAR"},
    **{"scored_at": "TIMESTAMP WITH TIME ZONE", "provisional": "BOOLEAN", "arm": "VARCHAR"},
}


def select_list(declared: DeclaredTarget, columns: Mapping[str, str], where: str) -> str:
    """SQL of what is selected from rows with these columns; `where` begins the error.

    Raises:
        DeclarationError: a declared column is not among them.
    """
    for _, error in lacking(declared, columns, where):
        raise error
    offered = {name.lower(): name for name in columns}
    wanted = {KEY: KEY} | (declared.columns or {name: name for name in columns})
    return ", ".join(f"{quote(offered[source.lower()])} AS {quote(name)}" for name, source in wanted.items())


def lacking(declared: DeclaredTarget, columns: Mapping[str, str], where: str) -> Iterator[tuple[str, DeclarationError]]:
    """Each declared column that is not among these: its name at the target, and the error."""
    offered = {name.lower() for name in columns}
    for name, source in (declared.columns or {}).items():
        if source.lower() not in offered:
            near = difflib.get_close_matches(source, columns, 1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            yield (
                name,
                DeclarationError(
                    f"{where}.columns names {source!r}, which is not a column of the predictions, which have "
                    f"{', '.join(columns)}{hint}"
                ),
            )


def condition(declared: DeclaredTarget, columns: Mapping[str, str], where: str) -> str:
    """SQL of which rows are selected, from WHERE on; empty for all.

    Raises:
        DeclarationError: it cannot be evaluated over these columns.
    """
    if declared.where is None:
        return ""
    return f" WHERE {row_condition(declared.where, columns, where=f'{where}.where', row='the predictions').sql}"


def undeliverable(
    pipeline: Pipeline, manifest: Manifest, columns: Mapping[str, str]
) -> Iterator[tuple[tuple[str, ...], DeclarationError]]:
    """What declared targets want that predictions from features with these columns lack, and where it is declared."""
    spec = pipeline.spec
    if not spec.deliver:
        return
    try:
        predictions = scored_columns(spec, manifest, columns) | _BESIDE
    except DeclarationError:  # which is no fault of a target
        return
    for name, declared in spec.deliver.items():
        where = f"Pipeline {spec.name}: deliver.{name}"
        for column, error in lacking(declared, predictions, where):
            yield ("deliver", name, "columns", column), error
        try:
            condition(declared, predictions, where)
        except DeclarationError as error:
            yield ("deliver", name, "where"), error
