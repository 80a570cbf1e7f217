"""The columns of a scored row, and which of them may be the unit of a split."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from pip_dagster.errors import DeclarationError
from pip_dagster.flow.decide import carried_for_decisions, decision_types
from pip_dagster.flow.findings import ScoringPolicy
from pip_dagster.registry.composite import SEGMENT_COLUMN
from pip_dagster.registry.manifest import Manifest
from pip_dagster.sql.names import PREDICTION_COLUMNS, bare_type, quote
from pip_dagster.warehouse.buckets import unit_kind

if TYPE_CHECKING:
    from pip_dagster.declaration.spec import PipelineSpec

# Measured with DuckDB 1.5: other bits of a BIT, another zone of a time, and errors.
_NOT_IN_ARROW = re.compile(r"\b(BIT|TIME WITH TIME ZONE|TIMETZ|UHUGEINT|VARIANT)\b")


def scored_columns(
    spec: PipelineSpec,
    manifest: Manifest,
    columns: Mapping[str, str],
    carried: Sequence[str] | None = None,
) -> dict[str, str]:
    """What a scored row has, with SQL types: partition key, what is carried, scores, decisions.

    Carried are, unless given, key, partition column and the unit of a split; and the features that a decision mentions.

    Raises:
        DeclarationError: a column that is carried along has the name of a score, a decision cannot be evaluated, or a
            column cannot be a unit.
    """
    scores = score_columns(manifest)
    if carried is None:
        check_unit(spec, columns)
    kept = dict.fromkeys(ScoringPolicy.declared(spec).carried if carried is None else carried)
    kept |= dict.fromkeys(name for name in carried_for_decisions(spec, columns) if name not in scores)
    if SEGMENT_COLUMN in scores:  # a decision about the user's own must not become one about the model's
        kept |= dict.fromkeys(n for n in carried_for_decisions(spec, columns) if n.lower() == SEGMENT_COLUMN)
    names = {name.lower() for name in scores} | PREDICTION_COLUMNS
    if taken := [name for name in kept if name.lower() in names]:
        raise DeclarationError(
            f"Pipeline {spec.name}, {spec.features.sql}: {', '.join(map(repr, taken))} is a key, a partition column, "
            f"a unit or in a decision, and a column of the predictions by model {manifest.model_name} "
            f"v{manifest.version} as well; rename it in the feature SQL."
        )
    if carried is None:
        _check_carried(spec, {name: columns[name] for name in kept})
    raw = {"partition_key": "VARCHAR"} | {name: columns[name] for name in kept} | scores
    return raw | decision_types(spec, columns, raw)


def _check_carried(spec: PipelineSpec, columns: Mapping[str, str]) -> None:
    for name, sql_type in columns.items():
        if found := _NOT_IN_ARROW.search(bare_type(sql_type)):
            raise DeclarationError(
                f"Pipeline {spec.name}, {spec.features.sql}: {name!r} is {sql_type}. It is a key, a partition column, "
                f"a unit or in a decision, and Arrow, through which such columns go, does not keep {found[0]}. Cast it "
                f"in the feature SQL: {quote(name)}::VARCHAR."
            )


def score_columns(manifest: Manifest) -> dict[str, str]:
    """The columns that a model fills, with SQL types."""
    columns = dict.fromkeys(manifest.outputs, "FLOAT")
    columns |= {"predicted_class": "VARCHAR"} if manifest.classes and len(manifest.outputs) > 1 else {}
    columns |= {SEGMENT_COLUMN: "VARCHAR"} if manifest.composite and manifest.composite.routes else {}
    return columns | ({"calibrated": "FLOAT"} if manifest.calibration else {})


def check_unit(spec: PipelineSpec, columns: Mapping[str, str]) -> dict[str, str]:
    """The declared unit over features of `columns` (name → SQL type): name → how it is hashed; empty without a split.

    Raises:
        DeclarationError: a column is not there, or its text differs between versions or platforms.
    """
    found: dict[str, str] = {}
    for name in spec.unit:
        experiment = spec.scoring.experiment
        where = f"Pipeline {spec.name}: scoring.{experiment.kind if experiment else ''}.unit"
        if name not in columns:
            near = difflib.get_close_matches(name, columns, 1)
            hint = f"; did you mean {near[0]!r}?" if near else f"; it has {', '.join(columns)}"
            raise DeclarationError(f"{where} names {name!r}, which {spec.features.sql} does not have{hint}")
        kind = unit_kind(columns[name])
        if kind is None:
            raise DeclarationError(
                f"{where}: {name!r} is {columns[name]}; expected whole numbers, text, dates, instants or decimals, "
                "whose text is the same everywhere. Cast it in the feature SQL, or name another column as `unit`."
            )
        found[name] = kind
    return found
