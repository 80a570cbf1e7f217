"""`pip-dagster subject`: what is stored about one person."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from pip_dagster.cli.group import Commands
from pip_dagster.cli.options import why_option
from pip_dagster.cli.output import echo, near
from pip_dagster.declaration.find import find_declarations, load_declared
from pip_dagster.declaration.project import Project
from pip_dagster.errors import DeclarationError


@click.group(cls=Commands)
def subject() -> None:
    """Subjects: what was predicted about one person."""


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
    from pip_dagster.registry.store import whoami
    from pip_dagster.reporting.subject import about
    from pip_dagster.reporting.subject_page import Head, event, html_parts, json_parts, write_private
    from pip_dagster.warehouse.access import writing
    from pip_dagster.warehouse.connect import workspace
    from pip_dagster.warehouse.transaction import transaction

    value = sys.stdin.readline().rstrip("\r\n") if identifier == "-" else identifier
    declared = find_declarations(project)
    if unknown := [name for name in pipelines if name not in declared]:
        raise DeclarationError(
            f"{project.root} declares no pipeline {unknown[0]!r}; it declares {', '.join(sorted(declared)) or 'none'}."
        )
    chosen = []
    for name in pipelines or sorted(declared):
        pipeline = load_declared(project, *declared[name])
        of_subject = column or (pipeline.spec.privacy and pipeline.spec.privacy.subject)
        if of_subject:
            chosen.append((pipeline, of_subject))
        elif pipelines:
            raise DeclarationError(f"Pipeline {name} does not declare its subject: pass --column, the feature column.")
    if not chosen:
        raise DeclarationError("No pipeline declares its subject: pass --column, the feature column that names it.")
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
        predicted = sum(each.predicted for each in found)
    with (
        workspace(threads=1) as con,
        writing(con, project, purpose="recording a subject report"),
        transaction(con),
    ):
        audit.append(con, [entry])
    echo(f"{near(path)}: {predicted:,} predictions, {size:,} bytes")
