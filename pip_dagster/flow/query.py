"""The feature SQL as a query over a range of partitions: parsed, bound, staged."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any

from pip_dagster.declaration.partition import Partition
from pip_dagster.declaration.pipeline import sources_read
from pip_dagster.errors import DeclarationError
from pip_dagster.flow.sources import local_time
from pip_dagster.flow.stage import Stage, partition_grid
from pip_dagster.privacy.suppressed import Incoming
from pip_dagster.quoted import said
from pip_dagster.sql.names import RESERVED_COLUMNS, column_named, quote
from pip_dagster.warehouse.buckets import unit_kind
from pip_dagster.warehouse.memory import is_out_of_memory

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from pip_dagster.declaration.spec import PipelineSpec


@dataclass(frozen=True)
class FeatureQuery:
    """The feature SQL, its parameters and the columns it gives."""

    sql: str
    parameters: frozenset[str]
    columns: dict[str, str]
    partition_column: str
    instant: bool  # whether the partition column is an instant, or wall-clock time
    values: Mapping[str, bytes] = field(default_factory=dict, repr=False)  # of parameters that are not the user's

    @classmethod
    def parse(
        cls,
        con: DuckDBPyConnection,
        spec: PipelineSpec,
        sql: str,
        sample: Partition,
        people: Incoming | None = None,
    ) -> FeatureQuery:
        """Check the SQL as far as that goes without reading rows; `people`: what happens to their rows.

        Raises:
            DeclarationError: no single SELECT, an unknown parameter, table or column, or an unusable partition column.
        """
        import duckdb

        where = f"Pipeline {spec.name}, {spec.features.sql}"
        sources_read(spec, sql, spec.features.sql)
        statements = con.extract_statements(sql)
        text = without_end(con, statements[0].query)
        known = set(sql_bounds([sample]))
        parameters = frozenset(statements[0].named_parameters)
        if unknown := parameters - known:
            raise DeclarationError(
                f"{where}: ${', $'.join(sorted(unknown))} is no parameter of a feature query; "
                f"expected {', '.join('$' + name for name in sorted(known))}."
            )
        if not parameters:
            raise DeclarationError(
                f"{where}: it reads no bounds and would give every partition the same rows; "
                "use $start_date and $end_date, or $start and $end, as a half-open range."
            )
        if spec.partitions.step and not parameters >= {"start", "end"}:
            raise DeclarationError(
                f"{where}: a partition every {spec.partitions.every} lies within one date, so that dates alone would "
                "leave it empty; bound the rows by $start and $end, and by dates beside them where that helps."
            )
        values = {name: value for name, value in sql_bounds([sample]).items() if name in parameters}
        try:
            described = con.execute(f"SELECT * FROM (\n{text}\n) LIMIT 0", values).description or []
            # Of two columns with one name a subquery renames the second, and the guard would silently take the first.
            names = [row[0] for row in con.execute(f"DESCRIBE {text}", values).fetchall()]
        except duckdb.Error as error:
            if is_out_of_memory(error):
                raise
            raise DeclarationError(f"{where}: {said(error)}") from error
        # `SELECT day` gives the column the capitals that its source has; the declaration's are those that are stored.
        declared = {name.lower(): name for name in (*spec.features.key, spec.features.partition_column, *spec.unit)}
        columns = {declared.get(column[0].lower(), column[0]): str(column[1]) for column in described}
        folded = [name.lower() for name in names]
        if twice := [name for name in names if folded.count(name.lower()) > 1]:
            raise DeclarationError(f"{where}: two columns have one name: {', '.join(twice)}; rename or drop one.")
        for column in (*spec.features.key, spec.features.partition_column):
            if column not in columns:
                raise DeclarationError(f"{where}: no column {column!r} in its result, which has {', '.join(columns)}.")
        if taken := RESERVED_COLUMNS & {column.lower() for column in columns}:
            raise DeclarationError(
                f"{where}: {', '.join(sorted(taken))} is the warehouse's own name; rename the column."
            )
        sql_type = columns[spec.features.partition_column]
        local = local_time(sql_type, quote(spec.features.partition_column), spec.partitions.time_zone)
        instant = sql_type == "TIMESTAMP WITH TIME ZONE"
        naive_is_clear = not spec.partitions.step or (
            sql_type.startswith("TIMESTAMP") and spec.partitions.time_zone == "UTC"
        )
        if local is None or not (instant or naive_is_clear):
            wanted = "TIMESTAMP WITH TIME ZONE" if spec.partitions.step else "DATE or TIMESTAMP WITH TIME ZONE"
            raise DeclarationError(
                f"{where}: partition column {spec.features.partition_column!r} is {sql_type}; "
                f"expected {wanted} to tell the {spec.partitions.every} in {spec.partitions.time_zone}."
            )
        query = cls(text, parameters, columns, spec.features.partition_column, instant)
        return query.of_people(people, where) if people else query

    def of_people(self, people: Incoming, where: str) -> FeatureQuery:
        """The query whose rows may be stored: with pseudonyms, and without suppressed subjects.

        Raises:
            DeclarationError: it has no column of the subject, or one whose text is not the same everywhere.
        """
        name = column_named(self.columns, people.subject)
        if name is None:
            near = difflib.get_close_matches(people.subject, self.columns, 1)
            hint = f"; did you mean {near[0]!r}?" if near else f", which has {', '.join(self.columns)}"
            raise DeclarationError(f"{where}: no column {people.subject!r} in its result, the subject{hint}.")
        if unit_kind(self.columns[name]) is None:
            raise DeclarationError(
                f"{where}: the subject {name!r} is {self.columns[name]}; expected whole numbers, text, UUIDs, dates or "
                "instants, whose text is the same everywhere. Cast it in the feature SQL."
            )
        columns = self.columns | ({name: "VARCHAR"} if people.key else {})
        return replace(self, sql=people.select(self.sql, self.columns), columns=columns, values=people.values)

    def fill(self, con: DuckDBPyConnection, stage: Stage, partitions: Sequence[Partition]) -> None:
        """Append the rows of adjoining partitions to the stage, each with its partition's key, or NULL for none.

        `con` has the sources, as `sources_alone` gives them.
        """
        bound = {name: value for name, value in sql_bounds(partitions).items() if name in self.parameters}
        values: dict[str, Any] = {**bound, **self.values}
        # An instant is compared as it is, wall-clock time as if it were UTC: bounds and column are converted alike.
        bounds = [
            (p.key, p.start, p.end)
            if self.instant
            else (p.key, p.start_local.replace(tzinfo=UTC), p.end_local.replace(tzinfo=UTC))
            for p in partitions
        ]
        grid = partition_grid(con, "TIMESTAMPTZ", bounds)
        moment = "f." + quote(self.partition_column)
        if not self.instant:
            moment = f"timezone('UTC', {moment}::TIMESTAMP)"
        inside = f"{moment} >= p.first AND {moment} < p.last"
        if len(partitions) == 1:
            # One row beside each of perhaps millions: a join by inequality would sort them all.
            select = f"SELECT CASE WHEN {inside} THEN p.partition_key END, f.* FROM (\n{self.sql}\n) f, {grid} p"
        else:
            # Rows of a partition side by side: each one's reads then skip the others' row groups.
            select = (
                f"SELECT p.partition_key, f.* FROM (\n{self.sql}\n) f LEFT JOIN {grid} p ON {inside} ORDER BY p.first"
            )
        stage.append(con, select, values)


def without_end(con: DuckDBPyConnection, sql: str) -> str:
    """One statement without the semicolons that end it, so that it can be a subquery; comments may follow them."""
    import duckdb

    text = sql.strip()
    for end in (i for i in reversed(range(len(text))) if text[i] == ";"):
        try:
            if not con.extract_statements(text[end + 1 :]) and len(con.extract_statements(text[:end])) == 1:
                text = text[:end]
        except duckdb.Error:
            continue  # that one is inside a comment or a string
    return text


def sql_bounds(partitions: Sequence[Partition]) -> dict[str, datetime | date]:
    """The parameters that a user's SQL bounds its rows by, for adjoining partitions in the order of time."""
    first, last = partitions[0], partitions[-1]
    return {
        "start": first.start,
        "end": last.end,
        "start_date": first.start_local.date(),
        "end_date": last.end_local.date(),
    }
