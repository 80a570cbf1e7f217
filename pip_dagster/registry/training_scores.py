"""The scores that training itself computed for the sample, compared with those of the registered model.

A model file does not say everything that training knew: a sentinel for missing values, a base margin, the rounds that
early stopping chose. A model that lacks one of them loads and scores without an error, and wrongly.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from pip_dagster.plural import plural
from pip_dagster.registry.errors import InvalidSample, SignatureMismatch
from pip_dagster.registry.manifest import Signature, TrainingCheck
from pip_dagster.registry.sample import read
from pip_dagster.registry.sandbox import TrainingSource

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    import pyarrow as pa

# A column of the sample, one for each class, a Parquet file, or an array.
TrainingScores: TypeAlias = "str | Path | Sequence[str] | np.ndarray"

ABSOLUTE, RELATIVE = 1e-5, 1e-4  # what another version, device or library of exp() may change
_EXAMPLES = 5


def training_source(given: TrainingScores | None, folder: Path) -> TrainingSource | None:
    """What the probe reads; an array is written to `folder`."""
    if given is None:
        return None
    if isinstance(given, Path) or (isinstance(given, str) and given.endswith(".parquet")):
        return TrainingSource(file=Path(given).absolute())
    if isinstance(given, str):
        return TrainingSource(columns=(given,))
    if isinstance(given, list | tuple) and all(isinstance(each, str) for each in given):
        return TrainingSource(columns=tuple(map(str, given)))
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        values = np.asarray(given, dtype=np.float64)
        table = pa.table({f"score_{i}": column for i, column in enumerate(values.reshape(len(values), -1).T)})
    except (TypeError, ValueError) as error:
        raise InvalidSample(
            f"the training scores are not numbers of one row each: {error}; give a column of the sample, a Parquet "
            "file, or an array"
        ) from error
    file = folder / "training_scores.parquet"
    pq.write_table(table, file)
    return TrainingSource(file=file)


def compare(
    wanted: TrainingSource, sample: pa.Table, signature: Signature, scores: np.ndarray, cause: Callable[..., str]
) -> TrainingCheck:
    """Compare, row by row; `cause` finds out why they differ, from training's scores and the rows that differ.

    Raises:
        InvalidSample: the training scores cannot be read, or are not one for each row.
        SignatureMismatch: they differ.
    """
    import numpy as np

    theirs = _read(wanted, sample, signature)
    ours = float_columns(scores)
    if theirs.shape[1] == 1 < ours.shape[1]:  # multi:softmax predicts the class
        ours = ours.argmax(axis=1).astype(np.float64)[:, None]
    differs = differ(ours, theirs)
    if differs.any():
        raise SignatureMismatch(_refusal(ours, theirs, differs) + cause(theirs, np.flatnonzero(differs)))
    return TrainingCheck(rows=len(ours), largest_difference=float(np.abs(ours - theirs).max()))


def float_columns(scores: np.ndarray) -> np.ndarray:
    """Scores of (rows,) or (rows, outputs) as float64 (rows, outputs)."""
    import numpy as np

    return scores.reshape(len(scores), -1).astype(np.float64)


def differ(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """Which rows differ beyond the tolerance; NaN differs from everything."""
    import numpy as np

    with np.errstate(invalid="ignore"):
        same = np.abs(ours - theirs) <= ABSOLUTE + RELATIVE * np.abs(theirs)
    return np.asarray(~same.all(axis=1))


def _refusal(ours: np.ndarray, theirs: np.ndarray, differs: np.ndarray) -> str:
    import numpy as np

    def shown(row: np.ndarray) -> str:
        return ", ".join(f"{value:.6g}" for value in row)

    first = "; ".join(
        f"row {row}: {shown(ours[row])} here, {shown(theirs[row])} in training"
        for row in np.flatnonzero(differs)[:_EXAMPLES]
    )
    return (
        f"the scores are not those of training: {int(differs.sum())} of {len(differs)} rows of the sample differ by "
        f"more than {ABSOLUTE:g} + {RELATIVE:g} x score ({first}). "
    )


def _read(wanted: TrainingSource, sample: pa.Table, signature: Signature) -> np.ndarray:
    """Training's scores as float64 (rows, outputs); (rows, 1) are classes where the objective is multi:softmax."""
    import numpy as np

    table = read(wanted.file) if wanted.file else sample
    names = wanted.columns or tuple(table.column_names)
    if absent := [name for name in names if table.column_names.count(name) != 1]:
        raise InvalidSample(
            f"the training scores {absent} are not columns of the sample, which has {sample.column_names[:20]}; name "
            "its column, one for each class, or a file that ends in .parquet"
        )
    if table.num_rows != sample.num_rows:
        raise InvalidSample(
            f"{wanted.file} has {plural(table.num_rows, 'row')}, the sample has {sample.num_rows}; give one score for "
            "each row of the sample, in its order"
        )
    if wanted.file and set(signature.outputs) <= set(names):
        names = signature.outputs
    values = np.column_stack([_numbers(table.column(name), name) for name in names])
    if values.shape[1] == 2 and len(signature.outputs) == 1 and signature.task == "binary":
        values = values[:, 1:]  # predict_proba
    classes = signature.objective == "multi:softmax" and values.shape[1] == 1
    if values.shape[1] != len(signature.outputs) and not classes:
        raise InvalidSample(
            f"the training scores have {plural(values.shape[1], 'column')} ({', '.join(names[:10])}), and the model "
            f"has {len(signature.outputs)} outputs: {', '.join(signature.outputs)}; give one column for each, or a "
            "column of lists"
        )
    if wrong := int((~np.isfinite(values)).any(axis=1).sum()):
        raise InvalidSample(f"the training scores are NULL, NaN or infinite in {wrong} of {len(values)} rows")
    return values


def _numbers(column: pa.ChunkedArray, name: str) -> np.ndarray:
    import numpy as np
    import pyarrow as pa

    kind = column.type
    try:
        if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
            return np.array(column.to_pylist(), dtype=np.float64)
        return np.array(column.cast(pa.float64()).to_numpy(), dtype=np.float64)
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise InvalidSample(f"the training scores {name!r} are {kind}, not a number for each row: {error}") from error
