"""What the ledger stores of a declaration, so that a plan can tell whether it changed, and which part of it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any

from pip_dagster.declaration.canonical import canonical
from pip_dagster.declaration.source import ORIGINS, Source
from pip_dagster.quality.suite import Expectation

# The prefixes, in `declared_parts`, of the sections of expectations.yaml and of the declared sources.
EXPECTATIONS = "expectations."
SOURCES = "sources."
UNIT = "unit of the split"
# Keys of a source that digests did not know once: they have those that are declared.
_NEWER = frozenset({*ORIGINS, "remote_table"} - {"database", "parquet"})
_PART = 16  # digits of a part's digest: it shows which part changed, the whole digest shows whether any did


@dataclass(frozen=True)
class Declared:
    """What features depend on beside the rows of their sources, as the ledger stores it: a digest, and its parts."""

    digest: str
    parts: str

    @classmethod
    def of(cls, inputs: dict[str, Any]) -> Declared:
        """Digest and parts of these inputs."""
        return cls(hashlib.sha256(digest_of_features(inputs).encode()).hexdigest(), parts(inputs))


def by_last_name(inputs: dict[str, Any]) -> dict[str, Any]:
    """The inputs of a digest as it names them, with the expectations of all sections in one list."""
    sections = [value for name, value in inputs.items() if name.startswith(EXPECTATIONS)]
    others = {name: value for name, value in inputs.items() if not name.startswith(EXPECTATIONS)}
    named = {"unit" if name == UNIT else name.split(".")[-1]: value for name, value in others.items()}
    return named | {"expectations": [*chain(*sections)]}


def digest_of_features(inputs: dict[str, Any]) -> str:
    """The digest of features: their sources under one name."""
    sources = {name.removeprefix(SOURCES): each for name, each in inputs.items() if name.startswith(SOURCES)}
    others = {name: each for name, each in inputs.items() if not name.startswith(SOURCES)}
    return digest(by_last_name(others) | {"sources": sources})


def digest(inputs: dict[str, Any]) -> str:
    """A digest that is equal for equal content."""
    return hashlib.sha256(canonical(inputs).encode()).hexdigest()


def parts(inputs: dict[str, Any]) -> str:
    """A short digest of each input: canonical JSON."""
    return canonical({name: digest({name: value})[:_PART] for name, value in inputs.items()})


def of_sources(sources: Mapping[str, Source], *, as_known: bool = False) -> dict[str, Any]:
    """What a run reads of these sources; `as_known`: a run that hides what could not be known."""
    return {f"{SOURCES}{name}": _read_of(source, as_known) for name, source in sources.items()}


def _read_of(source: Source, as_known: bool) -> dict[str, Any]:
    """What determines the rows that a run reads from a source; not when they are read again, nor how it is displayed.

    Where the rows lie does not: their content has a fingerprint. But a `change_column` vouches for one file only.
    """
    read = stored_of(source)
    if not source.change_column:
        read = {key: value for key, value in read.items() if key not in _NEWER} | {"database": None, "parquet": None}
    if as_known:
        return read | {"complete_after": source.complete_after and source.complete_after.total_seconds()}
    return read | {"available_at": None}


def stored_of(source: Source) -> dict[str, Any]:
    """The keys of a source that digests have."""
    excluded = {"change_column", "late_data", "complete_after", "description", "asset_key"}
    return source.model_dump(mode="json", exclude=excluded | {key for key in _NEWER if getattr(source, key) is None})


def expected(expectations: Iterable[Expectation]) -> list[dict[str, Any]]:
    """What expectations require, without where they are written and how they are described."""
    names = ("id", "section", "type", "kwargs", "severity", "row_condition")
    return [{name: getattr(expectation, name) for name in names} for expectation in expectations]
