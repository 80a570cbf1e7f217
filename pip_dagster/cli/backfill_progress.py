"""The progress of a backfill: a bar on a terminal, elsewhere a line every few seconds."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any

from pip_dagster.cli.cells import duration
from pip_dagster.cli.output import echo
from pip_dagster.printable import printable

if TYPE_CHECKING:
    from pip_dagster.declaration.partition import Partition
    from pip_dagster.flow.result import PartitionResult

_EVERY_SECONDS = 5.0


class Progress:
    """Counts built and failed partitions; prints on stderr, so that a result on stdout stays whole."""

    def __init__(self, total: int, *, keep: bool = False) -> None:
        self.total, self.built, self.reused = total, 0, 0
        self.failed: dict[str, str] = {}
        self.results: list[PartitionResult] = []  # with `keep`
        self._keep = keep
        self._seen: set[str] = set()
        self._began = self._printed = time.monotonic()
        self._first_at = 0.0
        self._chunk = total
        self._before = (0.0, 0)  # seconds and partitions of the finished chunks
        self._bar: Any = None
        self._task: Any = None

    @property
    def done(self) -> int:
        """Partitions with an outcome."""
        return self.built + len(self.failed)

    def begin(self, chunk: Sequence[Partition]) -> None:
        """Begin a chunk."""
        self._chunk, self._before = len(chunk), (time.monotonic() - self._began, self.done)
        self.show(f"{chunk[0].key} to {chunk[-1].key}")

    def note(self, result: PartitionResult) -> None:
        """Count a partition, once."""
        key = result.partition.key
        if key in self._seen:
            return
        self._seen.add(key)
        if self._keep:
            self.results.append(result)
        self._first_at = self._first_at or time.monotonic()
        if result.error:
            self.failed[key] = result.error
        else:
            self.built += 1
            self.reused += result.reused
        if self._bar:
            self._bar.update(
                self._task, completed=self.done, description=f"{printable(key)}{self._failures()}{self._left()}"
            )
        elif time.monotonic() - self._printed > _EVERY_SECONDS or self.done == self.total:
            self._printed = time.monotonic()
            echo(f"{self.done:,} of {self.total:,} partitions{self._failures()}{self._left()}", err=True)

    def show(self, text: str) -> None:
        """Show what is under way, on a terminal only; it replaces the text before."""
        if self._bar:
            self._bar.update(self._task, description=printable(text))

    def _failures(self) -> str:
        return f", {len(self.failed):,} failed" if self.failed else ""

    def _left(self) -> str:
        # A chunk's partitions come in a burst, after its features: only whole chunks show how long one takes.
        seconds, done = self._before
        if not done and self._chunk == self.total:
            seconds, done = time.monotonic() - self._first_at, self.done - 1
        if done < 1 or self.done == self.total:
            return ""
        return f", about {duration(seconds / done * (self.total - self.done))} left"

    def __enter__(self) -> Progress:
        if sys.stderr.isatty() and self.total:
            from rich import progress as rich
            from rich.console import Console

            # Narrow, to fit 80 columns. rich's own estimate uses the last few partitions, which come in bursts.
            texts = (rich.TimeElapsedColumn(), rich.TextColumn("{task.description}"))
            columns = (rich.BarColumn(24), rich.MofNCompleteColumn(), *texts)
            self._bar = rich.Progress(*columns, console=Console(stderr=True))
            self._task = self._bar.add_task("", total=self.total)
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar:
            self._bar.stop()
