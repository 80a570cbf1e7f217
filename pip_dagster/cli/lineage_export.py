"""`pip-dagster lineage export`: what the ledger knows, as events of OpenLineage."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pip_dagster.cli.group import Choice
from pip_dagster.cli.options import json_option
from pip_dagster.cli.output import echo, progress, show_bytes, show_json
from pip_dagster.cli.selection import Selection, partition_selection
from pip_dagster.declaration.find import find_declarations, load_declared
from pip_dagster.declaration.project import Project, unsafe_url
from pip_dagster.plural import plural
from pip_dagster.whole_file import replacing

if TYPE_CHECKING:
    from pip_dagster.declaration.pipeline import Pipeline
    from pip_dagster.openlineage.send import Send

_EVERY_SECONDS = 5.0


@click.command()
@click.argument("pipeline", required=False)
@partition_selection("to export; by default all", several=True)
@click.option("--format", "form", type=Choice(["openlineage"]), default="openlineage", help="Only `openlineage`.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="A file, one event a line; `-` prints them.")
@click.option("--url", help="A receiver of OpenLineage; OPENLINEAGE_API_KEY is its key.")
@click.option("--new", is_flag=True, help="Only what the setting `openlineage` names has not got yet.")
@json_option
@click.pass_obj
def export(
    project: Project,
    pipeline: str | None,
    form: str,
    output: Path | None,
    url: str | None,
    new: bool,
    as_json: bool,
    selected: Selection,
) -> None:
    """Write the lineage of PIPELINE, or of all pipelines, as events of OpenLineage, from the ledger.

    Without -o and --url, they go where the setting `openlineage` points. An event is the same each time, with the same
    run id: a receiver that has it already gets no second run.
    """
    if output == Path() or (output and output.is_dir()):
        raise click.UsageError(f"-o needs the name of a file; {str(output)!r} is a folder.")
    if output and url:
        raise click.UsageError("Name one destination: -o FILE, or --url with an address.")
    if url and (wrong := unsafe_url(url) if "://" in url else "is not a URL; expected https://…"):
        raise click.UsageError(f"--url {wrong}")
    if new:
        if output or url or selected:
            raise click.UsageError("--new sends to the setting `openlineage`: without -o, --url and partitions.")
        _send_new(project, pipeline, as_json)
        return
    destination = url or (None if output else project.openlineage)
    if not (output or destination):
        raise click.UsageError("Name the destination: -o FILE, --url with an address, or the setting `openlineage`.")
    from pip_dagster.openlineage.export import count, pipelines_of

    names = _names(project, pipeline, pipelines_of(project))
    total = count(project, names, selected.ranges)
    if not total:
        where = f"{pipeline} has" if pipeline else "no pipeline has"
        raise click.ClickException(f"The ledger has nothing to export: {where} an entry of these partitions.")
    events = _export(project, names, selected, output, destination, total)
    place = str(output) if output else destination
    if as_json:
        show_json({"destination": place, "pipelines": names, "entries": total, "events": events})
    else:
        echo(f"{place}: {plural(events, 'event')}, {plural(events // 2, 'run')}.", err=_is_stdout(output))


def _export(
    project: Project,
    names: Sequence[str],
    selected: Selection,
    output: Path | None,
    destination: str | None,
    total: int,
) -> int:
    from pip_dagster.openlineage.export import export
    from pip_dagster.openlineage.subject import Subject

    declared, events, shown = find_declarations(project), 0, _Shown(total)
    with _opened(project, output, destination) as send:
        for name in names:
            found = load_declared(project, *declared[name]) if name in declared else None
            events += export(project, Subject(project, name, found), selected.ranges, send, shown.add)
    return events


@contextmanager
def _opened(project: Project, output: Path | None, destination: str | None) -> Iterator[Send]:
    from pip_dagster.openlineage.events import line
    from pip_dagster.openlineage.send import sender

    if destination:
        with sender(destination, project.root) as send:
            yield send
        return
    assert output
    if _is_stdout(output):
        yield lambda event: show_bytes(f"{line(event)}\n".encode())
        return
    try:
        with replacing(output) as temporary, temporary.open("w", encoding="utf-8") as file:
            yield lambda event: file.writelines((line(event), "\n"))
            file.flush()
    except OSError as error:
        from pip_dagster.warehouse.faults import remedy

        text = f"{output} cannot be written and is as before: {error}. {remedy(str(error))}"
        raise click.ClickException(text) from error


def _is_stdout(output: Path | None) -> bool:
    return output is not None and str(output) == "-"


def _names(project: Project, pipeline: str | None, known: Sequence[str]) -> list[str]:
    if pipeline is None:
        return [*known]
    if pipeline not in known:
        listed = ", ".join(known) or "none yet"
        raise click.ClickException(f"The ledger has no pipeline {pipeline!r}; it has {listed}.")
    return [pipeline]


def _send_new(project: Project, pipeline: str | None, as_json: bool) -> None:
    """Send what the project's destination has not got, until nothing is left or it takes no more."""
    from pip_dagster.openlineage.emit import emit_new

    if not project.openlineage:
        raise click.UsageError("--new needs the setting `openlineage` in [tool.pip_dagster] of pyproject.toml.")
    found = []
    for declared in _declared(project, pipeline):
        done = emit_new(declared, seconds=float("inf"))
        name = declared.spec.name
        found.append({"pipeline": name, "sent": done.sent, "left": done.left, "fault": done.fault})
        if not as_json:
            echo(f"{name}: {done.sent:,} sent, {done.left:,} left{f'. {done.fault}' if done.fault else ''}")
    if as_json:
        show_json(found)
    if any(each["fault"] for each in found):
        sys.exit(1)


def _declared(project: Project, pipeline: str | None) -> Iterator[Pipeline]:
    from pip_dagster.declaration.find import find_pipeline

    if pipeline:
        yield find_pipeline(project, pipeline)
        return
    for _, where in sorted(find_declarations(project).items()):
        yield load_declared(project, *where)


class _Shown:
    """Progress on stderr, a line every few seconds."""

    def __init__(self, total: int) -> None:
        self._total, self._done, self._at = total, 0, time.monotonic()

    def add(self, entries: int) -> None:
        self._done += entries
        if time.monotonic() - self._at >= _EVERY_SECONDS:
            self._at = time.monotonic()
            progress(f"{self._done:,} of {self._total:,} ledger entries")
