"""Stored rows that only a model reads: written to a file as its matrix, in one scan that is their guard as well.

Staging costs a plain model more than anything else beside its trees: the rows are copied to a temporary table, counted,
and read again, each time from disk if they exceed memory. A row needs no guard in SQL where each number of its matrix
is a number. So such rows go from the warehouse to the file, and from there to the model. They do not go to the model
directly, because the warehouse is locked while it is read.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pip_dagster.flow.guard import Encoded, Findings
from pip_dagster.flow.stage import Stage, spill_folder
from pip_dagster.registry.matrix import LARGEST_FLOAT32
from pip_dagster.sql.names import quote_all

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class PlainRows:
    """The rows of one partition: what is carried along, then the matrix, in a file of Arrow batches."""

    file: Path
    rows: int

    def found(self, partitions: Sequence[str]) -> dict[str, Findings]:
        """What the guard would count, of their one partition."""
        (key,) = partitions
        return {key: Findings(self.rows, {}, {}, {})}

    @contextmanager
    def reader(self) -> Iterator[pa.RecordBatchReader]:
        """The rows, a batch at a time."""
        import pyarrow as pa

        with pa.OSFile(str(self.file)) as source, pa.ipc.open_stream(source) as reader:
            yield reader


@contextmanager
def plain_rows(
    stage: Stage, carried: Sequence[str], encoded: Sequence[Encoded], batch_rows: int
) -> Iterator[PlainRows | None]:
    """The rows that `stage` has yet to bring; None if it has, and where that shows that a value is missing, or might
    be one that must not be scored: they are staged then.
    """
    if not stage.is_late:
        yield None
        return
    with stage.stored() as relation:
        written = _write(stage, relation, carried, encoded, batch_rows)
        if written is None:
            stage.bring()
    try:
        yield written
    finally:
        if written:
            written.file.unlink(missing_ok=True)


def _write(
    stage: Stage, relation: str, carried: Sequence[str], encoded: Sequence[Encoded], batch_rows: int
) -> PlainRows | None:
    import pyarrow as pa

    con = stage.con
    numbers = ", ".join(f"{feature.sound} AS f{i}" for i, feature in enumerate(encoded))
    file, rows, plain = spill_folder(con) / "plain.arrow", 0, True
    expected = con.execute(f"SELECT count(*) FROM {relation}").fetchone()
    # Any other query of the connection would end the reader, as if there were no more rows.
    reader = con.execute(f"SELECT {quote_all(carried)}, {numbers} FROM {relation}").to_arrow_reader(batch_rows)
    try:
        with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_stream(sink, reader.schema) as writer:
            while plain and (batch := _next(reader)) is not None:
                plain = all(_is_plain(batch.column(i)) for i in range(len(carried), batch.num_columns))
                rows += batch.num_rows
                writer.write_batch(batch)
    except OSError as error:
        raise OSError(error.errno or errno.EIO, str(error), str(file)) from error
    if plain and expected == (rows,):
        return PlainRows(file, rows)
    file.unlink()
    return None


def _next(reader: pa.RecordBatchReader) -> pa.RecordBatch | None:
    try:
        return reader.read_next_batch()
    except StopIteration:
        return None


def _is_plain(column: pa.FloatArray) -> bool:
    """Whether each value is a number within float32; the largest one might have been rounded to it."""
    if column.null_count:
        return False
    values = column.to_numpy()
    # A NaN is the least and the greatest, and compares with nothing.
    return not len(values) or bool(values.min() > -LARGEST_FLOAT32 and values.max() < LARGEST_FLOAT32)
