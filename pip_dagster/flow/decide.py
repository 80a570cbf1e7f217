"""Decisions: thresholds and business rules in SQL over the scored row. The raw score is always stored beside them."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from pip_dagster.errors import DeclarationError
from pip_dagster.sql.expression import bracketed
from pip_dagster.sql.names import PREDICTION_COLUMNS, RESERVED_COLUMNS, quote
from pip_dagster.sql.row_sql import compared_with, row_expression

if TYPE_CHECKING:
    from pip_dagster.declaration.pipeline import Pipeline
    from pip_dagster.declaration.spec import PipelineSpec
    from pip_dagster.registry.manifest import Manifest


def carried_for_decisions(spec: PipelineSpec, columns: Mapping[str, str]) -> list[str]:
    """The feature columns that a decision mentions; stored beside the scores, so that a decision explains itself."""
    found = (word for text in spec.decisions.values() for word in re.findall(r'"(?:[^"]|"")*"|\w+', text))
    words = {word.strip('"').replace('""', '"').lower() for word in found}
    return [name for name in columns if name.lower() in words]


def decided(spec: PipelineSpec, relation: str) -> str:
    """`relation` with a column for each decision; a later one may use an earlier one's."""
    for name, expression in spec.decisions.items():
        relation = f"(SELECT *, {bracketed(expression)} AS {quote(name)} FROM {relation})"
    return relation


def check_classes(pipeline: Pipeline, manifest: Manifest) -> None:
    """Refuse a comparison of the predicted class with one that the model does not have: it would never hold.

    Raises:
        DeclarationError: names the declaration's key, the class, and those that the model has.
    """
    if not manifest.classes or len(manifest.outputs) == 1:
        return
    spec = pipeline.spec
    texts = {f"decisions.{name}": text for name, text in spec.decisions.items()}
    if spec.explanations is not None and spec.explanations.where is not None:
        texts["explanations.where"] = spec.explanations.where
    if pipeline.gates.decision is not None:
        texts["gates.decision"] = pipeline.gates.decision
    for key, text in texts.items():
        strange = [each for each in compared_with(text, "predicted_class") if each not in manifest.classes]
        if strange:
            near = difflib.get_close_matches(strange[0], manifest.classes, 1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise DeclarationError(
                f"Pipeline {spec.name}: {key} {text!r} compares predicted_class with {', '.join(map(repr, strange))}, "
                f"which is no class of {manifest.model_name} v{manifest.version}; it has "
                f"{', '.join(map(repr, manifest.classes))}.{hint}"
            )


def decision_types(spec: PipelineSpec, columns: Mapping[str, str], scored: Mapping[str, str]) -> dict[str, str]:
    """The SQL type of each decision over rows with the columns `scored`.

    Args:
        spec: the pipeline.
        columns: the feature columns, name → SQL type; those that a decision mentions are in `scored` too.
        scored: what a scored row has before it is decided on, name → SQL type.

    Raises:
        DeclarationError: a decision is not an expression over the row, or has the name of one of its columns.
    """
    taken = {name.lower() for name in scored} | RESERVED_COLUMNS | PREDICTION_COLUMNS
    if doubled := [name for name in spec.decisions if name.lower() in taken]:
        raise DeclarationError(
            f"Pipeline {spec.name}: decisions {doubled} have the name of a column of the scored row; rename them."
        )
    types: dict[str, str] = {}
    for name, text in spec.decisions.items():
        where = f"Pipeline {spec.name}: decisions.{name}"
        types[name] = row_expression(text, {**columns, **scored, **types}, where=where, row="the scored row").sql_type
    return types
