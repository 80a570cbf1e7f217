"""`pip-dagster backfill`: build a range of past partitions in chunks; an interrupted backfill can be resumed."""

from __future__ import annotations

import sys
from typing import Literal

import click

from pip_dagster.cli.backfill_progress import Progress
from pip_dagster.cli.backfill_report import announce, show_chunks, summarize
from pip_dagster.cli.build import build, exit_code
from pip_dagster.cli.dagster_home import checked_home
from pip_dagster.cli.options import json_option, version_number, why_option
from pip_dagster.cli.output import progress, show_json
from pip_dagster.cli.selection import Selection, partition_selection
from pip_dagster.declaration.find import find_pipeline
from pip_dagster.declaration.project import Project
from pip_dagster.registry.store import whoami

NEWEST = "newest"


@click.command()
@click.argument("pipeline")
@partition_selection("of the range; without --to up to the newest that has closed")
@click.option("--only", type=click.Choice(["stale", "missing"]), help="Only the stale or missing partitions.")
@click.option("--version", metavar="VERSION", help="Score with 1, v1 or an alias, and pin the range to it.")
@click.option("--as-known", is_flag=True, help="Build features from the rows available at each partition's close.")
@click.option("--allow-fewer-rows", is_flag=True, help="Accept partitions with far fewer rows than before, even none.")
@why_option
@click.option("--chunk", type=click.IntRange(min=1), help="Partitions per run; by default partitions.max_per_run.")
@click.option(
    "--resume", is_flag=False, flag_value=NEWEST, metavar="[ID]", help="Resume a backfill; by default the newest."
)
@click.option("--no-dagster", is_flag=True, help="Record no runs in Dagster, even if DAGSTER_HOME is set.")
@click.option("--dry-run", is_flag=True, help="List the chunks; build nothing.")
@json_option
@click.pass_obj
def backfill(
    project: Project,
    pipeline: str,
    only: Literal["stale", "missing"] | None,
    version: str | None,
    as_known: bool,
    allow_fewer_rows: bool,
    why: str,
    chunk: int | None,
    resume: str | None,
    no_dagster: bool,
    dry_run: bool,
    as_json: bool,
    selected: Selection,
) -> None:
    """Build past partitions of PIPELINE, given as A..B or by --from and --to; each is committed independently.

    With DAGSTER_HOME set, or a .dagster_home in the project, each chunk is a run that the UI shows.

    Exit code 0: every partition is built. 1: an error ended the backfill. 3: some partitions failed or were blocked.
    130: cancelled. Committed partitions stay in every case.
    """
    from pip_dagster.evidence.anchor import anchor_after
    from pip_dagster.flow import backfill as backfills

    declared = find_pipeline(project, pipeline)
    home = None if no_dagster or dry_run else checked_home(project, create=False)
    if resume:
        if selected or only or version or as_known or why:
            raise click.UsageError(
                "--resume uses the original backfill's options and cannot be combined with others than "
                "--chunk and --allow-fewer-rows."
            )
        work = backfills.resume(declared, None if resume == NEWEST else resume, chunk=chunk, dry_run=dry_run)
    else:
        first, last = selected.bounds
        if not first:
            raise click.UsageError("Name the partitions, A..B or --from KEY --to KEY, or resume a backfill: --resume.")
        chosen = version_number(declared, version)
        request = backfills.BackfillRequest(first, last, whoami(), only, chosen, as_known, why)
        work = backfills.begin(declared, request, chunk=chunk, dry_run=dry_run)
    announce(declared, work, dry_run)
    if dry_run:
        show_chunks(work, as_json)
        return
    if not (home or no_dagster) and work.chunks:
        progress("DAGSTER_HOME is not set: Dagster's UI will not show these partitions as materialized.")
    outcome = build(declared, work, Progress(work.remaining), home=home, allow_fewer_rows=allow_fewer_rows)
    anchor_after(project, progress)
    if work.chunks:
        summarize(work, outcome)
    if as_json:
        show_json(outcome)
    sys.exit(exit_code(outcome))
