"""The files of the sources, as a run saw them: every task must read the same ones."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pip_dagster.errors import DeclarationError
from pip_dagster.flow.distributed.cluster import Trouble
from pip_dagster.flow.origins import kinds

if TYPE_CHECKING:
    from pip_dagster.declaration.pipeline import Pipeline

# Path → size and time of the last change in nanoseconds.
Files = dict[str, tuple[int, int]]


@dataclass(frozen=True)
class Places:
    """The sources that a pipeline reads: name → its files. `root`: the project's, which relative paths begin at."""

    root: str
    patterns: dict[str, str]
    files: dict[str, Files]

    @classmethod
    def of(cls, pipeline: Pipeline) -> Places:
        """As they are now; objects in object storage are left out.

        Raises:
            DeclarationError: a source is in a database that tasks cannot read in one state.
        """
        root, spec = pipeline.project.root, pipeline.spec
        declared = {name: (each, each.place(spec.source_database)) for name, each in pipeline.read_sources.items()}
        for name, (each, place) in declared.items():
            if kinds.origin_of(each):  # each task would see a state of its own
                raise DeclarationError(
                    f"Pipeline {spec.name}: tasks of a Ray cluster cannot read source {name!r} from {place}. Remove "
                    "`scoring.engine: ray`, or declare Parquet files that another asset exports."
                )
        patterns = {name: place for name, (_, place) in declared.items() if "://" not in place}
        return cls(str(root), patterns, {name: _files(root, place) for name, place in patterns.items()})

    def trouble(self) -> Trouble | None:
        """In a task: a source that this node does not read as the run did."""
        for name, pattern in self.patterns.items():
            expected, found = self.files[name], _files(Path(self.root), pattern)
            if absent := sorted(expected.keys() - found.keys()):
                more = f" and {len(absent) - 1} more files" if len(absent) > 1 else ""
                return _trouble(
                    f"{absent[0]}{more} of source {name!r} cannot be read here. Mount what the run reads under the "
                    f"same path on every node (the project is {self.root})"
                )
            if closed := next((path for path in expected if not os.access(path, os.R_OK)), None):
                return _trouble(
                    f"user {os.geteuid()} may not read {closed} of source {name!r}. Run Ray as a user who may, or "
                    "change the file's mode"
                )
            if changed := next((path for path in {**expected, **found} if expected.get(path) != found[path]), None):
                return _trouble(
                    f"{changed} of source {name!r} changed while tasks read it, which would mix rows of two contents. "
                    "Run again once it is written"
                )
        return None


def _trouble(text: str) -> Trouble:
    return Trouble("SourceError", f"{text}. Nothing was stored.", platform.node())


def _files(root: Path, place: str) -> Files:
    path = root / place
    base = Path(path.anchor) if Path(place).is_absolute() else root
    found = {}
    for each in [path] if path.is_file() else base.glob(place.removeprefix(path.anchor)):
        try:
            status = each.stat()
        except OSError:
            continue
        found[str(each)] = (status.st_size, status.st_mtime_ns)
    return found
