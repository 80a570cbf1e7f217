"""Profiles of scored rows: each column's counts on the bins of the model's manifest, in one scan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from pip_dagster.flow.guard import Encoded, count_where
from pip_dagster.ledger.profiles import ColumnKind, Profile
from pip_dagster.registry.manifest import Histogram, Manifest
from pip_dagster.sql.names import among, literal, quote
from pip_dagster.warehouse.memory import with_more

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

# Columns in one statement: the bins of more than these, for many partitions, would not fit into a run's memory.
_COLUMNS = 100
# The most frequent values of a segment in a partition that are profiled each; the others together.
VALUES, OTHER = 50, "(other)"


@dataclass(frozen=True)
class _Column:
    """One column in SQL: its number, NULL where missing, on `bins`: the edges of numbers, or codes from 0."""

    kind: ColumnKind
    name: str
    value: str
    unseen: str
    bins: tuple[float, ...]
    numeric: bool

    @property
    def sql(self) -> str:
        bins = ", ".join(f"'{edge!r}'" for edge in self.bins)  # a bare number would go through DECIMAL
        # The counts alone, in the order of the bins: a map with its edges takes three times as long to fetch.
        binned = f"map_values(histogram({self.value}, [{bins}]::DOUBLE[]))" if self.bins else "NULL"
        number = f"avg({self.value}), stddev_pop({self.value})" if self.numeric else "NULL, NULL"
        return f"{binned}, count({self.value}), {self.unseen}, {number}"

    def profile(self, rows: int, found: Sequence[Any], gain: float | None) -> Profile:
        by_bin, present, unseen, mean, sd = found
        counts = list(by_bin[: len(self.bins)]) if by_bin else [0] * len(self.bins)  # after the bins, what is beyond
        if self.numeric:
            counts.append(present - sum(counts))  # beyond the last edge
        return Profile(self.kind, self.name, rows, counts, rows - present - unseen, unseen, mean, sd, gain, None, None)


@dataclass(frozen=True)
class ToProfile:
    """The scored rows of some partitions.

    Attributes:
        con: where the relations are.
        features: SQL of the features of the rows that were scored.
        encoded: the columns of the matrix over it.
        manifest: whose bins count.
        gains: each feature's share of the gain of the model's splits; empty where the model has none.
        scores: SQL of the scores and decisions, None where they are not profiled, and `types`, their columns.
        key: the columns that identify a row of both within its partition.
        segments: columns of `features`, by whose values all is profiled too.
    """

    con: DuckDBPyConnection
    features: str
    encoded: Sequence[Encoded]
    manifest: Manifest
    gains: Mapping[str, float]
    scores: str | None
    types: Mapping[str, str]
    key: Sequence[str]
    segments: Sequence[str] = ()


def profiles_of(rows: ToProfile, keys: Sequence[str]) -> dict[str, list[Profile]]:
    """Profiles of features, scores and BOOLEAN decisions by partition; each of `keys` has an entry.

    Of the features, of those that have a reference in the manifest.
    """
    of_name, references = {f.name for f in rows.manifest.features}, rows.manifest.feature_reference
    features = [_feature(e, references[e.name]) for e in rows.encoded if e.name in of_name and e.name in references]
    outputs = _outputs(rows)
    found: dict[str, list[Profile]] = {key: [] for key in keys}
    _add(found, rows, rows.features, features)
    if rows.scores:
        _add(found, rows, rows.scores, outputs)
    for segment in rows.segments:
        _add(found, rows, _by_value(rows.features, segment), features, segment)
        if rows.scores:
            _add(found, rows, _by_value(_joined(rows), f"pip_{segment}"), outputs, segment)
    return found


def _outputs(rows: ToProfile) -> list[_Column]:
    references = rows.manifest.score_reference
    columns = [
        _Column("score", name, _number(quote(name)), "0", reference.edges, numeric=True)
        for name, reference in references.items()
        if name in rows.types
    ]
    columns += [
        _Column("decision", name, f"{quote(name)}::TINYINT::DOUBLE", "0", (0.0, 1.0), numeric=False)
        for name, sql_type in rows.types.items()
        if sql_type == "BOOLEAN" and name not in references
    ]
    return columns


def _joined(rows: ToProfile) -> str:
    """SQL of the scores with the segments' columns, each by the name `pip_` and its own."""
    same = " AND ".join(f"s.{quote(name)} = f.{quote(name)}" for name in ("partition_key", *rows.key))
    listed = ", ".join(f"f.{quote(name)} AS {quote('pip_' + name)}" for name in rows.segments)
    return f"(SELECT s.*, {listed} FROM {rows.scores} s JOIN {rows.features} f ON {same})"


def _by_value(relation: str, column: str) -> str:
    """SQL of the relation with `pip_value`, the column's; of each partition, its most frequent ones, and `OTHER`."""
    value = f"{quote(column)}::VARCHAR"
    most = (
        f"SELECT partition_key, {value} AS pip_value FROM {relation} GROUP BY 1, 2 "
        f"QUALIFY row_number() OVER (PARTITION BY partition_key ORDER BY count(*) DESC, pip_value) <= {VALUES}"
    )
    return (
        f"(SELECT r.*, CASE WHEN m.partition_key IS NULL THEN {literal(OTHER)} ELSE m.pip_value END AS pip_value "
        f"FROM {relation} r LEFT JOIN ({most}) m ON m.partition_key = r.partition_key "
        f"AND m.pip_value IS NOT DISTINCT FROM r.{value})"
    )


def _feature(encoded: Encoded, reference: Histogram) -> _Column:
    unseen = count_where(encoded.unseen) if encoded.unseen else "0"
    value = _number(f"({encoded.value})")
    if reference.labels is None:
        return _Column("feature", encoded.name, value, unseen, reference.edges, numeric=True)
    return _Column("feature", encoded.name, value, unseen, tuple(map(float, range(len(reference.labels)))), False)


def _number(value: str) -> str:
    return f"(CASE WHEN isnan({value}) THEN NULL ELSE {value}::DOUBLE END)"


def _add(
    found: dict[str, list[Profile]],
    rows: ToProfile,
    relation: str,
    columns: Sequence[_Column],
    segment: str | None = None,
) -> None:
    """Add the profiles of these columns to those of their partitions; by `pip_value` where there is a segment."""
    con, where = rows.con, among("partition_key", found)
    by = ", pip_value" if segment else ""
    for start in range(0, len(columns), _COLUMNS):
        part = columns[start : start + _COLUMNS]
        listed = ", ".join(column.sql for column in part)
        select = f"SELECT partition_key{by or ', NULL'}, count(*), {listed} FROM {relation} WHERE {where} GROUP BY "
        for key, value, count, *figures in with_more(con, partial(_rows, con, f"{select}partition_key{by}")):
            for i, column in enumerate(part):
                gain = rows.gains.get(column.name, 0.0) if rows.gains and column.kind == "feature" else None
                profile = column.profile(count, figures[i * 5 : i * 5 + 5], gain)
                found[key].append(replace(profile, segment=segment, segment_value=value) if segment else profile)


def _rows(con: DuckDBPyConnection, select: str) -> list[tuple[Any, ...]]:
    return con.execute(select).fetchall()
