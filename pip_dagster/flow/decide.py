"""Decisions: thresholds and business rules in SQL over the scored row. The raw score is always kept beside them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from pip_dagster.errors import DeclarationError
from pip_dagster.warehouse.names import quote

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from pip_dagster.spec import PipelineSpec


def carried_for_decisions(spec: PipelineSpec, columns: Mapping[str, str]) -> list[str]:
    """The feature columns that a decision mentions; kept beside the scores, so that a decision explains itself."""
    words = {word.strip('"') for text in spec.decisions.values() for word in re.findall(r'"(?:[^"]|"")*"|\w+', text)}
    return [name for name in columns if name in words]


def decided(spec: PipelineSpec, relation: str) -> str:
    """`relation` with a column for each decision; a later one may use an earlier one's."""
    for name, expression in spec.decisions.items():
        relation = f"(SELECT *, ({expression}\n) AS {quote(name)} FROM {relation})"
    return relation


def decision_types(con: DuckDBPyConnection, spec: PipelineSpec, scored: Mapping[str, str]) -> dict[str, str]:
    """The SQL type of each decision over rows with the columns `scored`.

    Raises:
        DeclarationError: an expression cannot be run, or is called like a column that is there.

    """
    import duckdb

    taken = {name.lower() for name in scored}
    if doubled := [name for name in spec.decisions if name.lower() in taken]:
        raise DeclarationError(
            f"Pipeline {spec.name}: decisions {doubled} have the name of a column of the scored row; rename them."
        )
    empty = "(SELECT " + ", ".join(f"NULL::{kind} AS {quote(name)}" for name, kind in scored.items()) + ")"
    try:
        rows = con.execute(f"DESCRIBE SELECT * FROM {decided(spec, empty)}").fetchall()
    except duckdb.Error as error:
        raise DeclarationError(
            f"Pipeline {spec.name}: a decision cannot be made: {error}\nExpected SQL over {', '.join(scored)}, "
            "for example `late: score >= 0.5`."
        ) from error
    found = {row[0]: row[1] for row in rows}
    return {name: found[name] for name in spec.decisions}
