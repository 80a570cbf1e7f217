"""Links from assets and checks to the documentation, as metadata."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg

import pip_dagster

if TYPE_CHECKING:
    from pip_dagster.declaration.pipeline import Pipeline

_PAGES = Path(pip_dagster.__file__).parents[1] / "docs"


def docs(pipeline: Pipeline, page: str) -> dict[str, dg.MetadataValue]:
    """A page of the documentation: below the project's `docs_url`, else the file in a clone; nothing without either."""
    if url := pipeline.project.docs_url:
        pattern = url if "{page}" in url else f"{url.rstrip('/')}/{{page}}/"
        return {"docs": dg.MetadataValue.url(pattern.replace("{page}", page))}
    file = _PAGES / f"{page}.md"
    return {"docs": dg.MetadataValue.path(str(file))} if file.is_file() else {}


def report_link(pipeline: Pipeline) -> dict[str, dg.MetadataValue]:
    """The pipeline's report, where there is one. A path: browsers do not follow links to files."""
    page = pipeline.project.reports / pipeline.spec.name / "report.html"
    return {"report": dg.MetadataValue.path(str(page))} if page.is_file() else {}


def file_link(pipeline: Pipeline, label: str, name: str) -> dict[str, dg.MetadataValue]:
    """One of the pipeline's own files."""
    return {label: dg.MetadataValue.path(str(pipeline.folder / name))} if pipeline.folder else {}
