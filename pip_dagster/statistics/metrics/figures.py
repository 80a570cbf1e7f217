"""From sums to figures, for K groups or windows at once: every array has the shape (K,) or (K, …)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from pip_dagster.statistics.metrics.curve import Curve, Tenths
from pip_dagster.statistics.metrics.spec import MetricSpec, MetricValue

if TYPE_CHECKING:
    import numpy as np

    Totals = Mapping[str, np.ndarray]

LEAST_POSITIVES = 20
LEAST_R2_ROWS = 30
_Z = 1.959963984540054

NO_ROWS = "no labelled rows"
ONE_CLASS = "rows of one class only"
NO_POSITIVE = "no positive outcome"


class FigureArray(NamedTuple):
    """A figure of K groups: NaN where there is none, for this `reason`; `half` is that of a 95% interval."""

    values: np.ndarray
    reason: str
    half: np.ndarray | None = None


Figures = dict[str, FigureArray]


def figures(spec: MetricSpec, totals: Totals, curves: Sequence[Curve]) -> Figures:
    """All figures of a kind. `totals`: the sums of each group; `curves`: as `sql.curves` lists them."""
    import numpy as np

    with np.errstate(divide="ignore", invalid="ignore"):
        if spec.kind == "binary":
            return _binary(spec, totals, curves[0])
        if spec.kind == "multiclass":
            return _multiclass(spec, totals, curves)
        if spec.kind == "ranking":
            return _ranking(totals)
        if spec.kind == "survival":
            found = _ratio(totals["concordant"], totals["pairs"])
            return {"concordance": FigureArray(found, "no pair of rows whose order is known")}
        return _numbers(spec, totals, curves)


def metric_values(found: Figures, totals: Totals, at: int) -> dict[str, MetricValue]:
    """The figures of one group, with the reason of each that has no value."""
    import math

    rows = round(float(totals["n"][at]))
    weightless = rows and "w" in totals and not totals["w"][at]
    values = {}
    for name, figure in found.items():
        value = float(figure.values[at])
        if not math.isfinite(value):
            reason = figure.reason if figure.reason != NO_ROWS else "the sums are beyond the largest number"
            reason = NO_ROWS if not rows else "all weights are 0" if weightless else reason
            values[name] = MetricValue(None, rows, reason)
            continue
        half = None if figure.half is None else float(figure.half[at])
        ends = (None, None) if half is None else (value - half, value + half)
        unstable = name == "average_precision" and totals["rows_y"][at] < LEAST_POSITIVES
        reason = f"fewer than {LEAST_POSITIVES} positive outcomes: unstable" if unstable else ""
        values[name] = MetricValue(value, rows, reason, *ends)
    return values


def _ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    import numpy as np

    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(below > 0, above / below, np.nan)


def _binary(spec: MetricSpec, of: Totals, curve: Curve) -> Figures:
    import numpy as np

    found = {
        "auc": FigureArray(curve.auc, ONE_CLASS),
        "average_precision": FigureArray(curve.average_precision, NO_POSITIVE),
        "base_rate": FigureArray(_ratio(of["y"], of["w"]), NO_ROWS),
    }
    if spec.scale != "score":
        error, chance = calibration_error(curve.tenths)
        half = _Z * np.sqrt(of["variance"]) / of["w"]
        found |= {
            "logloss": FigureArray(_ratio(of["logloss"], of["w"]), NO_ROWS),
            "brier": FigureArray(_ratio(of["brier"], of["w"]), NO_ROWS),
            "ece": FigureArray(error, NO_ROWS),
            "ece_chance": FigureArray(chance, NO_ROWS),
            "mean_score": FigureArray(_ratio(of["s"], of["w"]), NO_ROWS),
            "bias": FigureArray(_ratio(of["s"] - of["y"], of["w"]), NO_ROWS, half),
        }
    for i, name in enumerate(spec.decisions):
        found |= {
            f"precision.{name}": FigureArray(_ratio(of[f"hit{i}"], of[f"flagged{i}"]), "no row is flagged"),
            f"recall.{name}": FigureArray(_ratio(of[f"hit{i}"], of[f"wanted{i}"]), NO_POSITIVE),
            f"accuracy.{name}": FigureArray(
                _ratio(of[f"known{i}"] - of[f"flagged{i}"] - of[f"wanted{i}"] + 2 * of[f"hit{i}"], of[f"known{i}"]),
                "no row has a decision",
            ),
            f"flag_rate.{name}": FigureArray(_ratio(of[f"flagged{i}"], of[f"known{i}"]), "no row has a decision"),
        }
    return found


def calibration_error(of: Tenths) -> tuple[np.ndarray, np.ndarray]:
    """The expected calibration error over bins of equal counts, and its mean for a calibrated model."""
    import numpy as np

    with np.errstate(divide="ignore", invalid="ignore"):
        total = of.c.sum(axis=1)
        error = np.abs(of.x - of.v).sum(axis=1) / total
        p = np.clip(of.x / of.c, 0, 1)
        # Weighted rows count as c² / Σw² rows.
        chance = np.where(of.c > 0, np.sqrt(2 * p * (1 - p) / np.pi * of.c2), 0.0).sum(axis=1) / total
    return np.where(total > 0, error, np.nan), np.where(total > 0, chance, np.nan)


def _multiclass(spec: MetricSpec, of: Totals, curves: Sequence[Curve]) -> Figures:
    import numpy as np

    k = len(spec.classes)
    cells = of["cells"].reshape(-1, k, k)
    right = np.diagonal(cells, axis1=1, axis2=2)
    actual, predicted = cells.sum(axis=2), cells.sum(axis=1)
    f1 = np.where(actual > 0, 2 * right / (actual + predicted), np.nan)
    auc = np.stack([curve.auc for curve in curves], axis=1)
    return {
        "multi_logloss": FigureArray(_ratio(of["logloss"], of["w"]), NO_ROWS),
        "accuracy": FigureArray(_ratio(right.sum(axis=1), of["w"]), NO_ROWS),
        "macro_f1": FigureArray(_mean_known(f1), NO_ROWS),
        "ovr_auc": FigureArray(_mean_known(auc), ONE_CLASS),
        **{f"auc.{name}": FigureArray(auc[:, i], _OF_CLASS) for i, name in enumerate(spec.classes)},
    }


_OF_CLASS = "no rows of this class, or of no other"


def _mean_known(values: np.ndarray) -> np.ndarray:
    """The mean over the columns that have a value."""
    import numpy as np

    known = np.isfinite(values)
    return _ratio(np.where(known, values, 0.0).sum(axis=1), known.sum(axis=1))


def _numbers(spec: MetricSpec, of: Totals, curves: Sequence[Curve]) -> Figures:
    import numpy as np

    found = {"mean_outcome": FigureArray(_ratio(of["y"], of["w"]), NO_ROWS)}
    for i, quantile in enumerate(spec.quantiles):
        found |= {
            f"pinball.{quantile:g}": FigureArray(_ratio(of[f"pinball{i}"], of["w"]), NO_ROWS),
            f"coverage.{quantile:g}": FigureArray(_ratio(of[f"below{i}"], of["w"]), NO_ROWS),
        }
    if spec.quantiles:
        return found
    if spec.kind == "count":
        found[spec.deviance] = FigureArray(_ratio(of["deviance"], of["w"]), NO_ROWS)
        perfect = curves[1].gini
        found["gini"] = FigureArray(np.where(perfect > 0, curves[0].gini / perfect, np.nan), "all outcomes are equal")
    found |= {
        "rmse": FigureArray(np.sqrt(_ratio(of["squared"], of["w"])), NO_ROWS),
        "mae": FigureArray(_ratio(of["absolute"], of["w"]), NO_ROWS),
        "bias": FigureArray(_ratio(of["s"] - of["y"], of["w"]), NO_ROWS),
        "mean_score": FigureArray(_ratio(of["s"], of["w"]), NO_ROWS),
    }
    if spec.kind == "regression":
        about = of.get("about_training")
        if about is None:
            found["r2"] = FigureArray(np.full(len(of["n"]), np.nan), "the mean outcome in training is not known")
        else:
            r2 = np.where((about > 0) & (of["n"] >= LEAST_R2_ROWS), 1 - of["squared"] / about, np.nan)
            found["r2"] = FigureArray(r2, f"fewer than {LEAST_R2_ROWS} rows, or every outcome is the training mean")
    return found


def _ranking(of: Totals) -> Figures:
    judged = of["queries"] - of["empty"]
    reason = "no query has a relevant row"
    return {
        "ndcg": FigureArray(_ratio(of["ndcg"], judged), reason),
        "map": FigureArray(_ratio(of["map"], judged), reason),
        "queries": FigureArray(of["queries"], NO_ROWS),
        "queries_without_relevant": FigureArray(of["empty"], NO_ROWS),
    }
