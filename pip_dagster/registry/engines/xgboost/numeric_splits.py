"""A Booster's trees rewritten to compare numbers only: the same scores to the bit, faster for large partitions.

XGBoost is fastest for rows without missing values and trees without splits by category. Every Booster of trees can be
rewritten for such rows:

- A missing value takes each split's default direction. -inf is below every threshold and goes left, inf goes right;
  a feature whose splits differ in their default becomes two columns.
- A split by category becomes a threshold on a column that `chains` derives from the codes.

Neither the leaf that a row reaches nor the order in which leaves are added changes.
"""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pip_dagster.registry.engines.xgboost.chains import Chains, Sets, cover_sets

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    import xgboost as xgb

# Rows that a thread scores at a time: few enough for its cache, enough that the call's own cost is negligible.
_ROWS = 8192
# A column costs each row as much as a few splits: more columns of chains than trees would save nothing.
_MOST_CHAINS_A_TREE = 1
# Stand-ins for a missing value in a column.
_LEFT, _RIGHT, _MISSING = 0, 1, 2
_STAND_INS = (float("-inf"), float("inf"), float("nan"))
# XGBoost's mark of a node that was pruned away, which it counts when it loads a tree.
_DELETED = 2**31 - 1
# Bytes of a model as JSON: for a larger one, the rewriting would take gigabytes and minutes.
_LARGEST = 100_000_000


class NumericSplits:
    """A Booster for float32 matrices as the original takes them, NaN for missing. Build one with `of`."""

    def __init__(
        self, booster: xgb.Booster, columns: Sequence[tuple[int, int]], chains: Sequence[Chains], threads: int
    ) -> None:
        """Wrap the changed Booster: its first columns are (feature, stand-in for missing), then come the chains'."""
        import numpy as np

        self._booster, self._chains = booster, tuple(chains)
        self._features = np.array([feature for feature, _ in columns], dtype=np.intp)
        self._stand_ins = np.array([_STAND_INS[stand_in] for _, stand_in in columns], dtype=np.float32)
        self._width = booster.num_features()
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="score")

    @classmethod
    def of(cls, booster: xgb.Booster, threads: int) -> NumericSplits | None:
        """The same trees, for `threads` threads; None for a Booster of no trees, dart, or leaves that are vectors."""
        import numpy as np
        import xgboost as xgb

        raw = bytes(booster.save_raw("json"))
        if len(raw) > _LARGEST:
            return None
        document = json.loads(raw)
        learner = document["learner"]
        ensemble = learner["gradient_booster"]
        model = ensemble.get("model", {})
        nodes = _Nodes.of(model.get("trees", ()))
        if nodes is None or ensemble.get("weight_drop") or model.get("weight_drop"):  # where 3.2 and 3.4 store it
            return None
        chains, in_chain = cover_sets(nodes.sets, most=_MOST_CHAINS_A_TREE * len(model["trees"]))
        stand_in = np.where(nodes.default_left, _LEFT, _RIGHT)
        stand_in[nodes.by_category] = _MISSING
        alone = nodes.inner & ~(nodes.by_category & bool(chains))
        columns, place = np.unique(nodes.feature[alone] * len(_STAND_INS) + stand_in[alone], return_inverse=True)
        feature = np.where(nodes.feature == _DELETED, _DELETED, 0)
        condition, kind = nodes.condition.copy(), nodes.by_category.astype(int)
        feature[alone] = place
        for node, (column, threshold) in in_chain.items():
            feature[node], condition[node], kind[node] = len(columns) + column, threshold, 0
        width = len(columns) + sum(each.counts.shape[1] for each in chains)
        if not width:
            return None
        for tree, part in zip(model["trees"], nodes.parts, strict=True):
            tree["split_indices"], tree["split_conditions"] = feature[part].tolist(), condition[part].tolist()
            tree["split_type"] = kind[part].tolist()
            tree["tree_param"]["num_feature"] = str(width)
            if chains:
                tree |= {name: [] for name in tree if name.startswith("categories")}
        learner["learner_model_param"]["num_feature"] = str(width)
        learner |= {"feature_names": [], "feature_types": []}
        if "cats" in model:
            model["cats"] = {"enc": [], "feature_segments": [], "sorted_idx": []}
        changed = xgb.Booster()
        changed.load_model(bytearray(json.dumps(document).encode()))
        changed.set_param({"nthread": 1, "device": "cpu"})
        return cls(changed, [divmod(int(each), len(_STAND_INS)) for each in columns], chains, threads)

    def agrees(self, original: xgb.Booster, X: np.ndarray, iteration_range: tuple[int, int]) -> bool:
        """Whether both score these rows the same, to the bit."""
        import numpy as np

        return all(
            np.array_equal(
                self.predict(X, iteration_range=iteration_range, predict_type=kind),
                original.inplace_predict(X, iteration_range=iteration_range, predict_type=kind, missing=np.nan),
                equal_nan=True,
            )
            for kind in ("value", "margin")
        )

    def faster(self, X: np.ndarray) -> bool:
        """Whether these rows score faster: some value is missing, or the original splits by category."""
        import numpy as np

        return bool(self._chains) or bool(np.isnan(X).any())

    def predict(
        self,
        X: np.ndarray,
        *,
        iteration_range: tuple[int, int],
        predict_type: str,
        base_margin: np.ndarray | None = None,
    ) -> np.ndarray:
        """As `Booster.inplace_predict` of the original for float32 (rows, features)."""
        import numpy as np

        def part(start: int) -> np.ndarray:
            matrix = self._matrix(X[start : start + _ROWS])
            return self._booster.inplace_predict(
                matrix,
                iteration_range=iteration_range,
                predict_type=predict_type,
                missing=np.nan,
                base_margin=None if base_margin is None else base_margin[start : start + _ROWS],
            )

        starts = range(0, len(X), _ROWS)
        if len(starts) == 1:
            return part(0)
        return np.concatenate(list(self._pool.map(part, starts)))

    def _matrix(self, X: np.ndarray) -> np.ndarray:
        import numpy as np

        matrix = np.empty((len(X), self._width), dtype=np.float32)
        alone = len(self._features)
        matrix[:, :alone] = X[:, self._features]
        np.copyto(matrix[:, :alone], self._stand_ins, where=np.isnan(matrix[:, :alone]))
        for each in self._chains:
            end = alone + each.counts.shape[1]
            matrix[:, alone:end] = each.counts[each.rows(X[:, each.feature])]
            alone = end
        return matrix


@dataclass(frozen=True)
class _Nodes:
    """All nodes of all trees, one after the other."""

    parts: list[slice]  # each tree's
    inner: np.ndarray
    feature: np.ndarray
    default_left: np.ndarray
    condition: np.ndarray
    by_category: np.ndarray
    sets: Sets

    @classmethod
    def of(cls, trees: Sequence[dict[str, Any]]) -> _Nodes | None:
        import numpy as np

        if not trees or any(int(tree["tree_param"].get("size_leaf_vector") or 0) > 1 for tree in trees):
            return None

        def together(name: str, kind: type) -> np.ndarray:
            return np.concatenate([np.asarray(tree[name], dtype=kind) for tree in trees])

        ends = np.cumsum([len(tree["left_children"]) for tree in trees]).tolist()
        parts = [slice(start, end) for start, end in zip([0, *ends], ends, strict=False)]
        inner = together("left_children", np.int64) != -1
        feature, default_left = together("split_indices", np.int64), together("default_left", bool)
        by_category = inner & (together("split_type", np.int64) == 1)
        condition = together("split_conditions", np.float64)
        if not np.isfinite(condition[inner & ~by_category]).all():
            return None
        sets: dict[int, dict[tuple[int, ...], list[int]]] = {}
        listed = np.zeros_like(inner)
        for tree, part in zip(trees, parts, strict=True):
            lists = zip(tree["categories_nodes"], tree["categories_segments"], tree["categories_sizes"], strict=True)
            for at, start, size in lists:
                node = part.start + at
                listed[node] = True
                right = tuple(sorted(tree["categories"][start : start + size]))
                right = right if default_left[node] else (-1, *right)
                sets.setdefault(int(feature[node]), {}).setdefault(right, []).append(node)
        if not np.array_equal(listed, by_category):
            return None
        return cls(parts, inner, feature, default_left, condition, by_category, sets)
