"""Golden rows: raw sample rows with the scores of registration, which every later load must reproduce."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from pip_dagster.registry.errors import SignatureMismatch
from pip_dagster.registry.files import sha256
from pip_dagster.registry.manifest import Signature
from pip_dagster.registry.reissue import Reissue
from pip_dagster.registry.version import GOLDEN_FILE, ModelVersion

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    from pip_dagster.registry.engines.protocol import Predictor

MAX_ROWS = 200
PREFIX = "expected_"


@dataclass(frozen=True)
class Golden:
    """Raw feature rows, and the float32 scores expected for them: (rows,) or (rows, outputs)."""

    rows: pa.Table
    expected: np.ndarray


def write(
    path: Path,
    sample: pa.Table,
    scores: np.ndarray,
    signature: Signature,
    groups: Sequence[np.ndarray] | None = None,
    *,
    nonce: bool = False,
) -> None:
    """Write up to 200 evenly spaced rows of the sample with their scores as `expected_<output>`.

    With `groups`, arrays of row numbers, each group gets an equal share: a segment's rows may be few. With a `nonce`,
    nobody who knows the file's sha256 can find a row by trying, once an erasure has removed it with the file.

    Raises:
        SignatureMismatch: a feature has such a name itself.
    """
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    groups = groups or [np.arange(sample.num_rows)]
    chosen = np.sort(np.concatenate([_spread(rows, MAX_ROWS // len(groups) or 1) for rows in groups]))
    columns = {}
    for name in input_columns(signature):
        column = sample.column(name)
        # Plain values: the manifest has the category list, and Parquet cannot store every dictionary.
        columns[name] = (
            pc.cast(column, column.type.value_type) if pa.types.is_dictionary(column.type) else column
        ).take(pa.array(chosen))
    expected = scores.reshape(len(scores), len(signature.outputs))[chosen]
    for i, output in enumerate(signature.outputs):
        if PREFIX + output in columns:
            raise SignatureMismatch(
                f"feature {PREFIX + output!r} has the name of an expected score; rename it and train again"
            )
        columns[PREFIX + output] = pa.array(expected[:, i], pa.float32())
    path.write_bytes(_parquet(pa.table(columns), nonce=nonce))


def without(
    version: ModelVersion, positions: Sequence[int], *, erasure_id: str, by: str, at: datetime
) -> tuple[Reissue, bytes]:
    """A version's golden rows without those at these positions, for `GoldenFiles.replace`. Raises as `read`."""
    import numpy as np

    before, table = version.golden_files.current[1], read_table(version)
    left = np.setdiff1d(np.arange(table.num_rows), positions)
    data = _parquet(table.take(left), nonce=True)
    gone = tuple(sorted({*positions}))
    made = Reissue(
        erasure_id=erasure_id, at=at, by=by, before=before, after=sha256(data), positions=gone, rows_left=len(left)
    )
    return made, data


def _parquet(table: pa.Table, *, nonce: bool) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    sink = pa.BufferOutputStream()
    metadata = {"nonce": secrets.token_hex(16)} if nonce else None
    pq.write_table(table.replace_schema_metadata(metadata), sink, compression="zstd")
    return bytes(sink.getvalue())


def input_columns(signature: Signature) -> tuple[str, ...]:
    """The columns that a row needs to be scored: the features, the offset, and what only conditions read."""
    conditions = signature.composite.columns if signature.composite else ()
    offset = () if signature.offset is None else (signature.offset,)
    return tuple(dict.fromkeys((*(feature.name for feature in signature.features), *offset, *conditions)))


def _spread(rows: np.ndarray, most: int) -> np.ndarray:
    import numpy as np

    places = np.unique(np.linspace(0, len(rows) - 1, num=min(most, len(rows))).round().astype(np.int64))
    return rows[places]


def read_table(version: ModelVersion) -> pa.Table:
    """Its golden rows with their expected scores, those that erasures left. Raises as `ModelVersion.file_bytes`."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    return pq.read_table(pa.BufferReader(version.file_bytes(GOLDEN_FILE)))


def read(version: ModelVersion) -> Golden:
    """A version's golden rows. Raises as `ModelVersion.file_bytes`."""
    import numpy as np

    table = read_table(version)
    outputs = [PREFIX + output for output in version.manifest.outputs]
    expected = np.column_stack([table.column(output).to_numpy() for output in outputs])
    rows = table.select(list(input_columns(version.manifest)))
    return Golden(rows, expected[:, 0] if len(outputs) == 1 else expected)


def largest_difference(version: ModelVersion, predictor: Predictor) -> float | None:
    """The largest absolute difference between expected and actual golden scores; 0.0 on the same engine.

    None where erasures have left no golden row.

    Raises:
        CorruptRegistry: the golden rows cannot be read.
        DigestMismatch: they are not the registered ones.
        SignatureMismatch: they do not fit the manifest.
    """
    import numpy as np

    from pip_dagster.registry.encoding import encode

    golden = read(version)
    if golden.rows.num_rows == 0:
        return None
    actual = predictor.predict(encode(golden.rows, version.manifest)).astype(np.float64)
    return float(np.abs(actual - golden.expected).max())
