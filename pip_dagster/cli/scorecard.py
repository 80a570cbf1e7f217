"""`pip-dagster scorecard`: the ML Test Score of a pipeline."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pip_dagster.cli.group import Choice
from pip_dagster.cli.options import Instant, json_option, why_option
from pip_dagster.cli.output import echo, near, progress, show_bytes, show_json, show_table
from pip_dagster.cli.table import Heading
from pip_dagster.declaration.find import find_pipeline
from pip_dagster.declaration.project import Project

if TYPE_CHECKING:
    from pip_dagster.declaration.pipeline import Pipeline
    from pip_dagster.scorecard.score import Scorecard, ScoreLine

_STDOUT = Path("-")


# As scorecard/catalogue.py has them, which takes long to import; a test compares both.
NAMES = (
    *("schema", "useful", "cost", "meta_level", "privacy", "time_to_add", "feature_code"),
    *("reviewed", "offline_online", "tuned", "staleness", "simpler", "slices", "inclusion"),
    *("reproducible", "unit_tested", "integration", "validated", "debuggable", "canary", "rollback"),
    *("dependencies", "invariants", "skew", "not_stale", "stable", "speed", "quality"),
)


@click.command()
@click.argument("pipeline")
@click.option("--state", "test", type=Choice(NAMES), metavar="TEST", help="Record a signed statement about this test.")
@why_option
@click.option("--until", type=Instant(), help="Until when the statement holds; by default, and at most, 366 days.")
@click.option(
    "--key",
    "key_file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The private key that signs it; by default that of the anchors.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False, allow_dash=True),
    help="The file: `.html` is a page, every other name Markdown.",
)
@json_option
@click.pass_obj
def scorecard(
    project: Project,
    pipeline: str,
    test: str | None,
    why: str,
    until: datetime | None,
    key_file: Path | None,
    output: Path | None,
    as_json: bool,
) -> None:
    """Compute the ML Test Score of PIPELINE: 28 tests, from evidence in ledger, registry and declaration.

    A point needs evidence that is there and not too old. With --state and --why, a person states what no evidence can
    prove: half a point, signed, in the audit. The score is the smallest of the four sections.
    """
    declared = find_pipeline(project, pipeline)
    if test:
        if not why.strip():
            raise click.UsageError("State what is the case with --why; it is signed and recorded in the audit.")
        if output:
            raise click.UsageError("--state and -o cannot be combined: record first, then write the scorecard.")
        _state(declared, test, why.strip(), until, key_file, as_json)
        return
    if until or key_file or why:
        raise click.UsageError("--why, --until and --key belong to a statement: name its test with --state.")
    from pip_dagster.reporting.files import write
    from pip_dagster.scorecard.page import to_html, to_markdown
    from pip_dagster.scorecard.score import scorecard as compute

    card = compute(declared)
    if output:
        text = to_html(card) if output.suffix.lower() in (".html", ".htm") else to_markdown(card)
        data = text.encode("utf-8", "backslashreplace")
        if output == _STDOUT:
            show_bytes(data)
            return
        echo(f"{near(write(output, data))}: {len(data):,} bytes", err=as_json)
    if as_json:
        show_json(asdict(card))
    elif not output:
        _show(card)


def _state(
    declared: Pipeline, test: str, why: str, until: datetime | None, key_file: Path | None, as_json: bool
) -> None:
    from pip_dagster.evidence.anchor import anchor_after
    from pip_dagster.scorecard.catalogue import named
    from pip_dagster.scorecard.statements import record

    entry = record(declared, named(test), why, until, key_file)
    if as_json:
        show_json({"pipeline": declared.spec.name, "test": test, "entry": entry})
    else:
        echo(f"{declared.spec.name}: the statement of {test} is entry {entry} of the audit.")
    anchor_after(declared.project, progress)


def _show(card: Scorecard) -> None:
    echo(f"{card.pipeline}: ML Test Score {card.score:.1f}, {card.meaning}. Model: {card.model or 'none'}.")
    if card.chain_fault:
        echo(f"The audit does not verify: {card.chain_fault}. `pip-dagster audit verify` lists what is at fault.")
    for section, points in card.sections.items():
        show_table(
            f"\n{section}: {points:.1f} of 7",
            ["test", "points", Heading("until", optional=True), Heading("why", below=True)],
            (
                [line.name, f"{line.points:.1f}", line.expires and line.expires.date(), _why(line)]
                for line in card.of(section)
            ),
        )
    for fault in card.faults:
        echo(fault, err=True)


def _why(line: ScoreLine) -> str:
    if not line.evidence:
        return line.missing
    return "; ".join(f"{each.text} ({each.kind} {each.id}, {each.at:%Y-%m-%d})" for each in line.evidence)
