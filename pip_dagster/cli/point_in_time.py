"""`pip-dagster prove-point-in-time`: check that a partition's features do not depend on later rows."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import click

from pip_dagster.cli.options import json_option, show_keys_option
from pip_dagster.cli.output import echo, show_json, show_table
from pip_dagster.cli.selection import Selection, partition_selection
from pip_dagster.cli.table import Heading
from pip_dagster.declaration.find import find_pipeline
from pip_dagster.declaration.project import Project
from pip_dagster.errors import DeclarationError
from pip_dagster.plural import plural
from pip_dagster.registry.store import whoami
from pip_dagster.text_file import read_text


@click.command("prove-point-in-time")
@click.argument("pipeline")
@partition_selection("whose features are built twice", bounds=False)
@click.option(
    "--sql",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="Feature SQL to try instead of the declared one.",
)
@click.option("--most-cutoffs", default=100, show_default=True, type=click.IntRange(min=1), help="How many to try.")
@click.option("--record", "recorded", is_flag=True, help="Record in the audit what it found; the scorecard counts it.")
@show_keys_option
@json_option
@click.pass_obj
def prove_point_in_time(
    project: Project,
    pipeline: str,
    sql: Path | None,
    most_cutoffs: int,
    recorded: bool,
    show_keys: bool,
    as_json: bool,
    selected: Selection,
) -> None:
    """Build PARTITION's features from all rows and from the rows known at each cut-off; list the features that differ.

    Exit code 0: nothing differs. 1: a feature does.
    """
    import dagster as dg

    from pip_dagster.flow.point_in_time import prove
    from pip_dagster.ledger.exercise import Exercise, record_exercise
    from pip_dagster.orchestration.partitions import partitions_definition, partitions_of

    partition = selected.one
    if partition is None:
        raise click.UsageError("Name the PARTITION whose features are built twice.")
    if recorded and sql:
        raise click.UsageError("--record is for the declared SQL; leave out --sql.")
    declared = find_pipeline(project, pipeline)
    definition = partitions_definition(declared.spec.partitions)
    try:
        (window,) = partitions_of(definition, [partition])
    except (ValueError, dg.DagsterInvariantViolationError) as error:
        example = definition.get_first_partition_key()
        raise click.ClickException(
            f"{pipeline} has no partition {partition!r}; expected a key such as {example!r}."
        ) from error
    proof = prove(declared, window, sql=read_text(sql, DeclarationError) if sql else None, most_cutoffs=most_cutoffs)
    if recorded:
        leaks = ", ".join(leak.feature for leak in proof.leaks)
        counted = f"{plural(proof.rows, 'row')}, {proof.cutoffs_tried} of {proof.cutoffs} cut-offs"
        found = f"{counted}; differing: {leaks}" if leaks else counted
        passed = not proof.leaks and proof.rows > 0
        done = Exercise("point in time", partition, passed, found, declared.sql_digest)
        record_exercise(project, pipeline, done, by=whoami())
    if declared.spec.privacy and not show_keys:
        proof = replace(proof, leaks=tuple(replace(leak, examples=()) for leak in proof.leaks))
    if as_json:
        show_json(asdict(proof))
    else:
        echo(
            f"{pipeline}, partition {partition}: {plural(proof.rows, 'row')}, "
            f"{proof.cutoffs_tried} of {proof.cutoffs} cut-offs. "
            f"Hidden until available: {', '.join(proof.limited_sources)}. "
            f"Assumed always known: {', '.join(proof.unlimited_sources) or 'none'}."
        )
        if proof.leaks:
            _show_leaks(proof.leaks)
        else:
            echo("No feature differs: none depends on later rows.")
    sys.exit(1 if proof.leaks else 0)


def _show_leaks(leaks: Sequence[Any]) -> None:
    rows = [
        [
            leak.feature,
            leak.rows,
            "; ".join(", ".join(f"{k} = {v}" for k, v in example.items()) for example in leak.examples[:1]),
        ]
        for leak in leaks
    ]
    columns = ["feature", "rows that differ", Heading("example", below=True)]
    if not any(leak.examples for leak in leaks):
        columns, rows = columns[:2], [row[:2] for row in rows]
    show_table("Features that depend on later rows", columns, rows)
