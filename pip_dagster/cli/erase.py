"""`pip-dagster erase`: a person's rows, from every place."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from pip_dagster.cli.dagster_home import dagster_home, entered
from pip_dagster.cli.emptied import show_emptied, steps_as_dicts
from pip_dagster.cli.options import json_option
from pip_dagster.cli.output import echo, progress, show_json
from pip_dagster.declaration.find import find_declarations, find_pipeline
from pip_dagster.declaration.project import Project
from pip_dagster.plural import plural
from pip_dagster.registry.store import whoami

if TYPE_CHECKING:
    from pip_dagster.declaration.pipeline import Pipeline
    from pip_dagster.erasure.erase import Erased
    from pip_dagster.erasure.place import ErasurePlace


@click.command()
@click.option("--subject", metavar="ID", help="Whom to erase; `-` reads it from standard input.")
@click.option("--why", metavar="TEXT", help="Why, without the person: it is kept.")
@click.option("--pipeline", "names", multiple=True, metavar="NAME", help="Of this pipeline only; may be repeated.")
@click.option("--ground", metavar="TEXT", help="The legal ground, such as 'GDPR, article 17(1)(b)'.")
@click.option("--asked-by", metavar="WHO", help="Who requested it, without the person's name.")
@click.option("--received", type=click.DateTime(["%Y-%m-%d"]), metavar="DATE", help="When the request was received.")
@click.option("--absent", is_flag=True, help="Refuse the subject's rows from now on, though nothing names it yet.")
@click.option("--dry-run", is_flag=True, help="Erase nothing: say how many rows of which partitions there are.")
@click.option("--again", is_flag=True, help="Repeat the erasures that a restored backup does not know.")
@json_option
@click.pass_obj
def erase(
    project: Project,
    subject: str | None,
    why: str | None,
    names: tuple[str, ...],
    ground: str | None,
    asked_by: str | None,
    received: datetime | None,
    absent: bool,
    dry_run: bool,
    again: bool,
    as_json: bool,
) -> None:
    """Erase the rows of one person from all pipelines that declare `privacy`, wherever they are kept.

    \b
    pip-dagster erase --subject C-1042 --why "request 17" --dry-run   how many rows there are
    pip-dagster erase --subject C-1042 --why "request 17"             erases them, and keeps them from returning
    pip-dagster erase --again                                         after a backup of the warehouse was restored

    A subject that no stored row, golden row or source row names is refused: it may be mistyped. With --absent it is
    kept out all the same. The same command again goes on where one was interrupted.

    Exit code 0: everything is erased and verified. 1: refused, or a place could not be emptied; what is done stays
    done.
    """
    from pip_dagster.erasure.erase import check, concerned
    from pip_dagster.erasure.erase import erase as erase_everywhere
    from pip_dagster.erasure.wish import Wish

    if again:
        if subject or why or names or ground or asked_by or received or absent or dry_run:
            raise click.UsageError("--again repeats erasures as they were requested; it has no other option.")
        _again(project, as_json=as_json)
        return
    if subject is None or why is None:
        raise click.UsageError("Name whom to erase with --subject and --why, or pass --again.")
    subject = subject_given(subject, "whom to erase")
    pipelines = pipelines_of_people(project, names)
    wish = Wish(subject, why, whoami(), ground, asked_by, received.astimezone() if received else None, absent)
    if dry_run:
        check(project, pipelines, wish)
        _show_rows(concerned(project, pipelines, subject), as_json=as_json)
        return
    with of_dagster(project) as others:
        done = erase_everywhere(project, pipelines, wish, others=others, progress=progress)
    if as_json:
        show_json(_as_dict(done))
    else:
        _show(done)


def _again(project: Project, *, as_json: bool) -> None:
    from pip_dagster.erasure.again import erase_again

    with of_dagster(project) as others:
        found = erase_again(
            project, lambda name: find_pipeline(project, name), whoami(), others=others, progress=progress
        )
    if as_json:
        show_json({"erasures": [_as_dict(done) for done in found]})
        return
    for done in found:
        _show(done)
    if not found:
        echo("The warehouse knows every erasure that the folder beside it has.")


def _as_dict(done: Erased) -> dict[str, Any]:
    steps = steps_as_dicts(done.steps)
    return {"erasure": done.erasure_id, "resumed": done.resumed, "partitions": done.partitions, "steps": steps}


def _show(done: Erased) -> None:
    show_emptied("Erasure", done.erasure_id, done.steps, done.partitions)


def subject_given(subject: str, what: str) -> str:
    """The subject of an option; `-` is the first line of standard input. `what`: what is expected of it."""
    if subject == "-":
        subject = sys.stdin.readline().rstrip("\r\n")
    if not subject.strip():
        raise click.ClickException(f"The identifier is empty; expected {what}.")
    return subject


def pipelines_of_people(project: Project, names: tuple[str, ...]) -> list[Pipeline]:
    """The named pipelines, or all that declare `privacy`."""
    if names:
        return [find_pipeline(project, name) for name in dict.fromkeys(names)]
    found = [find_pipeline(project, name) for name in find_declarations(project)]
    declared = [each for each in found if each.spec.privacy]
    if not declared:
        raise click.ClickException(
            "No pipeline declares `privacy.subject`, so nothing says which rows are about whom. Declare it first."
        )
    return declared


@contextmanager
def of_dagster(project: Project) -> Iterator[list[ErasurePlace]]:
    """The place of Dagster's events, where it has run."""
    home = dagster_home(project, create=False)
    if home is None:
        yield []
        return
    import dagster as dg

    from pip_dagster.orchestration.erased_events import DagsterPlace

    with entered(home), dg.DagsterInstance.get() as instance:
        yield [DagsterPlace(instance)]


def _show_rows(found: dict[str, dict[str, int]], *, as_json: bool) -> None:
    if as_json:
        show_json({"partitions": found})
        return
    for name, of in sorted(found.items()):
        for key, count in sorted(of.items()):
            echo(f"{name}, {key}: {plural(count, 'row')}")
    if not any(found.values()):
        echo("No stored row is about this subject. An erasure keeps its rows out from now on.")
