"""From which columns each column of the predictions is computed."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from pip_dagster.registry.composite import SEGMENT_COLUMN
from pip_dagster.registry.manifest import Manifest
from pip_dagster.sql.expression import nodes, owner_of, parsed


@dataclass(frozen=True)
class RowColumns:
    """The columns of a scored row, by what they come from.

    Attributes:
        computed: Those that the model or a decision computes, in the order of the row.
        reads: Column → the columns that it is computed from. A name in `computed` is one of the predictions, any other
            one of the features.
    """

    computed: frozenset[str]
    reads: Mapping[str, tuple[str, ...]]

    def of_features(self, column: str) -> tuple[str, ...]:
        """The features that a column is computed from, through other columns of the predictions."""
        found: dict[str, None] = {}
        waiting, seen = [*self.reads.get(column, ())], {column}
        while waiting:
            name = waiting.pop(0)
            if name not in self.computed:
                found[name] = None
            elif name not in seen:
                seen.add(name)
                waiting = [*self.reads.get(name, ()), *waiting]
        return tuple(found)


def row_columns(
    columns: Collection[str], manifest: Manifest, decisions: Mapping[str, str], unit: Sequence[str]
) -> RowColumns:
    """What each of the scored row's `columns` is computed from; `arm` too, where units are shared between arms."""
    routed_by = list(manifest.composite.columns) if manifest.composite else []
    computed = {*manifest.outputs, "predicted_class", "calibrated", SEGMENT_COLUMN, *decisions} & {*columns}
    # DuckDB resolves names whatever their case.
    folded = {name.lower(): name for name in columns}
    scored = [feature.name for feature in manifest.features]
    scored += [manifest.offset] if manifest.offset else []
    scored += routed_by
    read = {name: columns_read(text) for name, text in decisions.items() if name in computed}
    reads: dict[str, tuple[str, ...]] = {
        name: (name,) for name in columns if name not in computed and name != "partition_key"
    }
    reads |= {name: _once(scored) for name in columns if name in computed}
    reads |= {SEGMENT_COLUMN: _once(routed_by)} if SEGMENT_COLUMN in computed else {}
    reads |= {"calibrated": (manifest.outputs[0],)} if "calibrated" in computed else {}
    reads |= {name: _once(folded[each] for each in found if each in folded) for name, found in read.items()}
    reads |= {"arm": tuple(unit)} if unit else {}
    return RowColumns(frozenset(computed), reads)


def columns_read(expression: str) -> list[str]:
    """The columns that a SQL expression over a row refers to, in lower case; of `a.b`, a field of `a`, it is `a`."""
    tree = list(nodes(parsed(expression)))
    named = (node["column_names"][0].lower() if node.get("class") == "COLUMN_REF" else owner_of(node) for node in tree)
    return list(dict.fromkeys(filter(None, named)))


def _once(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(names))
