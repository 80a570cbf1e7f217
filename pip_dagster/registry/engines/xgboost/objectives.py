"""XGBoost's objectives, and what each of them means for whoever reads the scores."""

from __future__ import annotations

from pip_dagster.registry.engines.protocol import Objective
from pip_dagster.registry.errors import SignatureMismatch

_PROBABILITY = "probability"
_VALUE = "expected value"
_POSITIVE = "expected positive value"

# All objectives of XGBoost 3.2 to 3.4.
_OBJECTIVES = {
    "binary:logistic": Objective("binary", "logistic", _PROBABILITY),
    "binary:logitraw": Objective("binary", "identity", "log-odds"),
    "binary:hinge": Objective("binary", None, "class"),
    "multi:softprob": Objective("multiclass", "softmax", "class probabilities"),
    "multi:softmax": Objective("multiclass", "softmax", "class probabilities"),  # scored as softprob, see predictor
    "reg:squarederror": Objective("regression", "identity", _VALUE),
    "reg:linear": Objective("regression", "identity", _VALUE),
    "reg:absoluteerror": Objective("regression", "identity", _VALUE),
    "reg:pseudohubererror": Objective("regression", "identity", _VALUE),
    "reg:squaredlogerror": Objective("regression", "identity", _VALUE),
    "reg:logistic": Objective("regression", "logistic", _PROBABILITY),
    "reg:quantileerror": Objective("regression", "identity", "quantile"),
    # Each expectile is a positive step, the softplus of its margin, above the one before: no link of a single margin.
    "reg:expectileerror": Objective("regression", None, "expectile"),
    "reg:gamma": Objective("regression", "exponential", _POSITIVE),
    # Sums of a Poisson number of amounts, zero among them: judged by the Poisson deviance, as counts are.
    "reg:tweedie": Objective("count", "exponential", _POSITIVE),
    "count:poisson": Objective("count", "exponential", _POSITIVE),
    "rank:ndcg": Objective("ranking", None, "rank by NDCG"),
    "rank:map": Objective("ranking", None, "rank by MAP"),
    "rank:pairwise": Objective("ranking", None, "rank by pairs"),
    "survival:cox": Objective("survival", None, "hazard ratio"),
    "survival:aft": Objective("survival", None, "survival time"),
}


def objective_of(name: str) -> Objective:
    """The properties of an objective."""
    if name not in _OBJECTIVES:
        raise SignatureMismatch(
            f"the objective {name!r} is not known, so neither is what its scores mean; expected one of "
            f"{', '.join(sorted(_OBJECTIVES))}. Train with one of them, or upgrade pip-dagster"
        )
    return _OBJECTIVES[name]
