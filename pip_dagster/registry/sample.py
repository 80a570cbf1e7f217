"""The sample of training rows that comes with a model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from pip_dagster.registry.errors import InvalidSample, SignatureMismatch

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

    from pip_dagster.registry.manifest import Signature

Sample: TypeAlias = "Path | str | pa.Table | pd.DataFrame"


def read(path: Path) -> pa.Table:
    """A sample file as an Arrow table."""
    table = _read_file(path)
    if table.num_rows == 0:
        raise InvalidSample(
            "the sample has no rows; give some hundred to some hundred thousand rows of the training data"
        )
    return table


def read_held_out(path: Path | None, signature: Signature) -> pa.Table | None:
    """A file of held-out rows, which has the columns of a sample.

    Raises:
        SignatureMismatch: a column that the model takes is missing, or there twice.
    """
    if path is None:
        return None
    table = read(path)
    taken = [feature.name for feature in signature.features] + ([signature.offset] if signature.offset else [])
    if wrong := [name for name in taken if table.column_names.count(name) != 1]:
        raise SignatureMismatch(
            f"the held-out rows lack the columns {wrong[:10]}, which the model takes, or hold them twice; they have "
            f"{table.column_names[:20]}"
        )
    return table


def check_types(table: pa.Table, signature: Signature) -> None:
    """Refuse a column of a type that the guard of a pipeline would refuse for the same feature.

    Raises:
        SignatureMismatch: BOOLEAN for a number, or a number for a BOOLEAN.
    """
    import pyarrow as pa

    kinds = {feature.name: feature.type for feature in signature.features}
    kinds |= {signature.offset: "float"} if signature.offset else {}
    types = {name: table.schema.field(name).type for name in kinds}
    given = [name for name, kind in kinds.items() if kind in ("int", "float") and pa.types.is_boolean(types[name])]
    if given:
        raise SignatureMismatch(
            f"{given} are BOOLEAN in the sample, where the model takes numbers, and a pipeline that gives BOOLEAN "
            "there is refused. Cast them to 0 and 1 in the sample and in the feature SQL, or train on them as booleans"
        )
    others = (pa.types.is_boolean, pa.types.is_null)
    given = [name for name, kind in kinds.items() if kind == "bool" and not any(of(types[name]) for of in others)]
    if given:
        raise SignatureMismatch(
            f"{given} are BOOLEAN for the model and {types[given[0]]} in the sample; give the training's own columns"
        )


def stage(sample: Sample, path: Path) -> Path:
    """The file for the probe: the caller's own, or `path`, to which a table in memory is written."""
    if isinstance(sample, str | Path):
        return Path(sample).absolute()
    import pyarrow as pa

    try:
        table = sample if isinstance(sample, pa.Table) else pa.Table.from_pandas(sample, preserve_index=False)
    except (pa.ArrowException, TypeError, AttributeError) as error:
        raise InvalidSample(
            f"the sample is not a Parquet path, Arrow table or DataFrame that Arrow can read: {error}"
        ) from error
    # Arrow IPC keeps every dictionary as it is, which Parquet does not; it cannot replace one between batches.
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table.unify_dictionaries().combine_chunks())
    return path


def _read_file(path: Path) -> pa.Table:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        if path.suffix == ".arrow":
            return pa.ipc.open_file(path.read_bytes()).read_all()
        # One file, not a dataset: a folder called month=3 must not add a column.
        return pq.ParquetFile(path).read()
    except (OSError, pa.ArrowException) as error:
        raise InvalidSample(f"cannot read the sample {path} as Parquet: {error}") from error
