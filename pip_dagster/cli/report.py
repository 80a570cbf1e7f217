"""`pip-dagster report`: how a pipeline is doing, as a page and as JSON."""

from __future__ import annotations

import hashlib
from pathlib import Path

import click

from pip_dagster.cli.output import echo
from pip_dagster.declaration.find import find_pipeline
from pip_dagster.declaration.project import Project


@click.command()
@click.argument("pipeline")
@click.option("--from", "first", metavar="KEY", help="The first partition; by default the newest 90.")
@click.option("--to", "last", metavar="KEY", help="The last partition; by default the newest.")
@click.option("-o", "--output", type=click.Path(path_type=Path, dir_okay=False), help="The HTML file.")
@click.option("--json", "json_file", type=click.Path(path_type=Path, dir_okay=False), help="The same content as JSON.")
@click.pass_obj
def report(
    project: Project, pipeline: str, first: str | None, last: str | None, output: Path | None, json_file: Path | None
) -> None:
    """Write the report of PIPELINE: one self-contained HTML file, for people on call, the business and auditors."""
    from pip_dagster.reporting.collect import collect
    from pip_dagster.reporting.page import to_html, to_json

    content = collect(find_pipeline(project, pipeline), first=first, last=last)
    for path, text in ((output, to_html), (json_file, to_json)):
        if path:
            data = text(content).encode()
            path.write_bytes(data)
            echo(f"{path}: {len(data):,} bytes, sha256 {hashlib.sha256(data).hexdigest()}")
