"""Two models of known quality on rows that depend on each other by unit and by day.

Latent: an outcome is a signal x plus luck; a model sees x plus its own error. Both errors have the same distribution,
so that the models are equally good, unless `worse` multiplies the candidate's. With `unit`, the same units are in every
partition, and signal, errors and half of the luck stay with them. With `day`, 5% of the variance of luck and errors is
shared by the rows of a partition. `shift` moves the two models' levels apart, as with models of different months.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr

from pip_dagster.statistics.interval import PairedRows

CLASSES = 3
ICC = 0.05  # the share of the variance that a day has in common


@dataclass(frozen=True)
class World:
    """`rows` for each of `days`; `correlation` of the two models' scores; `rate` of positives, or mean count."""

    days: int = 7
    rows: int = 200
    unit: bool = False
    day: bool = False
    shift: float = 0.0
    correlation: float = 0.83
    rate: float = 0.3
    worse: float = 1.0
    recurring: int = 0  # how many units there are, when `unit`; as many as rows of a day by default

    @property
    def name(self) -> str:
        parts = [name for name in ("unit", "day") if getattr(self, name)] + ["shift"] * bool(self.shift)
        return f"{self.days} × {self.rows:,}, {' + '.join(parts) or 'independent'}"


def draw(metric: str, world: World, rng: np.random.Generator) -> PairedRows:
    """One set of labelled rows with a metric's outcomes and both models' scores."""
    n = world.days * world.rows
    day = np.repeat(np.arange(world.days), world.rows)
    unit = np.tile(np.arange(world.rows), world.days) % (world.recurring or world.rows) if world.unit else np.arange(n)
    columns = CLASSES if metric in ("multi_logloss", "accuracy", "macro_f1", "ovr_auc") else 1

    def normal(by_unit: float, by_day: float) -> np.ndarray:
        found = np.zeros((n, columns))
        for share, codes in ((by_unit, unit), (by_day, day)):
            if share:
                found += share**0.5 * rng.normal(size=(int(codes.max()) + 1, columns))[codes]
        rest = 1 - by_unit - by_day
        return found + rest**0.5 * rng.normal(size=(n, columns)) if rest > 1e-9 else found

    icc = ICC if world.day else 0.0
    stays = 1.0 if world.unit else 0.0
    signal = normal(stays, 0.0)
    luck = normal(0.5 * stays, icc)
    error = (1 / world.correlation - 1) ** 0.5  # corr(x + e1, x + e2) = 1 / (1 + var e)
    level = world.shift / 2 * rng.choice((-1, 1))
    old = signal + error * normal(stays * (1 - icc), icc) + level
    new = signal + error * world.worse * normal(stays * (1 - icc), icc) - level
    return PairedRows(
        _outcomes(metric, signal + luck, signal, luck, world, rng), *_scores(metric, old, new, world), unit, day
    )


def _outcomes(
    metric: str, latent: np.ndarray, signal: np.ndarray, luck: np.ndarray, world: World, rng: np.random.Generator
) -> np.ndarray:
    if metric in ("auc", "logloss"):
        return (latent[:, 0] > _threshold(world.rate)).astype(float)
    if metric == "rmse":
        return latent[:, 0]
    if metric == "poisson_deviance":
        return rng.poisson(world.rate * np.exp(0.5 * signal[:, 0] + 0.3 * luck[:, 0])).astype(float)
    return latent.argmax(axis=1)


def _scores(metric: str, old: np.ndarray, new: np.ndarray, world: World) -> tuple[np.ndarray, np.ndarray]:
    """What a calibrated model of the champion's error would predict; both models are read by the same rule."""
    slope = world.correlation
    left = 1 - slope  # the variance of the signal, given the score
    if metric in ("auc", "logloss"):
        return tuple(ndtr((slope * s[:, 0] - _threshold(world.rate)) / (1 + left) ** 0.5) for s in (old, new))
    if metric == "rmse":
        return slope * old[:, 0], slope * new[:, 0]
    if metric == "poisson_deviance":
        bias = 0.125 * left + 0.045
        return tuple(world.rate * np.exp(0.5 * slope * s[:, 0] + bias) for s in (old, new))
    scale = 1.2 * slope  # about what makes the shares those of the classes
    odds = [np.exp(scale * s) for s in (old, new)]
    return tuple(each / each.sum(axis=1, keepdims=True) for each in odds)


def _threshold(rate: float) -> float:
    from scipy.special import ndtri

    return float(-ndtri(rate) * 2**0.5)
