"""`pip-dagster models rollback`: make an earlier version live again, without scoring."""

from __future__ import annotations

import shlex
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING

import click

from pip_dagster.cli.cells import duration
from pip_dagster.cli.deliver import as_dict, deliver_at_once, show_deliveries
from pip_dagster.cli.options import Instant, json_option, version_number, why_option
from pip_dagster.cli.output import echo, show_json, show_table
from pip_dagster.cli.selection import Selection, partition_selection
from pip_dagster.cli.table import Heading
from pip_dagster.declaration.find import find_pipeline
from pip_dagster.declaration.project import Project
from pip_dagster.declaration.ranges import contiguous
from pip_dagster.plural import plural
from pip_dagster.registry.store import whoami

if TYPE_CHECKING:
    from pip_dagster.ledger.rollback_request import RollbackResult

INCOMPLETE = 3


@click.command()
@click.argument("pipeline")
@partition_selection("to roll back; by default the whole pipeline", former_to=True)
@click.option("--version", metavar="VERSION", help="2, v2 or an alias; by default the version live before.")
@click.option("--as-of", type=Instant(), help="Restore what was live at this time; in UTC if without an offset.")
@why_option
@click.option("--keep-alias", is_flag=True, help="Leave the alias: the next run scores with its present version.")
@click.option("--dry-run", is_flag=True, help="Report what would change; change nothing.")
@json_option
@click.pass_obj
def rollback(
    project: Project,
    pipeline: str,
    version: str | None,
    as_of: datetime | None,
    why: str,
    keep_alias: bool,
    dry_run: bool,
    as_json: bool,
    selected: Selection,
    former_to: str | None,
) -> None:
    """Make stored scores live again, for every partition of PIPELINE or a range, in one transaction.

    Scores nothing. Moves the alias too, unless partitions are named or --keep-alias is given.

    Exit code 0: every partition is as requested, or it is a dry run. 1: refused. 3: some have no such scores and did
    not change.
    """
    from pip_dagster.ledger.rollback import rollback as roll_back

    declared = find_pipeline(project, pipeline)
    if version and former_to:
        raise click.UsageError("--version and --to, its former name, cannot be combined.")
    wanted = version or former_to

    result = roll_back(
        project,
        pipeline,
        to_version=version_number(declared, wanted) if wanted else None,
        partitions=selected.closed(declared),
        as_of=as_of,
        why=why,
        by=whoami(),
        keep_alias=keep_alias,
        dry_run=dry_run,
    )
    commands = rescore_commands(result)
    delivered = [] if dry_run else deliver_at_once(declared)
    if as_json:
        extra = {"complete": result.complete, "rescore": commands, "targets": [as_dict(each) for each in delivered]}
        show_json(asdict(result) | extra)
    else:
        _show(result, commands)
        show_deliveries(declared, [each for each in delivered if each.receipts or not each.is_complete])
    sys.exit(0 if result.complete or dry_run else INCOMPLETE)


def _show(result: RollbackResult, commands: Sequence[str]) -> None:
    would = "would be " if result.dry_run else ""
    if result.resumed:
        echo(f"{result.pipeline}: resuming {result.rollback_id}, which was interrupted.")
    if move := result.alias:
        before = f"v{move.before}" if move.before else "not set"
        echo(f"{result.model_name}: {move.alias} {would or 'is now '}v{move.after}, was {before}")
    moved = Counter((flip.before.label, flip.after.label) for flip in result.flips)
    for (label, after), count in sorted(moved.items()):
        echo(f"{result.pipeline}: {plural(count, 'partition')} {would}rolled back from {label} to {after}")
    if not result.flips:
        echo(f"{result.pipeline}: no partition {would}changed")
    if result.kept:
        kept = plural(result.kept, "partition")
        echo(f"{result.pipeline}: {kept} unchanged, by another version or already as requested")
    if result.flips and not result.dry_run:
        published = plural(result.published, "partition")
        echo(f"Nothing was scored; {duration(result.seconds)}, then {published} published.")
    if stale := sum(flip.other_features for flip in result.flips):
        echo(f"{stale:,} of them now have scores of features that were corrected later; materialize them to rescore.")
    if result.missing:
        rows = [[missing.partition_key, f"v{missing.live_version}", missing.reason] for missing in result.missing]
        show_table("Not rolled back", ["partition", "live", Heading("reason", below=True)], rows)
    if commands:
        echo("To score them:\n  " + "\n  ".join(commands))


def rescore_commands(result: RollbackResult) -> list[str]:
    """The commands that score the partitions without scores by the requested version; none without a version."""
    if result.version is None or not result.missing:
        return []
    commands = []
    if result.alias_version != result.version:
        commands.append(f"pip-dagster models promote {result.model_name} v{result.version}")
    for adjoining in contiguous(result.missing):
        first, last = adjoining[0].partition_key, adjoining[-1].partition_key
        keys = first if first == last else f"{first}..{last}"
        commands.append(shlex.join(["pip-dagster", "run", result.pipeline, keys]))
    return commands
