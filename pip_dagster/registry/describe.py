"""In the probe: the distributions of a sample and its scores, and the golden rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pip_dagster.errors import RegistryError
from pip_dagster.registry import golden, reference
from pip_dagster.registry.encoding import encode
from pip_dagster.registry.engines.protocol import Predictor
from pip_dagster.registry.errors import InvalidModel
from pip_dagster.registry.manifest import Signature
from pip_dagster.registry.outcomes import measure_held_out
from pip_dagster.registry.sample import check_types
from pip_dagster.registry.sandbox import ProbeReport, ProbeRequest

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa


def describe(
    request: ProbeRequest,
    table: pa.Table,
    signature: Signature,
    predictor: Predictor,
    *,
    model_sha256: str,
    groups: Sequence[np.ndarray] | None = None,
    held_out: pa.Table | None = None,
) -> ProbeReport:
    """Score the sample, write golden rows (of each of `groups`, which are row numbers) and report.

    Outcomes are those of `held_out`, or of the sample where these are the held-out rows.
    """
    X, *scores = _scored(request, table, signature, predictor)
    golden.write(request.golden, table, scores[0], signature, groups, nonce=request.nonce)
    score_reference = reference.score_reference(scores[0], signature)
    found = None
    if request.outcome is not None:
        if held_out is not None:
            table, scores = held_out, _scored_apart(request, held_out, signature, predictor)
        found = measure_held_out(table, request.outcome, signature, score_reference, (scores[0], scores[1]))
    return ProbeReport(
        signature=signature,
        feature_reference=reference.feature_reference(X, signature),
        score_reference=score_reference,
        model_sha256=model_sha256,
        held_out=found,
    )


def _scored_apart(
    request: ProbeRequest, table: pa.Table, signature: Signature, predictor: Predictor
) -> list[np.ndarray]:
    """Raw and calibrated scores of held-out rows that are not the sample."""
    try:
        return list(_scored(request, table, signature, predictor)[1:])
    except RegistryError as error:
        raise type(error)(f"the held-out rows, read as the sample is: {error}") from error


def _scored(
    request: ProbeRequest, table: pa.Table, signature: Signature, predictor: Predictor
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The matrix of a table, its scores, and the calibrated scores, which are the same without a calibration."""
    import numpy as np

    check_types(table, signature)
    X = encode(table, signature)
    scores = predictor.predict(X)
    if not np.isfinite(scores).all():
        raise InvalidModel(
            f"{int((~np.isfinite(scores)).sum())} scores on the sample are NaN or infinite; the file is damaged, or "
            "training diverged"
        )
    calibrated = scores
    if request.calibration is not None and len(signature.outputs) == 1:
        calibrated = request.calibration.apply(scores)
        if not np.isfinite(calibrated).all():
            raise InvalidModel(
                f"{int((~np.isfinite(calibrated)).sum())} calibrated scores on the sample are NaN or infinite; correct "
                f"the calibration ({request.calibration.method}), which was fitted to other scores"
            )
    return X, scores, calibrated
