"""Profiles of scored rows: each column's counts on the bins of the model's manifest, in one scan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from pip_dagster.flow.guard import Encoded, count_where
from pip_dagster.ledger.profiles import ColumnKind, Profile
from pip_dagster.registry.manifest import Histogram, Manifest
from pip_dagster.sql.names import among, quote
from pip_dagster.warehouse.memory import with_more

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

# Columns in one statement: the bins of more than these, for many partitions, would not fit into a run's memory.
_COLUMNS = 100


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
        binned = f"histogram({self.value}, [{bins}]::DOUBLE[])" if self.bins else "NULL"
        number = f"avg({self.value}), stddev_pop({self.value})" if self.numeric else "NULL, NULL"
        return f"{binned}, count({self.value}), {self.unseen}, {number}"

    def profile(self, rows: int, found: Sequence[Any], gain: float | None) -> Profile:
        by_bin, present, unseen, mean, sd = found
        by_bin = by_bin or {}
        counts = [int(by_bin.get(edge, 0)) for edge in self.bins]
        if self.numeric:
            counts.append(present - sum(counts))  # beyond the last edge
        return Profile(self.kind, self.name, rows, counts, rows - present - unseen, unseen, mean, sd, gain, None, None)


def profile_features(
    con: DuckDBPyConnection,
    relation: str,
    encoded: Sequence[Encoded],
    manifest: Manifest,
    keys: Sequence[str],
    gains: Mapping[str, float],
) -> dict[str, list[Profile]]:
    """Profiles of the features that have a reference in the manifest, by partition.

    Args:
        con: where `relation` is.
        relation: the features of the rows that were scored.
        encoded: the columns of the matrix over it.
        manifest: whose bins count.
        keys: the partitions; each has an entry.
        gains: each feature's share of the gain of the model's splits; empty where the model has none.
    """
    of_name = {feature.name: feature for feature in manifest.features}
    columns = [
        _feature(each, manifest.feature_reference[each.name])
        for each in encoded
        if each.name in of_name and each.name in manifest.feature_reference
    ]
    return _profiles(con, relation, columns, keys, gains)


def profile_scores(
    con: DuckDBPyConnection, relation: str, types: Mapping[str, str], manifest: Manifest, keys: Sequence[str]
) -> dict[str, list[Profile]]:
    """Profiles of the scores and of the BOOLEAN decisions, by partition; `types` are the columns of `relation`."""
    columns = [
        _Column("score", name, _number(quote(name)), "0", reference.edges, numeric=True)
        for name, reference in manifest.score_reference.items()
        if name in types
    ]
    columns += [
        _Column("decision", name, f"{quote(name)}::TINYINT::DOUBLE", "0", (0.0, 1.0), numeric=False)
        for name, sql_type in types.items()
        if sql_type == "BOOLEAN" and name not in manifest.score_reference
    ]
    return _profiles(con, relation, columns, keys, {})


def _feature(encoded: Encoded, reference: Histogram) -> _Column:
    unseen = count_where(encoded.unseen) if encoded.unseen else "0"
    value = _number(f"({encoded.value})")
    if reference.labels is None:
        return _Column("feature", encoded.name, value, unseen, reference.edges, numeric=True)
    return _Column("feature", encoded.name, value, unseen, tuple(map(float, range(len(reference.labels)))), False)


def _number(value: str) -> str:
    return f"(CASE WHEN isnan({value}) THEN NULL ELSE {value}::DOUBLE END)"


def _profiles(
    con: DuckDBPyConnection, relation: str, columns: Sequence[_Column], keys: Sequence[str], gains: Mapping[str, float]
) -> dict[str, list[Profile]]:
    found: dict[str, list[Profile]] = {key: [] for key in keys}
    where = among("partition_key", keys)
    for start in range(0, len(columns), _COLUMNS):
        part = columns[start : start + _COLUMNS]
        listed = ", ".join(column.sql for column in part)
        select = f"SELECT partition_key, count(*), {listed} FROM {relation} WHERE {where} GROUP BY partition_key"
        for key, count, *figures in with_more(con, partial(_rows, con, select)):
            for i, column in enumerate(part):
                gain = gains.get(column.name, 0.0) if gains and column.kind == "feature" else None
                found[key].append(column.profile(count, figures[i * 5 : i * 5 + 5], gain))
    return found


def _rows(con: DuckDBPyConnection, select: str) -> list[tuple[Any, ...]]:
    return con.execute(select).fetchall()
