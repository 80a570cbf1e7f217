"""`pip-dagster estimate`: what performance is expected to be before labels arrive, and how such estimates have held."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from pip_dagster.cli.cells import figure
from pip_dagster.cli.options import json_option
from pip_dagster.cli.output import echo, progress, show_json, show_table
from pip_dagster.cli.selection import Selection, partition_selection
from pip_dagster.cli.table import Heading
from pip_dagster.declaration.find import find_pipeline
from pip_dagster.declaration.project import Project
from pip_dagster.errors import DeclarationError
from pip_dagster.plural import plural
from pip_dagster.sql.names import literal

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from pip_dagster.declaration.pipeline import Pipeline
    from pip_dagster.monitoring.estimates import ShownEstimate
    from pip_dagster.monitoring.estimating import Estimating
    from pip_dagster.monitoring.finding import Finding


@click.command()
@click.argument("pipeline")
@partition_selection("to show instead of the newest")
@click.option("--last", "newest", type=click.IntRange(min=1), help="How many of the newest partitions; 1 when absent.")
@click.option(
    "--backfill",
    is_flag=True,
    help="Also estimate what was scored before, each week of it with the labels that were known then.",
)
@json_option
@click.pass_obj
def estimate(
    project: Project, pipeline: str, newest: int | None, backfill: bool, as_json: bool, selected: Selection
) -> None:
    """Estimate the performance of PIPELINE's champion without labels, and show how earlier estimates have held.

    Partitions that have no estimate yet are estimated first.
    """
    from pip_dagster.flow.engine import available_threads
    from pip_dagster.monitoring.estimates import estimate_findings, read_estimates
    from pip_dagster.monitoring.estimating import applies, estimate_stored, refit
    from pip_dagster.registry.choose import registry_of
    from pip_dagster.warehouse.connect import workspace

    if selected and (newest or backfill):
        raise click.UsageError("Name partitions, or use --last or --backfill; not both.")
    declared = find_pipeline(project, pipeline)
    if not applies(declared):
        raise DeclarationError(
            f"Pipeline {pipeline} has no estimates: they need `labels`, and `monitoring` without `estimates: false` in "
            "its defs.yaml; docs/estimates.md has an example."
        )
    scoring = declared.spec.scoring
    version = registry_of(project, scoring).get(scoring.model_name, scoring.alias)
    last = None if selected else newest or 1
    with workspace(threads=available_threads()) as con:
        keys = _named(con, declared, selected) if selected else None
        lacking = refit(con, declared, version)
        which = None if backfill else keys if last is None else last
        found = estimate_stored(con, declared, version, which, progress=progress)
        shown = [
            each
            for each in read_estimates(con, declared, version, last=last)
            if keys is None or each.partition_key in keys
        ]
        findings = estimate_findings(con, declared, version)
    if as_json:
        show_json({"estimates": [_record(each) for each in shown], "findings": [asdict(each) for each in findings]})
        return
    if backfill:
        progress(f"{pipeline}: {plural(found.done, 'partition')} estimated.")
    _show(pipeline, f"v{version.version}", shown, findings)
    _report(found, lacking)


def _named(con: DuckDBPyConnection, declared: Pipeline, selected: Selection) -> list[str]:
    """The live partitions that are named.

    Raises:
        DeclarationError: there are none, or a bound is no key.
    """
    from pip_dagster.warehouse.access import reading

    name = declared.spec.name
    with reading(con, declared.project, purpose=f"{name}: reading the ledger"):
        named = " OR ".join(each.sql() for each in selected.between(name, declared.spec.partitions, {}))
        rows = con.execute(
            f"SELECT DISTINCT partition_key FROM ledger.partitions WHERE pipeline = {literal(name)} AND is_live "
            f"AND ({named})"
        ).fetchall()
    if not rows:
        raise DeclarationError(
            f"Pipeline {name}: no partition of this range is live; `pip-dagster status {name}` lists those."
        )
    return [key for (key,) in rows]


def _record(each: ShownEstimate) -> dict[str, Any]:
    """Without the figures of an estimate that is withdrawn."""
    hidden = dict.fromkeys(("value", "low", "high")) if each.withdrawn else {}
    return asdict(each) | hidden


def _show(pipeline: str, version: str, shown: Sequence[ShownEstimate], findings: Sequence[Finding]) -> None:
    from pip_dagster.monitoring.estimates import MEANING

    rows = []
    for each in shown:
        if not each.metric or each.withdrawn or each.low is None or each.high is None:
            rows.append([each.partition_key, each.metric, None, "", each.truth, each.text])
            continue
        band = f"{figure(each.low)} to {figure(each.high)}"
        held = f"{each.record.held} of {each.record.graded} held" if each.record.graded else "none graded yet"
        rows.append([each.partition_key, each.metric, each.value, band, each.truth, held])
    columns = [
        "partition",
        "metric",
        "estimate",
        Heading("95% band", whole=True),
        "measured",
        Heading("such estimates", below=True),
    ]
    show_table(f"{pipeline} {version}: {MEANING}", columns, rows)
    for finding in findings:
        if finding.state in ("alarm", "warning"):
            echo(f"{'In alarm' if finding.state == 'alarm' else 'Warning'}: {finding.cause}.")


def _report(found: Estimating, lacking: str | None) -> None:
    for partition, reason in [*found.reasons.items()][-3:]:
        echo(f"Partition {partition} has no estimate: {reason}.")
    if lacking:
        echo(f"No calibrator was fitted now: {lacking}.")
