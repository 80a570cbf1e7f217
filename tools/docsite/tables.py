"""The page of the warehouse's tables, from an empty warehouse of the current schema and tools/docsite/tables.yaml."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from tools.docsite.markdown import cell, table

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from pip_dagster.warehouse.kinds import Kind

HEAD = """# Tables

For whoever queries the published database, or looks into a warehouse: every table and view with its columns, generated
from `warehouse/kinds.py` and the schema. [Reading](../reading.md) says how to open them.

**Published** tables are in `data/published.duckdb`, which anybody may read at any time. A view appears there once it
has rows. The others are only in the warehouse, which one process at a time may open. `<p>` is the pipeline's name. `…`
stands for the pipeline's own columns: key, features, scores, decisions.

Retention: `content` holds values from the sources or computed from them; `evidence` holds digests and decisions.
"""
PIPELINE, OWN = "shop", "own_columns"
KEY = {"order_id": "BIGINT"}
# The columns that a pipeline's tables have whatever it declares.
FIXED: Mapping[str, Mapping[str, str]] = {
    "features": {"partition_key": "VARCHAR", "revision": "VARCHAR", OWN: "…"},
    "scores": {"partition_key": "VARCHAR", "scoring_id": "VARCHAR", OWN: "…", "score": "FLOAT"},
    "quarantine": {
        **dict.fromkeys(("partition_key", "scoring_id", "feature_revision"), "VARCHAR"),
        **{"broken": "VARCHAR[]", "row_key": "VARCHAR", OWN: "…"},
    },
    "reasons": {
        **{"partition_key": "VARCHAR", "scoring_id": "VARCHAR", OWN: "…", "rank": "INTEGER", "feature": "VARCHAR"},
        **{"value": "VARCHAR", "contribution": "FLOAT", "base": "FLOAT"},
    },
}


def page() -> str:
    """The page: published tables first."""
    from pip_dagster.warehouse.kinds import KINDS, PublishedKind

    texts, con = described(), warehouse()
    published = [kind for kind in KINDS if isinstance(kind, PublishedKind)]
    parts = [HEAD, "\n## Published tables\n"]
    parts += [_section(con, kind, texts) for kind in sorted(published, key=lambda kind: kind.schema is not None)]
    parts += ["\n## Tables of the warehouse only\n"]
    return "".join([*parts, *(_section(con, kind, texts) for kind in KINDS if kind not in published)])


def described() -> dict[str, Any]:
    """The descriptions."""
    return yaml.safe_load(Path(__file__).with_name("tables.yaml").read_text(encoding="utf-8"))


def warehouse() -> DuckDBPyConnection:
    """An empty warehouse in memory with one pipeline."""
    import duckdb

    from pip_dagster.warehouse import schema
    from pip_dagster.warehouse.tables import ensure_table

    con = duckdb.connect()
    schema.ensure(con, "memory", read_only=False, new=lambda: None)
    for kind, columns in FIXED.items():
        ensure_table(con, PIPELINE, kind, {name: "VARCHAR" if of == "…" else of for name, of in columns.items()})
    return con


def columns(con: DuckDBPyConnection, kind: Kind) -> list[tuple[str, str]]:
    """Names and types of a kind's columns."""
    return con.execute(
        "SELECT column_name, data_type FROM duckdb_columns() WHERE schema_name = $schema AND table_name = $name "
        "ORDER BY column_index",
        {"schema": kind.schema or PIPELINE, "name": kind.name},
    ).fetchall()


def name_of(kind: Kind) -> str:
    """As tables.yaml names it."""
    return f"{kind.schema}.{kind.name}" if kind.schema else kind.name


def about(texts: Mapping[str, Any], kind: Kind, column: str) -> str:
    """What a column holds."""
    return texts["tables"][name_of(kind)].get(column) or texts["columns"][column]


def _section(con: DuckDBPyConnection, kind: Kind, texts: Mapping[str, Any]) -> str:
    title = f"`{kind.schema or '<p>'}.{kind.name}`"
    if published := getattr(kind, "view", None):
        title = f"`{kind.schema or '<p>'}.{published}`, in the warehouse {title}"
    rows = [
        ("…", "", "The pipeline's own columns.")
        if column == OWN
        else (f"`{column}`", cell(of), cell(about(texts, kind, column)))
        for column, of in columns(con, kind)
    ]
    form = {"column sets": "A view of a table for each set of columns"}.get(kind.form, f"A {kind.form}")
    own = texts["tables"][name_of(kind)]["about"]
    listed = table(("column", "type", "meaning"), rows)
    return f"\n### {title}\n\n{own} {form}; retention: `{kind.retention}`.\n\n{listed}"
