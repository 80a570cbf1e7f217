"""Links that hold on GitHub and on the site: a file to which a page links becomes a page of the site."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

LINK = re.compile(r"(\]\()(?!#|\w+:)([^)#\s]+)")
FENCE = re.compile(r"^( *)(`{3,}).*?^\1\2 *$", re.MULTILINE | re.DOTALL)
HOME = "README.md"
UNSEARCHED = "---\nsearch: { exclude: true }\n---\n"  # what a search finds is the documentation
LANGUAGES = {".py": "python", ".sql": "sql", ".yaml": "yaml", ".yml": "yaml", ".json": "json", ".toml": "toml"}
LEFT_OUT = {"__pycache__", "data"}  # what running an example leaves in its folder


def page_of(path: str) -> str:
    """The page of the site for a file or folder of the repository."""
    if path == HOME:
        return "index.md"
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    return f"files/{path}" if path.endswith(".md") else f"files/{path}.md"


def file_of(root: Path, uri: str) -> str:
    """The file or folder of the repository that a page of the site shows."""
    if uri == "index.md":
        return HOME
    if not uri.startswith("files/"):
        return f"docs/{uri}"
    path = uri.removeprefix("files/")
    return path if (root / path).exists() else path.removesuffix(".md")


def targets(root: Path, uri: str, markdown: str) -> Iterator[str]:
    """The files and folders of the repository that a page links to."""
    folder = Path(file_of(root, uri)).parent
    for found in LINK.finditer(FENCE.sub("", markdown)):
        yield Path(os.path.normpath(folder / found[2])).as_posix()


def for_site(root: Path, uri: str, markdown: str) -> str:
    """The page with its links as the site needs them."""
    if uri.startswith("reference/"):
        return markdown
    folder, here = Path(file_of(root, uri)).parent, Path(uri).parent

    def replaced(found: re.Match[str]) -> str:
        path = Path(os.path.normpath(folder / found[2])).as_posix()
        if path.startswith("docs/") and not uri.startswith("files/") and uri != "index.md":
            return found[0]  # a page of docs/ links to another: mkdocs checks it
        if not (root / path).exists():
            return found[0]  # mkdocs reports it
        return found[1] + Path(os.path.relpath(page_of(path), here)).as_posix()

    parts, end = [], 0
    for fence in FENCE.finditer(markdown):
        parts += [LINK.sub(replaced, markdown[end : fence.start()]), fence[0]]
        end = fence.end()
    return "".join([*parts, LINK.sub(replaced, markdown[end:])])


def linked_files(root: Path, pages: Iterable[str]) -> dict[str, str]:
    """A page for the README and for each file and folder outside docs/ that a page leads to, directly or not."""
    home = "---\nhide: [navigation]\n---\n" + (root / HOME).read_text(encoding="utf-8")
    found, read = {"index.md": home}, [("index.md", home)]
    own = [uri for uri in pages if (root / "docs" / uri).exists()]
    read += [(uri, (root / "docs" / uri).read_text(encoding="utf-8")) for uri in own]
    while read:
        uri, markdown = read.pop()
        for path in targets(root, uri, markdown):
            inside = not path.startswith(("..", "docs/")) and path != HOME
            if inside and page_of(path) not in found and (root / path).exists():
                found[page_of(path)] = _shown(root, path)
                if path.endswith(".md") or (root / path).is_dir():
                    read.append((page_of(path), found[page_of(path)]))
    return found


def _shown(root: Path, path: str) -> str:
    return UNSEARCHED + _content(root / path, path)


def _content(file: Path, path: str) -> str:
    if file.is_dir():
        files = sorted(each.relative_to(file).as_posix() for each in file.rglob("*") if _is_shown(file, each))
        # As a page beside its folder: a link begins with the folder's name.
        return f"# {path}\n\n" + "".join(f"- [{each}]({file.name}/{each})\n" for each in files)
    text = file.read_text(encoding="utf-8")
    return text if path.endswith(".md") else f"# {path}\n\n```{LANGUAGES.get(file.suffix, '')}\n{text.rstrip()}\n```\n"


def _is_shown(folder: Path, file: Path) -> bool:
    parts = file.relative_to(folder).parts
    return file.is_file() and not LEFT_OUT & {*parts} and not any(each.startswith(".") for each in parts)
