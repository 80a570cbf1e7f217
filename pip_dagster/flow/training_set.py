"""Training rows: what scoring would be given, partition by partition, beside the labels that are known by now."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from pip_dagster.declaration.partition import Partition
from pip_dagster.errors import DeclarationError, TrainingSetError
from pip_dagster.flow.engine import available_threads
from pip_dagster.flow.extract import Extraction, extract
from pip_dagster.flow.findings import ScoringPolicy, too_many_quarantined
from pip_dagster.flow.guard import count_where
from pip_dagster.flow.label_window import label_key_error
from pip_dagster.flow.stage import Stage, keep
from pip_dagster.flow.training_labels import OUTCOME, stage_training_labels
from pip_dagster.flow.training_manifest import TrainingManifest, TrainingProof, TrainingRequest, described
from pip_dagster.flow.training_proof import proven
from pip_dagster.flow.validate import blocking_reason, validate_features
from pip_dagster.plural import plural
from pip_dagster.privacy.suppressed import Incoming, incoming
from pip_dagster.sql.names import among, bare_type, quote, quote_all
from pip_dagster.statistics.maturity import USUAL, usual_coverage
from pip_dagster.warehouse.connect import workspace
from pip_dagster.warehouse.digest import RowSet, row_set_sql
from pip_dagster.warehouse.faults import in_pipeline
from pip_dagster.warehouse.interrupts import idle
from pip_dagster.warehouse.memory import rows_for, run_memory, with_more
from pip_dagster.warehouse.published_export import AS_TEXT

if TYPE_CHECKING:
    import pyarrow as pa
    from duckdb import DuckDBPyConnection

# Staged at once: the SQL runs for so many partitions at first, and then for as many as have about so many rows.
_PARTITIONS, _ROWS = 4, 500_000
_BATCH_ROWS = 40_000
_LARGEST = "3.4028234663852886e38"  # the largest float32, in which models are given numbers


@dataclass
class TrainingRows:
    """One pass over the rows of a request; `schema` is known with the first batch, `manifest` after the last."""

    request: TrainingRequest
    progress: Callable[[str], None] = lambda text: None
    now: datetime = field(default_factory=lambda: datetime.now(UTC))
    schema: pa.Schema | None = None
    manifest: TrainingManifest | None = None
    _columns: dict[str, str] = field(default_factory=dict)
    _features: dict[str, str] = field(default_factory=dict)
    _used: dict[str, Mapping[str, Mapping[str, object]]] = field(default_factory=dict)
    _excluded: dict[str, str] = field(default_factory=dict)
    _provisional: list[str] = field(default_factory=list)
    _held: list[str] = field(default_factory=list)
    _coverages: list[float] = field(default_factory=list)
    _relation: str = ""
    _staged: int = 0
    _quarantined: dict[str, int] = field(default_factory=dict)
    _labelled: int = 0
    _people: Incoming | None = None
    _dropped: int = 0
    _content: RowSet = field(default_factory=RowSet)

    def batches(self) -> Iterator[pa.RecordBatch]:
        """The rows in the order of partition and key. At most some 500,000 rows are staged, and DuckDB spills them.

        Raises:
            DeclarationError: the SQL of features or labels cannot run, or no labels are declared.
            LeakError: features depend on later rows.
            SourceError: a source cannot be read.
            TrainingSetError: labels are not valid, or no row is left.
        """
        request, name = self.request, self.request.pipeline.spec.name
        request.check()
        self._people = incoming(request.pipeline)
        mature, immature = self._by_age()
        with in_pipeline(name, [each.key for each in request.partitions]):
            proof = proven(request, self.progress)
            threads = available_threads()
            with workspace(threads=threads, memory_limit=run_memory(threads)) as con:
                stage = Stage(con)
                for chunk in self._chunks(mature):
                    self.progress(f"{name}: features of {chunk[0].key} to {chunk[-1].key}")
                    counts = self._stage(stage, chunk)
                    yield from self._emit(con, self._ready(counts))
            self._finish(proof, [*self._held, *immature])

    def _by_age(self) -> tuple[list[Partition], list[str]]:
        """The partitions whose labels are complete by `complete_after`, and the keys of the others."""
        labels, every = self.request.pipeline.labels, list(self.request.partitions)
        if not (self.request.labels and self.request.mature_only and labels and labels.complete_after):
            return every, []
        after = labels.complete_after
        mature = [each for each in every if each.end + after <= self.now]
        return mature, [each.key for each in every if each.end + after > self.now]

    def _chunks(self, partitions: Sequence[Partition]) -> Iterator[Sequence[Partition]]:
        at, size = 0, _PARTITIONS
        while at < len(partitions):
            before = self._staged
            yield (chunk := partitions[at : at + size])
            at += size
            a_partition = max(1, (self._staged - before) // len(chunk))
            size = max(1, min(4 * size, _ROWS // a_partition))

    def _stage(self, stage: Stage, chunk: Sequence[Partition]) -> dict[str, tuple[int, int]]:
        """Add the admitted rows of these partitions to `training_rows`; by partition, rows and those with a label."""
        con, pipeline = stage.con, self.request.pipeline
        extraction = extract(stage, pipeline, chunk, people=self._people, as_known=self.request.as_known)
        # Those that are not given count too: else all partitions that wait for labels would be staged at once.
        (counted,) = con.execute(f"SELECT count(*) FROM {stage.features}").fetchall()
        self._staged += counted[0]
        self._take_columns(stage)
        keys = self._admit(stage, extraction)
        select = f"SELECT f.partition_key, {self._given} FROM {stage.admitted} f WHERE {among('f.partition_key', keys)}"
        if self.request.labels:
            admitted = [each for each in chunk if each.key in keys] or chunk[:1]
            labels = stage_training_labels(con, pipeline, admitted)
            select = self._joined(con, stage.admitted, labels, keys)
        self._relation = relation = self._keep(con, select)
        if self.schema is None:
            self.schema = con.execute(f"FROM {relation} LIMIT 0").to_arrow_table().schema
            self._columns = {row[0]: row[1] for row in con.execute(f"DESCRIBE {relation}").fetchall()}
        labelled = f"count({quote(self._outcome)})" if self._outcome else "0"
        found = con.execute(
            f"SELECT partition_key, count(*), {labelled} FROM {relation} WHERE {among('partition_key', keys)} "
            "GROUP BY partition_key"
        ).fetchall()
        counts = {row[0]: (int(row[1]), int(row[2])) for row in found}
        return {key: counts.get(key, (0, 0)) for key in keys}

    def _take_columns(self, stage: Stage) -> None:
        name = self.request.pipeline.spec.name
        if self._features and self._features != stage.columns:
            raise TrainingSetError("the columns of the features changed while they were read.", pipeline=name)
        self._features = dict(stage.columns)
        wanted = self.request.columns or ()
        if missing := [each for each in wanted if each not in stage.columns]:
            raise DeclarationError(
                f"the features have no column {', '.join(missing)}; they have {', '.join(stage.columns)}."
            )

    def _admit(self, stage: Stage, extraction: Extraction) -> list[str]:
        """Apply the rules of scoring to the staged features; the keys of the partitions that may be trained on."""
        pipeline, spec = self.request.pipeline, self.request.pipeline.spec
        excluded = dict(extraction.failed)
        for key, of in extraction.extracts.items():
            if reason := blocking_reason(of.verdicts, rows_quarantined=False):
                excluded[key] = f"blocked: {reason}"
        keys = [key for key in extraction.extracts if key not in excluded]
        validation = validate_features(stage, pipeline, keys)
        excluded |= {key: f"blocked: {reason}" for key, reason in validation.blocked.items()}
        apart, policy = stage.quarantined(), ScoringPolicy.declared(spec)
        for key in keys:
            others = extraction.extracts[key].rows - apart.get(key, 0)
            if reason := too_many_quarantined(apart.get(key, 0), others, policy):
                excluded.setdefault(key, f"blocked: {reason}")
        excluded |= {key: why for key, why in self._not_finite(stage).items() if key not in excluded}
        self._excluded |= excluded
        kept = [key for key in keys if key not in excluded]
        for key in kept:
            self._quarantined[key] = apart.get(key, 0)
            self._used[key] = extraction.extracts[key].sources
            self._provisional += [key] if extraction.extracts[key].provisional else []
        return kept

    def _not_finite(self, stage: Stage) -> dict[str, str]:
        """Partitions with numbers that a model must not be given: scoring would refuse them."""
        floats = [name for name in self._chosen if stage.columns[name] in ("FLOAT", "DOUBLE")]
        floats = [name for name in floats if name not in self.request.identifying]
        if not floats:
            return {}
        counts = [
            count_where(f"abs({quote(name)}::DOUBLE) > {_LARGEST} AND NOT isnan({quote(name)})") for name in floats
        ]
        found: dict[str, str] = {}
        rows = f"SELECT partition_key, {', '.join(counts)} FROM {stage.admitted} GROUP BY partition_key"
        for key, *of in stage.con.execute(rows).fetchall():
            if any(of):
                listed = ", ".join(f"{name} in {plural(n, 'row')}" for name, n in zip(floats, of, strict=True) if n)
                found[key] = f"infinite values, or beyond float32: {listed}; bound them in the feature SQL"
        return found

    @property
    def _chosen(self) -> list[str]:
        """The columns of the features that are given, in the order of the SQL."""
        wanted = self.request.columns
        return [name for name in self._features if wanted is None or name in (*self.request.identifying, *wanted)]

    @property
    def _outcome(self) -> str | None:
        labels = self.request.pipeline.labels
        return labels.outcome if self.request.labels and labels else None

    @property
    def _given(self) -> str:
        """The chosen columns of `f`, as XGBoost, pandas and Parquet take them."""
        return ", ".join(_castable(name, self._features[name], self.request.identifying) for name in self._chosen)

    def _joined(self, con: DuckDBPyConnection, features: str, labels: str, keys: Sequence[str]) -> str:
        pipeline, outcome = self.request.pipeline, self._outcome or ""
        where = f"Pipeline {pipeline.spec.name}: {pipeline.labels_name}"
        if clash := [name for name in ("partition_key", *self._chosen) if name.lower() == outcome.lower()]:
            raise DeclarationError(
                f"{where}: the outcome {outcome!r} has the name of the feature column {clash[0]!r}. Rename it, in the "
                "SQL of the labels with AS and in `outcome`."
            )
        if missing := [name for name in pipeline.label_key if name not in self._features]:
            raise DeclarationError(f"{where}: the key has {', '.join(missing)}, which the features do not have.")
        types = {row[0]: row[1] for row in con.execute(f"DESCRIBE {labels}").fetchall()}
        on = " AND ".join(f"l.{quote(name)} = f.{quote(name)}" for name in pipeline.label_key)
        value = _castable(OUTCOME, types[OUTCOME], (), "l").rpartition(" AS ")[0] or f"l.{OUTCOME}"
        return (
            f"SELECT f.partition_key, {self._given}, {value} AS {quote(outcome)} FROM {features} f "
            f"LEFT JOIN {labels} l ON l.partition_key = f.partition_key AND {on} WHERE {among('f.partition_key', keys)}"
        )

    def _keep(self, con: DuckDBPyConnection, select: str) -> str:
        import duckdb

        try:
            return with_more(con, lambda: keep(con, "training_rows", select, more=self.schema is not None))
        except (duckdb.BinderException, duckdb.ConversionException) as error:
            if not self.request.labels:
                raise
            raise label_key_error(self.request.pipeline, error) from error

    def _ready(self, counts: Mapping[str, tuple[int, int]]) -> list[str]:
        """The partitions whose rows can be given: those with fewer labels than usual wait for a later one without.

        The newest of a range are still being labelled if clearly fewer of their rows than usual have a label.
        """
        if not (self.request.labels and self.request.mature_only):
            return list(counts)
        labels = self.request.pipeline.labels
        if labels and labels.complete_after:
            return list(counts)
        ready: list[str] = []
        for key, (rows, labelled) in counts.items():
            if not rows:
                continue
            coverage, usual = labelled / rows, usual_coverage(self._coverages)
            self._held.append(key)
            if coverage and (usual is None or coverage >= USUAL * usual):
                ready, self._held = [*ready, *self._held], []
            if coverage:
                self._coverages.append(coverage)
        return ready

    def _emit(self, con: DuckDBPyConnection, keys: Sequence[str]) -> Iterator[pa.RecordBatch]:
        chosen, relation = among("partition_key", keys), self._relation
        if self._outcome:
            row = con.execute(
                f"SELECT count({quote(self._outcome)}), count(*) FROM {relation} WHERE {chosen}"
            ).fetchone()
            self._labelled += row[0] if row else 0
            if row and self.request.labelled_only:
                self._dropped += row[1] - row[0]
                chosen += f" AND {quote(self._outcome)} IS NOT NULL"
        # To the last row: in DuckDB 2, `sql` refuses a connection with a result that is not read to its end.
        (found,) = con.execute(f"SELECT {row_set_sql(self._columns)} FROM {relation} WHERE {chosen}").fetchall()
        self._content += RowSet(*found)
        order = quote_all(("partition_key", *self.request.pipeline.spec.features.key))
        query = f"SELECT * FROM {relation} WHERE {chosen} ORDER BY {order}"
        reader = con.sql(query).to_arrow_reader(rows_for(_BATCH_ROWS, len(self._columns)))
        for batch in reader:
            with idle(con):
                yield batch
        con.execute(f"DELETE FROM {relation} WHERE {among('partition_key', keys)}")

    def _finish(self, proof: TrainingProof, immature: Sequence[str]) -> None:
        left_out = {*immature}
        used = {key: of for key, of in self._used.items() if key not in left_out}
        self.manifest = described(
            self.request,
            digest=self._content.digest(self._columns),
            rows=(self._content.rows, self._labelled, self._dropped, sum(self._quarantined[key] for key in used)),
            sources=used,
            left_out=(self._excluded, immature),
            beside={
                "provisional": tuple(key for key in self._provisional if key in used),
                "proof": proof,
                "columns": self._columns,
            },
        )
        if self._content.rows or not (self.request.labels or self._excluded):
            return
        reasons = [f"{key}: {why}" for key, why in list(self._excluded.items())[:3]]
        reasons += [f"{plural(len(immature), 'partition')} with incomplete labels"] if immature else []
        reasons += [] if reasons else ["the sources have no row, or no row has a label"]
        name = self.request.pipeline.spec.name
        raise TrainingSetError(
            f"no row is left to train on. {'; '.join(reasons)}.", pipeline=name, excluded=self._excluded
        )


def _castable(name: str, sql_type: str, identifying: Sequence[str], of: str = "f") -> str:
    """A column as scoring reads it, where XGBoost, pandas or Parquet do not take its type: a DECIMAL as a DOUBLE."""
    column, bare = f"{of}.{quote(name)}", bare_type(sql_type)
    number = bare.startswith("DECIMAL(") or bare in ("HUGEINT", "UHUGEINT")
    if number and name not in identifying and not bare.endswith("]"):
        return f"{column}::DOUBLE AS {quote(name)}"
    if AS_TEXT.search(bare) or "VARIANT" in bare:
        return f"{column}::VARCHAR AS {quote(name)}"
    return column
