"""Decisions: thresholds and business rules in SQL over the scored row. The raw score is always kept beside them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from pip_dagster.errors import DeclarationError
from pip_dagster.sql.names import PREDICTION_COLUMNS, RESERVED_COLUMNS, quote

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from pip_dagster.declaration.spec import PipelineSpec


def carried_for_decisions(spec: PipelineSpec, columns: Mapping[str, str]) -> list[str]:
    """The feature columns that a decision mentions; kept beside the scores, so that a decision explains itself."""
    found = (word for text in spec.decisions.values() for word in re.findall(r'"(?:[^"]|"")*"|\w+', text))
    words = {word.strip('"').replace('""', '"').lower() for word in found}
    return [name for name in columns if name.lower() in words]


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

    taken = {name.lower() for name in scored} | RESERVED_COLUMNS | PREDICTION_COLUMNS
    if doubled := [name for name in spec.decisions if name.lower() in taken]:
        raise DeclarationError(
            f"Pipeline {spec.name}: decisions {doubled} have the name of a column of the scored row; rename them."
        )
    for name, expression in spec.decisions.items():
        if wrong := _depends_on_more_than_the_row(con, expression):
            raise DeclarationError(
                f"Pipeline {spec.name}: decision {name!r} uses {wrong}: what it gives would depend on which rows are "
                "scored together, or when. Make it in the feature SQL."
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


def _depends_on_more_than_the_row(con: DuckDBPyConnection, expression: str) -> str | None:
    """A window, or a function that is not the same each time, in an expression; None where there is neither."""
    row = con.execute("SELECT json_serialize_sql('SELECT ' || $text)", {"text": f"({expression}\n)"}).fetchone()
    tree = row[0] if row else ""
    if '"class":"WINDOW"' in tree:
        return "a window function"
    names = sorted(set(re.findall(r'"function_name":"([^"]+)"', tree)))
    unstable = con.execute(
        "SELECT DISTINCT function_name FROM duckdb_functions() "
        "WHERE list_contains($names, function_name) AND stability <> 'CONSISTENT' ORDER BY 1",
        {"names": names},
    ).fetchall()
    return f"{unstable[0][0]}()" if unstable else None
