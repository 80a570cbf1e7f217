"""What a composite is declared as, and how that becomes members, segments and one signature."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, FiniteFloat, ValidationError, model_validator

from pip_dagster.errors import RegistryError
from pip_dagster.registry.booster_signature import BoosterSignature, Feature
from pip_dagster.registry.combine import LINKS, family
from pip_dagster.registry.composite import Combine, Composite, Member, Segment, Term, Unmatched
from pip_dagster.registry.errors import SignatureMismatch
from pip_dagster.registry.version import ModelVersion

MOST_MEMBERS = 99


class _Declared(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


def _version(value: object) -> object:
    return value[1:] if isinstance(value, str) and value[:1] in "vV" else value


class MemberRef(_Declared):
    """A version of a model, by its number or by an alias that is resolved at once."""

    model: str
    version: Annotated[int | None, BeforeValidator(_version)] = None
    alias: str | None = None

    @model_validator(mode="after")
    def _one_of(self) -> "MemberRef":
        if (self.version is None) == (self.alias is None):
            raise ValueError(f"model {self.model!r}: give either `version` or `alias`")
        return self


class Weighted(MemberRef):
    """A member of an ensemble."""

    weight: FiniteFloat | None = Field(default=None, gt=0)


class DeclaredSegment(_Declared):
    """Rows and what scores them: one model, or an ensemble."""

    name: str | None = Field(default=None, min_length=1)
    when: str | None = None
    otherwise: bool = False
    model: str | None = None
    version: Annotated[int | None, BeforeValidator(_version)] = None
    alias: str | None = None
    ensemble: tuple[Weighted, ...] = ()

    @model_validator(mode="after")
    def _whole(self) -> "DeclaredSegment":
        if (self.when is None) == (not self.otherwise):
            raise ValueError("a segment has either `when`, a condition in SQL, or `otherwise: true`")
        if (self.model is None) == (not self.ensemble):
            raise ValueError("a segment names either a `model` or an `ensemble`")
        if self.model is None and (self.version is not None or self.alias is not None):
            raise ValueError("`version` and `alias` belong to `model`")
        return self

    @property
    def label(self) -> str:
        """Its name; without one its condition."""
        return self.name or (self.when.strip() if self.when else "otherwise")

    @property
    def members(self) -> tuple[Weighted, ...]:
        """What scores its rows."""
        if self.ensemble:
            return self.ensemble
        return (Weighted.model_validate({"model": self.model, "version": self.version, "alias": self.alias}),)


class Composition(_Declared):
    """The declaration of a composite: an ``ensemble``, or ``segments``."""

    ensemble: tuple[Weighted, ...] = ()
    segments: tuple[DeclaredSegment, ...] = ()
    combine: Combine = "score"
    unmatched: Unmatched | None = None

    @model_validator(mode="after")
    def _whole(self) -> "Composition":
        if bool(self.ensemble) == bool(self.segments):
            raise ValueError("give either `ensemble` or `segments`")
        for members in (self.ensemble, *(segment.ensemble for segment in self.segments)):
            if len(members) == 1:
                raise ValueError("an ensemble has at least two members")
            if 0 < sum(member.weight is None for member in members) < len(members):
                raise ValueError("give every member of an ensemble a weight, or none of them")
            if sum(member.weight or 0 for member in members) == float("inf"):
                raise ValueError("the weights of an ensemble have no finite sum")
        if self.ensemble:
            if self.unmatched:
                raise ValueError("`unmatched` is for segments; an ensemble scores every row")
            return self
        return self._check_segments()

    def _check_segments(self) -> "Composition":
        labels = [segment.label for segment in self.segments]
        conditions = [segment.when.strip() for segment in self.segments if segment.when is not None]
        for each in (labels, conditions):
            if twice := sorted({text for text in each if each.count(text) > 1}):
                raise ValueError(
                    f"segments {twice} are there twice; the second would have no row, or not be told apart"
                )
        if not conditions:
            raise ValueError("no segment has a condition; give `when` to one, or name the model itself")
        others = [i for i, segment in enumerate(self.segments) if segment.otherwise]
        if others and others != [len(self.segments) - 1]:
            raise ValueError("`otherwise` is for the last segment: it takes every row for which no condition holds")
        if not others and self.unmatched is None:
            raise ValueError(
                "a row for which no condition holds would have no model: give a last segment `otherwise: true`, or "
                "say `unmatched: error` (its partition is refused) or `unmatched: quarantine` (it is kept apart)"
            )
        if others and self.unmatched:
            raise ValueError("`unmatched` says what becomes of rows that `otherwise` takes; leave one of them out")
        return self


@dataclass(frozen=True)
class Resolved:
    """A composition whose members are known: what to record, and the versions to copy from, in the members' order."""

    composite: Composite
    origins: tuple[ModelVersion, ...] = field(default=())

    @property
    def uncalibrated(self) -> tuple[str, ...]:
        """Members whose calibration is not taken along: their raw scores are combined."""
        return tuple(str(origin) for origin in self.origins if origin.manifest.calibration)


def read(source: Path | Mapping[str, object]) -> Composition:
    """A composition from a YAML file or a dictionary. Raises RegistryError: names file, key and what is wrong."""
    where = str(source) if isinstance(source, Path) else "the composition"
    found: object = source
    if isinstance(source, Path):
        import yaml

        try:
            found = yaml.safe_load(source.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise RegistryError(f"cannot read {source} as YAML: {error}") from error
    if not isinstance(found, Mapping):
        raise RegistryError(f"{where} holds no composition; expected `ensemble:` or `segments:` with a list")
    try:
        return Composition.model_validate(dict(found))
    except ValidationError as error:
        told = "; ".join(
            ": ".join(filter(None, (".".join(map(str, each["loc"])), each["msg"].removeprefix("Value error, "))))
            for each in error.errors()
        )
        raise RegistryError(f"{where}: {told}") from error


def resolve(composition: Composition, get: Callable[[str, int | str], ModelVersion]) -> Resolved:
    """Look every member up; `get` gives the version that a model's number or alias names now.

    Raises ModelNotFound, RegistryError for a member that is a composite itself, SignatureMismatch for members that do
    not score alike.
    """
    origins: dict[tuple[str, int], tuple[ModelVersion, str | None]] = {}
    order: list[tuple[str, int]] = []

    def term(ref: Weighted) -> Term:
        wanted = ref.version if ref.version is not None else ref.alias
        assert wanted is not None
        origin = get(ref.model, wanted)
        if origin.manifest.composite is not None:
            raise RegistryError(f"{origin} is a composite itself; name its members: {_say(origin.manifest.composite)}")
        key = (origin.name, origin.version)
        if key not in origins:
            origins[key] = (origin, ref.alias)
            order.append(key)
        return Term(member=order.index(key), weight=1.0 if ref.weight is None else ref.weight)

    def terms(members: tuple[Weighted, ...]) -> tuple[Term, ...]:
        made = tuple(term(member) for member in members)
        if len({each.member for each in made}) < len(made):
            raise RegistryError("an ensemble names one version twice; give it a greater weight instead")
        return made

    if composition.ensemble:
        segments: tuple[Segment, ...] = (Segment(name="ensemble", when=None, terms=terms(composition.ensemble)),)
    else:
        segments = tuple(
            Segment(name=each.label, when=each.when, terms=terms(each.members)) for each in composition.segments
        )
    if len(order) > MOST_MEMBERS:
        raise RegistryError(f"{len(order)} members are more than {MOST_MEMBERS}")
    members = tuple(
        Member(
            file=f"member-{i:02}-{origin.name}-v{origin.version}.ubj",
            model_name=origin.name,
            version=origin.version,
            alias=alias,
            manifest_digest=origin.manifest_digest,
            signature=BoosterSignature(**{f: getattr(origin.manifest, f) for f in BoosterSignature.model_fields}),
        )
        for i, (origin, alias) in enumerate((origins[key] for key in order), start=1)
    )
    _check_alike(members)
    if composition.combine == "margin":
        _check_margins(segments, members)
    composite = Composite(
        members=members, segments=segments, combine=composition.combine, unmatched=composition.unmatched
    )
    return Resolved(composite, tuple(origins[key][0] for key in order))


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
        if other.signature.objective not in family(first.signature.objective):
            raise SignatureMismatch(
                f"{first} has objective {first.signature.objective}, {other} has {other.signature.objective}: their "
                "scores mean different things"
            )


def _check_margins(segments: tuple[Segment, ...], members: tuple[Member, ...]) -> None:
    for segment in segments:
        objectives = {members[term.member].signature.objective for term in segment.terms}
        links = {LINKS.get(objective) for objective in objectives}
        if len(segment.terms) > 1 and (len(links) > 1 or None in links):
            raise SignatureMismatch(
                f"`combine: margin` needs the link function of {', '.join(sorted(objectives))}, which is not known "
                "here; leave `combine` out"
            )


def joined_features(members: tuple[Member, ...]) -> tuple[Feature, ...]:
    """The members' features, each name once, in the order in which they first appear.

    Category lists are joined, a number is `int` where all members say so. Raises SignatureMismatch for a name that is
    a category to one and a number to another, or BOOLEAN to one only.
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


def _say(composite: Composite) -> str:
    return ", ".join(map(str, composite.members))
