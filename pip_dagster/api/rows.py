"""Rows of a range of partitions: described at once, read when a method gives them, each time again."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from pip_dagster.api.published import open_published
from pip_dagster.api.shown import Shown, ShownTable, silent
from pip_dagster.errors import MissingPackageError, NotFoundError, StorageError, TrainingSetError
from pip_dagster.flow.engine import available_threads
from pip_dagster.flow.stage import keep
from pip_dagster.sql.names import among, literal, quote, quote_all
from pip_dagster.warehouse.access import reading
from pip_dagster.warehouse.connect import workspace
from pip_dagster.warehouse.faults import remedy
from pip_dagster.warehouse.interrupts import idle
from pip_dagster.warehouse.published_export import castable
from pip_dagster.whole_file import replacing

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl
    import pyarrow as pa
    from duckdb import DuckDBPyConnection

    from pip_dagster.declaration.pipeline import Pipeline
    from pip_dagster.flow.training_manifest import TrainingManifest, TrainingRequest

# The key of a Parquet file's metadata, and of an Arrow table's, that holds a `TrainingManifest` as JSON.
MANIFEST_KEY = b"pip_dagster.training_set"
_GROUP_ROWS = 100_000  # of a Parquet row group
_BATCH_ROWS = 40_000

Bounds = tuple[str, str]


class LazyRows(Shown):
    """Rows that are not read yet. Each method below reads them once, in the order of partition and key."""

    @abstractmethod
    def reader(self) -> pa.RecordBatchReader:
        """The rows as Arrow batches, for ranges that do not fit in memory.

        Read it to its end, or drop every reference to it: until then it keeps a DuckDB and its spill folder open.
        Arrow's `close()` alone does not end it.
        """

    def arrow(self) -> pa.Table:
        """All rows as an Arrow table."""
        return self.reader().read_all()

    def df(self) -> pd.DataFrame:
        """All rows as a pandas DataFrame.

        A DATE is a datetime64. Whole numbers and booleans stay what they are where some are NULL, as `Int16` and the
        like: a model that is trained on them then knows that they are whole.
        """
        import pandas as pd
        import pyarrow as pa

        table = self.arrow()
        frame = table.to_pandas(date_as_object=False)
        for name, column in zip(table.column_names, table.columns, strict=True):
            if column.null_count and (pa.types.is_integer(column.type) or pa.types.is_boolean(column.type)):
                sign = "U" if pa.types.is_unsigned_integer(column.type) else ""
                dtype = "boolean" if pa.types.is_boolean(column.type) else f"{sign}Int{column.type.bit_width}"
                frame[name] = column.to_pandas(types_mapper={column.type: pd.api.types.pandas_dtype(dtype)}.get)
        return frame

    def pl(self) -> pl.DataFrame:
        """All rows as a Polars DataFrame.

        Raises:
            MissingPackageError: Polars is not installed.
        """
        try:
            import polars
        except ImportError as error:
            raise MissingPackageError("Polars is not installed: `pip install polars`, or use .df() or .arrow().") from (
                error
            )
        found = polars.from_arrow(self.arrow())
        assert isinstance(found, polars.DataFrame)
        return found

    def write(self, path: str | Path) -> Path:
        """Write the rows to a Parquet file, a few batches at a time; the path.

        The file appears when it is complete, in place of one that is there.

        Raises:
            StorageError: it cannot be written; what was there is unchanged.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        path, given = Path(path), path
        if not path.name:
            raise StorageError(f"{str(given)!r} is not the name of a file; expected for example 'rows.parquet'.")
        if path.is_dir():
            raise StorageError(f"{path} is a folder; expected the name of a Parquet file.")
        reader = self.reader()
        with _complete(path) as temporary, pq.ParquetWriter(temporary, reader.schema, compression="zstd") as writer:
            group: list[pa.RecordBatch] = []
            for batch in reader:
                group.append(batch)
                if sum(each.num_rows for each in group) >= _GROUP_ROWS:
                    writer.write_table(pa.Table.from_batches(group))
                    group = []
            writer.write_table(pa.Table.from_batches(group, reader.schema))
            writer.add_key_value_metadata(self._metadata())
        return path

    def _metadata(self) -> dict[bytes, bytes]:
        """What is written beside the rows; known once they are read."""
        return {}


@contextmanager
def _complete(path: Path) -> Iterator[Path]:
    """As `replacing`, with an error that says what to do."""
    try:
        with replacing(path) as temporary:
            yield temporary
    except OSError as error:
        raise StorageError(f"{path} cannot be written: {error}. {remedy(str(error))}") from error


@dataclass(repr=False)
class TrainingSet(LazyRows):
    """Features of a range as scoring would be given them, beside their labels where those are wanted.

    Columns: `partition_key`, those of the feature SQL in its order, and the outcome last. DECIMAL and HUGEINT features
    are DOUBLE, as models read them; types that Parquet lacks are text. A row without a label has NULL as outcome.

    Attributes:
        request: which rows.
        progress: is called with what is being done.
    """

    request: TrainingRequest
    progress: Callable[[str], None] = silent
    _manifest: TrainingManifest | None = field(default=None, init=False)

    def reader(self) -> pa.RecordBatchReader:
        """The rows as Arrow batches, for ranges that do not fit in memory.

        Raises:
            DeclarationError: the SQL of features or labels cannot run, or no labels are declared.
            LeakError: features depend on later rows.
            SourceError: a source cannot be read.
            TrainingSetError: labels are not valid, or no row is left.
        """
        import pyarrow as pa

        from pip_dagster.flow.training_set import TrainingRows

        rows = TrainingRows(self.request, self.progress)
        batches = rows.batches()
        first = next(batches, None)
        self._manifest = rows.manifest

        def every() -> Iterator[pa.RecordBatch]:
            if first is not None:
                yield first
            yield from batches
            self._manifest = rows.manifest

        schema = pa.schema([]) if rows.schema is None else rows.schema
        return pa.RecordBatchReader.from_batches(schema, every())

    def arrow(self) -> pa.Table:
        """All rows as an Arrow table, with the manifest in the schema's metadata."""
        table = super().arrow()
        return table.replace_schema_metadata(self._metadata())

    @property
    def manifest(self) -> TrainingManifest:
        """What the rows were built from and what was left out, once they were read to the end.

        Raises:
            TrainingSetError: they were not.
        """
        if self._manifest is None:
            name = self.request.pipeline.spec.name
            raise TrainingSetError("The rows are not read yet; call .arrow(), .df() or .write() first.", pipeline=name)
        return self._manifest

    def _metadata(self) -> dict[bytes, bytes]:
        return {MANIFEST_KEY: self.manifest.to_json().encode()}

    def _table(self) -> ShownTable:
        request = self.request
        what = "training set" if request.labels else "features"
        first, last = request.partitions[0].key, request.partitions[-1].key
        title = f"{request.pipeline.spec.name}: {what} of {first} to {last}"
        if self._manifest is None:
            return ShownTable(f"{title}, not read yet: .df(), .arrow(), .pl(), .reader() or .write(path)")
        found = self._manifest
        rows: list[tuple[str, object]] = [("rows", found.rows), ("partitions", found.partitions)]
        rows += [("with a label", found.labelled)] if request.labels else []
        rows += [("left out", "; ".join(found.left_out) or "nothing"), ("proof", found.proof.text)]
        return ShownTable(title, ("what", "value"), [*rows, ("digest", found.digest)])


def read_manifest(path: str | Path) -> TrainingManifest:
    """The manifest in a Parquet file that `TrainingSet.write` wrote.

    Raises:
        NotFoundError: the file has none, or is not there.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    from pip_dagster.flow.training_manifest import TrainingManifest

    try:
        found = (pq.read_metadata(path).metadata or {}).get(MANIFEST_KEY)
    except (OSError, pa.ArrowException) as error:
        raise NotFoundError(f"{path} cannot be read as Parquet: {error}", name=str(path)) from error
    if found is None:
        raise NotFoundError(f"{path} is no training set: write one with `features export`.", name=str(path))
    return TrainingManifest.from_json(found)


@dataclass(repr=False)
class Predictions(LazyRows):
    """Scored rows of a range, with key, scores, decisions, model version and the time of scoring.

    Attributes:
        pipeline: whose.
        first: the key of the first partition.
        last: the key of the last one.
        version: of this version's scoring only; of whichever is live when None.
        live: of live scorings only. Otherwise the newest stored scoring of the version in each partition.
        keys: those of the range, where the texts of the grid's keys are not in the order of time.
    """

    pipeline: Pipeline
    first: str
    last: str
    version: int | None = None
    live: bool = True
    keys: tuple[str, ...] = ()

    def reader(self) -> pa.RecordBatchReader:
        """The rows as Arrow batches, for ranges that do not fit in memory.

        Raises:
            WarehouseError: nothing is published yet, or it cannot be read.
        """
        import pyarrow as pa

        batches = self._batches()
        schema = next(batches)
        assert isinstance(schema, pa.Schema)
        return pa.RecordBatchReader.from_batches(schema, batches)

    def _batches(self) -> Iterator[pa.Schema | pa.RecordBatch]:
        """The schema, and then the batches."""
        name, project = self.pipeline.spec.name, self.pipeline.project
        if self.live:
            with open_published(project) as con:
                yield from self._read(con, f"FROM {quote(name)}.predictions WHERE {self._chosen}")
            return
        with workspace(threads=available_threads()) as con:
            with reading(con, project, purpose=f"{name}: reading predictions"):
                rows = keep(con, "stored_predictions", self._stored)
            yield from self._read(con, f"FROM {rows}")

    def _read(self, con: DuckDBPyConnection, rows: str) -> Iterator[pa.Schema | pa.RecordBatch]:
        order = quote_all(("partition_key", *self.pipeline.spec.features.key, "model_version"))
        reader = con.sql(f"{castable(con, rows)} ORDER BY {order}").to_arrow_reader(_BATCH_ROWS)
        with idle(con):
            yield reader.schema
        for batch in reader:
            with idle(con):
                yield batch

    @property
    def _chosen(self) -> str:
        version = "" if self.version is None else f" AND model_version = {int(self.version)}"
        between = f"partition_key BETWEEN {literal(self.first)} AND {literal(self.last)}"
        return (among("partition_key", self.keys) if self.keys else between) + version

    @property
    def _stored(self) -> str:
        name = self.pipeline.spec.name
        of = (
            "(SELECT scoring_id, model_name, model_version, feature_revision, made_at AS scored_at "
            f"FROM ledger.scorings WHERE pipeline = {literal(name)} AND {self._chosen} AND table_name IS NOT NULL "
            "QUALIFY row_number() OVER (PARTITION BY partition_key, model_version ORDER BY scoring_id DESC) = 1)"
        )
        return f"SELECT s.*, e.* EXCLUDE (scoring_id) FROM {quote(name)}.scores s JOIN {of} e USING (scoring_id)"

    def _table(self) -> ShownTable:
        of = "" if self.version is None else f" by v{self.version}"
        state = "live predictions" if self.live else "stored predictions"
        title = f"{self.pipeline.spec.name}: {state}{of} of {self.first} to {self.last}"
        return ShownTable(f"{title}, not read yet: .df(), .arrow(), .pl(), .reader() or .write(path)")
