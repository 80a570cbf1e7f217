"""In the probe: what came of the sample's rows, against the scores of the version that is registered."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from pip_dagster.errors import DeclarationError
from pip_dagster.plural import plural
from pip_dagster.registry.errors import InvalidSample
from pip_dagster.registry.held_out import HeldOut, HeldOutBin
from pip_dagster.registry.manifest import Histogram, Signature
from pip_dagster.registry.metric_spec import signature_spec
from pip_dagster.statistics.metrics.measure import measure_arrays

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

_CLASSES = ("binary", "multiclass")
_NOT_MEASURED = {
    "ranking": "a ranking is measured within its queries, which a registration does not know",
    "survival": "times can be censored, which a registration does not know",
}


def measure_held_out(
    table: pa.Table,
    outcome: str,
    signature: Signature,
    reference: Mapping[str, Histogram],
    scores: tuple[np.ndarray, np.ndarray],
) -> HeldOut:
    """Measure the version on the rows that have an outcome.

    Args:
        table: the sample.
        outcome: its column.
        signature: of the version.
        reference: the bins of each output.
        scores: of the sample, raw and as they are used: calibrated where the version is.

    Raises:
        InvalidSample: the outcomes cannot be read, there are none, or all are of one class.
    """
    import numpy as np

    spec = signature_spec(signature)
    if spec is None or signature.task in _NOT_MEASURED:
        why = _NOT_MEASURED.get(signature.task, f"no metric is known for the outputs {', '.join(signature.outputs)}")
        raise InvalidSample(
            f"outcomes are given for a model of {signature.objective}, and {why}; register it without outcomes"
        )
    y = _outcomes(table, outcome, signature)
    known = ~np.isnan(y)
    if not known.any():
        raise InvalidSample(f"the column {outcome!r} has no outcome in any of {len(y)} rows; omit it, or give outcomes")
    y = y[known]
    if signature.task in _CLASSES and len(found := np.unique(y)) == 1:
        raise InvalidSample(
            f"all {len(y)} outcomes in {outcome!r} are of one class, {found[0]:g}, so that nothing shows how well the "
            "model tells classes apart; give held-out rows of several classes, or omit the outcomes"
        )
    raw, used = (each.reshape(len(each), -1)[known].astype(np.float64) for each in scores)
    columns = {name: used[:, i] for i, name in enumerate(spec.scores)} | {spec.outcome: y}
    mean = float(y.mean())
    if spec.kind == "regression" and not spec.quantiles:
        spec = replace(spec, training_mean=mean)
    try:
        metrics = measure_arrays(spec, columns).metrics
    except DeclarationError as error:
        raise InvalidSample(f"the outcomes in {outcome!r} do not fit {signature.objective}: {error}") from error
    bins = {
        output: _bins(raw[:, i], used[:, i], (y == i) * 1.0 if len(spec.classes) else y, reference[output])
        for i, output in enumerate(signature.outputs)
    }
    return HeldOut(
        outcome=outcome,
        rows=len(y),
        outcome_mean=mean,
        outcome_sd=float(y.std()),
        metrics={name: each.value for name, each in metrics.items() if each.value is not None},
        bins=bins,
    )


def _bins(raw: np.ndarray, used: np.ndarray, y: np.ndarray, reference: Histogram) -> tuple[HeldOutBin, ...]:
    import numpy as np

    at = np.searchsorted(np.asarray(reference.edges), raw, side="left")
    error = used - y
    sums = [np.bincount(at, each, len(reference.counts)) for each in (used, y, np.abs(error), error**2)]
    return tuple(
        HeldOutBin(rows=int(rows), score=score, outcome=outcome, error=absolute, squared=squared)
        for rows, score, outcome, absolute, squared in zip(
            np.bincount(at, minlength=len(reference.counts)).tolist(), *(each.tolist() for each in sums), strict=True
        )
    )


def _outcomes(table: pa.Table, name: str, signature: Signature) -> np.ndarray:
    """Numbers, or codes of classes; NaN where there is none."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    count = table.column_names.count(name)
    if count != 1:
        state = "has no column" if not count else "has more than one column"
        raise InvalidSample(f"the sample {state} {name!r}, the outcome; it has {table.column_names[:20]}")
    if name in (feature.name for feature in signature.features):
        raise InvalidSample(f"the outcome {name!r} is a feature of the model; give the column that it predicts")
    column = table.column(name).combine_chunks()
    kind = column.type
    if pa.types.is_dictionary(kind):
        column, kind = column.cast(kind.value_type), kind.value_type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return _codes(column, name, signature)
    try:
        values = column.cast(pa.int8()) if pa.types.is_boolean(kind) else column
        found = np.array(pc.fill_null(values.cast(pa.float64()), np.nan))
    except (pa.ArrowException, TypeError) as error:
        raise InvalidSample(f"the outcome {name!r} is {kind}, not a number or a class: {error}") from error
    if np.isinf(found).any():
        raise InvalidSample(f"the outcome {name!r} is infinite in {plural(int(np.isinf(found).sum()), 'row')}")
    return found


def _codes(column: pa.Array, name: str, signature: Signature) -> np.ndarray:
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    if not signature.classes or signature.task not in _CLASSES:
        raise InvalidSample(
            f"the outcome {name!r} is text, and the model names no classes; give numbers (0 and 1 for a binary model), "
            "or name its classes"
        )
    codes = pc.index_in(column.cast(pa.string()), value_set=pa.array(signature.classes, pa.string()))
    unknown = pc.and_(pc.is_null(codes), pc.is_valid(column))
    if strange := column.filter(unknown).unique().to_pylist():
        raise InvalidSample(
            f"the outcome {name!r} has {strange[:5]}, which are no classes of the model; it has "
            f"{', '.join(signature.classes)}"
        )
    return np.array(pc.fill_null(codes.cast(pa.float64()), np.nan))
