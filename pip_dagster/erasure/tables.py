"""Which rows of a pipeline's tables are a subject's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pip_dagster.erasure.place import ErasureRequest
from pip_dagster.evidence.contents import columns_of_tables
from pip_dagster.sql.names import column_named, literal, quote

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

KINDS = ("features", "scores", "quarantine", "reasons")
ERASED = "pip_erased_rows"  # temporary: scoring_id, row_key of the rows that were scored from the subject's features


@dataclass(frozen=True)
class SubjectTable:
    """A table of a pipeline: its kind, and its columns with their types."""

    pipeline: str
    name: str
    columns: Mapping[str, str]

    @property
    def kind(self) -> str:
        """Such as `scores`."""
        return self.name.partition("__")[0]

    @property
    def sql(self) -> str:
        """Its name in SQL."""
        return f"{quote(self.pipeline)}.{quote(self.name)}"

    def where(self, request: ErasureRequest, keys: Mapping[str, Sequence[str]]) -> str | None:
        """The condition that a row is to be erased; None where it has no column that tells."""
        found = []
        column = column_named(self.columns, request.columns[self.pipeline])
        if column:
            found.append(f"{quote(column)}::VARCHAR IN ({_listed(request.subjects[self.pipeline])})")
        named = [column_named(self.columns, name) for name in keys[self.pipeline]]
        if self.kind != "features" and all(named):
            row = row_key(named)
            found.append(f"(scoring_id, {row}) IN (SELECT scoring_id, row_key FROM {ERASED})")
        return " OR ".join(found) or None


def tables_of(con: DuckDBPyConnection, request: ErasureRequest) -> Iterator[SubjectTable]:
    """The tables of rows of the pipelines that a request is about."""
    for (pipeline, name), columns in columns_of_tables(con, {*request.columns}).items():
        table = SubjectTable(pipeline, name, columns)
        if table.kind in KINDS:
            yield table


def of_nobody(tables: Sequence[SubjectTable], request: ErasureRequest) -> str:
    """Tables of features from before the subject was declared, as the end of a sentence."""
    found = sorted(
        f"{table.pipeline}.{table.name}"
        for table in tables
        if table.kind == "features" and not column_named(table.columns, request.columns[table.pipeline])
    )
    what = "which have no column of the subject: nothing says whose they are"
    return f"; rows of {', '.join(found)}, {what}" if found else ""


def number_of(con: DuckDBPyConnection, sql: str) -> int:
    """How many rows there are of what `sql` names, behind FROM."""
    row = con.execute(f"SELECT count(*) FROM {sql}").fetchone()
    return int(row[0]) if row else 0


def row_key(columns: Sequence[str | None]) -> str:
    """SQL of a row's key as one text, the same in every table."""
    return f"to_json([{', '.join(f'{quote(each)}::VARCHAR' for each in columns if each)}])::VARCHAR"


def _listed(values: Sequence[str]) -> str:
    return ", ".join(map(literal, values)) or "NULL"
