"""`pip-dagster maintain`: keep a lake small and fast, and give a file small blocks."""

from __future__ import annotations

from dataclasses import asdict
from datetime import timedelta

import click

from pip_dagster.cli.options import json_option
from pip_dagster.cli.output import echo, progress, show_json
from pip_dagster.declaration.lake import Lake
from pip_dagster.declaration.project import Project
from pip_dagster.errors import PipelineError
from pip_dagster.plural import plural
from pip_dagster.registry.store import whoami


@click.command()
@click.option("--keep-days", default=7, show_default=True, type=click.IntRange(min=1), help="Age of kept snapshots.")
@click.option(
    "--small-blocks", is_flag=True, help="Write a file again with blocks of 16 KB, for many features in little memory."
)
@json_option
@click.pass_obj
def maintain(project: Project, keep_days: int, small_blocks: bool, as_json: bool) -> None:
    """Merge a lake's small files, expire old snapshots and remove unused files; no row changes.

    Runs may continue meanwhile. Once a day is often enough. A warehouse file needs no maintenance, but with
    `--small-blocks` once, where a run of many features asks for it: it takes as much free space as the file, and runs
    wait.
    """
    if small_blocks:
        _write_small(project, as_json)
        return
    from pip_dagster.warehouse.access import writing
    from pip_dagster.warehouse.connect import workspace
    from pip_dagster.warehouse.maintain import maintain as maintain_lake

    if not isinstance(project.warehouse, Lake):
        raise click.ClickException(
            f"{project.warehouse} is a file, which needs no maintenance: this is for a lake. If a run of many features "
            "asks for smaller blocks, add `--small-blocks`."
        )
    with workspace(threads=2) as con, writing(con, project, purpose="maintaining"):
        done = maintain_lake(con, keep=timedelta(days=keep_days))
    if as_json:
        show_json(asdict(done))
        return
    echo(
        f"{plural(done.merged_files, 'small file')} merged, {plural(done.flushed_rows, 'row')} moved from Postgres to "
        f"Parquet, {plural(done.expired_snapshots, 'snapshot')} expired, {plural(done.removed_files, 'file')} removed."
    )


def _write_small(project: Project, as_json: bool) -> None:
    from pip_dagster.ledger.small_blocks import write_small
    from pip_dagster.warehouse.blocks import SMALL, WIDE

    if isinstance(project.warehouse, Lake):
        raise click.ClickException("--small-blocks is for a warehouse file: a lake's files have no blocks.")
    before, after, rewrite_id = write_small(project.warehouse, WIDE, actor=whoami())
    if rewrite_id:
        _vouch(project, rewrite_id)
    if as_json:
        show_json({"bytes_before": before, "bytes_after": after})
        return
    echo(f"{project.warehouse} has blocks of {SMALL // 1024} KB: {before:,} bytes before, {after:,} after.")


def _vouch(project: Project, rewrite_id: str) -> None:
    """Have an anchor vouch for what was written again, which is done already."""
    from pip_dagster.evidence.anchor import anchor

    try:
        done = anchor(project, rewritten_by=rewrite_id)
    except PipelineError as error:
        failed = {"any place": str(error)}
    else:
        failed = done.failed if done else {"any place": "none is declared any more."}
    for name, why in failed.items():
        progress(f"No anchor in {name} vouches for the new file: {why} `pip-dagster audit accept` signs it.")
