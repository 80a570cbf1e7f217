"""Reasons of a person's rows that were scored without them: computed by the recorded model from the recorded features.

Contributions depend on the model and the row alone, so they are what would have been stored at the time. Only the
person's rows are read and scored.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pip_dagster.declaration.spec import Explanations
from pip_dagster.errors import PipelineError
from pip_dagster.flow.engine import available_threads
from pip_dagster.flow.explain import explain
from pip_dagster.flow.findings import ScoringPolicy
from pip_dagster.flow.score import score
from pip_dagster.flow.stage import Stage
from pip_dagster.registry.choose import registry_of
from pip_dagster.sql.names import literal, quote, quote_all

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from pip_dagster.declaration.pipeline import Pipeline

OF_REASON = ("rank", "output", "feature", "value", "contribution", "base")
_TOP = 5  # features of a row, where none are declared
_GROUP = ("model_name", "model_version", "model_digest", "manifest_digest", "declared_row", "feature_table")


def reasons_cell(order: str = "output, rank") -> str:
    """SQL that gathers the reasons of a group into JSON."""
    cells = ", ".join(f"{each} := {each}" for each in OF_REASON)
    return f"to_json(list(struct_pack({cells}) ORDER BY {order}))::VARCHAR"


def add_reasons(con: DuckDBPyConnection, pipeline: Pipeline, predictions: str, features: Mapping[str, str]) -> None:
    """Fill `reasons` of the predictions that have none, or `no_reasons` with why it cannot be done.

    `features`: the warehouse's table → the relation of the person's rows in it, with their revision.
    """
    con.execute(f"UPDATE {predictions} SET reasons_from = 'stored' WHERE reasons IS NOT NULL")
    groups = con.execute(f"SELECT DISTINCT {', '.join(_GROUP)} FROM {predictions} WHERE reasons IS NULL").fetchall()
    for group in groups:
        of = dict(zip(_GROUP, group, strict=True))
        same = " AND ".join(f"p.{name} IS NOT DISTINCT FROM ${name}" for name in _GROUP)
        try:
            key = _explain(con, pipeline, of, features[of["feature_table"]])
        except PipelineError as error:
            con.execute(f"UPDATE {predictions} p SET no_reasons = $why WHERE {same}", of | {"why": str(error)})
            continue
        text = ", ".join(f"{quote(each)} := {quote(each)}" for each in key)
        con.execute(
            f"UPDATE {predictions} p SET reasons = r.reasons, reasons_from = 'computed' FROM (SELECT partition_key, "
            f"to_json(struct_pack({text}))::VARCHAR AS row_key, {reasons_cell()} AS reasons FROM {Stage.reasons} "
            f"GROUP BY partition_key, {quote_all(key)}) r "
            f"WHERE p.reasons IS NULL AND p.feature_revision = r.partition_key AND p.row_key = r.row_key AND {same}",
            of,
        )
    why = "the recorded features can no longer be scored by this model"
    con.execute(f"UPDATE {predictions} SET no_reasons = {literal(why)} WHERE reasons IS NULL AND no_reasons IS NULL")


def _explain(con: DuckDBPyConnection, pipeline: Pipeline, of: Mapping[str, Any], relation: str) -> Sequence[str]:
    """Stage the reasons of one model's rows, by revision and key; the columns of the key."""
    from pip_dagster.registry.load import load_predictor

    version = registry_of(pipeline.project, pipeline.spec.scoring).get(
        str(of["model_name"]), int(of["model_version"] or 0)
    )
    version.verify()
    if (version.digest, version.manifest_digest) != (of["model_digest"], of["manifest_digest"]):
        raise PipelineError(f"{version} has been replaced in the registry since it scored")
    declared, spec = json.loads(of["declared_row"] or "{}"), pipeline.spec
    key = tuple(declared.get("key", spec.features.key))
    top = spec.explanations.top if spec.explanations else _TOP
    spec = spec.model_copy(
        update={
            "features": spec.features.model_copy(update={"key": key}),
            "decisions": {},
            "explanations": Explanations(top=top, at_most=2**31),
        }
    )
    stage = Stage(con)
    columns = {row[0]: row[1] for row in con.execute(f"DESCRIBE {relation}").fetchall()}
    columns = {name: kind for name, kind in columns.items() if name not in ("partition_key", "revision")}
    stage.begin(columns)
    con.execute(f"INSERT INTO {stage.features} SELECT revision, {quote_all(columns)} FROM {relation}")
    stage.admit_all()
    revisions = [row[0] for row in con.execute(f"SELECT DISTINCT revision FROM {relation}").fetchall()]
    policy = ScoringPolicy("missing", 1.0, key, refuse_not_finite=False)
    predictor = load_predictor(version, nthread=available_threads(), device="cpu")
    scores = score(stage, spec, predictor, version.manifest, revisions, policy)
    explain(stage, spec, predictor, version.manifest, scores, revisions)
    return key
