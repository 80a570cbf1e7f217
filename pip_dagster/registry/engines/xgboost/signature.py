"""Derive a model's signature from its Booster and a sample of what it was trained on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from pip_dagster.registry.booster_signature import Feature, Task
from pip_dagster.registry.engines.protocol import SignatureClaims
from pip_dagster.registry.engines.xgboost import categories
from pip_dagster.registry.engines.xgboost.booster_facts import BoosterFacts
from pip_dagster.registry.engines.xgboost.objectives import objective_of
from pip_dagster.registry.errors import InvalidModel, SignatureMismatch
from pip_dagster.registry.manifest import Signature
from pip_dagster.registry.matrix import LARGEST_FLOAT32
from pip_dagster.sql.names import RESERVED_COLUMNS

if TYPE_CHECKING:
    import pyarrow as pa

Number = Literal["bool", "int", "float"]

_WIDTH: dict[Number, int] = {"bool": 0, "int": 1, "float": 2}
# XGBoost's own names of feature types; "q" (quantitative) is any number.
_BOOSTER_NUMBERS: dict[str, Number] = {"i": "bool", "int": "int", "float": "float"}


def derive(
    facts: BoosterFacts,
    sample: pa.Table,
    claims: SignatureClaims,
) -> Signature:
    """The signature of a Booster, in its feature order, with types from the Booster and the sample.

    Raises:
        InvalidModel: the Booster has no boosting rounds.
        SignatureMismatch: names, sample, category lists or classes contradict each other.
    """
    lists, objective = claims.categories, objective_of(facts.objective)
    names = _names(facts, claims.feature_names)
    _check_columns(names, sample)
    features = tuple(_feature(i, name, facts, sample, lists.get(name)) for i, name in enumerate(names))
    stray = sorted(set(lists) - {feature.name for feature in features if feature.type == "category"})
    if stray:
        raise SignatureMismatch(f"categories are given for {stray}, which are not category features of this Booster")
    labels = _classes(facts, objective.task, claims.classes)
    _check_missing(claims.missing)
    _check_offset(claims.offset, facts, sample)
    return Signature(
        engine="xgboost",
        task=objective.task,
        features=features,
        objective=facts.objective,
        booster=facts.booster,
        outputs=_outputs(facts, objective.task, labels),
        classes=labels,
        iteration_range=_iteration_range(facts),
        xgboost_version=facts.xgboost_version,
        missing=claims.missing,
        offset=claims.offset,
        quantiles=facts.quantiles,
        tweedie_power=facts.tweedie_power,
    )


def _check_missing(value: float | None) -> None:
    if value is not None and abs(value) > LARGEST_FLOAT32:
        raise SignatureMismatch(f"missing={value:g} is beyond float32, so that no value can be equal to it; omit it")


def _check_offset(column: str | None, facts: BoosterFacts, sample: pa.Table) -> None:
    if column is None:
        return
    if facts.outputs > 1:
        raise SignatureMismatch(
            f"an offset is one column, and this Booster has {facts.outputs} outputs, each with its own base margin; "
            "only models of one output can be registered with an offset"
        )
    if sample.column_names.count(column) != 1:
        raise SignatureMismatch(
            f"the sample has no column {column!r}, the offset, or holds it twice; add the base margin of training (of "
            f"a rate usually log(exposure)) to it. It has {sample.column_names[:20]}"
        )


def _names(facts: BoosterFacts, given: Sequence[str] | None) -> tuple[str, ...]:
    if facts.names is None and given is None:
        raise SignatureMismatch(
            f"the Booster does not name its features ({facts.features}), so columns cannot be matched; train with "
            "feature names (a DataFrame, or DMatrix(feature_names=...)), or pass feature_names=[...] in training order"
        )
    if facts.names is not None and given is not None and tuple(given) != facts.names:
        raise SignatureMismatch(f"feature_names {list(given)} are not the Booster's own {list(facts.names)}; omit them")
    names = facts.names if facts.names is not None else tuple(given or ())
    if len(names) != facts.features:
        raise SignatureMismatch(
            f"{len(names)} feature names for a Booster of {facts.features} features; give one for each"
        )
    _refuse_equal(names, "feature names")
    if taken := [name for name in names if name.lower() in RESERVED_COLUMNS or "\0" in name]:
        own = ", ".join(sorted(RESERVED_COLUMNS))
        raise SignatureMismatch(
            f"features {taken} have names that no column of a feature SQL can have ({own} are the warehouse's own, and "
            "none may hold a NUL); rename them and train again"
        )
    return names


def _check_columns(names: tuple[str, ...], sample: pa.Table) -> None:
    missing = [name for name in names if name not in sample.column_names]
    if missing:
        raise SignatureMismatch(
            f"the sample lacks {len(missing)} of {len(names)} features: {missing[:10]}; it has "
            f"{sample.column_names[:20]}. Give a sample of the training features, under the names used in training"
        )
    twice = [name for name in names if sample.column_names.count(name) > 1]
    if twice:
        raise SignatureMismatch(f"the sample holds the columns {twice} more than once; give each once")


def _feature(
    position: int, name: str, facts: BoosterFacts, sample: pa.Table, given: Sequence[object] | None
) -> Feature:
    column = sample.column(name)
    own = facts.types[position] if facts.types is not None else "q"
    if own == "c":
        return Feature(name=name, type="category", categories=categories.resolve(position, name, facts, column, given))
    return Feature(name=name, type=_number(name, own, column.type))


def _number(name: str, own: str, kind: pa.DataType) -> Number:
    import pyarrow as pa

    trained: Number | None = _BOOSTER_NUMBERS.get(own)
    if pa.types.is_null(kind):
        return trained or "float"
    sampled: Number
    if pa.types.is_boolean(kind):
        sampled = "bool"
    elif pa.types.is_integer(kind):
        sampled = "int"
    elif pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        sampled = "float"
    else:
        raise SignatureMismatch(
            f"feature {name!r} is {kind} in the sample, but the Booster was trained on a number ({own!r}); give the "
            "sample as it was trained on, or train with the feature as a category (enable_categorical, feature type "
            "'c')"
        )
    # The wider of the two: pandas turns integers with missing values into floats, in one frame and not in the next.
    return max(sampled, trained or sampled, key=lambda number: _WIDTH[number])


def _classes(facts: BoosterFacts, task: Task, given: Sequence[str] | None) -> tuple[str, ...] | None:
    multi = task == "multiclass"
    if given is None:
        return tuple(str(i) for i in range(facts.classes)) if multi else None
    expected = facts.classes if multi else 2 if task == "binary" else 0
    if len(given) != expected:
        raise SignatureMismatch(
            f"{len(given)} classes are given, objective {facts.objective} has {expected or 'none'}; give one label for "
            "each, in the order of the numbers used in training"
        )
    labels = tuple(str(label) for label in given)
    _refuse_equal(labels, "classes")
    return labels


def _outputs(facts: BoosterFacts, task: Task, labels: tuple[str, ...] | None) -> tuple[str, ...]:
    if task == "multiclass" and labels is not None:
        return tuple(f"score_{label}" for label in labels)
    return ("score",) if facts.outputs == 1 else tuple(f"score_{i}" for i in range(facts.outputs))


def _iteration_range(facts: BoosterFacts) -> tuple[int, int]:
    if facts.rounds == 0:
        raise InvalidModel("the Booster has no boosting rounds: every row would get the same score; train it first")
    rounds = facts.rounds if facts.best_iteration is None else facts.best_iteration + 1
    if not 0 < rounds <= facts.rounds:
        raise InvalidModel(
            f"the Booster's best iteration is {facts.best_iteration}, but it has {facts.rounds} rounds (cut or "
            "trained further since?); set booster.set_attr(best_iteration=None) if all rounds are to be used, and save "
            "again"
        )
    return 0, rounds


def _refuse_equal(names: Sequence[str], what: str) -> None:
    folded = [name.casefold() for name in names]
    equal = sorted({name for name in names if folded.count(name.casefold()) > 1})
    if equal or "" in names:
        raise SignatureMismatch(
            f"{what} {equal or names} must be distinct and not empty (DuckDB's column names ignore case); rename and "
            "train again"
        )
