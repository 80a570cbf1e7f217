"""A model's matrix: float32, NaN for a missing value, a category's code as a whole number."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pip_dagster.registry.booster_signature import Feature
from pip_dagster.registry.errors import SignatureMismatch

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa


LARGEST_FLOAT32 = 3.4028234663852886e38


@dataclass(frozen=True)
class MatrixRules:
    """The numbers that must not reach an engine, because it would score them without an error.

    The guard counts them before it scores a partition, and `encode` refuses them.
    """

    title: str  # the engine's name in messages
    largest: float  # the largest absolute value that float32 holds
    takes_infinite: bool


def encode_column(column: pa.ChunkedArray, feature: Feature, rules: MatrixRules) -> np.ndarray:
    """One feature's column as float32 (rows,): categories as codes, NULL and NaN as NaN."""
    import numpy as np
    import pyarrow as pa

    if pa.types.is_null(column.type):
        return np.full(len(column), np.nan, dtype=np.float32)
    return _codes(column, feature) if feature.categories is not None else _numbers(column, feature, rules)


def _codes(column: pa.ChunkedArray, feature: Feature) -> np.ndarray:
    import pyarrow as pa
    import pyarrow.compute as pc

    values = as_strings(column, feature.name)
    codes = pc.index_in(values, value_set=pa.array(feature.categories, pa.string()))
    unseen = pc.unique(values.filter(pc.and_(pc.is_valid(values), pc.is_null(codes)))).to_pylist()
    if unseen:
        raise SignatureMismatch(
            f"feature {feature.name!r}: {len(unseen)} values are not in its category list, such as {unseen[:5]}; the "
            f"list has {len(feature.categories or ())} entries and must hold every value that the model was trained on"
        )
    return _to_float32(codes)


def _numbers(column: pa.ChunkedArray, feature: Feature, rules: MatrixRules) -> np.ndarray:
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    kind = column.type
    if pa.types.is_decimal(kind):
        column = pc.cast(column, pa.float64())
    elif not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)):
        raise SignatureMismatch(
            f"feature {feature.name!r} is {feature.type}, but its column is {kind}; cast it to a number in SQL"
        )
    values = _to_float32(column)
    if not rules.takes_infinite and np.isinf(values).any():
        raise SignatureMismatch(
            f"feature {feature.name!r} holds values that are infinite as float32; {rules.title} would score them "
            "without an error: replace them with NULL, or clip them, in training and in the pipeline alike"
        )
    return values


def as_strings(column: pa.ChunkedArray, name: str) -> pa.ChunkedArray:
    """A category column's values as strings: integers in decimal, booleans as true and false, as DuckDB casts them.

    Raises:
        SignatureMismatch: another type; a float or a date has several spellings.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_dictionary(column.type):
        column = pc.cast(column, column.type.value_type)
    kind = column.type
    text = pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    if not (text or pa.types.is_integer(kind) or pa.types.is_boolean(kind) or pa.types.is_null(kind)):
        raise SignatureMismatch(
            f"category feature {name!r} has values of type {kind}; only strings, integers and booleans name a category "
            "the same way everywhere: cast it to VARCHAR in SQL, and train on that"
        )
    return pc.cast(column, pa.string())


def _to_float32(column: pa.ChunkedArray) -> np.ndarray:
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_boolean(column.type):
        column = pc.cast(column, pa.uint8())
    # Not safe: an integer above 2^24 is rounded, as XGBoost itself rounds it.
    floats = pc.cast(column, pa.float32(), safe=False)
    return np.asarray(pc.fill_null(floats, np.nan).to_numpy(), dtype=np.float32)
