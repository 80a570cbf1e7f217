"""The temporary tables of a run, on its own in-memory connection, spilling to disk.

They are the path of a row between the sources, the model and the warehouse. All lie in the schema `memory.pip_stage`,
but for wide features: theirs is a file with small blocks.
Those of a `Stage` belong to several modules, which name them through it; each of the others has one module that fills
it with `keep` and hands on the relation that `keep` returns.

| table | rows | filled by |
|---|---|---|
| `features` | the features of some partitions, with their keys; on a cluster a view | `append`, `load`, `restage` |
| `quarantine` | the row ids of `features` that are not scored, one row for each reason | `quarantine` |
| `scores` | the admitted rows' scores and decisions, with what they carry; on a cluster a view | `insert` (score) |
| `reasons` | the reason codes of explained rows | `insert` (explain) |
| `partitions` | the bounds of partitions, joined while features or source rows are staged | `partition_grid` |
| `validated` | a view of what expectations judge, with row ids; dropped once they have | validate |
| `source_rows` | a source's rows by partition, while its expectations are judged | validate_sources |
| `explained` | the rows of `scores` that get reason codes | explain |
| `from_all`, `from_known` | a partition's features from all rows, and from those known at each cutoff | point_in_time |
| `side_by_side` | the stored scores of a champion and a canary | canary |
| `canary_labels` | those of past partitions, of the rows that have a label | canary_labels |
| `stored_scores`, `stored_quarantine` | what was recorded of scorings, to be compared | replay/recall |
| `judged` | the stored scores of a partition that is judged again | judge_stored |
| `live_keys` | the keys of the rows that are live | promotion/stored |
| `by_champion`, `by_candidate`, `rescored` | stored rows scored by both, and the two joined | promotion/rescore |
| `labels` | labels by partition | label_window |
| `labelled` | the rescored rows that have a label | promotion/labels |
| `scored_rows` | the scored rows of some partitions beside their labels | scored_rows |
| `estimated` | live scored rows whose performance is estimated | estimate_rows |
| `calibrating` | those that have a label, of past partitions | estimate_rows |
| `training_labels` | labels by partition, as the SQL gives them | training_labels |
| `training_rows` | admitted features beside their labels, until they are given | training_set |
| `stored_predictions` | the stored scorings of a range | api/rows |
| `rows_of_arms` | the live rows of a split, with their arm | promotion/arm_outcomes |
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pip_dagster.sql.names import among, literal, quote, quote_all
from pip_dagster.warehouse import blocks, pinned
from pip_dagster.warehouse.access import writing
from pip_dagster.warehouse.arrow import arrow_rows
from pip_dagster.warehouse.connect import attached, spill_folder
from pip_dagster.warehouse.memory import rows_for, with_more

if TYPE_CHECKING:
    import pyarrow as pa
    from duckdb import DuckDBPyConnection

    from pip_dagster.declaration.pipeline import Pipeline

SCHEMA = "memory.pip_stage"
# The catalog of wide features.
_WIDE = "pip_wide"
# Arrow rows while they are inserted.
GIVEN = "pip_given_rows"
_BATCH_ROWS = 40_000  # of an Arrow batch; some 16 MB


def keep(
    con: DuckDBPyConnection, name: str, select: str, values: Mapping[str, Any] | None = None, *, more: bool = False
) -> str:
    """The relation of a temporary table with the selected rows, with `more` in addition to those that it has."""
    relation = f"{SCHEMA}.{name}"
    con.execute(f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}")
    verb = f"INSERT INTO {relation}" if more else f"CREATE OR REPLACE TABLE {relation} AS"
    con.execute(f"{verb} {select}", values or {})
    return relation


def partition_grid(con: DuckDBPyConnection, sql_type: str, bounds: Iterable[tuple[str, datetime, datetime]]) -> str:
    """A relation of partition_key and the bounds `first` and `last`, which are of `sql_type`."""
    select = f"SELECT ''::VARCHAR AS partition_key, NULL::{sql_type} AS first, NULL::{sql_type} AS last LIMIT 0"
    grid = keep(con, "partitions", select)
    con.executemany(f"INSERT INTO {grid} VALUES ($1, $2, $3)", list(bounds))
    return grid


def handover(con: DuckDBPyConnection) -> Path:
    """A file for rows that Arrow does not hold."""
    return spill_folder(con) / "handover.duckdb"


def move(con: DuckDBPyConnection, relation: str, to: DuckDBPyConnection) -> None:
    """Copy a temporary table to another database, in which it has the same name."""
    columns = {row[0]: row[1] for row in con.execute(f"DESCRIBE {relation}").fetchall()}
    stage = Stage(to)
    stage.create(relation, columns)
    stage.insert(relation, con.execute(f"FROM {relation}").to_arrow_reader(rows_for(_BATCH_ROWS, len(columns))))


def stored_columns(con: DuckDBPyConnection, pipeline: str, table: str) -> dict[str, str]:
    """The feature columns of a stored table with their SQL types. The warehouse is the current catalog."""
    rows = con.execute(f"DESCRIBE {quote(pipeline)}.{quote(table)}").fetchall()
    return {row[0]: row[1] for row in rows if row[0] not in ("partition_key", "revision")}


class Stage:
    """Features, the rows of them in quarantine, scores and reason codes: at most one of each a connection.

    `columns` are the feature columns (name → SQL type). `table` is where the warehouse has them, when a chunk of
    partitions at a time is to be brought from there; None when a run has extracted them all.
    """

    features = f"{SCHEMA}.features"
    scores = f"{SCHEMA}.scores"
    reasons = f"{SCHEMA}.reasons"
    _quarantine = f"{SCHEMA}.quarantine"

    def __init__(
        self, con: DuckDBPyConnection, columns: Mapping[str, str] | None = None, table: str | None = None
    ) -> None:
        self.con = con
        self.columns = dict(columns or {})
        self._table = table
        self._late: tuple[Pipeline, Sequence[str]] | None = None
        self._arrived: list[Path] = []
        con.execute(f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}")

    def create(self, relation: str, columns: Mapping[str, str]) -> None:
        """An empty `features`, `scores` or `reasons` with these columns."""
        body = ", ".join(f"{quote(name)} {sql_type}" for name, sql_type in columns.items())
        self.con.execute(f"CREATE OR REPLACE TABLE {relation} ({body})")

    def insert(self, relation: str, rows: pa.Table | pa.RecordBatchReader, given: str = GIVEN) -> None:
        """Append Arrow rows; `given` is SQL over the relation `GIVEN`, which stands for them.

        The SQL may read it once. Given PyArrow's own objects, DuckDB reads them through pyarrow.dataset, which buffers
        up to 1 GB of a reader, and which takes 60 MB itself.
        """
        with arrow_rows(self.con, GIVEN, rows.__arrow_c_stream__()):
            self.con.execute(f"INSERT INTO {relation} SELECT * FROM {given}")

    def begin(self, columns: Mapping[str, str]) -> None:
        """An empty `features` with these columns, to append to."""
        self._place(columns)
        self.create(self.features, {"partition_key": "VARCHAR"} | self.columns)

    @property
    def is_wide(self) -> bool:
        """Whether the features are so many that both databases do not fit into memory while rows are appended."""
        return blocks.is_wide(len(self.columns))

    def _place(self, columns: Mapping[str, str]) -> None:
        """Of `features` with these columns."""
        self.columns = dict(columns)
        if not self.is_wide:
            self.features = f"{SCHEMA}.features"
            return
        file = literal(str(spill_folder(self.con) / "wide.duckdb"))
        options = f"TYPE duckdb, STORAGE_VERSION 'v1.5.0'{blocks.options(len(columns))}"
        self.con.execute(f"ATTACH IF NOT EXISTS {file} AS {_WIDE} ({options})")
        self.features = f"{_WIDE}.main.features"

    def append(self, con: DuckDBPyConnection, select: str, values: Mapping[str, Any]) -> None:
        """Append to `features` what `con`, a connection to another database, selects; wide rows: once they `arrive`."""
        if any("VARIANT" in sql_type for sql_type in self.columns.values()):  # of which DuckDB 1.5 makes no Arrow
            self._append_by_file(con, select, values)
            return
        rows = con.execute(select, values).to_arrow_reader(rows_for(_BATCH_ROWS, len(self.columns)))
        if self.is_wide:
            self._keep(rows)
        else:
            self.insert(self.features, rows)

    def _keep(self, rows: pa.RecordBatchReader) -> None:
        import pyarrow as pa

        file = spill_folder(self.con) / f"arriving_{len(self._arrived)}.arrow"
        with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_stream(sink, rows.schema) as writer:
            for batch in rows:
                writer.write_batch(batch)
        self._arrived.append(file)

    def arrive(self) -> None:
        """Append what `append` has kept, now that the other database is closed and has no memory any more."""
        import pyarrow as pa

        while self._arrived:
            file = self._arrived[0]
            with pa.OSFile(str(file)) as source, pa.ipc.open_stream(source) as rows:
                self.insert(self.features, rows)
            del self._arrived[0]
            file.unlink()

    def _append_by_file(self, con: DuckDBPyConnection, select: str, values: Mapping[str, Any]) -> None:
        file, name = handover(con), "pip_handover"
        file.unlink(missing_ok=True)
        with attached(con, file, name, read_only=False):
            con.execute(f"CREATE TABLE {name}.main.rows AS {select}", values)
            pinned.commit(con)
        with attached(self.con, file, name, read_only=True):
            self.con.execute(f"INSERT INTO {self.features} FROM {name}.main.rows")

    def load(self, pipeline: str, table: str, revisions: Sequence[str]) -> None:
        """Bring stored revisions to `features`. The warehouse is the current catalog."""
        self._place(stored_columns(self.con, pipeline, table))
        self._late = None
        ordered = " ORDER BY partition_key" if len(revisions) > 1 else ""  # one partition's rows need no sorting
        staged = (
            f"CREATE OR REPLACE TABLE {self.features} AS SELECT partition_key, {quote_all(self.columns)} "
            f"FROM {quote(pipeline)}.{quote(table)} WHERE {among('revision', revisions)}{ordered}"
        )
        with_more(self.con, lambda: self.con.execute(staged))

    def restage(self, pipeline: Pipeline, revisions: Sequence[str], *, late: bool = False) -> None:
        """Bring these revisions to `features`, unless a run has extracted them; `late`: when `stored` does."""
        if self._table:
            self._late = (pipeline, revisions)
            if late:
                self.con.execute(f"DROP TABLE IF EXISTS {self.features}")  # which has other rows
            else:
                with self.stored():
                    self.bring()

    @property
    def is_late(self) -> bool:
        """Whether the rows that `restage` named are not in `features` yet."""
        return self._late is not None

    @contextmanager
    def stored(self) -> Iterator[str]:
        """SQL of the rows that `restage` named where they are stored, while the warehouse is open."""
        assert self._late and self._table
        pipeline, revisions = self._late
        name = pipeline.spec.name
        with writing(self.con, pipeline.project, purpose=f"{name}: reading features", publish=False):
            yield f"(FROM {quote(name)}.{quote(self._table)} WHERE {among('revision', revisions)})"

    def bring(self) -> None:
        """Bring them to `features`, within `stored`."""
        assert self._late and self._table
        pipeline, revisions = self._late
        self.load(pipeline.spec.name, self._table, revisions)

    def remove(self, condition: str) -> None:
        """Remove rows of `features`, which the condition calls `f`."""
        self.con.execute(f"DELETE FROM {self.features} f WHERE {condition}")

    def admit_all(self) -> None:
        """An empty quarantine; before features are validated or scored."""
        self.create(self._quarantine, {"row_id": "BIGINT", "reason": "VARCHAR"})

    def quarantine(self, select: str, rows: pa.Table | None = None) -> None:
        """Quarantine the row ids of `features` that are selected, each with a reason; from `rows`, as `GIVEN`."""
        if rows is None:
            self.con.execute(f"INSERT INTO {self._quarantine} {select}")
        else:
            self.insert(self._quarantine, rows, f"({select})")

    def quarantine_where(self, condition: str, reason: str) -> None:
        """Quarantine the rows of `features` that meet a condition."""
        self.quarantine(f"SELECT rowid, '{reason}' FROM {self.features} WHERE {condition}")

    def quarantined(self) -> dict[str, int]:
        """Rows in quarantine, by partition; those without any are left out."""
        rows = self.con.execute(
            f"SELECT partition_key, count(*) FROM {self.features} "
            f"WHERE rowid IN (SELECT row_id FROM {self._quarantine}) GROUP BY ALL"
        ).fetchall()
        return dict(rows)

    @property
    def admitted(self) -> str:
        """SQL of the rows of `features` that may be scored."""
        return f"(SELECT * FROM {self.features} WHERE rowid NOT IN (SELECT row_id FROM {self._quarantine}))"

    @property
    def quarantined_rows(self) -> str:
        """SQL of the rows of `features` in quarantine, each with all its `reasons`."""
        return (
            f"(SELECT s.*, b.reasons FROM {self.features} s JOIN (SELECT row_id, list(DISTINCT reason ORDER BY reason) "
            f"AS reasons FROM {self._quarantine} GROUP BY row_id) b ON b.row_id = s.rowid)"
        )
