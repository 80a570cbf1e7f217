"""Which list of categories a feature has: the order of the list is the meaning of the codes in the trees."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pip_dagster.registry.engines.xgboost.booster_facts import BoosterFacts, CategoryList
from pip_dagster.registry.errors import SignatureMismatch
from pip_dagster.registry.matrix import as_strings

if TYPE_CHECKING:
    import pyarrow as pa


def resolve(
    position: int, name: str, facts: BoosterFacts, column: pa.ChunkedArray, given: Sequence[object] | None
) -> CategoryList:
    """The category list of a feature: as given, else the sample's own dictionary, else the Booster's."""
    own = facts.categories[position]
    own_is_exact = own is not None and facts.is_exact(own)
    if given is not None:
        return _agreeing(name, _checked(name, given, "given"), "given", own, own_is_exact)
    sampled = _dictionary(column, name)
    if sampled is not None:
        if own is not None and own_is_exact and len(sampled) < len(own) and _subsequence(sampled, own):
            return own  # categories that the sample does not use were dropped from it
        return _agreeing(name, sampled, "sample's", own, own_is_exact)
    if own is not None and own_is_exact:
        return _checked(name, own, "Booster's")
    why = (
        "neither the sample nor the Booster carries its list"
        if own is None
        else f"XGBoost {'.'.join(map(str, facts.writer))} has garbled the non-ASCII list in the model file"
    )
    raise SignatureMismatch(
        f"feature {name!r} is a category, but {why}; pass categories={{{name!r}: [...]}} (command line: --categories "
        "FILE.json), in the order of the codes used in training: pandas gives it as frame[name].cat.categories"
    )


def _agreeing(
    name: str, values: CategoryList, whose: str, own: CategoryList | None, own_is_exact: bool
) -> CategoryList:
    if own is None:
        return values
    if len(values) != len(own):
        raise SignatureMismatch(
            f"feature {name!r}: the {whose} category list has {len(values)} entries, the Booster was trained with "
            f"{len(own)}; pass categories={{{name!r}: [...]}} with the list used in training, unused entries included"
        )
    if own_is_exact and values != own:
        at = next(i for i, (ours, theirs) in enumerate(zip(values, own, strict=True)) if ours != theirs)
        raise SignatureMismatch(
            f"feature {name!r}: code {at} is {values[at]!r} in the {whose} category list, but {own[at]!r} in the "
            "Booster, so scores would be those of other categories; give the list in the Booster's order "
            "(frame[name].cat.categories of the training frame)"
        )
    return values


def _dictionary(column: pa.ChunkedArray, name: str) -> CategoryList | None:
    import pyarrow as pa

    if not pa.types.is_dictionary(column.type):
        return None
    unified = column.unify_dictionaries()
    if unified.num_chunks == 0:
        return None
    return _checked(name, as_strings(pa.chunked_array([unified.chunk(0).dictionary]), name).to_pylist(), "sample's")


def _checked(name: str, values: Sequence[object], whose: str) -> CategoryList:
    texts = tuple(str(value) for value in values)
    problem = "is empty" if not texts else "holds a missing value" if None in values else None
    if duplicates := sorted(text for text, count in Counter(texts).items() if count > 1):
        problem = f"holds {duplicates} more than once"
    if problem:
        raise SignatureMismatch(
            f"feature {name!r}: the {whose} category list {problem}; give each category once, in order"
        )
    return texts


def _subsequence(part: CategoryList, whole: CategoryList) -> bool:
    rest = iter(whole)
    return all(text in rest for text in part)
