"""Scores: staged features through the guard and the model, batch by batch, into a staged table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from pip_dagster.flow.cost import Cost, Meter
from pip_dagster.flow.decide import decided
from pip_dagster.flow.findings import (
    ScoringPolicy,
    count_findings,
    quarantine_unscorable,
    recorded,
    refusal,
    too_many_quarantined,
)
from pip_dagster.flow.guard import Encoded, Findings
from pip_dagster.flow.guard_composite import encode_model
from pip_dagster.flow.not_finite import refuse_not_finite
from pip_dagster.flow.plain_rows import PlainRows, plain_rows
from pip_dagster.flow.scored_row import score_columns, scored_columns
from pip_dagster.flow.stage import GIVEN, Stage
from pip_dagster.flow.stream import read_ahead
from pip_dagster.quoted import said
from pip_dagster.registry.manifest import Manifest
from pip_dagster.sql.names import among, literal, quote
from pip_dagster.warehouse.connect import reading_beside
from pip_dagster.warehouse.digest import RowSet, row_set_sql
from pip_dagster.warehouse.interrupts import raise_if_interrupted
from pip_dagster.warehouse.memory import is_out_of_memory, rows_for, with_more

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    from pip_dagster.declaration.spec import PipelineSpec


class Predicts(Protocol):
    """A verified model: a float32 matrix in its manifest's order in, its raw scores out."""

    def predict(self, X: np.ndarray) -> np.ndarray:
        """Scores of shape (rows,) or (rows, outputs)."""
        ...


@dataclass(frozen=True)
class Scored:
    """One partition's scores as staged, and what was found on the way; named as in the ledger."""

    rows_in: int
    rows_scored: int
    rows_quarantined: int
    score_digest: str
    mean_score: float | None
    min_score: float | None
    max_score: float | None
    seconds: float
    cpu_seconds: float
    peak_memory: int
    findings: Mapping[str, Any] = field(default_factory=dict)
    cluster: str | None = None
    tasks: int | None = None
    nodes: int | None = None


@dataclass(frozen=True)
class Guarded:
    """What the guard counted, by partition: in the rows to be scored, and the rows in quarantine (`apart`).

    `unseen`: feature → rows with an unseen category, those that are in quarantine for it included.
    """

    found: Mapping[str, Findings]
    unseen: Mapping[str, Mapping[str, int]]
    apart: Mapping[str, int]

    def blocked(self, policy: ScoringPolicy) -> dict[str, str]:
        """The partitions with too many rows in quarantine, with the reason."""
        reasons = {key: too_many_quarantined(self.apart.get(key, 0), of.rows, policy) for key, of in self.found.items()}
        return {key: why for key, why in reasons.items() if why}

    def failed(self, policy: ScoringPolicy, encoded: Sequence[Encoded]) -> dict[str, str]:
        """The partitions that must not be scored, with the reason."""
        return {key: why for key, of in self.found.items() if (why := refusal(of, policy, encoded))}


@dataclass(frozen=True)
class Scores:
    """What is staged as scores of some partitions, and what is wrong with those that failed or are blocked.

    `columns`: a scored row's, partition_key first. `encoded`: the matrix's columns, over the staged features.
    """

    columns: dict[str, str]
    scored: dict[str, Scored]
    failed: dict[str, str]
    blocked: dict[str, str]
    encoded: tuple[Encoded, ...]
    guarded: Guarded


def score(
    stage: Stage,
    spec: PipelineSpec,
    predictor: Predicts,
    manifest: Manifest,
    partitions: Sequence[str],
    policy: ScoringPolicy | None = None,
) -> Scores:
    """Score the staged features of `partitions` by the declared policy or another one.

    Rows in quarantine are not scored; a partition with too many of them is blocked. The guard counts the others first:
    a partition with values that must not be scored fails before any of its rows is, and one with scores that are not
    finite numbers afterwards. At most a few batches are in Python at once, whatever the partition's size.

    Raises:
        DeclarationError: the columns do not fit the model.
        MemoryLimitError: DuckDB has too little memory.
    """
    return with_more(stage.con, lambda: _score(stage, spec, predictor, manifest, partitions, policy))


def _score(
    stage: Stage,
    spec: PipelineSpec,
    predictor: Predicts,
    manifest: Manifest,
    partitions: Sequence[str],
    policy: ScoringPolicy | None,
) -> Scores:
    where = f"Pipeline {spec.name}, {spec.features.sql} for model {manifest.model_name} v{manifest.version}"
    encoded = encode_model(manifest, stage.columns, where=where)
    policy = policy or ScoringPolicy.declared(spec)
    meter = Meter()
    types = scored_columns(spec, manifest, stage.columns, policy.carried)
    scores = score_columns(manifest)
    carried = [name for name in types if name not in scores and name not in spec.decisions]
    rows = rows_for(spec.scoring.batch_rows, len(encoded))
    with plain_rows(stage, carried[1:], encoded, rows) as plain:
        guarded = _guard(stage, encoded, partitions, policy, plain)
        blocked, failed = guarded.blocked(policy), guarded.failed(policy, encoded)
        stage.create(stage.scores, types)
        relation = plain or (stage.admitted if guarded.apart else stage.features)
        scoring = _Scoring(stage, spec, predictor, manifest, encoded, relation, carried)
        if keys := [key for key in partitions if key not in failed and key not in blocked and guarded.found[key].rows]:
            failed |= scoring.together(keys)
    if policy.refuse_not_finite:
        failed |= refuse_not_finite(stage, types, scores, spec.decisions)
    costs = meter.shares({key: each.rows for key, each in guarded.found.items()})
    scored = summarized(stage, types, scores, guarded, policy, costs)
    return Scores(
        types, {key: of for key, of in scored.items() if key not in failed}, failed, blocked, encoded, guarded
    )


def _guard(
    stage: Stage, encoded: Sequence[Encoded], partitions: Sequence[str], policy: ScoringPolicy, plain: PlainRows | None
) -> Guarded:
    """Count what must not be scored, and quarantine the rows that the policy does not fail the partition for."""
    found = plain.found(partitions) if plain else count_findings(stage.con, encoded, partitions, stage.features)
    unseen = {key: each.unseen for key, each in found.items()}
    quarantines = policy.on_unseen_category == "quarantine" and any(unseen.values())
    quarantine_unscorable(stage, encoded, unseen=quarantines)
    apart = {} if plain else stage.quarantined()
    if apart:
        found = count_findings(stage.con, encoded, partitions, stage.admitted)
    return Guarded(found, unseen, apart)


def summarized(
    stage: Stage,
    types: Mapping[str, str],
    scores: Mapping[str, str],
    guarded: Guarded,
    policy: ScoringPolicy,
    costs: Mapping[str, Cost],
) -> dict[str, Scored]:
    """What is staged as scores of each partition that the guard counted; `types` are the scored row's columns."""
    scored = {}
    for key, (rows, mean, low, high) in _summaries(stage, list(types), scores, list(guarded.found)).items():
        counted, apart = guarded.found[key], guarded.apart.get(key, 0)
        scored[key] = Scored(
            counted.rows + apart,
            rows.rows,
            apart,
            rows.digest(types),
            mean,
            low,
            high,
            costs[key].seconds,
            costs[key].cpu_seconds,
            costs[key].peak_memory,
            recorded(counted, guarded.unseen[key], apart, policy),
        )
    return scored


@dataclass(frozen=True)
class _Scoring:
    """One model over `rows`: SQL of the staged features or of those that are admitted, or rows that are not staged.

    `carried`: the columns beside a score, partition_key first.
    """

    stage: Stage
    spec: PipelineSpec
    predictor: Predicts
    manifest: Manifest
    encoded: Sequence[Encoded]
    rows: str | PlainRows
    carried: Sequence[str]

    def together(self, keys: Sequence[str]) -> dict[str, str]:
        """Score the partitions together; if a decision fails on a row, each alone. The failed ones with the reason."""
        import duckdb

        try:
            self._stream(keys)
            return {}
        except duckdb.Error as error:
            raise_if_interrupted(error)
            if not self.spec.decisions or is_out_of_memory(error):  # then no row of the user's can be the cause
                raise
            if len(keys) == 1:
                return {keys[0]: f"scoring or deciding fails: {said(error)}"}
        failed: dict[str, str] = {}
        for key in keys:
            failed |= self.together([key])
        return failed

    def _stream(self, keys: Sequence[str]) -> None:
        import pyarrow as pa

        alone = len(keys) == 1  # then its key is a constant
        carried = self.carried[1:] if alone else self.carried
        given = f"(SELECT {literal(keys[0])} AS partition_key, * FROM {GIVEN})" if alone else GIVEN
        with self._rows(carried, keys) as rows:
            fields = [rows.schema.field(i) for i in range(len(carried))]
            schema = pa.schema([*fields, *_score_fields(self.manifest)])
            batches = read_ahead(rows)
            scored = pa.RecordBatchReader.from_batches(schema, (self._batch(batch, schema) for batch in batches))
            try:
                self.stage.insert(self.stage.scores, scored, decided(self.spec, given))
            finally:
                batches.close()

    @contextmanager
    def _rows(self, carried: Sequence[str], keys: Sequence[str]) -> Iterator[pa.RecordBatchReader | PlainRows]:
        if isinstance(self.rows, PlainRows):
            yield self.rows
            return
        values = ", ".join(f"{feature.value} AS f{i}" for i, feature in enumerate(self.encoded))
        with reading_beside(self.stage.con) as reading:
            # Literals: with parameters DuckDB would hold the whole result.
            query = (
                f"SELECT {', '.join([*map(quote, carried), values])} FROM {self.rows} "
                f"WHERE {among('partition_key', keys)}"
            )
            yield reading.sql(query).to_arrow_reader(rows_for(self.spec.scoring.batch_rows, len(self.encoded)))

    def _batch(self, batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
        import numpy as np
        import pyarrow as pa

        manifest, carried = self.manifest, batch.num_columns - len(self.encoded)
        X = np.empty((batch.num_rows, batch.num_columns - carried), dtype=np.float32)
        for i in range(X.shape[1]):
            X[:, i] = batch.column(carried + i).to_numpy(zero_copy_only=False)
        scores = self.predictor.predict(X)
        columns = [batch.column(i) for i in range(carried)]
        if scores.ndim == 1:
            columns.append(pa.array(scores, type=pa.float32()))
        else:
            columns.extend(
                pa.array(np.ascontiguousarray(scores[:, i]), type=pa.float32()) for i in range(scores.shape[1])
            )
            if manifest.classes:
                columns.append(pa.array(manifest.classes).take(pa.array(scores.argmax(axis=1))))
        if manifest.composite and manifest.composite.routes:
            names = pa.array([segment.name for segment in manifest.composite.segments])
            columns.append(names.take(pa.array(X[:, -1].astype(np.int64))))
        if manifest.calibration:
            columns.append(pa.array(manifest.calibration.apply(scores), type=pa.float32()))
        return pa.RecordBatch.from_arrays(columns, schema=schema)


def _score_fields(manifest: Manifest) -> Iterator[pa.Field]:
    import pyarrow as pa

    for name, sql_type in score_columns(manifest).items():
        yield pa.field(name, pa.float32() if sql_type == "FLOAT" else pa.string())


def _summaries(
    stage: Stage, columns: Sequence[str], score_columns: Mapping[str, str], partitions: Sequence[str]
) -> dict[str, tuple[RowSet, float | None, float | None, float | None]]:
    """Row set, mean, least and greatest score of each partition, the empty ones included."""
    first = quote(next(iter(score_columns)))
    figures = f"avg({first}), min({first}), max({first}) FROM {stage.scores}"
    if len(partitions) == 1:  # no others are staged: without groups it takes half the time
        alone = partitions[0]
        select = f"SELECT {literal(alone)}, {row_set_sql(columns, alone)}, {figures}"
    else:
        select = f"SELECT partition_key, {row_set_sql(columns)}, {figures} GROUP BY partition_key"
    found = {row[0]: (RowSet(*row[1:4]), *row[4:]) for row in stage.con.execute(select).fetchall()}
    empty = (RowSet(), None, None, None)
    return {key: found.get(key, empty) for key in partitions}
