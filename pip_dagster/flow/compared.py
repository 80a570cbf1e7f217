"""What is compared of the rows that two versions scored: their scores, calibrated where they are, and decisions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pip_dagster.registry.task import CALIBRATED, default_decision, judged_outputs
from pip_dagster.sql.names import quote, quote_all
from pip_dagster.sql.row_sql import row_expression

if TYPE_CHECKING:
    from pip_dagster.declaration.pipeline import Pipeline
    from pip_dagster.registry.manifest import Manifest


@dataclass(frozen=True)
class Side:
    """One version's part of a comparison.

    `outputs` are the score columns, `decision` names the decision (None where there is none), and `sql` selects the
    rows with the column `pip_decision`.
    """

    outputs: tuple[str, ...]
    decision: str | None
    sql: str


def side(pipeline: Pipeline, manifest: Manifest, columns: Mapping[str, str], relation: str, row: str) -> Side:
    """What to compare of the rows of `relation`, which have `columns` (name → SQL type) and which a version scored.

    The decision is `gates.decision`. When absent, it is the BOOLEAN `decisions`, which differ where one of them does;
    without any, the default of the task. In `gates.decision`, `calibrated` is the score of a version without
    calibration, so that a calibrated version can be compared with one that is not.

    Raises:
        DeclarationError: `gates.decision` is not an expression over the row, which `row` names.
    """
    declared = pipeline.gates.decision
    if CALIBRATED not in columns and len(manifest.outputs) == 1:
        relation = f"(SELECT *, {quote(manifest.outputs[0])} AS {CALIBRATED} FROM {relation})"
        columns = {**columns, CALIBRATED: "FLOAT"}
    booleans = [name for name in pipeline.spec.decisions if columns.get(name) == "BOOLEAN"]
    text = declared or ", ".join(booleans) or default_decision(manifest)
    value = "NULL"
    if not declared and booleans:
        value = f"[{quote_all(booleans)}]"
    elif text is not None:
        value = row_expression(text, columns, where=f"Pipeline {pipeline.spec.name}: gates.decision", row=row).sql
    return Side(judged_outputs(manifest), text, f"SELECT *, {value}::VARCHAR AS pip_decision FROM {relation}")
