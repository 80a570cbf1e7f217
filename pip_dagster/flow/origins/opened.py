"""What an origin gives of a source, and what it is given to open one."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from pip_dagster.declaration.source import Source


@dataclass(frozen=True)
class Opening:
    """One opening of a pipeline's sources.

    Attributes:
        con: where they are attached, each database under a name that no SQL can guess.
        stack: closes what is opened.
        catalogs: what is attached: place → its name.
        begins: called in the transaction that all reads share, before the first; without any there is none.
    """

    con: DuckDBPyConnection
    pipeline: str
    root: Path
    stack: ExitStack
    catalogs: dict[str, str] = field(default_factory=dict)
    begins: list[Callable[[], None]] = field(default_factory=list)

    def where(self, name: str, source: Source) -> str:
        """The source, as messages begin."""
        return f"Pipeline {self.pipeline}: source {name!r} ({source.table})"

    def begin(self) -> None:
        """Begin the transaction of all reads at each origin."""
        for begin in self.begins:
            begin()


@dataclass(frozen=True)
class Counting:
    """Rows to count between two bounds: for each bucket of time its start, newest change and number of rows.

    Attributes:
        column: the partition column.
        zone: the time zone of the wall clock that an instant counts by.
        grain: the length of a bucket.
        change: the change column.
    """

    column: str
    sql_type: str
    zone: str
    grain: timedelta
    change: str
    change_type: str
    first: datetime
    last: datetime


@dataclass(frozen=True)
class Opened:
    """A source as its origin gives it.

    Attributes:
        relation: SQL of its rows, for FROM.
        catalog: the attached database that it is a table of.
        files, folders: what is read beside attached databases, which the lock-down of SQL then allows.
        counts: SQL of a relation (t, newest, n) whose rows the origin counts itself, t in microseconds since 1970 and
            newest as DuckDB would write it; None where it cannot. It only shows which buckets need not be read: where
            it differs from what a read finds, they are read.
    """

    relation: str
    catalog: str | None = None
    files: frozenset[str] = frozenset()
    folders: frozenset[str] = frozenset()
    counts: Callable[[Counting], str | None] | None = None


class SourceOrigin(Protocol):
    """A module of this package: one kind of origin."""

    @property
    def EXTENSIONS(self) -> tuple[str, ...]:  # noqa: N802 - a constant of the module
        """The extensions of DuckDB that it needs, in the order in which they are loaded."""

    def open_origin(self, at: Opening, name: str, source: Source) -> Opened:
        """Attach or resolve it.

        Raises:
            SourceError: names pipeline, source and place, and what to do.
            SourceAwayError: it cannot be read at the moment.
        """

    def trouble(self, error: BaseException) -> str:
        """What an error of DuckDB's means for this origin, and what to do; empty for one without an explanation."""

    def identity(self, root: Path, source: Source) -> str | None:
        """A text that changes with the content of the origin, found without reading it; None where there is none."""
