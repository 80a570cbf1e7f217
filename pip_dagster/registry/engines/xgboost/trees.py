"""Checks of a Booster that XGBoost omits: a bad reference makes it read beyond its memory, a NaN scores silently.

A child, feature or output group beyond the end crashes only when a row reaches it. The sample of a registration may not
hold such a row, and production may.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from pip_dagster.registry.errors import InvalidModel

if TYPE_CHECKING:
    import xgboost as xgb

# XGBoost's own bound on a category's code: what a float32 holds exactly.
_MAX_CATEGORY = 2**24


def check_trees(booster: xgb.Booster) -> None:
    """Check every reference in every tree, and every number that takes part in a score."""
    learner = json.loads(bytes(booster.save_raw("json")))["learner"]
    ensemble = learner["gradient_booster"]
    ensemble = ensemble.get("gbtree", ensemble)  # dart wraps one
    model = ensemble["model"]
    shape = learner["learner_model_param"]
    _check_finite("its base score", [float(text) for text in shape["base_score"].strip("[]").split(",")])
    if "trees" not in model:
        _check_finite("a weight of its linear model", model["weights"])
        return
    groups = max(1, int(shape["num_class"]), int(shape.get("num_target", "1")))
    _check_ensemble(model, groups)
    dropped = learner["gradient_booster"].get("weight_drop")
    if dropped is not None and len(dropped) != len(model["trees"]):
        raise _damaged(f"{len(dropped)} dart weights for {len(model['trees'])} trees")
    _check_finite("a weight of a dart tree", dropped or ())
    for number, tree in enumerate(model["trees"]):
        _check_tree(number, tree, booster.num_features())


def _check_ensemble(model: dict[str, Any], groups: int) -> None:
    trees, of_group = len(model["trees"]), model["tree_info"]
    if len(of_group) != trees or any(not 0 <= group < groups for group in of_group):
        raise _damaged(f"its {trees} trees do not each belong to one of {groups} outputs")
    rounds = model.get("iteration_indptr")
    if rounds and (rounds[0] != 0 or rounds[-1] != trees or sorted(rounds) != rounds):
        raise _damaged(f"its boosting rounds do not divide its {trees} trees")


def _check_tree(number: int, tree: dict[str, Any], features: int) -> None:
    import numpy as np

    left, right, split = (
        np.asarray(tree[name], dtype=np.int64) for name in ("left_children", "right_children", "split_indices")
    )
    nodes = len(left)
    lengths = {
        name: len(tree[name]) for name in ("right_children", "split_indices", "split_conditions", "default_left")
    }
    if nodes == 0 or set(lengths.values()) != {nodes}:
        raise _damaged(f"tree {number} has {nodes} nodes, but {lengths}")
    inner = left != -1
    outputs, weights = int(tree["tree_param"].get("size_leaf_vector") or 0), tree.get("leaf_weights")
    if outputs > 1 and weights is not None:  # a leaf stores the number of its vector in the place of a child
        if ((right[~inner] < 0) | (right[~inner] >= len(weights) // outputs)).any() or (right[inner] == -1).any():
            raise _damaged(f"tree {number} has a leaf without its {outputs} values")
    elif ((right != -1) != inner).any():
        raise _damaged(f"tree {number} has a node with one child")
    children = np.concatenate([left[inner], right[inner]])
    if ((children <= 0) | (children >= nodes)).any() or len(np.unique(children)) != len(children):
        raise _damaged(f"tree {number} has a node whose child is not one of its {nodes} nodes, or another's as well")
    if ((split[inner] < 0) | (split[inner] >= features)).any():
        raise _damaged(f"tree {number} splits on a feature that is not one of its {features}")
    _check_categories(number, tree, inner)
    conditions = np.asarray(tree["split_conditions"], dtype=np.float32)
    kinds = np.asarray(tree.get("split_type") or np.zeros(nodes), dtype=np.int64)
    thresholds = conditions[inner & (kinds != 1)]
    # Minus infinity is a sound threshold: every value goes right, a missing one either way.
    _check_finite(f"a threshold of tree {number}", thresholds[thresholds != -np.inf])
    leaves = weights if outputs > 1 and weights is not None else conditions[~inner]
    _check_finite(f"a leaf of tree {number}", leaves)


def _check_categories(number: int, tree: dict[str, Any], inner: Any) -> None:
    import numpy as np

    at, start, size, codes = (
        np.asarray(tree.get(name) or [], dtype=np.int64)
        for name in ("categories_nodes", "categories_segments", "categories_sizes", "categories")
    )
    kinds = np.asarray(tree.get("split_type") or np.zeros(len(inner)), dtype=np.int64)
    by_category = np.flatnonzero((kinds == 1) & inner) if len(kinds) == len(inner) else None
    sound = (
        by_category is not None
        and len(at) == len(start) == len(size)
        and np.isin(by_category, at).all()
        and ((at >= 0) & (at < len(inner))).all()
        and (np.diff(at) > 0).all()
        and ((start >= 0) & (size >= 0) & (start + size <= len(codes))).all()
        and ((codes >= 0) & (codes < _MAX_CATEGORY)).all()
    )
    if not sound:
        raise _damaged(f"tree {number} has a split by category whose list of categories is incomplete")


def _check_finite(what: str, values: Any) -> None:
    import numpy as np

    flat = np.asarray(values, dtype=np.float64).ravel()
    wrong = flat[~np.isfinite(flat)]
    if len(wrong):
        raise InvalidModel(
            f"{what} is {wrong[0]}: rows that it takes part in would get a score that is no finite number. Training "
            "diverged, or the file is damaged; train again, with finite labels, weights and base score"
        )


def _damaged(what: str) -> InvalidModel:
    return InvalidModel(
        f"the file is damaged: {what}. XGBoost would read beyond its memory for some rows; save the model again from "
        "training"
    )
