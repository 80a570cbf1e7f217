"""Calibrators: what estimates are made with, each with the labels that it was fitted on. Rows are never changed."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import TYPE_CHECKING, Literal

from pip_dagster.declaration.canonical import canonical
from pip_dagster.ledger.record import dicts
from pip_dagster.ledger.rows import insert_rows
from pip_dagster.statistics.loss_table import LossTable
from pip_dagster.statistics.score_curve import TERMS, ScoreCurve

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

# curves: probabilities from scores, fitted on labels. held out: the same from the manifest's held-out rows.
# losses: losses by score.
CalibratorKind = Literal["curves", "held out", "losses"]
# What a calibrator is not a function of: who has it and when.
_BESIDE = ("digest", "made_at")


@dataclass(frozen=True)
class Calibrator:
    """One row of `ledger.calibrators`.

    Attributes:
        digest: Of all the others but `made_at`.
        last_end: The end of the newest partition that it was fitted on. It estimates later partitions only.
        labels_digest: Of the evaluations of these partitions: which scorings, with which labels.
        positives: Rows of the scarcest class; labelled rows of a model that predicts a number.
        classes: Of each curve, the position of its class among the scores; `segments`, its segment's value, None for
            all rows. `coefficients` has 4 numbers a curve, `covariances` 16, `knots` 2.
        edges: Of the bins of the loss table; `means` and `variances` are loss by loss, in the order of `losses`.
        spreads: Of each of the `metrics`, the variance between partitions beyond chance.
    """

    digest: str
    pipeline: str
    manifest_digest: str
    kind: CalibratorKind
    first_partition: str | None
    last_partition: str | None
    last_end: datetime | None
    partitions: int
    labels_digest: str
    rows: int
    positives: int
    classes: list[int]
    segments: list[str | None]
    coefficients: list[float]
    covariances: list[float]
    knots: list[float]
    curve_rows: list[int]
    curve_positives: list[int]
    edges: list[float]
    bin_rows: list[int]
    losses: list[str]
    means: list[float]
    variances: list[float]
    metrics: list[str]
    spreads: list[float]
    made_at: datetime

    def with_digest(self) -> Calibrator:
        """The same with the digest of its content."""
        content = {name: value for name, value in vars(self).items() if name not in _BESIDE}
        text = canonical(content | {"last_end": self.last_end and self.last_end.isoformat()})
        return Calibrator(**vars(self) | {"digest": hashlib.sha256(text.encode()).hexdigest()})

    @property
    def spread(self) -> dict[str, float]:
        """Metric → the variance between partitions."""
        return dict(zip(self.metrics, self.spreads, strict=True))

    @property
    def groups(self) -> list[str]:
        """The segment values that have curves of their own; group i + 1 is that of the i-th."""
        return list(dict.fromkeys(value for value in self.segments if value is not None))

    @property
    def curves(self) -> dict[tuple[int, int], ScoreCurve]:
        """(group, class) → its curve; group 0 is that of all rows that have no own."""
        found = {}
        groups = self.groups
        for i, (at, value) in enumerate(zip(self.classes, self.segments, strict=True)):
            found[0 if value is None else groups.index(value) + 1, at] = ScoreCurve(
                tuple(self.coefficients[i * TERMS : (i + 1) * TERMS]),
                tuple(self.covariances[i * TERMS**2 : (i + 1) * TERMS**2]),
                (self.knots[2 * i], self.knots[2 * i + 1]),
                self.curve_rows[i],
                self.curve_positives[i],
            )
        return found

    @property
    def table(self) -> LossTable:
        """The loss table."""
        bins = len(self.bin_rows)
        of_losses = range(len(self.losses))
        return LossTable(
            tuple(self.edges),
            tuple(self.bin_rows),
            tuple(self.losses),
            tuple(tuple(self.means[i * bins : (i + 1) * bins]) for i in of_losses),
            tuple(tuple(self.variances[i * bins : (i + 1) * bins]) for i in of_losses),
        )


def curve_columns(curves: Mapping[tuple[str | None, int], ScoreCurve]) -> dict[str, list[object]]:
    """The columns of a calibrator with these curves, by segment value and class."""
    listed = list(curves.items())
    return {
        "classes": [at for (_, at), _ in listed],
        "segments": [value for (value, _), _ in listed],
        "coefficients": [number for _, curve in listed for number in curve.coefficients],
        "covariances": [number for _, curve in listed for number in curve.covariance],
        "knots": [number for _, curve in listed for number in curve.knots],
        "curve_rows": [curve.rows for _, curve in listed],
        "curve_positives": [curve.positives for _, curve in listed],
    }


def table_columns(table: LossTable) -> dict[str, list[object]]:
    """The columns of a calibrator that is a loss table."""
    return {
        "edges": list(table.edges),
        "bin_rows": list(table.rows),
        "losses": list(table.metrics),
        "means": [number for of_loss in table.means for number in of_loss],
        "variances": [number for of_loss in table.variances for number in of_loss],
    }


def empty_columns() -> dict[str, list[object]]:
    """No curve, no table and no spread."""
    return {field.name: [] for field in fields(Calibrator) if str(field.type).startswith("list")}


def calibrators_of(con: DuckDBPyConnection, pipeline: str, manifest_digest: str) -> Sequence[Calibrator]:
    """Those of one version, the newest first. The warehouse is the current catalog."""
    found = con.execute(
        "SELECT * FROM ledger.calibrators WHERE pipeline = $pipeline AND manifest_digest = $manifest "
        "ORDER BY made_at DESC, digest",
        {"pipeline": pipeline, "manifest": manifest_digest},
    )
    return [Calibrator(**row) for row in dicts(found)]


def insert_calibrator(con: DuckDBPyConnection, calibrator: Calibrator) -> None:
    """Append it, inside a transaction. The warehouse is the current catalog."""
    insert_rows(con, "calibrators", [calibrator])
