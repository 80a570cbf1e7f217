"""`pip-dagster subject`: what is stored about one person."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pip_dagster.cli.erase import subject_given
from pip_dagster.cli.group import Commands
from pip_dagster.cli.options import json_option, why_option
from pip_dagster.cli.output import echo, near, show_json
from pip_dagster.declaration.find import find_declarations, load_declared
from pip_dagster.declaration.project import Project
from pip_dagster.errors import DeclarationError
from pip_dagster.plural import plural

if TYPE_CHECKING:
    from pip_dagster.declaration.pipeline import Pipeline


@click.group(cls=Commands)
def subject() -> None:
    """Subjects: what was predicted about one person, and what stands for one."""


@subject.command()
@click.argument("identifier", metavar="ID")
@click.argument("pipelines", metavar="[PIPELINE]...", nargs=-1)
@click.option("--column", help="The column of the features that has the subject; by default as `privacy.subject`.")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path, dir_okay=False), required=True, help="The file to write."
)
@click.option("--json", "as_json", is_flag=True, help="Write JSON instead of a page.")
@why_option
@click.pass_obj
def report(
    project: Project,
    identifier: str,
    pipelines: tuple[str, ...],
    column: str | None,
    output: Path,
    as_json: bool,
    why: str,
) -> None:
    """Write every prediction about the person ID into one file, with model, reasons, rule, approvals and data used.

    All pipelines with a subject are searched, or those that you name: all partitions, all scorings, current and former.
    ID `-` is read from standard input, so that no list of processes shows it. The audit records who wrote a report and
    when, without the identifier. A person of whom nothing is stored is an error, with exit code 1.
    """
    from pip_dagster.ledger import audit
    from pip_dagster.privacy.suppressed import stored_values
    from pip_dagster.privacy.suppressed import tokens as tokens_of
    from pip_dagster.privacy.texts import check_texts
    from pip_dagster.registry.store import whoami
    from pip_dagster.reporting.subject import about
    from pip_dagster.reporting.subject_page import Head, event, html_parts, json_parts, write_private
    from pip_dagster.warehouse.access import writing
    from pip_dagster.warehouse.connect import workspace
    from pip_dagster.warehouse.transaction import transaction

    value = subject_given(identifier, "whom it is about")
    chosen = []
    for pipeline in _loaded(project, pipelines):
        name = pipeline.spec.name
        of_subject = column or (pipeline.spec.privacy and pipeline.spec.privacy.subject)
        if of_subject:
            chosen.append((pipeline, of_subject))
        elif pipelines:
            raise DeclarationError(f"Pipeline {name} does not declare its subject: pass --column, the feature column.")
    if not chosen:
        raise DeclarationError("No pipeline declares its subject: pass --column, the feature column that names it.")
    check_texts([each for each, _ in chosen], value, {"--why": why})
    head = Head.of(value, whoami())
    values, tokens = {value: None}, dict[str, None]()
    for pipeline, _ in chosen:
        if pipeline.spec.privacy:  # by the secrets, a person is found whose rows hold pseudonyms
            values |= dict.fromkeys(stored_values(pipeline, value))
            tokens |= dict.fromkeys(token for token, _ in tokens_of(pipeline, value))
    with about(project, chosen, [*values], [*tokens]) as found:
        parts = json_parts(head, found) if as_json else html_parts(head, found)
        path, sha256, size = write_private(output, parts)
        entry = event(head, found, sha256, why)
        predicted, held = sum(each.predicted for each in found), sum(len(each.held) for each in found)
    with (
        workspace(threads=1) as con,
        writing(con, project, purpose="recording a subject report"),
        transaction(con),
    ):
        audit.append(con, [entry])
    kept = f"{plural(held, 'row')} that a legal hold keeps, " * bool(held)
    echo(f"{near(path)}: {predicted:,} predictions, {kept}{size:,} bytes")


@subject.command()
@click.argument("identifier", metavar="ID")
@click.argument("pipelines", metavar="[PIPELINE]...", nargs=-1)
@click.option("--is", "pseudonym", metavar="PSEUDONYM", help="Whether this stands for ID: exit code 0, or 1 if not.")
@json_option
@click.pass_obj
def lookup(project: Project, identifier: str, pipelines: tuple[str, ...], pseudonym: str | None, as_json: bool) -> None:
    """Print what stands for the person ID in stored rows: the pseudonyms by the present and all former secrets.

    For those who have the secrets. ID is the text that the feature SQL gives, such as `7` for a number; `-` is read
    from standard input, so that no list of processes shows it. Nothing is written, and ID is not printed. A pseudonym
    cannot be turned back into the person: give an ID, and the pseudonym as --is.
    """
    from pip_dagster.privacy.suppressed import checked_keys, is_pseudonym

    value = subject_given(identifier, "whom it is about")
    found, declared = [], [*_loaded(project, pipelines)]
    if pseudonym is None and any(is_pseudonym(each, value) for each in declared):
        raise DeclarationError(
            "This is a pseudonym, and nobody can compute whom it stands for. Whether it stands for a certain person is "
            "found by `pip-dagster subject lookup ID --is PSEUDONYM`, and its rows by `subject report`."
        )
    for pipeline in declared:
        keys, name = checked_keys(pipeline), pipeline.spec.name
        if pipelines and not keys:
            raise DeclarationError(
                f"Pipeline {name} declares no `privacy.pseudonymize`: subjects are stored as they are."
            )
        for number, key in enumerate(keys):
            made = {"pipeline": name, "domain": key.domain, "version": key.version, "present": not number}
            found.append(made | {"pseudonym": key.pseudonym(value)})
    if not found:
        raise DeclarationError("No pipeline declares `privacy.pseudonymize`: subjects are stored as they are.")
    matching = [each for each in found if pseudonym in (None, each["pseudonym"])]
    if as_json:
        show_json({"pseudonyms": matching})
    else:
        for each in matching:
            which = "present" if each["present"] else "former"
            echo(f"{each['pseudonym']}  {each['pipeline']} (domain {each['domain']}), {which} secret {each['version']}")
        if not matching:
            echo("It does not stand for this person in any of these pipelines, by any secret that is declared.")
    if not matching:
        sys.exit(1)


def _loaded(project: Project, names: Sequence[str]) -> Iterator[Pipeline]:
    """The pipelines of these names, or all."""
    declared = find_declarations(project)
    if unknown := [name for name in names if name not in declared]:
        raise DeclarationError(
            f"{project.root} declares no pipeline {unknown[0]!r}; it declares {', '.join(sorted(declared)) or 'none'}."
        )
    for name in names or sorted(declared):
        yield load_declared(project, *declared[name])
