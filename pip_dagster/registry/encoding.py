"""From a table of raw feature values to the matrix that a Booster takes."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from pip_dagster.registry.composite import Composite
from pip_dagster.registry.errors import SignatureMismatch
from pip_dagster.registry.manifest import Feature, Signature

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa


def encode(table: "pa.Table", manifest: Signature) -> "np.ndarray":
    """The table's features as float32 (rows, features), C order: categories as codes, NULL and NaN as NaN.

    Columns are taken by name; others are ignored. A composite with segments has a last column: the number of each
    row's segment, NaN for none. Raises SignatureMismatch for a missing or doubled column, a type the feature does not
    take, an infinite value, a category that is not in the manifest's list, or a condition that cannot be evaluated.
    """
    import numpy as np

    composite = manifest.composite
    routes = composite is not None and composite.routes
    X = np.empty((table.num_rows, len(manifest.features) + routes), dtype=np.float32)
    if composite is not None and routes:
        X[:, -1] = segments_of(table, composite)
    for position, feature in enumerate(manifest.features):
        columns = table.schema.get_all_field_indices(feature.name)
        if len(columns) != 1:
            state = "misses" if not columns else "holds more than one"
            raise SignatureMismatch(f"the table {state} column {feature.name!r}, which the model takes as a feature")
        X[:, position] = _encode_column(table.column(columns[0]), feature)
    return X


def sql_columns(table: "pa.Table", names: Iterable[str]) -> dict[str, str]:
    """The DuckDB types of these columns of a table; a dictionary is its plain values."""
    import duckdb

    with duckdb.connect() as con:
        con.register("rows", _plain(table.slice(0, 0), names))
        return {row[0]: row[1] for row in con.execute("DESCRIBE SELECT * FROM rows").fetchall()}


def segments_of(table: "pa.Table", composite: Composite) -> "np.ndarray":
    """Float32 (rows,): the number of each row's segment, NaN for none. Raises SignatureMismatch."""
    from pip_dagster.registry.route import fits, route

    if absent := [name for name in composite.columns if name not in table.column_names]:
        raise SignatureMismatch(f"the table misses {absent}, which a segment's condition reads")
    columns = sql_columns(table, composite.columns)
    for name, wanted in composite.columns.items():
        if not fits(columns[name], wanted):
            raise SignatureMismatch(f"column {name!r} is {columns[name]}; a segment's condition reads it as {wanted}")
    import duckdb

    found = route(composite, columns)
    with duckdb.connect(config={"threads": 1}) as con:
        con.execute("SET TimeZone = 'UTC'")
        con.register("rows", _plain(table, composite.columns))
        read = con.execute(f"SELECT {found.number} AS number, {found.failed} AS failed FROM rows").to_arrow_table()
    failed = sum(bool(each) for each in read.column("failed").to_pylist())
    if failed:
        raise SignatureMismatch(
            f"the conditions of the segments end in an error for {failed} of {table.num_rows} rows; write them so that "
            "every value can be judged, for example with TRY_CAST"
        )
    return read.column("number").to_numpy()


def _plain(table: "pa.Table", names: Iterable[str]) -> "pa.Table":
    import pyarrow as pa
    import pyarrow.compute as pc

    columns = {}
    for name in names:
        column = table.column(name)
        dictionary = pa.types.is_dictionary(column.type)
        columns[name] = pc.cast(column, column.type.value_type) if dictionary else column
    return pa.table(columns)


def _encode_column(column: "pa.ChunkedArray", feature: Feature) -> "np.ndarray":
    import numpy as np
    import pyarrow as pa

    if pa.types.is_null(column.type):
        return np.full(len(column), np.nan, dtype=np.float32)
    return _codes(column, feature) if feature.categories is not None else _numbers(column, feature)


def _codes(column: "pa.ChunkedArray", feature: Feature) -> "np.ndarray":
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


def _numbers(column: "pa.ChunkedArray", feature: Feature) -> "np.ndarray":
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
    if np.isinf(values).any():
        raise SignatureMismatch(
            f"feature {feature.name!r} holds values that are infinite as float32; XGBoost would score them silently: "
            "make them NULL, or clip them, in training and in the pipeline alike"
        )
    return values


def as_strings(column: "pa.ChunkedArray", name: str) -> "pa.ChunkedArray":
    """A category column's values as strings: integers in decimal, booleans as true and false, as DuckDB casts them.

    Raises SignatureMismatch for other types: a float or a date has several spellings.
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


def _to_float32(column: "pa.ChunkedArray") -> "np.ndarray":
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_boolean(column.type):
        column = pc.cast(column, pa.uint8())
    # Not safe: an integer above 2^24 is rounded, as XGBoost itself rounds it.
    floats = pc.cast(column, pa.float32(), safe=False)
    return np.asarray(pc.fill_null(floats, np.nan).to_numpy(), dtype=np.float32)
