"""From a composition to a composite: its members looked up, checked against each other, and their features joined."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pip_dagster.errors import RegistryError
from pip_dagster.registry.booster_signature import BoosterSignature, Feature
from pip_dagster.registry.composite import Composite, Member, Segment, Term
from pip_dagster.registry.composition import Composition, Weighted
from pip_dagster.registry.engines import objective_of
from pip_dagster.registry.errors import SignatureMismatch
from pip_dagster.registry.version import ModelVersion

MOST_MEMBERS = 99


@dataclass(frozen=True)
class Resolved:
    """A composition whose members are known: what to record, and the versions to copy from, in the members' order."""

    composite: Composite
    origins: tuple[ModelVersion, ...]


def resolve(composition: Composition, get: Callable[[str, int | str], ModelVersion]) -> Resolved:
    """Look every member up; `get` returns the version that a model's number or alias names now.

    Raises:
        ModelNotFound: there is no such member.
        RegistryError: a member is a composite itself, or is named twice in an ensemble; or there are too many.
        SignatureMismatch: the members' scores cannot be combined or stand beside each other.
    """
    found: dict[tuple[str, int], tuple[ModelVersion, str | None]] = {}

    def term(ref: Weighted) -> Term:
        wanted = ref.version if ref.version is not None else ref.alias
        assert wanted is not None
        origin = get(ref.model, wanted)
        if origin.manifest.composite is not None:
            names = ", ".join(map(str, origin.manifest.composite.members))
            raise RegistryError(f"{origin} is a composite itself; name its members: {names}")
        if origin.manifest.offset is not None:
            raise RegistryError(
                f"{origin} takes an offset, the column {origin.manifest.offset!r}, and a composite has none; compose "
                "models without an offset"
            )
        key = (origin.name, origin.version)
        found.setdefault(key, (origin, ref.alias))
        return Term(member=list(found).index(key), weight=1.0 if ref.weight is None else ref.weight)

    def terms(members: tuple[Weighted, ...]) -> tuple[Term, ...]:
        each = tuple(term(member) for member in members)
        if len({one.member for one in each}) < len(each):
            raise RegistryError("an ensemble names one version twice; give it a greater weight instead")
        return each

    if composition.ensemble:
        segments: tuple[Segment, ...] = (Segment(name="ensemble", when=None, terms=terms(composition.ensemble)),)
    else:
        segments = tuple(
            Segment(name=each.label, when=each.when, terms=terms(each.members)) for each in composition.segments
        )
    if len(found) > MOST_MEMBERS:
        raise RegistryError(f"{len(found)} members are more than {MOST_MEMBERS}")
    members = tuple(_member(i, *each) for i, each in enumerate(found.values(), start=1))
    _check_alike(members)
    if composition.combine == "margin":
        _check_margins(segments, members)
    composite = Composite(
        members=members, segments=segments, combine=composition.combine, unmatched=composition.unmatched
    )
    return Resolved(composite, tuple(origin for origin, _ in found.values()))


def _member(number: int, origin: ModelVersion, alias: str | None) -> Member:
    suffix = Path(origin.manifest.model_file).suffix
    return Member(
        file=f"member-{number:02}-{origin.name}-v{origin.version}{suffix}",
        model_name=origin.name,
        version=origin.version,
        alias=alias,
        manifest_digest=origin.manifest_digest,
        signature=BoosterSignature(**{f: getattr(origin.manifest, f) for f in BoosterSignature.model_fields}),
    )


def _check_alike(members: tuple[Member, ...]) -> None:
    first = members[0]
    for other in members[1:]:
        for what in ("outputs", "classes"):
            ours, theirs = getattr(first.signature, what), getattr(other.signature, what)
            if ours != theirs:
                raise SignatureMismatch(
                    f"{first} has {what} {_list(ours)}, {other} has {_list(theirs)}; models that score together have "
                    "the same, in the same order"
                )
        if not _comparable(first.signature, other.signature):
            raise SignatureMismatch(
                f"{first} has objective {first.signature.objective}, {other} has {other.signature.objective}: their "
                "scores mean different things"
            )


def _comparable(ours: BoosterSignature, theirs: BoosterSignature) -> bool:
    return (ours.engine, objective_of(ours).meaning) == (theirs.engine, objective_of(theirs).meaning)


def _check_margins(segments: tuple[Segment, ...], members: tuple[Member, ...]) -> None:
    for segment in segments:
        signatures = [members[term.member].signature for term in segment.terms]
        links = {objective_of(signature).link for signature in signatures}
        if len(signatures) > 1 and (len(links) > 1 or None in links):
            objectives = sorted({signature.objective for signature in signatures})
            raise SignatureMismatch(
                f"`combine: margin` needs the link function of {', '.join(objectives)}, which is not known "
                "here; remove `combine`"
            )


def joined_features(members: tuple[Member, ...]) -> tuple[Feature, ...]:
    """The members' features, each name once, in the order in which they first appear.

    Category lists are joined; a number is `int` if it is for all members.

    Raises:
        SignatureMismatch: a name has types that one column cannot have, or names differ in case only.
    """
    found: dict[str, tuple[Feature, Member]] = {}
    for member in members:
        for feature in member.signature.features:
            if feature.name not in found:
                found[feature.name] = (feature, member)
                continue
            known, by = found[feature.name]
            found[feature.name] = (_join(known, by, feature, member), by)
    folded = [name.casefold() for name in found]
    if equal := sorted(name for name in found if folded.count(name.casefold()) > 1):
        raise SignatureMismatch(
            f"features {equal} of different members differ in case only, which DuckDB's columns ignore; train one of "
            "them again under the other's name"
        )
    return tuple(feature for feature, _ in found.values())


def _join(known: Feature, by: Member, feature: Feature, member: Member) -> Feature:
    numbers = {"int", "float"}
    if known.type != feature.type and not {known.type, feature.type} <= numbers:
        raise SignatureMismatch(
            f"feature {feature.name!r} is {known.type} to {by}, but {feature.type} to {member}: one column cannot be "
            "both; rename it in one of them and train again"
        )
    if feature.categories is None or known.categories is None:
        return known if known.type == "float" else feature
    joined = tuple(dict.fromkeys((*known.categories, *feature.categories)))
    if len({text.lower() for text in joined} & {"true", "false"}) < sum(t.lower() in {"true", "false"} for t in joined):
        raise SignatureMismatch(
            f"feature {feature.name!r}: {by} and {member} write true and false differently; train one of them again"
        )
    return Feature(name=feature.name, type="category", categories=joined)


def _list(names: tuple[str, ...] | None) -> str:
    return ", ".join(names) if names else "none"
