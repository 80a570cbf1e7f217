"""The guard before a composite: each row is judged by what its own segment's models were trained on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from pip_dagster.errors import DeclarationError
from pip_dagster.flow.guard import Encoded, count_where, encode_features, encode_offset, with_missing
from pip_dagster.registry.booster_signature import Feature
from pip_dagster.registry.composite import SEGMENT_COLUMN, Composite
from pip_dagster.registry.engines import engine_named
from pip_dagster.registry.errors import SignatureMismatch
from pip_dagster.registry.manifest import Signature
from pip_dagster.registry.route import Route, fits, route


def encode_model(signature: Signature, columns: Mapping[str, str], *, where: str) -> tuple[Encoded, ...]:
    """The columns of the matrix that a version takes, over a table with `columns` (name → SQL type).

    For one Booster its features, then its offset. For a composite those of all members, each with the faults of the
    rows that a member using it scores; then, where it has segments, the segment's number.

    Raises:
        DeclarationError: lists every feature that is missing or of a type that cannot mean it, and every column that a
            condition reads and is not there as it was at registration.
    """
    composite = signature.composite
    rules = engine_named(signature.engine).matrix
    encoded = encode_features(signature.features, columns, rules, where=where)
    if signature.missing is not None:
        encoded = tuple(with_missing(each, signature.missing) for each in encoded)
    if signature.offset is not None:
        encoded = (*encoded, encode_offset(signature.offset, columns, rules, where=where))
    if composite is None:
        return encoded
    path = _route(composite, columns, where) if composite.routes else None
    judged = tuple(_judged(each, composite, path, columns, where) for each in encoded)
    return (*judged, _segment(composite, path)) if path else judged


def _route(composite: Composite, columns: Mapping[str, str], where: str) -> Route:
    by_folded = {name.lower(): sql_type for name, sql_type in columns.items()}
    columns = {name: by_folded[name.lower()] for name in composite.columns if name.lower() in by_folded}
    problems = [
        f"{name!r} is missing" if name not in columns else f"{name!r} is {columns[name]}, it was a {wanted}"
        for name, wanted in composite.columns.items()
        if name not in columns or not fits(columns[name], wanted)
    ]
    if problems:
        raise DeclarationError(
            f"{where}: the conditions of the model's segments cannot be read: {'; '.join(problems)}."
        )
    try:
        return route(composite, columns)
    except SignatureMismatch as error:
        raise DeclarationError(f"{where}: {error}") from error


def _judged(
    feature: Encoded, composite: Composite, path: Route | None, columns: Mapping[str, str], where: str
) -> Encoded:
    """A feature's value by the joined definition, its faults by each member's own, in the rows that it scores."""
    own: dict[Feature, set[int]] = {}
    for i, member in enumerate(composite.members):
        for each in member.signature.features:
            if each.name == feature.name:
                own.setdefault(each, set()).add(i)
    invalid: list[str] = []
    unseen: list[str] = []
    means: list[str] = []
    for definition, members in own.items():
        rules = engine_named(composite.members[min(members)].signature.engine).matrix
        (judged,) = encode_features([definition], columns, rules, where=where)
        segments = [i for i, segment in enumerate(composite.segments) if composite.users(segment) & members]
        for condition, of in ((judged.invalid, invalid), (judged.unseen, unseen)):
            if condition is None:
                continue
            everywhere = path is None or len(segments) == len(composite.segments)
            of.append(condition if everywhere or path is None else f"{path.within(segments)} AND ({condition})")
        means += [text for text in judged.invalid_means.split(" or ") if text and text not in means]
    return replace(feature, invalid=_any(invalid), unseen=_any(unseen), invalid_means=" or ".join(means), shows=False)


def _segment(composite: Composite, path: Route) -> Encoded:
    """The matrix's last column; a row of no segment is invalid or quarantined, as declared, and never scored."""
    invalid, means = [path.failed], ["a segment's condition ends in an error"]
    if composite.unmatched == "error":
        invalid.append(path.unmatched)
        means.append("of no segment")
    return Encoded(
        SEGMENT_COLUMN,
        SEGMENT_COLUMN,
        path.number,
        count_where(path.undecided),
        _any(invalid),
        " or ".join(means),
        None,
        apart=path.unmatched if composite.unmatched == "quarantine" else None,
        shows=False,
    )


def _any(conditions: Iterable[str]) -> str | None:
    return " OR ".join(f"({condition})" for condition in conditions) or None
