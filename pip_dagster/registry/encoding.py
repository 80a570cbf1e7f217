"""From a table of raw feature values to the matrix that a model takes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from pip_dagster.registry.booster_signature import Feature
from pip_dagster.registry.composite import Composite
from pip_dagster.registry.engines import engine_named
from pip_dagster.registry.errors import SignatureMismatch
from pip_dagster.registry.manifest import Signature
from pip_dagster.registry.matrix import encode_column

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa


def encode(table: pa.Table, manifest: Signature) -> np.ndarray:
    """The table's features as float32 (rows, features), C order: categories as codes, NULL and NaN as NaN.

    Columns are taken by name; others are ignored. After the features comes the offset, if there is one. A composite
    with segments has a last column: the number of each row's segment, NaN for none.

    Raises:
        SignatureMismatch: a column is missing or duplicated, has a type or value that the feature does not take, or a
            condition cannot be evaluated.
    """
    import numpy as np

    composite = manifest.composite
    rules = engine_named(manifest.engine).matrix
    X = np.empty((table.num_rows, manifest.width), dtype=np.float32)
    if composite is not None and composite.routes:
        X[:, -1] = segments_of(table, composite)
    for position, feature in enumerate(manifest.features):
        X[:, position] = encode_column(_only(table, feature.name, "a feature"), feature, rules)
    count = len(manifest.features)
    if manifest.missing is not None:
        X[:, :count][X[:, :count] == np.float32(manifest.missing)] = np.nan
    if manifest.offset is not None:
        column = _only(table, manifest.offset, "its offset")
        X[:, count] = encode_column(column, Feature(name=manifest.offset, type="float"), rules)
        if wrong := int((~np.isfinite(X[:, count])).sum()):
            raise SignatureMismatch(
                f"the offset {manifest.offset!r} is NULL, NaN or infinite in {wrong} of {len(X)} rows; a row without "
                "its base margin cannot be scored"
            )
    return X


def _only(table: pa.Table, name: str, what: str) -> pa.ChunkedArray:
    columns = table.schema.get_all_field_indices(name)
    if len(columns) != 1:
        state = "lacks" if not columns else "holds more than one"
        raise SignatureMismatch(f"the table {state} column {name!r}, which the model takes as {what}")
    return table.column(columns[0])


def sql_columns(table: pa.Table, names: Iterable[str]) -> dict[str, str]:
    """The DuckDB types of these columns of a table; a dictionary is its plain values."""
    import duckdb

    with duckdb.connect() as con:
        con.register("rows", _plain(table.slice(0, 0), names))
        return {row[0]: row[1] for row in con.execute("DESCRIBE SELECT * FROM rows").fetchall()}


def segments_of(table: pa.Table, composite: Composite) -> np.ndarray:
    """Float32 (rows,): the number of each row's segment, NaN for none."""
    from pip_dagster.registry.route import fits, route

    if absent := [name for name in composite.columns if name not in table.column_names]:
        raise SignatureMismatch(f"the table lacks {absent}, which a segment's condition reads")
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


def _plain(table: pa.Table, names: Iterable[str]) -> pa.Table:
    import pyarrow as pa
    import pyarrow.compute as pc

    columns = {}
    for name in names:
        column = table.column(name)
        dictionary = pa.types.is_dictionary(column.type)
        columns[name] = pc.cast(column, column.type.value_type) if dictionary else column
    return pa.table(columns)
