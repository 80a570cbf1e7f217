"""What the metrics of a version are measured over: the stored columns of its scores, and what they mean."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from pip_dagster.registry.engines import objective_of
from pip_dagster.registry.task import CALIBRATED
from pip_dagster.statistics.metrics.spec import MetricSpec

if TYPE_CHECKING:
    from pip_dagster.registry.booster_signature import BoosterSignature
    from pip_dagster.registry.manifest import Manifest

_SCALES: dict[str, Literal["probability", "margin"]] = {"probability": "probability", "log-odds": "margin"}
# Of XGBoost, where the model file does not say another.
TWEEDIE_POWER = 1.5


def metric_spec(
    manifest: Manifest,
    *,
    decisions: Sequence[str] = (),
    weight: str | None = None,
    query: str | None = None,
    censored: str | None = None,
    key: Sequence[str] = (),
) -> MetricSpec | None:
    """What is measured of a version's stored rows, over their columns: `calibrated` where the version calibrates.

    Args:
        manifest: of the version.
        decisions: BOOLEAN columns of a binary model's rows.
        weight: the column of row weights.
        query: the column of a ranking's group.
        censored: the BOOLEAN column of survival times that are only lower bounds.
        key: columns that identify a row.

    Returns:
        None where no metric fits: several outputs that are neither classes nor quantiles, or a ranking without `query`.
    """
    found = signature_spec(manifest, query=query)
    if found is None:
        return None
    if manifest.calibration is not None:
        found = replace(found, scores=(CALIBRATED,), scale="probability" if found.kind == "binary" else found.scale)
    reference = manifest.score_reference.get(manifest.outputs[0])
    held_out = getattr(manifest, "held_out", None)
    mean = held_out.outcome_mean if held_out else reference.mean if reference and not manifest.calibration else None
    return replace(
        found,
        decisions=tuple(decisions) if found.kind == "binary" else (),
        weight=weight if found.kind not in ("ranking", "survival") else None,
        censored=censored if found.kind == "survival" else None,
        key=tuple(key),
        training_mean=mean if found.kind == "regression" and not found.quantiles else None,
    )


def signature_spec(signature: BoosterSignature, *, query: str | None = None) -> MetricSpec | None:
    """The same of scores that are not calibrated, from what scoring needs alone."""
    objective, outputs = objective_of(signature), signature.outputs
    kind = signature.task
    if kind == "multiclass":
        return MetricSpec(kind, scores=outputs, classes=signature.classes or ())
    quantiles = signature.quantiles if objective.meaning == "quantile" else None
    if quantiles and len(quantiles) == len(outputs):
        return MetricSpec(kind, scores=outputs, quantiles=quantiles)
    if len(outputs) > 1 or objective.meaning in ("quantile", "expectile") or (kind == "ranking" and query is None):
        return None
    if kind == "binary":
        return MetricSpec(kind, scores=outputs, scale=_SCALES.get(objective.meaning, "score"))
    power = 1.0 if signature.objective != "reg:tweedie" else signature.tweedie_power or TWEEDIE_POWER
    risk = objective.meaning == "hazard ratio"
    return MetricSpec(kind, scores=outputs, power=power, risk=risk, query=query if kind == "ranking" else None)
