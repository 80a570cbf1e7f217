"""Hooks of mkdocs: the pages that do not lie in docs/, and links that hold on GitHub and on the site."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))  # mkdocs loads this file by its path

from tools.docsite import commands, links, python_api, settings, tables  # noqa: E402 - after the path

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

GENERATED = {
    "reference/commands.md": commands.page,
    "reference/settings.md": settings.page,
    "reference/tables.md": tables.page,
    "reference/python.md": python_api.page,
}


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Have mkdocstrings find the package of this folder."""
    config.plugins["mkdocstrings"].config.handlers.setdefault("python", {})["paths"] = [str(ROOT)]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated reference, and every file outside docs/ that a page leads to."""
    from mkdocs.structure.files import File

    for uri, page in GENERATED.items():
        files.append(File.generated(config, uri, content=page()))
    for uri, content in links.linked_files(ROOT, [page.src_uri for page in files.documentation_pages()]).items():
        files.append(File.generated(config, uri, content=content))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn links into the repository into links within the site."""
    return links.for_site(ROOT, page.file.src_uri, markdown)
