"""What a benchmark is. Each is a function in a module of `benchmarks.groups`; all modules there are found by themselves."""

from __future__ import annotations

import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module


@dataclass(frozen=True)
class Figure:
    """One figure with its bound: a maximum, or with `at_least` a minimum. Without a bound it is only reported."""

    name: str
    figure: float
    bound: float | None
    unit: str
    detail: str
    at_least: bool = False

    @property
    def holds(self) -> bool | None:
        """Whether it is within its bound."""
        if self.bound is None:
            return None
        return self.figure >= self.bound if self.at_least else self.figure <= self.bound


@dataclass(frozen=True)
class Options:
    """What the command line sets: whether the long forms are measured too, and days for the slow alternatives."""

    long: bool = False
    days: int = 30


@dataclass(frozen=True)
class Benchmark:
    """One part of the results; a long one only runs with `--100M`, or by its name."""

    name: str
    run: Callable[[Options], list[Figure]]
    long: bool

    @property
    def about(self) -> str:
        """The first line of its docstring."""
        return (self.run.__doc__ or "").strip().splitlines()[0]


_KNOWN: dict[str, Benchmark] = {}


def benchmark(
    name: str, *, long: bool = False
) -> Callable[[Callable[[Options], list[Figure]]], Callable[[Options], list[Figure]]]:
    """Make a function, with a docstring, the benchmark of this name."""

    def add(run: Callable[[Options], list[Figure]]) -> Callable[[Options], list[Figure]]:
        assert name not in _KNOWN and run.__doc__, name
        _KNOWN[name] = Benchmark(name, run, long)
        return run

    return add


def benchmarks() -> dict[str, Benchmark]:
    """All benchmarks by name, in the order of their modules."""
    groups = import_module("benchmarks.groups")
    for module in sorted(found.name for found in pkgutil.iter_modules(groups.__path__)):
        import_module(f"benchmarks.groups.{module}")
    return dict(_KNOWN)


def note(text: str) -> None:
    """Print progress; a run takes a quarter of an hour."""
    print(f"- {text}", flush=True)
