"""What is compared of the rows that two versions scored: their scores, calibrated where they are, and decisions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pip_dagster.registry.task import CALIBRATED, default_decision
from pip_dagster.sql.names import quote, quote_all
from pip_dagster.sql.row_sql import row_expression
from pip_dagster.statistics.agreement import psi_gate
from pip_dagster.statistics.gate_result import GateResult
from pip_dagster.statistics.paired import LEAST_ROWS

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from pip_dagster.declaration.pipeline import Pipeline
    from pip_dagster.registry.manifest import Manifest


@dataclass(frozen=True)
class Side:
    """One version's part of a comparison.

    `outputs` are the score columns, `decision` names the decision (None where there is none), and `sql` selects the
    rows with the column `pip_decision`.
    """

    outputs: tuple[str, ...] = ()
    decision: str | None = None
    sql: str = ""

    @property
    def calibrated(self) -> bool:
        """Whether its score is calibrated."""
        return self.outputs == (CALIBRATED,)


def side(pipeline: Pipeline, manifest: Manifest, columns: Mapping[str, str], relation: str, row: str) -> Side:
    """What to compare of the rows of `relation`, which have `columns` (name → SQL type) and which a version scored.

    The decision is `gates.decision`. When absent, it is the BOOLEAN `decisions`, which differ where one of them does;
    without any, the default of the task. In `gates.decision`, `calibrated` is the score of a version without
    calibration, so that a calibrated version can be compared with one that is not.

    Raises:
        DeclarationError: `gates.decision` is not an expression over the row, which `row` names.
    """
    declared = pipeline.gates.decision
    single = len(manifest.outputs) == 1
    calibrated = single and columns.get(CALIBRATED) == "FLOAT"
    if CALIBRATED not in columns and single:
        relation = f"(SELECT *, {quote(manifest.outputs[0])} AS {CALIBRATED} FROM {relation})"
        columns = {**columns, CALIBRATED: "FLOAT"}
    booleans = [name for name in pipeline.spec.decisions if columns.get(name) == "BOOLEAN"]
    text = declared or ", ".join(booleans) or default_decision(manifest, calibrated=calibrated)
    value = "NULL"
    if not declared and booleans:
        value = f"[{quote_all(booleans)}]"
    elif text is not None:
        value = row_expression(text, columns, where=f"Pipeline {pipeline.spec.name}: gates.decision", row=row).sql
    outputs = (CALIBRATED,) if calibrated else manifest.outputs
    return Side(outputs, text, f"SELECT *, {value}::VARCHAR AS pip_decision FROM {relation}")


def unit_of(pipeline: Pipeline, columns: Mapping[str, str]) -> tuple[str, ...]:
    """The columns that identify a unit: the declared ones, those of a split, or the key without its dates.

    Args:
        pipeline: declares them.
        columns: the stored features, name → SQL type.
    """
    spec = pipeline.spec
    if declared := pipeline.unit:
        return declared
    if spec.unit and all(name in columns for name in spec.unit):
        return spec.unit
    key = spec.features.key
    lasting = [
        name
        for name in key
        if name != spec.features.partition_column and not columns[name].startswith(("DATE", "TIME"))
    ]
    return tuple(lasting) or key


def distribution_gate(
    con: DuckDBPyConnection, paired: str, sides: tuple[Side, Side], most: float, least_rows: int = LEAST_ROWS
) -> GateResult:
    """Whether the distribution of the scores moved too far, on the paired rows of champion and candidate.

    Where only one of them is calibrated, that is not judged: calibration is there to move scores.
    """
    found = psi_gate(con, paired, sides[0].outputs, most, least_rows)
    if sides[0].calibrated == sides[1].calibrated:
        return found
    text = f"{found.text}; not judged, because only one of the versions is calibrated, which is to move its scores"
    return replace(found, passed=True, judged=False, text=text)
