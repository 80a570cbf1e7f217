"""How a composite is declared: an ensemble, or a model for each segment of the rows."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator, Field, FiniteFloat, ValidationError, model_validator

from pip_dagster.errors import RegistryError
from pip_dagster.registry.booster_signature import Record
from pip_dagster.registry.composite import Combine, Unmatched
from pip_dagster.text_file import read_text


def _version(value: object) -> object:
    return value[1:] if isinstance(value, str) and value[:1] in "vV" else value


class MemberRef(Record):
    """A version of a model, by its number or by an alias that is resolved immediately."""

    model: str
    version: Annotated[int | None, BeforeValidator(_version)] = None
    alias: str | None = None

    @model_validator(mode="after")
    def _one_of(self) -> MemberRef:
        if (self.version is None) == (self.alias is None):
            raise ValueError(f"model {self.model!r}: give either `version` or `alias`")
        return self


class Weighted(MemberRef):
    """A member of an ensemble."""

    weight: FiniteFloat | None = Field(default=None, gt=0)


class DeclaredSegment(Record):
    """A segment's rows, and the model or ensemble that scores them."""

    name: str | None = Field(default=None, min_length=1)
    when: str | None = None
    otherwise: bool = False
    model: str | None = None
    version: Annotated[int | None, BeforeValidator(_version)] = None
    alias: str | None = None
    ensemble: tuple[Weighted, ...] = ()

    @model_validator(mode="after")
    def _whole(self) -> DeclaredSegment:
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
        """The models that score its rows."""
        if self.ensemble:
            return self.ensemble
        return (Weighted.model_validate({"model": self.model, "version": self.version, "alias": self.alias}),)


class Composition(Record):
    """The declaration of a composite: an `ensemble`, or `segments`."""

    ensemble: tuple[Weighted, ...] = ()
    segments: tuple[DeclaredSegment, ...] = ()
    combine: Combine = "score"
    unmatched: Unmatched | None = None

    @model_validator(mode="after")
    def _whole(self) -> Composition:
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

    def _check_segments(self) -> Composition:
        labels = [segment.label for segment in self.segments]
        conditions = [segment.when.strip() for segment in self.segments if segment.when is not None]
        for each in (labels, conditions):
            if twice := sorted({text for text in each if each.count(text) > 1}):
                raise ValueError(f"duplicate segments {twice}: the second would never match, or could not be named")
        if not conditions:
            raise ValueError("no segment has a condition; give `when` to one, or name the model itself")
        others = [i for i, segment in enumerate(self.segments) if segment.otherwise]
        if others and others != [len(self.segments) - 1]:
            raise ValueError("`otherwise` is for the last segment: it takes every row for which no condition holds")
        if not others and self.unmatched is None:
            raise ValueError(
                "a row for which no condition holds would have no model: give the last segment `otherwise: true`, "
                "or declare `unmatched: error` (its partition fails) or `unmatched: quarantine` (the row does)"
            )
        if others and self.unmatched:
            raise ValueError("`unmatched` is for rows that `otherwise` takes; use only one of them")
        return self


def read(source: Path | Mapping[str, object]) -> Composition:
    """A composition from a YAML file or a dictionary.

    Raises:
        RegistryError: names the file, the key and the fault.
    """
    where = str(source) if isinstance(source, Path) else "the composition"
    found: object = source
    if isinstance(source, Path):
        import yaml

        try:
            found = yaml.safe_load(read_text(source, RegistryError))
        except yaml.YAMLError as error:
            raise RegistryError(f"cannot read {source} as YAML: {error}") from error
    if not isinstance(found, Mapping):
        raise RegistryError(f"{where} is not a composition; expected `ensemble:` or `segments:` with a list")
    try:
        return Composition.model_validate(dict(found))
    except ValidationError as error:
        problems = "; ".join(
            ": ".join(filter(None, (".".join(map(str, each["loc"])), each["msg"].removeprefix("Value error, "))))
            for each in error.errors()
        )
        raise RegistryError(f"{where}: {problems}") from error
