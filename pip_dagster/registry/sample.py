"""The sample of training rows that comes with a model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from pip_dagster.registry.errors import InvalidSample

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

Sample: TypeAlias = "Path | str | pa.Table | pd.DataFrame"


def read(path: Path) -> pa.Table:
    """A sample file as an Arrow table."""
    table = _read_file(path)
    if table.num_rows == 0:
        raise InvalidSample(
            "the sample has no rows; give some hundred to some hundred thousand rows of the training data"
        )
    return table


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
