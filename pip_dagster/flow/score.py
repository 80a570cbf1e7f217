"""Scores: staged features through the guard and the model, batch by batch, into a staged table."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from pip_dagster.errors import DeclarationError
from pip_dagster.flow.decide import carried_for_decisions, decided, decision_types
from pip_dagster.flow.findings import count_findings, recorded, refusal, too_many_apart
from pip_dagster.flow.guard import Encoded
from pip_dagster.flow.guard_composite import encode_model
from pip_dagster.flow.query import STAGED
from pip_dagster.flow.stream import read_ahead
from pip_dagster.flow.unit import check_unit
from pip_dagster.flow.validate import admitted, apart_counts, keep_unmatched_apart, keep_unseen_apart
from pip_dagster.registry.composite import SEGMENT_COLUMN
from pip_dagster.registry.manifest import Manifest
from pip_dagster.sql.names import PREDICTION_COLUMNS, among, quote, quote_all
from pip_dagster.warehouse.connect import reading_beside
from pip_dagster.warehouse.digest import RowSet, row_set_sql
from pip_dagster.warehouse.interrupts import raise_if_interrupted

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from duckdb import DuckDBPyConnection

    from pip_dagster.declaration.spec import PipelineSpec

SCORED = "memory.pip_stage.scores"


class Predicts(Protocol):
    """A verified model: a float32 matrix in its manifest's order in, its raw scores out."""

    def predict(self, X: np.ndarray) -> np.ndarray:
        """Scores of shape (rows,) or (rows, outputs)."""
        ...


@dataclass(frozen=True)
class Scored:
    """One partition's scores as staged, and what was found on the way."""

    rows_in: int
    rows_scored: int
    rows_quarantined: int
    digest: str
    mean: float | None
    low: float | None
    high: float | None
    seconds: float
    findings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Scoring:
    """A range's scores in `SCORED` (partition_key first) and what is wrong with the partitions that failed."""

    columns: dict[str, str]
    scored: dict[str, Scored]
    failed: dict[str, str]
    blocked: dict[str, str]


def score(
    con: DuckDBPyConnection,
    spec: PipelineSpec,
    predictor: Predicts,
    manifest: Manifest,
    columns: Mapping[str, str],
    partitions: Sequence[str],
) -> Scoring:
    """Score the rows of `partitions` in `STAGED`, whose feature columns are `columns` (name → SQL type).

    Rows in `BROKEN` are not scored; where they are more than `quality.max_quarantined` their partition is blocked.
    The guard counts the others first: a partition with values that must not be scored fails before any of its rows
    is. At most a few batches are in Python at once, whatever the partition's size.

    Raises:
        DeclarationError: the columns do not fit the model.

    """
    where = f"Pipeline {spec.name}, {spec.features.sql} for model {manifest.model_name} v{manifest.version}"
    encoded = encode_model(manifest, columns, where=where)
    began = time.monotonic()
    found = count_findings(con, encoded, partitions, STAGED)
    unseen = {key: each.unseen for key, each in found.items()}
    if spec.scoring.on_unseen_category == "quarantine" and any(unseen.values()):
        keep_unseen_apart(con, [feature.unseen for feature in encoded if feature.unseen])
    keep_unmatched_apart(con, encoded)
    apart = apart_counts(con)
    relation = admitted() if apart else STAGED
    if apart:
        found = count_findings(con, encoded, partitions, relation)
    blocked = {key: text for key in partitions if (text := too_many_apart(apart.get(key, 0), found[key].rows, spec))}
    failed = {key: text for key in partitions if (text := refusal(found[key], spec, encoded))}
    types, score_columns = scored_columns(con, spec, manifest, columns), _score_columns(manifest)
    carried = [name for name in types if name not in score_columns and name not in spec.decisions]
    body = ", ".join(f"{quote(name)} {sql_type}" for name, sql_type in types.items())
    con.execute(f"CREATE OR REPLACE TABLE {SCORED} ({body})")
    keys = [key for key in partitions if key not in failed and key not in blocked and found[key].rows]
    if keys:
        failed |= _stream_or_split(con, spec, predictor, manifest, encoded, relation, carried, keys)
    seconds = time.monotonic() - began
    total = sum(each.rows for each in found.values()) or 1
    scored = {}
    for key, (rows, mean, low, high) in _summaries(con, list(types), score_columns, partitions).items():
        if key not in failed:
            counted = found[key]
            scored[key] = Scored(
                counted.rows + apart.get(key, 0),
                rows.rows,
                apart.get(key, 0),
                rows.digest(types),
                mean,
                low,
                high,
                seconds * counted.rows / total,
                recorded(counted, unseen[key], apart.get(key, 0), spec),
            )
    return Scoring(types, scored, failed, blocked)


def scored_columns(
    con: DuckDBPyConnection, spec: PipelineSpec, manifest: Manifest, columns: Mapping[str, str]
) -> dict[str, str]:
    """What a scored row has, with SQL types: partition key, key, partition column, scores, decisions.

    The unit of a split and the features that a decision mentions stand beside the key.

    Raises:
        DeclarationError: a column that is carried along has the name of a score, a decision cannot be made, or a
            column can be no unit.

    """
    scores = _score_columns(manifest)
    check_unit(spec, columns)
    carried = dict.fromkeys([*spec.features.key, spec.features.partition_column, *spec.unit])
    carried |= dict.fromkeys(name for name in carried_for_decisions(spec, columns) if name not in scores)
    if SEGMENT_COLUMN in scores:  # a decision about the user's own must not become one about the model's
        carried |= dict.fromkeys(n for n in carried_for_decisions(spec, columns) if n.lower() == SEGMENT_COLUMN)
    names = {name.lower() for name in scores} | PREDICTION_COLUMNS
    if taken := [name for name in carried if name.lower() in names]:
        raise DeclarationError(
            f"Pipeline {spec.name}, {spec.features.sql}: {', '.join(map(repr, taken))} is a key, a partition column, "
            f"a unit or in a decision, and a column of the predictions by model {manifest.model_name} "
            f"v{manifest.version} as well; rename it in the feature SQL."
        )
    raw = {"partition_key": "VARCHAR"} | {name: columns[name] for name in carried} | scores
    return raw | decision_types(spec, columns, raw)


def _score_columns(manifest: Manifest) -> dict[str, str]:
    columns = dict.fromkeys(manifest.outputs, "FLOAT")
    columns |= {"predicted_class": "VARCHAR"} if manifest.classes and len(manifest.outputs) > 1 else {}
    columns |= {SEGMENT_COLUMN: "VARCHAR"} if manifest.composite and manifest.composite.routes else {}
    return columns | ({"calibrated": "FLOAT"} if manifest.calibration else {})


def _stream_or_split(
    con: DuckDBPyConnection,
    spec: PipelineSpec,
    predictor: Predicts,
    manifest: Manifest,
    encoded: Sequence[Encoded],
    relation: str,
    carried: Sequence[str],
    keys: Sequence[str],
) -> dict[str, str]:
    """Score the partitions together; where a decision fails on a row, each alone. The failed ones with the reason."""
    import duckdb

    try:
        _stream(con, spec, predictor, manifest, encoded, relation, carried, keys)
        return {}
    except duckdb.Error as error:
        raise_if_interrupted(error)
        if not spec.decisions:  # then no row of the user's can be the cause
            raise
        if len(keys) == 1:
            return {keys[0]: f"scoring or deciding fails: {error}"}
    failed: dict[str, str] = {}
    for key in keys:
        failed |= _stream_or_split(con, spec, predictor, manifest, encoded, relation, carried, [key])
    return failed


def _stream(
    con: DuckDBPyConnection,
    spec: PipelineSpec,
    predictor: Predicts,
    manifest: Manifest,
    encoded: Sequence[Encoded],
    relation: str,
    carried: Sequence[str],
    keys: Sequence[str],
) -> None:
    import pyarrow as pa

    values = ", ".join(f"{feature.value} AS f{i}" for i, feature in enumerate(encoded))
    with reading_beside(con) as reading:
        # Literals: with parameters DuckDB would hold the whole result.
        query = f"SELECT {quote_all(carried)}, {values} FROM {relation} WHERE {among('partition_key', keys)}"
        reader = reading.sql(query).to_arrow_reader(spec.scoring.batch_rows)
        carried_fields = [reader.schema.field(i) for i in range(len(carried))]
        schema = pa.schema([*carried_fields, *_score_fields(manifest)])
        batches = read_ahead(reader)
        scored = pa.RecordBatchReader.from_batches(
            schema, (_score_batch(batch, len(carried), predictor, manifest, schema) for batch in batches)
        )
        con.register("pip_scored_batches", scored)
        try:
            con.execute(f"INSERT INTO {SCORED} SELECT * FROM {decided(spec, 'pip_scored_batches')}")
        finally:
            con.unregister("pip_scored_batches")
            batches.close()


def _score_fields(manifest: Manifest) -> Iterator[pa.Field]:
    import pyarrow as pa

    for name, sql_type in _score_columns(manifest).items():
        yield pa.field(name, pa.float32() if sql_type == "FLOAT" else pa.string())


def _score_batch(
    batch: pa.RecordBatch, carried: int, predictor: Predicts, manifest: Manifest, schema: pa.Schema
) -> pa.RecordBatch:
    import numpy as np
    import pyarrow as pa

    X = np.empty((batch.num_rows, batch.num_columns - carried), dtype=np.float32)
    for i in range(X.shape[1]):
        X[:, i] = batch.column(carried + i).to_numpy(zero_copy_only=False)
    scores = predictor.predict(X)
    columns = [batch.column(i) for i in range(carried)]
    if scores.ndim == 1:
        columns.append(pa.array(scores, type=pa.float32()))
    else:
        columns.extend(pa.array(np.ascontiguousarray(scores[:, i]), type=pa.float32()) for i in range(scores.shape[1]))
        if manifest.classes:
            columns.append(pa.array(manifest.classes).take(pa.array(scores.argmax(axis=1))))
    if manifest.composite and manifest.composite.routes:
        names = pa.array([segment.name for segment in manifest.composite.segments])
        columns.append(names.take(pa.array(X[:, -1].astype(np.int64))))
    if manifest.calibration:
        columns.append(pa.array(manifest.calibration.apply(scores), type=pa.float32()))
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def _summaries(
    con: DuckDBPyConnection, columns: Sequence[str], score_columns: Mapping[str, str], partitions: Sequence[str]
) -> dict[str, tuple[RowSet, float | None, float | None, float | None]]:
    """Row set, mean, least and greatest score of each partition, the empty ones included."""
    first = quote(next(iter(score_columns)))
    rows = con.execute(
        f"SELECT partition_key, {row_set_sql(columns)}, avg({first}), min({first}), max({first}) "
        f"FROM {SCORED} GROUP BY partition_key"
    ).fetchall()
    empty = (RowSet(), None, None, None)
    found = {row[0]: (RowSet(*row[1:4]), *row[4:]) for row in rows}
    return {key: found.get(key, empty) for key in partitions}
