"""How every command names partitions: `[PARTITION]…`, each a key or `A..B`, or `--from KEY --to KEY`."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar

import click

from pip_dagster.cli.options import KeyRange
from pip_dagster.declaration.key_order import Between, between
from pip_dagster.errors import DeclarationError

if TYPE_CHECKING:
    from pip_dagster.declaration.partition import Partition
    from pip_dagster.declaration.pipeline import Pipeline
    from pip_dagster.declaration.spec import Partitions

_Command = TypeVar("_Command", bound=Callable[..., Any])
_KEY = re.compile(r"\d{4}-\d\d(-\d\d)?")


@dataclass(frozen=True)
class Selection:
    """The partitions that a command names: ranges of keys, each with its first and last; an open end is None."""

    ranges: tuple[tuple[str | None, str | None], ...] = ()

    def __bool__(self) -> bool:
        return bool(self.ranges)

    @property
    def one(self) -> str | None:
        """The key of the partition that is named; None without one.

        Raises:
            click.UsageError: more than one is named.
        """
        if len(self.ranges) > 1 or (self and self.bounds[0] != self.bounds[1]):
            raise click.UsageError("This command is about one partition: name a single one.")
        return self.bounds[0]

    @property
    def bounds(self) -> tuple[str | None, str | None]:
        """The first and the last key of the one range that is named; None for an open end.

        Raises:
            click.UsageError: several ranges are named.
        """
        if len(self.ranges) > 1:
            raise click.UsageError("This command takes one range of partitions: write A..B, or --from A --to B.")
        return self.ranges[0] if self.ranges else (None, None)

    def between(self, pipeline: str, declared: Partitions | None, starts: Mapping[str, datetime]) -> list[Between]:
        """The named ranges as instants. Without a declared grid, the bounds are keys of `starts`.

        Raises:
            DeclarationError: a bound is no key, or a range is empty.
        """
        if declared is None:
            named = [key for each in self.ranges for key in each if key is not None]
            if unknown := next((key for key in named if key not in starts), None):
                raise DeclarationError(
                    f"Pipeline {pipeline} has no partition {unknown!r}, and its grid is not declared: name partitions "
                    f"that `pip-dagster status {pipeline}` lists."
                )
            ends = ((None if key is None else starts[key] for key in each) for each in self.ranges)
            return [Between(*each) for each in ends]
        try:
            return [between(declared, *each) for each in self.ranges]
        except ValueError as error:
            raise DeclarationError(f"Pipeline {pipeline}: {error}.") from error

    def closed(self, pipeline: Pipeline) -> tuple[str, str] | None:
        """The first and the last key of the one range that is named, an open end at the grid's; None where none is.

        Raises:
            click.UsageError: several ranges are named.
            DeclarationError: no partition has closed yet.
        """
        from pip_dagster.declaration.grid import closed_partitions

        first, last = self.bounds
        if first and last:
            return first, last
        if not self:
            return None
        partitions = closed_partitions(pipeline.spec.partitions, datetime.now(UTC))
        if not partitions:
            raise DeclarationError(f"Pipeline {pipeline.spec.name}: no partition has closed yet.")
        return first or partitions[0].key, last or partitions[-1].key

    def among(self, partitions: Sequence[Partition], pipeline: str) -> list[Partition]:
        """The named ones of these, in their order; all of them where none is named.

        Raises:
            DeclarationError: a key is of none of them, or a range is empty.
        """
        if not self:
            return list(partitions)
        places = {each.key: place for place, each in enumerate(partitions)}
        known = f"{partitions[0].key} to {partitions[-1].key}" if partitions else "none yet"
        chosen: set[int] = set()
        for first, last in self.ranges:
            for key in (first, last):
                if key is not None and key not in places:
                    raise DeclarationError(
                        f"Pipeline {pipeline} has no partition {key!r} that can be built by now; it has {known}."
                    )
            begin, end = places[first] if first else 0, places[last] if last else len(partitions) - 1
            if begin > end:
                raise DeclarationError(
                    f"Pipeline {pipeline}: no partition lies from {first} to {last}, which is earlier; it has {known}."
                )
            chosen |= {*range(begin, end + 1)}
        return [partitions[place] for place in sorted(chosen)]


def is_key(text: str) -> bool:
    """Whether a text is a partition's key by its form, and so neither a version nor a folder."""
    return bool(_KEY.match(text))


def partition_selection(
    what: str, *, several: bool = False, bounds: bool = True, former_to: bool = False
) -> Callable[[_Command], _Command]:
    """Give a command its partitions as one `Selection`, the argument `selected`.

    Args:
        what: for the help: which partitions these are.
        several: whether more than one range can be named.
        bounds: whether the options `--from` and `--to` are this function's; else the command declares them itself.
        former_to: `--to` once was something else than a partition, which the command gets as `former_to`.
    """

    def decorate(command: _Command) -> _Command:
        @functools.wraps(command)
        def run(*arguments: Any, **options: Any) -> Any:
            named = [*options.pop("partitions"), *options.pop("old_partitions")]
            between = (options.pop("first"), options.pop("last")) if bounds else (None, None)
            if "" in between:  # such as "$DAY" where it is not set; the other bound alone would be a far longer range
                raise click.UsageError("--from or --to is empty; expected a partition key. Leave it out for no bound.")
            if former_to:
                other = between[1] if between[1] and not is_key(between[1]) else None
                options["former_to"], between = other, (between[0], None if other else between[1])
            if named and any(between):
                raise click.UsageError("Name partitions, or a range by --from and --to; not both.")
            ranges = tuple(named) or ((between,) if any(between) else ())
            return command(*arguments, **options, selected=Selection(ranges))

        metavar = "[PARTITION]..." if several else "[PARTITION]"
        wanted = [click.argument("partitions", nargs=-1, type=KeyRange(), metavar=metavar)]
        if bounds:
            wanted += [
                click.option("--from", "first", metavar="KEY", help=f"The first partition {what}."),
                click.option("--to", "last", metavar="KEY", help=f"The last partition {what}."),
            ]
        old = ("--partition", "--partitions", "old_partitions")
        wanted.append(click.option(*old, multiple=True, type=KeyRange(), hidden=True))
        found: Any = run
        for each in reversed(wanted):
            found = each(found)
        return found

    return decorate
