"""Reason codes: the features that moved a score most, by exact SHAP contributions, for a declared selection of rows.

Contributions are XGBoost's own (TreeSHAP: Lundberg et al., Nature Machine Intelligence 2, 2020), never approximated:
approximate ones rank another feature first for one row in six. A row costs hundreds of predictions, so only declared
rows are explained.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from pip_dagster.errors import DeclarationError
from pip_dagster.flow.score import Scores
from pip_dagster.flow.scored_row import scored_columns
from pip_dagster.flow.stage import Stage, keep
from pip_dagster.flow.storing import insert_counted, labelled, named
from pip_dagster.registry.combine import is_additive
from pip_dagster.registry.manifest import Manifest
from pip_dagster.sql.names import among, quote, quote_all
from pip_dagster.sql.row_sql import row_condition
from pip_dagster.warehouse.connect import reading_beside
from pip_dagster.warehouse.memory import rows_for
from pip_dagster.warehouse.tables import ensure_table

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from duckdb import DuckDBPyConnection

    from pip_dagster.declaration.spec import PipelineSpec
    from pip_dagster.ledger.record import ScoringEntry

_BATCH_ROWS = 2_048  # of 50 features; contributions of many classes are many numbers a row


class Explains(Protocol):
    """A verified model that can explain its scores."""

    def contributions(self, X: np.ndarray) -> np.ndarray:
        """Contributions of shape (rows, features + 1), or (rows, outputs, features + 1); the last is the base."""
        ...


@dataclass(frozen=True)
class Explanation:
    """The reason codes that are staged; `columns` are theirs, partition_key first.

    `explained`: partition → rows that have reasons. `reasons`: partition → its reason codes.
    """

    columns: dict[str, str]
    explained: dict[str, int]
    reasons: dict[str, int]


def explain(
    stage: Stage,
    spec: PipelineSpec,
    predictor: Explains,
    manifest: Manifest,
    scores: Scores,
    partitions: Sequence[str],
) -> Explanation | None:
    """Explain the declared rows of the staged `scores` in `partitions`; None: none are declared.

    Of each partition at most `at_most` rows are taken, by the highest of their scores, then by key. Of each row and
    output the `top` features are kept, by the absolute value of their contribution to the margin (the score before
    the objective's link: log-odds for a probability), then by the model's order. A classifier of several classes is
    explained for the class it predicts, other models for each output.

    Raises:
        DeclarationError: `explanations.where` is not a condition over a scored row.
        InvalidModel: XGBoost has no exact contributions for this kind of model.
    """
    if spec.explanations is None:
        return None
    types = {name: stage.columns[name] for name in spec.features.key}
    classes = _by_class(manifest)
    of_output = {"output": "VARCHAR"} | ({"predicted_class": "VARCHAR"} if classes else {})
    made = {"partition_key": "VARCHAR"} | types | {"rank": "INTEGER"} | of_output
    made |= {"feature": "VARCHAR", "value": "VARCHAR", "contribution": "FLOAT", "base": "FLOAT"}
    stage.create(stage.reasons, made)
    selected = _select(stage, spec, manifest, partitions)
    carried = ["partition_key", *spec.features.key]
    kept = [f"e.{quote(name)}" for name in (*carried, *(["predicted_class"] if classes else []))]
    values = {f"f{i}": feature.value for i, feature in enumerate(scores.encoded)}
    values |= {f"t{i}": f"{quote(feature.name)}::VARCHAR" for i, feature in enumerate(manifest.features)}
    keys = [f"k{i}" for i in range(len(carried))]
    # Encoded in a subquery, where a feature's name can only be the feature; its columns get new names.
    inner = f"(SELECT {quote_all(carried)}, {', '.join(values.values())} FROM {stage.features})"
    same = " AND ".join(f"e.{quote(name)} = s.{key}" for name, key in zip(carried, keys, strict=True))
    query = (
        f"SELECT {', '.join((*kept, *(f's.{name}' for name in values)))} "
        f"FROM {selected} e JOIN {inner} s({', '.join((*keys, *values))}) ON {same}"
    )
    with reading_beside(stage.con) as reading:
        for batch in reading.sql(query).to_arrow_reader(rows_for(_BATCH_ROWS, manifest.width)):
            for reasons in _reasons(batch, len(carried), predictor, manifest, classes, spec.explanations.top):
                stage.insert(stage.reasons, reasons)
    explained, counts = (_counts(stage.con, each, partitions) for each in (selected, stage.reasons))
    return Explanation(made, explained, counts)


def check_explanations(spec: PipelineSpec, manifest: Manifest, columns: Mapping[str, str]) -> None:
    """Refuse what cannot be explained, and a selection that cannot be evaluated, before a row is scored.

    Raises:
        DeclarationError: the model is an ensemble of scores, or the selection is not a condition over a scored row.
    """
    if spec.explanations is None:
        return
    if manifest.composite and not is_additive(manifest.composite):
        raise DeclarationError(
            f"Pipeline {spec.name} declares explanations, but {manifest.model_name} v{manifest.version} takes the mean "
            "of scores, which has no exact contributions. Compose it with `combine: margin`, or remove "
            "`explanations`."
        )
    if spec.explanations.where is not None:
        _condition(spec, spec.explanations.where, scored_columns(spec, manifest, columns))


def _condition(spec: PipelineSpec, where: str, columns: Mapping[str, str]) -> str:
    return row_condition(where, columns, where=f"Pipeline {spec.name}: explanations.where", row="the scored row").sql


def _select(stage: Stage, spec: PipelineSpec, manifest: Manifest, partitions: Sequence[str]) -> str:
    """The relation of the rows to explain, of each partition the highest scores."""
    assert spec.explanations
    condition = "true"
    if spec.explanations.where is not None:
        described = stage.con.execute(f"SELECT * FROM {stage.scores} LIMIT 0").description or []
        condition = _condition(spec, spec.explanations.where, {column[0]: str(column[1]) for column in described})
    of_these = among("partition_key", partitions)
    highest = f"greatest({quote_all(manifest.outputs)})"
    return keep(
        stage.con,
        "explained",
        f"SELECT * FROM {stage.scores} WHERE {of_these} AND {condition} "
        f"QUALIFY row_number() OVER (PARTITION BY partition_key ORDER BY {highest} DESC, "
        f"{quote_all(spec.features.key)}) <= {spec.explanations.at_most}",
    )


def _by_class(manifest: Manifest) -> dict[str, int]:
    """Class → its output, for a classifier of several; else nothing."""
    if not manifest.classes or len(manifest.outputs) == 1:
        return {}
    return {label: i for i, label in enumerate(manifest.classes)}


def _reasons(
    batch: pa.RecordBatch, carried: int, predictor: Explains, manifest: Manifest, classes: Mapping[str, int], top: int
) -> Iterator[pa.Table]:
    """The reason codes of a batch: carried columns, then the class predicted, then values, then texts."""
    import numpy as np

    rows, first = batch.num_rows, carried + bool(classes)
    width = manifest.width
    if rows == 0:
        return
    X = np.empty((rows, width), dtype=np.float32)
    for i in range(width):
        X[:, i] = batch.column(first + i).to_numpy(zero_copy_only=False)
    found = predictor.contributions(X)
    if classes:
        predicted = np.array([classes[label] for label in batch.column(carried).to_pylist()])
        yield _table(batch, carried, found[np.arange(rows), predicted], predicted, manifest, top, bool(classes))
        return
    for output in range(len(manifest.outputs)):
        of_output = found if found.ndim == 2 else found[:, output]
        yield _table(batch, carried, of_output, np.full(rows, output), manifest, top, False)


def _table(
    batch: pa.RecordBatch,
    carried: int,
    contributions: np.ndarray,
    outputs: np.ndarray,
    manifest: Manifest,
    top: int,
    with_class: bool,
) -> pa.Table:
    """One row a reason, in the order of `Explanation.columns`."""
    import numpy as np
    import pyarrow as pa

    rows, features = batch.num_rows, len(manifest.features)
    of_features, base = contributions[:, :-1], contributions[:, -1]
    chosen = np.argsort(-np.abs(of_features), axis=1, kind="stable")[:, :top]
    each = chosen.shape[1]
    row = np.repeat(np.arange(rows), each)
    texts = pa.concat_arrays([batch.column(batch.num_columns - features + i) for i in range(features)])
    columns = [batch.column(i).take(pa.array(row)) for i in range(carried)]
    columns.append(pa.array(np.tile(np.arange(1, each + 1, dtype=np.int32), rows)))
    columns.append(pa.array(manifest.outputs).take(pa.array(outputs[row])))
    if with_class:
        columns.append(batch.column(carried).take(pa.array(row)))
    columns += [
        pa.array([feature.name for feature in manifest.features]).take(pa.array(chosen.ravel())),
        texts.take(pa.array(chosen.ravel() * rows + row)),
        pa.array(np.take_along_axis(of_features, chosen, axis=1).ravel(), pa.float32()),
        pa.array(base[row], pa.float32()),
    ]
    return pa.Table.from_arrays(columns, names=[f"c{i}" for i in range(len(columns))])


def _counts(con: DuckDBPyConnection, relation: str, partitions: Sequence[str]) -> dict[str, int]:
    rows = con.execute(f"SELECT partition_key, count(*) FROM {relation} GROUP BY ALL").fetchall()
    return dict.fromkeys(partitions, 0) | dict(rows)


def store_reasons(stage: Stage, explanation: Explanation, entry: ScoringEntry) -> None:
    """Store a partition's staged reason codes with the scoring that they explain, inside its transaction.

    The warehouse is the current catalog.

    Raises:
        PartitionError: the number of stored rows differs from the number staged; roll the transaction back.
    """
    expected = explanation.reasons.get(entry.partition_key, 0)
    if not expected:
        return
    columns = {"partition_key": "VARCHAR", "scoring_id": "VARCHAR"} | explanation.columns
    table = ensure_table(stage.con, entry.pipeline, "reasons", columns)
    carried = [name for name in explanation.columns if name != "partition_key"]
    insert_counted(
        stage.con,
        f"{quote(entry.pipeline)}.{quote(table)}",
        labelled(stage.reasons, {entry.partition_key: entry.scoring_id}, carried),
        expected,
        named(entry.pipeline, [entry.partition_key]),
        rows="reasons",
    )
