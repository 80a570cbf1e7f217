"""`pip-dagster models card`: the model card of the version that is live."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from pip_dagster.cli.options import json_option
from pip_dagster.cli.output import echo, near, show_bytes, show_json
from pip_dagster.cli.selection import Selection, partition_selection
from pip_dagster.declaration.find import find_pipeline
from pip_dagster.declaration.project import Project

_STDOUT = Path("-")
# What of a report is on the card.
_PARTS = (
    *("pipeline", "description", "owners", "origin", "period", "verdict", "card", "versions", "performance", "columns"),
    *("gates", "moves", "accepted", "calibration", "limits", "retention", "unavailable"),
)


@click.command()
@click.argument("pipeline")
@partition_selection("that its figures are of; by default the newest 90")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False, allow_dash=True),
    default=_STDOUT,
    help="The file: `.html` is a page, every other name Markdown; by default Markdown on standard output.",
)
@json_option
@click.pass_obj
def card(project: Project, pipeline: str, output: Path, as_json: bool, selected: Selection) -> None:
    """Write the model card of PIPELINE's live version: what it is, who approved it, how it does, what its limits are.

    Everything in it comes from the manifest, the gates, the ledger and the audit, and the same ledger gives the same
    bytes.
    """
    from pip_dagster.reporting.collect import collect
    from pip_dagster.reporting.files import write
    from pip_dagster.reporting.page import card_to_html, card_to_markdown

    first, last = selected.bounds
    report = collect(find_pipeline(project, pipeline), first=first, last=last)
    if as_json:
        found = asdict(report)
        show_json({part: found[part] for part in _PARTS})
        return
    text = card_to_html(report) if output.suffix.lower() in (".html", ".htm") else card_to_markdown(report)
    data = text.encode("utf-8", "backslashreplace")
    if output == _STDOUT:
        show_bytes(data)
    else:
        echo(f"{near(write(output, data))}: {len(data):,} bytes")
