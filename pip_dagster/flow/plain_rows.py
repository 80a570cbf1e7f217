"""Stored rows that only a model reads: taken as its matrix, in one scan that is their guard as well.

Staging costs a plain model more than anything else beside its trees: the rows are copied to a temporary table, counted,
and read again, each time from disk if they exceed memory. A row needs no guard in SQL where each number of its matrix
is a number. So such rows are taken from the warehouse as batches of the matrix. The warehouse is locked while it is
read, so they wait for the model in memory, and beyond that in a file.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pip_dagster.flow.guard import Encoded, Findings
from pip_dagster.flow.stage import Stage
from pip_dagster.registry.matrix import LARGEST_FLOAT32
from pip_dagster.sql.names import quote_all
from pip_dagster.warehouse.connect import spill_folder

if TYPE_CHECKING:
    import pyarrow as pa


# Bytes of them that are held in memory, about what staged rows would take of it; the others are in the file.
_HELD = 128_000_000


@dataclass(frozen=True)
class PlainRows:
    """The rows of one partition as Arrow batches: what is carried along, then the matrix.

    `file` has those that are not `held` in memory.
    """

    schema: pa.Schema
    rows: int
    held: Sequence[pa.RecordBatch]
    file: Path

    def found(self, partitions: Sequence[str]) -> dict[str, Findings]:
        """What the guard would count, of their one partition."""
        (key,) = partitions
        return {key: Findings(self.rows, {}, {}, {})}

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        """The batches, any number of times."""
        import pyarrow as pa

        yield from self.held
        with pa.OSFile(str(self.file)) as source, pa.ipc.open_stream(source) as reader:
            yield from reader


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
    held: list[pa.RecordBatch] = []
    try:
        with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_stream(sink, reader.schema) as writer:
            while plain and (batch := _next(reader)) is not None:
                plain = all(_is_plain(batch.column(i)) for i in range(len(carried), batch.num_columns))
                rows += batch.num_rows
                if rows * batch.nbytes <= _HELD * batch.num_rows:
                    held.append(batch)
                else:
                    writer.write_batch(batch)
    except OSError as error:
        raise OSError(error.errno or errno.EIO, str(error), str(file)) from error
    if plain and expected == (rows,):
        return PlainRows(reader.schema, rows, held, file)
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
