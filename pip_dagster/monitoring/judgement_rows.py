"""Rows of `ledger.drift`, one a column, window and reference that has rows: from judged arrays, and read again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pip_dagster.ledger.judgements import DriftJudgement, StoredJudgement
from pip_dagster.ledger.profiles import LiveScoring
from pip_dagster.monitoring.drift import (
    REFERENCES,
    STATES,
    ColumnDrift,
    JudgedPartition,
    PartitionDrift,
    WindowDrift,
    by_importance,
)
from pip_dagster.monitoring.rules import RULES
from pip_dagster.monitoring.windows import Figures

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa


def rows_of(found: Sequence[JudgedPartition], entries: Sequence[DriftJudgement]) -> pa.Table:
    """The rows of partitions that were judged together, each with its judgement; in the partitions' order."""
    import numpy as np
    import pyarrow as pa

    judged = found[0].judged
    places = np.array([each.place for each in found])
    there = np.stack([figures.there[:, places] for figures in judged.figures])  # (figures, columns, positions)
    at, i, which = np.nonzero(there.transpose(2, 1, 0))
    position = places[at]
    columns: dict[str, Any] = {name: _taken([getattr(e, name) for e in entries], at) for name in _OF_JUDGEMENT}
    listed = judged.windows.series.columns
    for name, attribute in _OF_COLUMN.items():
        columns[name] = _taken([getattr(column, attribute) for column in listed], i)
    columns |= _of_windows(judged.figures, judged.windows.series.partitions, judged.windows.at, (which, i, position))
    rule = judged.verdict.rule[i, position]
    columns["state"] = _taken(STATES, judged.state[i, position])
    columns["rule"] = _taken([*RULES, None], np.where(rule < 0, len(RULES), rule))
    columns["p"] = _number(judged.verdict.p[i, position])
    columns["threshold"] = judged.threshold[i, position]
    bins, before, now = (each[i, position] for each in judged.changes)
    names = [[*column.bins, ""] for column in listed]
    columns["share_bin"] = pa.array([names[c][min(b, len(names[c]) - 1)] for c, b in zip(i, bins, strict=True)])
    columns["share_before"], columns["share_now"] = before, now
    return pa.table({name: pa.array(values) for name, values in columns.items()})


_OF_JUDGEMENT = (
    *("judgement_id", "pipeline", "partition_key", "scoring_id", "model_version", "manifest_digest", "judged_at"),
)
# Column of the table → attribute of a column of the series.
_OF_COLUMN = {
    "column_kind": "kind",
    "name": "name",
    "segment": "segment",
    "segment_value": "value",
    "gain": "gain",
}


_KEY = ("column_kind", "name", "segment", "segment_value", "gain", "state", "rule", "p", "threshold")
_CHANGED = ("share_bin", "share_before", "share_now")
_WINDOW = (*("partitions", "reference", "rows", "psi", "excess", "distance", "p_rows", "shift", "missing", "unseen"),)
STORED = (*_KEY, *_CHANGED, *_WINDOW)


def drift_from(
    rows: Sequence[tuple[Any, ...]], live: LiveScoring, judgement: StoredJudgement, history: int
) -> PartitionDrift | None:
    """The drift that a judgement stored, from its rows with the columns `STORED`.

    None where a column that was judged has none: it had no rows in any window.
    """
    by_column: dict[tuple[Any, ...], list[WindowDrift]] = {}
    for row in rows:
        by_column.setdefault(row[:_WINDOWS_FROM], []).append(WindowDrift(*row[_WINDOWS_FROM:]))
    if len(by_column) != judgement.columns:
        return None
    columns = [_column(of, windows) for of, windows in by_column.items()]
    newest = [window.rows for column in columns for window in column.windows if window.partitions == 1]
    return PartitionDrift(
        partition_key=live.partition_key,
        scoring_id=live.scoring_id,
        rows=max(newest, default=0),
        history=history,
        max_psi=judgement.max_psi,
        columns=by_importance(columns),
    )


_WINDOWS_FROM = len(_KEY) + len(_CHANGED)


def _column(of: tuple[Any, ...], windows: list[WindowDrift]) -> ColumnDrift:
    kind, name, segment, value, gain, state, rule, p, threshold, *changed = of
    ordered = tuple(sorted(windows, key=lambda each: (each.partitions, REFERENCES.index(each.reference))))
    return ColumnDrift(kind, name, segment, value, gain, state, rule, p, threshold, ordered, *changed)


def _of_windows(
    figures: Sequence[Figures], partitions: Sequence[str], ends: np.ndarray, of: tuple[np.ndarray, ...]
) -> dict[str, Any]:
    import numpy as np

    which, i, position = of
    length = np.array([each.partitions for each in figures])[which]

    def stacked(arrays: Sequence[np.ndarray]) -> np.ndarray:
        found: np.ndarray = np.stack(arrays)[which, i, position]
        return found

    return {
        "partitions": length,
        "first_partition": _taken(partitions, ends[position] + 1 - length),
        "reference": _taken([each.reference for each in figures], which),
        "rows": stacked([each.rows for each in figures]),
        "psi": stacked([each.of.psi for each in figures]),
        "excess": stacked([each.of.excess for each in figures]),
        "distance": stacked([each.of.distance for each in figures]),
        "p_rows": stacked([each.of.p for each in figures]),
        "shift": _number(stacked([each.shift for each in figures])),
        "missing": stacked([each.missing for each in figures]),
        "unseen": stacked([each.unseen for each in figures]),
    }


def _taken(values: Sequence[Any], places: np.ndarray) -> pa.Array:
    """These values at these places, as a dictionary: few differ."""
    import pyarrow as pa

    return pa.array(list(values)).take(pa.array(places))


def _number(values: np.ndarray) -> pa.Array:
    """NaN is NULL."""
    import pyarrow as pa

    return pa.array(values, from_pandas=True)
