"""`pip-dagster hold`: legal holds on a person's rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from pip_dagster.cli.cells import moment
from pip_dagster.cli.erase import pipelines_of_people, subject_given
from pip_dagster.cli.group import Commands
from pip_dagster.cli.options import json_option
from pip_dagster.cli.output import echo, show_json, show_table
from pip_dagster.cli.table import Heading
from pip_dagster.declaration.find import find_declarations, find_pipeline
from pip_dagster.declaration.project import Project
from pip_dagster.errors import DeclarationError
from pip_dagster.plural import plural
from pip_dagster.registry.store import whoami

if TYPE_CHECKING:
    from pip_dagster.declaration.pipeline import Pipeline


@click.group(cls=Commands)
def hold() -> None:
    """Legal holds: rows of a person that `erase` and `purge` must keep."""


@hold.command()
@click.option("--subject", required=True, metavar="ID", help="Who is on hold; `-` reads it from standard input.")
@click.option("--why", required=True, metavar="TEXT", help="Why, without the person: it is kept.")
@click.option("--pipeline", "names", multiple=True, metavar="NAME", help="In this pipeline only; may be repeated.")
@click.option("--until", type=click.DateTime(["%Y-%m-%d"]), metavar="DATE", help="Until when at the least; noted only.")
@click.option("--absent", is_flag=True, help="Place it though nothing names the subject yet.")
@json_option
@click.pass_obj
def place(
    project: Project,
    subject: str,
    why: str,
    names: tuple[str, ...],
    until: datetime | None,
    absent: bool,
    as_json: bool,
) -> None:
    """Place a legal hold on a person, in all pipelines that declare `privacy`.

    An erasure of the person then restricts: the rows are kept aside, and are neither scored, published nor delivered.
    A purge keeps them aside too. The hold ends when it is released. A subject that no stored row, golden row or source
    row names is refused: it may be mistyped. With --absent the hold is placed before the first row arrives.
    """
    from pip_dagster.erasure.holds import place_hold

    subject = subject_given(subject, "who is on hold")
    chosen = pipelines_of_people(project, names)
    at = until.astimezone() if until else None
    hold_id = place_hold(project, chosen, subject, why=why, by=whoami(), until=at, absent=absent)
    if as_json:
        show_json({"hold": hold_id, "pipelines": [each.spec.name for each in chosen]})
        return
    echo(f"Hold {hold_id} is placed, in {', '.join(each.spec.name for each in chosen)}.")


@hold.command()
@click.argument("hold_id", metavar="ID")
@click.option("--why", required=True, metavar="TEXT", help="Why, without the person: it is kept.")
@json_option
@click.pass_obj
def release(project: Project, hold_id: str, why: str, as_json: bool) -> None:
    """Release the hold ID. What it kept is removed when the person is erased again, or by the next purge."""
    from pip_dagster.erasure.holds import release_hold

    kept = release_hold(project, hold_id, why=why, by=whoami(), pipelines=[*_with_people(project)])
    if as_json:
        show_json({"hold": hold_id, "rows_kept": kept})
        return
    echo(f"Hold {hold_id} is released.")
    if kept:
        echo(f"It kept {plural(kept, 'row')}: repeat the erasure, or purge, to remove what must not be kept.")


@hold.command("list")
@json_option
@click.pass_obj
def list_(project: Project, as_json: bool) -> None:
    """List all holds, also those that are released, without the people."""
    from pip_dagster.erasure.holds import list_holds

    found = list_holds(project)
    if as_json:
        show_json(found)
    else:
        _show(found)


def _with_people(project: Project) -> Iterator[Pipeline]:
    """The pipelines that declare `privacy`; one with a mistake prevents no release."""
    for name in find_declarations(project):
        with suppress(DeclarationError):
            pipeline = find_pipeline(project, name)
            if pipeline.spec.privacy:
                yield pipeline


def _show(found: Sequence[Mapping[str, Any]]) -> None:
    columns = ["hold", "state", "pipelines", "rows kept", "until", "placed", "by", Heading("why", below=True)]
    show_table(
        f"Holds: {len(found):,}",
        columns,
        (
            [
                *(each["hold_id"], each["state"], ", ".join(each["pipelines"]), each["rows_kept"]),
                *(each["held_until"] and moment(each["held_until"]), moment(each["placed_at"])),
                *(each["made_by"], each["why"]),
            ]
            for each in found
        ),
    )
