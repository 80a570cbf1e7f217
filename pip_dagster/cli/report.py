"""`pip-dagster report`: how a pipeline is doing, as a page and as JSON."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from pip_dagster.cli.options import why_option
from pip_dagster.cli.output import echo, near, show_bytes
from pip_dagster.cli.selection import Selection, partition_selection
from pip_dagster.declaration.find import find_pipeline
from pip_dagster.declaration.project import Project
from pip_dagster.registry.store import whoami

if TYPE_CHECKING:
    from pip_dagster.reporting.compared import Comparison
    from pip_dagster.reporting.content import Report

_FILE = click.Path(path_type=Path, dir_okay=False, allow_dash=True)
_STDOUT = Path("-")


@click.command()
@click.argument("pipeline")
@partition_selection("of the report; by default the newest 90")
@click.option(
    "-o",
    "--output",
    type=_FILE,
    help="The HTML file, or - for standard output; by default data/reports/PIPELINE/report.html.",
)
@click.option("--json", "json_file", type=_FILE, help="Also a file with the same content as JSON.")
@click.option("--compare", nargs=2, metavar="A B", help="Two versions, such as v1 v2, or two arms, side by side.")
@click.option("--record", "recorded", is_flag=True, help="Record the file's sha256 in the audit.")
@why_option
@click.pass_obj
def report(
    project: Project,
    pipeline: str,
    output: Path | None,
    json_file: Path | None,
    compare: tuple[str, str] | None,
    recorded: bool,
    why: str,
    selected: Selection,
) -> None:
    """Write the report of PIPELINE: one self-contained HTML file, the same bytes from the same ledger.

    It reads the warehouse, or what is published where that is locked or not for this user.
    """
    from pip_dagster.reporting.collect import collect
    from pip_dagster.reporting.compare import compare as compare_sides
    from pip_dagster.reporting.files import digest, write
    from pip_dagster.reporting.page import comparison_to_html, to_html, to_json

    first, last = selected.bounds
    declared = find_pipeline(project, pipeline)
    content: Report | Comparison
    if compare:
        found = compare_sides(declared, *compare, first=first, last=last)
        page, content = comparison_to_html(found).encode(), found
        name, origin, period, sentence = "compare.html", found.origin, found.period, found.sentence
    else:
        content = collect(declared, first=first, last=last)
        page = to_html(content).encode()
        name, origin, period, sentence = "report.html", content.origin, content.period, _sentence(content)
    is_printed = _STDOUT in (output, json_file)
    echo(sentence, err=is_printed)
    data = to_json(content).encode() if json_file else b""  # which takes a tenth of the whole
    for path, text in ((output or project.reports / pipeline / name, page), (json_file, data)):
        if path == _STDOUT:
            show_bytes(text)
        elif path:
            echo(f"{near(write(path, text))}: {len(text):,} bytes, sha256 {digest(text)}", err=is_printed)
    if recorded:
        from pip_dagster.reporting.record import record

        between = (period.first or "", period.last or "")
        record(project, pipeline, origin, digest(page), between, by=whoami(), why=why)
        echo("The audit has the page's sha256.", err=is_printed)


def _sentence(content: Report) -> str:
    verdict = content.verdict
    action = f" Next: `{verdict.action}`." if verdict.action else ""
    return f"{content.pipeline}: {verdict.sentence}{action}"
