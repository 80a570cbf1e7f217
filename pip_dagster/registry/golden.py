"""Golden rows: raw sample rows kept with the scores they got at registration, to be reproduced ever after."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pip_dagster.registry.errors import SignatureMismatch
from pip_dagster.registry.manifest import Signature
from pip_dagster.registry.version import GOLDEN_FILE, ModelVersion

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    from pip_dagster.registry.predictor import Predictor

MAX_ROWS = 200
PREFIX = "expected_"


@dataclass(frozen=True)
class Golden:
    """Raw feature rows, and the float32 scores expected for them: (rows,) or (rows, outputs)."""

    rows: "pa.Table"
    expected: "np.ndarray"


def write(path: Path, sample: "pa.Table", scores: "np.ndarray", signature: Signature) -> None:
    """Write up to 200 evenly spaced rows of the sample with their scores as ``expected_<output>``.

    Raises SignatureMismatch when a feature has such a name itself.
    """
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    chosen = np.unique(np.linspace(0, sample.num_rows - 1, num=min(MAX_ROWS, sample.num_rows)).round().astype(np.int64))
    columns = {}
    for feature in signature.features:
        column = sample.column(feature.name)
        # Plain values: the category list is the manifest's business, and Parquet cannot keep every dictionary.
        columns[feature.name] = (
            pc.cast(column, column.type.value_type) if pa.types.is_dictionary(column.type) else column
        ).take(pa.array(chosen))
    expected = scores.reshape(len(scores), len(signature.outputs))[chosen]
    for i, output in enumerate(signature.outputs):
        if PREFIX + output in columns:
            raise SignatureMismatch(
                f"feature {PREFIX + output!r} has the name of an expected score; rename it and train again"
            )
        columns[PREFIX + output] = pa.array(expected[:, i], pa.float32())
    pq.write_table(pa.table(columns), path, compression="zstd")


def read(version: ModelVersion) -> Golden:
    """A version's golden rows. Raises DigestMismatch, CorruptRegistry."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pq.read_table(pa.BufferReader(version.file_bytes(GOLDEN_FILE)))
    outputs = [PREFIX + output for output in version.manifest.outputs]
    expected = np.column_stack([table.column(output).to_numpy() for output in outputs])
    rows = table.select([feature.name for feature in version.manifest.features])
    return Golden(rows, expected[:, 0] if len(outputs) == 1 else expected)


def largest_difference(version: ModelVersion, predictor: "Predictor") -> float:
    """The largest absolute difference between expected and actual golden scores; 0.0 on the same engine.

    Raises DigestMismatch, CorruptRegistry, SignatureMismatch.
    """
    import numpy as np

    from pip_dagster.registry.encoding import encode

    golden = read(version)
    actual = predictor.predict(encode(golden.rows, version.manifest)).astype(np.float64)
    return float(np.abs(actual - golden.expected).max())
