"""`pip-dagster models rollback`: an earlier version live again, without scoring anything."""

from __future__ import annotations

import shlex
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING

import click

from pip_dagster.cli.instants import Instant, KeyRange
from pip_dagster.cli.output import show_json, show_table
from pip_dagster.declaration.model_names import parse_ref
from pip_dagster.declaration.project import Project
from pip_dagster.registry.store import Registry, whoami

if TYPE_CHECKING:
    from pip_dagster.ledger.rollback import RollbackResult
    from pip_dagster.ledger.rollback_plan import Missing

INCOMPLETE = 3


@click.command()
@click.argument("pipeline")
@click.option("--to", metavar="VERSION", help="2, v2 or an alias; the version live before when absent.")
@click.option("--partitions", type=KeyRange(), help="First and last key; the whole pipeline when absent.")
@click.option("--as-of", type=Instant(), help="Back to what was live then; UTC unless it names an offset.")
@click.option("--why", default="", help="Kept in the ledger, the audit and the alias's history.")
@click.option("--keep-alias", is_flag=True, help="The next run goes on scoring with the present version.")
@click.option("--dry-run", is_flag=True, help="Say what would be done; change nothing.")
@click.option("--json", "as_json", is_flag=True, help="For machines.")
@click.pass_obj
def rollback(
    project: Project,
    pipeline: str,
    to: str | None,
    partitions: tuple[str, str] | None,
    as_of: datetime | None,
    why: str,
    keep_alias: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Make scores that are stored live again, for every partition of PIPELINE or for some, in one transaction.

    Nothing is scored. The alias moves too, unless --partitions or --keep-alias is given. Exit code 0: every partition
    is as wanted. 3: some have no such scores; they were left alone.
    """
    from pip_dagster.ledger.rollback import rollback as roll_back

    result = roll_back(
        project,
        pipeline,
        to_version=_version(project, pipeline, to) if to else None,
        partitions=partitions,
        as_of=as_of,
        why=why,
        by=whoami(),
        keep_alias=keep_alias,
        dry_run=dry_run,
    )
    commands = rescore_commands(project, result)
    if as_json:
        extra = {"complete": result.complete, "rescore": commands}
        show_json(asdict(result) | extra)
    else:
        _show(result, commands)
    sys.exit(0 if result.complete else INCOMPLETE)


def _version(project: Project, pipeline: str, ref: str) -> int:
    wanted = parse_ref(ref)
    if isinstance(wanted, int):
        return wanted
    from pip_dagster.declaration.find import find_pipeline

    name = find_pipeline(project, pipeline).spec.scoring.model_name
    return Registry(project.registry).get(name, wanted).version


def _show(result: RollbackResult, commands: Sequence[str]) -> None:
    would = "would be " if result.dry_run else ""
    if result.resumed:
        click.echo(f"{result.pipeline}: goes on with {result.rollback_id}, which was cut off.")
    if move := result.alias:
        before = f"v{move.before}" if move.before else "not set"
        click.echo(f"{result.model_name}: {move.alias} {would or 'is now '}v{move.after}, was {before}")
    moved = Counter((flip.before.label, flip.after.label) for flip in result.flips)
    for (label, after), count in sorted(moved.items()):
        click.echo(f"{result.pipeline}: {count:,} partitions {would}rolled back from {label} to {after}")
    if not result.flips:
        click.echo(f"{result.pipeline}: no partition {would}changed")
    if result.kept:
        click.echo(f"{result.pipeline}: {result.kept:,} partitions are of another version, or as wanted, and stay")
    if result.flips and not result.dry_run:
        click.echo(f"Nothing was scored; {result.seconds:.2f} s, then {result.published:,} partitions published.")
    if stale := sum(flip.other_features for flip in result.flips):
        click.echo(
            f"{stale:,} of them have scores made of features that were corrected since; materialize them to score anew."
        )
    if result.missing:
        rows = [[missing.partition_key, f"v{missing.live_version}", missing.reason] for missing in result.missing]
        show_table("These stay as they are", ["partition", "live", "because"], rows)
    if commands:
        click.echo("To score them:\n  " + "\n  ".join(commands))


def rescore_commands(project: Project, result: RollbackResult) -> list[str]:
    """What to type for the partitions that have no scores by the wanted version; nothing where none is wanted."""
    if result.version is None or not result.missing:
        return []
    commands = []
    if result.alias_version != result.version:
        commands.append(f"pip-dagster models promote {result.model_name} v{result.version}")
    module = project.code_location or "YOUR_PACKAGE.definitions"
    for first, last in contiguous(result.missing):
        keys = (
            f"--partition {shlex.quote(first)}"
            if first == last
            else f"--partition-range {shlex.quote(f'{first}...{last}')}"
        )
        commands.append(f"dagster asset materialize -m {module} --select {result.pipeline}/predictions {keys}")
    return commands


def contiguous(missing: Sequence[Missing]) -> list[tuple[str, str]]:
    """First and last key of each run of partitions without a gap between them."""
    runs: list[list[Missing]] = []
    for each in sorted(missing, key=lambda one: one.start):
        if runs and runs[-1][-1].end == each.start:
            runs[-1].append(each)
        else:
            runs.append([each])
    return [(run[0].partition_key, run[-1].partition_key) for run in runs]
