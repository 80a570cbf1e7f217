"""`pip-dagster purge`: contents that are past `privacy.retention.content`, from every place."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from pip_dagster.cli.emptied import show_emptied, steps_as_dicts
from pip_dagster.cli.erase import of_dagster
from pip_dagster.cli.options import json_option
from pip_dagster.cli.output import echo, progress, show_json
from pip_dagster.declaration.find import find_declarations, find_pipeline
from pip_dagster.declaration.project import Project
from pip_dagster.plural import plural
from pip_dagster.registry.store import whoami

if TYPE_CHECKING:
    from pip_dagster.declaration.pipeline import Pipeline
    from pip_dagster.erasure.purge import Due, Purged


@click.command()
@click.argument("names", metavar="[PIPELINE]...", nargs=-1)
@click.option("--dry-run", is_flag=True, help="Purge nothing: list the partitions that are past their clock.")
@json_option
@click.pass_obj
def purge(project: Project, names: tuple[str, ...], dry_run: bool, as_json: bool) -> None:
    """Remove the contents of partitions that are older than `privacy.retention.content`, wherever they are kept.

    Of all pipelines that declare it, or of those that are named. Evidence stays: who scored what when, by which
    version, with how many rows. The same command again goes on where one was interrupted.

    Exit code 0: nothing is past its clock, or all of it is purged and verified. 1: refused, or a place could not be
    emptied; what is done stays done.
    """
    from pip_dagster.erasure.purge import due
    from pip_dagster.erasure.purge import purge as purge_everywhere

    pipelines = _pipelines(project, names)
    found = due(project, pipelines)
    if dry_run:
        _show_due(found, as_json=as_json)
        return
    done = None
    if found.anything:
        with of_dagster(project) as others:
            done = purge_everywhere(project, pipelines, actor=whoami(), found=found, others=others, progress=progress)
    if as_json:
        show_json(_as_dict(done, found))
    elif done:
        show_emptied("Purge", done.purge_id, done.steps, done.partitions)
    else:
        echo("No contents are past their clock.")


def _pipelines(project: Project, names: tuple[str, ...]) -> list[Pipeline]:
    found = [find_pipeline(project, name) for name in dict.fromkeys(names) or find_declarations(project)]
    declared = [each for each in found if each.spec.privacy and each.spec.privacy.retention.content]
    if lacking := [each.spec.name for each in found if names and each not in declared]:
        raise click.ClickException(
            f"Pipeline {lacking[0]} declares no `privacy.retention.content`: its contents are kept forever."
        )
    if not declared:
        raise click.ClickException(
            "No pipeline declares `privacy.retention.content`, such as '13 months': contents are kept forever."
        )
    return declared


def _as_dict(done: Purged | None, found: Due) -> dict[str, object]:
    return {
        "purge": done and done.purge_id,
        "resumed": bool(done and done.resumed),
        "partitions": done.partitions if done else {},
        "steps": steps_as_dicts(done.steps) if done else [],
        "past_evidence": found.evidence,
    }


def _show_due(found: Due, *, as_json: bool) -> None:
    if as_json:
        show_json(
            {
                "partitions": found.partitions,
                "running": found.running or (found.wider and found.wider[0]),
                "past_evidence": found.evidence,
            }
        )
        return
    for name, keys in found.partitions.items():
        span = keys[0] if len(keys) == 1 else f"{keys[0]} to {keys[-1]}"
        echo(f"{name}, {span}: the contents of {plural(len(keys), 'partition')} are past their clock")
    if found.running:
        echo(f"Purge {found.running} was interrupted: `pip-dagster purge` completes it.")
    if found.wider:
        purge_id, names = found.wider
        echo(f"Purge {purge_id} was interrupted: `pip-dagster purge {' '.join(names)}` completes it.")
    if not (found.partitions or found.running or found.wider):
        echo("No contents are past their clock.")
    for name, count in found.evidence.items():
        echo(f"{name}: the evidence of {plural(count, 'partition')} is past its clock; it stays, the audit needs it")
