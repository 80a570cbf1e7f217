"""Which columns hold scores and outcomes, and what they mean: all that the metrics of a task depend on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

Kind = Literal["binary", "multiclass", "regression", "count", "ranking", "survival"]

# By name without a suffix, such as a decision's or a class'. Of the others less is better, or neither.
HIGHER_IS_BETTER = frozenset(
    {"auc", "average_precision", "precision", "recall", "accuracy", "macro_f1", "ovr_auc", "r2", "gini", "ndcg", "map"}
    | {"concordance"}
)


class MetricValue(NamedTuple):
    """A figure over so many rows.

    `value` is None where the rows cannot give one, and `reason` says why; a value that is unstable has a reason too.
    `low` and `high`: a 95% interval for independent rows, of the figures that have one.
    """

    value: float | None
    rows: int
    reason: str = ""
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class MetricSpec:
    """What is measured, over which columns.

    Attributes:
        kind: the model's task.
        scores: the columns of scores: one for each class or quantile, otherwise one.
        outcome: the column of the outcome: 0 or 1; the code of a class; a number; a relevance; a time.
        weight: the column of row weights, 0 or more; not for ranking and survival.
        scale: of a binary model's scores. `margin`: log-odds. `score`: no probability, so that only their order counts.
        decisions: BOOLEAN columns of a binary model's rows; NULL is neither.
        classes: the names of the classes, in the order of their codes.
        quantiles: what share of outcomes each of the scores is meant to exceed, of a quantile objective.
        training_mean: the mean outcome in training, against which R² is measured.
        power: of the deviance of counts: 1 is Poisson's, above 1 and below 2 Tweedie's.
        query: the column of a ranking's group.
        at: how many rows of a query count.
        censored: the BOOLEAN column of outcomes that are only lower bounds.
        risk: whether a high score means a short time, as with Cox.
        key: columns that draw the same rows each time, where not all rows are used.
    """

    kind: Kind
    scores: tuple[str, ...] = ("score",)
    outcome: str = "pip_outcome"
    weight: str | None = None
    scale: Literal["probability", "margin", "score"] = "probability"
    decisions: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    quantiles: tuple[float, ...] = ()
    training_mean: float | None = None
    power: float = 1.0
    query: str | None = None
    at: int = 10
    censored: str | None = None
    risk: bool = False
    key: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        several = {"multiclass": self.classes}.get(self.kind) or self.quantiles
        if len(self.scores) != max(len(several), 1) or (self.kind == "multiclass" and len(several) < 2):
            raise ValueError(f"{self.kind}: {len(self.scores)} score columns for {len(several)} classes or quantiles")
        if self.weight is not None and self.kind in ("ranking", "survival"):
            raise ValueError(f"{self.kind}: rows of a {self.kind} model have no weights")
        if self.kind == "ranking" and (self.query is None or self.at < 1):
            raise ValueError("ranking: the column of the query is needed, and `at` of 1 or more")
        if not 1 <= self.power < 2:
            raise ValueError(f"power is {self.power}; expected 1 (Poisson) or a number above 1 and below 2 (Tweedie)")

    @property
    def layout(self) -> dict[str, Any]:
        """What must be equal where sums are added up."""
        return {
            "kind": self.kind,
            "scale": self.scale,
            "decisions": list(self.decisions),
            "classes": list(self.classes),
            "quantiles": list(self.quantiles),
            "power": self.power,
            "at": self.at,
            "risk": self.risk,
            "weighted": self.weight is not None,
        }

    @classmethod
    def of_layout(cls, layout: Mapping[str, Any]) -> MetricSpec:
        """A specification whose sums have this layout; its columns are placeholders."""
        names: dict[str, Any] = {name: tuple(layout[name]) for name in ("decisions", "classes", "quantiles")}
        width = max(len(names["classes"]), len(names["quantiles"]), 1)
        return cls(
            layout["kind"],
            scores=tuple(f"score_{i}" for i in range(width)),
            weight="weight" if layout["weighted"] else None,
            scale=layout["scale"],
            power=layout["power"],
            query="query" if layout["kind"] == "ranking" else None,
            at=layout["at"],
            risk=layout["risk"],
            **names,
        )

    @property
    def deviance(self) -> str:
        """The name of a count model's deviance."""
        return "poisson_deviance" if self.power == 1 else "tweedie_deviance"


def default_metric(spec: MetricSpec) -> str:
    """The first metric to show, and to raise alarms by."""
    if spec.kind == "regression":
        return f"pinball.{spec.quantiles[0]:g}" if spec.quantiles else "rmse"
    first = {"binary": "auc", "multiclass": "multi_logloss", "ranking": "ndcg", "survival": "concordance"}
    return first.get(spec.kind, spec.deviance)


def metric_base(name: str) -> str:
    """A metric's name without the decision, class or quantile behind it."""
    return name.partition(".")[0]
