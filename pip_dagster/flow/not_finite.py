"""Staged scores that are NaN or infinite: their partitions are refused.

The guard bounds the features, but a model can still leave float32: exp() of a large margin, a linear model outside its
training range, a calibration at a score of 0. To DuckDB a NaN is greater than every number, so `score >= 0.5` holds.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

from pip_dagster.plural import plural
from pip_dagster.sql.names import quote

if TYPE_CHECKING:
    from pip_dagster.flow.stage import Stage


def refuse_not_finite(
    stage: Stage,
    types: Mapping[str, str],
    scores: Collection[str],
    decisions: Collection[str],
) -> dict[str, str]:
    """The partitions of the staged scores that must not be stored, each with the reason.

    Scores, calibrated scores and the numbers that decisions give are checked; `types` are the scored row's.
    """
    checked = [name for name in types if types[name] in ("FLOAT", "DOUBLE") and name in {*scores, *decisions}]
    if not checked:
        return {}
    # Exactly as the columns are called in the staged table; NULL, which a decision may give, is finite.
    wrong = {name: f"coalesce(NOT isfinite({quote(name)}), false)" for name in checked}
    anywhere = " OR ".join(wrong.values())
    counts = ", ".join(f"count(*) FILTER ({condition})" for condition in wrong.values())
    found = stage.con.execute(
        f"SELECT partition_key, count(*), {counts} FROM {stage.scores} WHERE {anywhere} GROUP BY partition_key"
    ).fetchall()
    return {row[0]: _reason(row[1], dict(zip(checked, row[2:], strict=True))) for row in found}


def _reason(rows: int, counts: Mapping[str, int]) -> str:
    listed = ", ".join(f"{name} in {plural(count, 'row')}" for name, count in counts.items() if count)
    return (
        f"a score is NaN or infinite in {plural(rows, 'row')}: {listed}. No row was stored. Compare the "
        "features with those of training (a unit may have "
        "changed), or bound them in the feature SQL"
    )
