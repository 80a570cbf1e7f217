"""The unit of a split: the columns by which a row gets its arm."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import TYPE_CHECKING

from pip_dagster.errors import DeclarationError
from pip_dagster.warehouse.buckets import unit_kind

if TYPE_CHECKING:
    from pip_dagster.declaration.spec import PipelineSpec


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
