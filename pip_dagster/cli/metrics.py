"""`pip-dagster metrics`: operational figures in the text format that Prometheus reads."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pip_dagster import __version__, clock
from pip_dagster.cli.options import json_option
from pip_dagster.cli.output import progress, show_json
from pip_dagster.cli.pending import Waiting, read_waiting
from pip_dagster.cli.published import open_published, pipelines
from pip_dagster.cli.undelivered import read_undelivered
from pip_dagster.declaration.find import find_declarations, load_declared
from pip_dagster.declaration.project import Project
from pip_dagster.errors import DeclarationError, PipelineError, StorageError, WarehouseError
from pip_dagster.monitoring.exposition import Samples
from pip_dagster.monitoring.measured import measure
from pip_dagster.whole_file import replacing

if TYPE_CHECKING:
    from pip_dagster.declaration.spec import PipelineSpec


@click.command()
@click.argument("names", metavar="[PIPELINE]...", nargs=-1)
@click.option(
    *("-o", "--output"),
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write this file instead, whole or not at all; the node exporter reads *.prom.",
)
@json_option
@click.pass_obj
def metrics(project: Project, names: tuple[str, ...], output: Path | None, as_json: bool) -> None:
    """Print the operational figures of the declared pipelines, or of these, for Prometheus.

    They are read from the published files, so no run waits. A figure that is not known is left out.
    """
    samples = _samples(project, names)
    if as_json:
        show_json(samples.as_list())
    text = samples.text()
    if as_json and output is None:
        return
    if output is None:
        sys.stdout.write(text)  # exact, as JSON and CSV are
        return
    try:
        _write_whole(output, text)
    except OSError as error:
        raise StorageError(
            f"{output} cannot be written: {error.strerror}. Name a file in a folder that exists and that user "
            f"{os.geteuid()} may write. The file is as it was."
        ) from error


def metrics_text(project: Project, names: Sequence[str] = ()) -> str:
    """The figures of the declared pipelines, or of those that are named. Faults are figures too, and reported.

    Raises:
        click.ClickException: a name is of no pipeline that is declared or published.
    """
    return _samples(project, names).text()


def _samples(project: Project, names: Sequence[str]) -> Samples:
    samples = Samples()
    samples.add("info", 1, version=__version__)
    specs, readable = _declared(project)
    samples.add("declarations_readable", int(readable))
    waiting = read_waiting(project)
    _add_warehouse(samples, project, waiting)
    try:
        with open_published(project) as con:
            published = pipelines(con)
            wanted = _wanted(specs, published, names, readable)
            measure(con, wanted, samples, now=clock.wall())
            samples.add("published_readable", 1)
            _add_sizes(samples, project, published, wanted)
    except WarehouseError as error:
        wanted = _wanted(specs, [*waiting.of], names, readable)
        _add_unpublished(samples, wanted, waiting, error)
    for name, spec in wanted.items():
        samples.add("declaration_valid", int(spec is not None), pipeline=name)
        if (keys := waiting.keys(name)) is not None:
            samples.add("partitions_pending", len(keys), pipeline=name)
    _add_undelivered(samples, project, wanted)
    return samples


def _add_undelivered(samples: Samples, project: Project, wanted: Mapping[str, PipelineSpec | None]) -> None:
    found, now = read_undelivered(project, None), clock.wall()
    for fault in found.faults:
        progress(fault)
    for name in wanted.keys() & found.of.keys():
        for target, pending in found.of[name].items():
            age = max(((now - each.live_since).total_seconds() for each in pending), default=0.0)
            samples.add("partitions_undelivered", len(pending), pipeline=name, target=target)
            samples.add("oldest_undelivered_age_seconds", age, pipeline=name, target=target)


def _declared(project: Project) -> tuple[dict[str, PipelineSpec | None], bool]:
    """Pipeline → its declaration, None where that does not load; and whether every defs.yaml could be read."""
    try:
        found = find_declarations(project)
    except DeclarationError as error:
        progress(str(error))
        return {}, False
    specs: dict[str, PipelineSpec | None] = {}
    for name, (file, attributes) in found.items():
        try:
            specs[name] = load_declared(project, file, attributes).spec
        except PipelineError as error:
            progress(str(error))
            specs[name] = None
    return specs, True


def _wanted(
    specs: Mapping[str, PipelineSpec | None], published: Sequence[str], names: Sequence[str], readable: bool
) -> dict[str, PipelineSpec | None]:
    """Those that are named, else those that are declared; those that are published where no declaration is known."""
    known = {*specs, *published}
    if unknown := [name for name in names if name not in known]:
        listed = ", ".join(sorted(known)) or "none"
        raise click.ClickException(f"No pipeline {unknown[0]!r} is declared or published; there are: {listed}.")
    return {name: specs.get(name) for name in sorted(names or (specs if readable else known))}


def _add_warehouse(samples: Samples, project: Project, waiting: Waiting) -> None:
    if waiting.error:
        progress(f"The number of unpublished partitions is not known: {waiting.error}")
    samples.add("warehouse_readable", int(waiting.error is None))
    if isinstance(project.warehouse, Path):
        with suppress(OSError):
            samples.add("warehouse_bytes", _size(project.warehouse, Path(f"{project.warehouse}.wal")))


def _add_unpublished(
    samples: Samples, wanted: Mapping[str, PipelineSpec | None], waiting: Waiting, error: WarehouseError
) -> None:
    """What is known where nothing can be read: that nothing was ever scored, or only that it cannot be read."""
    nothing_yet = waiting.error is None and not waiting.of
    samples.add("published_readable", int(nothing_yet))
    if not nothing_yet:
        progress(str(error))
        return
    for name in wanted:
        samples.add("partitions_live", 0, pipeline=name)


def _add_sizes(
    samples: Samples, project: Project, published: Sequence[str], wanted: Mapping[str, PipelineSpec | None]
) -> None:
    for name in wanted.keys() & {*published} if project.publishes else ():
        with suppress(OSError):
            samples.add("published_bytes", _size(*(project.published / name).glob("*.duckdb")), pipeline=name)


def _size(*files: Path) -> int | None:
    """The bytes of the files that are there; None where none is."""
    sizes = [file.stat().st_size for file in files if file.is_file()]
    return sum(sizes) if sizes else None


def _write_whole(path: Path, text: str) -> None:
    """Replace the file: its readers see the old one or the new one. Not synchronized: it is written again soon."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
