"""The files of a declaration: defs.yaml as Dagster reads it, and the files beside it that it names."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from pip_dagster.errors import DeclarationError
from pip_dagster.quality.yaml_words import misread_number
from pip_dagster.text_file import read_text

COMPONENT = ".InferencePipeline"
_TIMESTAMP, _MERGE = "tag:yaml.org,2002:timestamp", "tag:yaml.org,2002:merge"
_TEMPLATE = re.compile(r"\{\{\s*env\b")


class _Loader(yaml.SafeLoader):
    """Reads as Dagster does: a date stays a text."""

    yaml_implicit_resolvers = {  # noqa: RUF012
        first: [each for each in resolvers if each[0] != _TIMESTAMP]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


def read_pipelines(file: Path) -> list[dict[str, Any]]:
    """The attributes of each inference pipeline that a defs.yaml declares, one a document.

    Raises:
        DeclarationError: as `read_yaml`; it is empty, or a pipeline's attributes are not a mapping.
    """
    return copy.deepcopy(_pipelines(file, read_text(file, DeclarationError)))


@lru_cache(maxsize=512)
def _pipelines(file: Path, text: str) -> list[dict[str, Any]]:
    """Parsed once a content: a project of N pipelines reads the files of all of them N times, to find each by name."""
    documents = _parsed(file, text, _is_pipeline)
    if not documents:
        raise DeclarationError(f"{file} is empty, which Dagster refuses. Declare a pipeline in it, or remove it.")
    found = [document.get("attributes") or {} for document in documents if isinstance(document, dict)]
    if not all(isinstance(each, dict) for each in found):
        raise DeclarationError(f"{file}: `attributes` must be a mapping of keys to values.")
    return found


def read_yaml(file: Path, wanted: Callable[[yaml.Node], bool] = lambda root: True) -> list[Any]:
    """The documents of a file; None for those that are not wanted, which are not checked.

    Raises:
        DeclarationError: it is not YAML or not UTF-8, or it has a key twice or a value that YAML reads as something
            else than it looks like. Names the lines.
    """
    return _parsed(file, read_text(file, DeclarationError), wanted)


def _parsed(file: Path, text: str, wanted: Callable[[yaml.Node], bool]) -> list[Any]:
    found = list[Any]()
    try:
        loader = _Loader(text)
        while loader.check_node():
            root = loader.get_node()
            if root is None or not wanted(root):
                found.append(None)
                continue
            _check(file, loader, root, "the file", set())
            found.append(loader.construct_document(root))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f":{mark.line + 1}" if mark else ""
        hint = " Write a value with braces in quotes." if "unhashable" in str(error.problem) else ""
        raise DeclarationError(f"{file}{line} is not valid YAML: {error.problem or error.context}.{hint}") from error
    except RecursionError as error:
        raise DeclarationError(f"{file} is nested too deeply; a declaration needs fewer than ten levels.") from error
    except (yaml.YAMLError, ValueError) as error:  # a control character; a number of 5,000 digits
        raise DeclarationError(f"{file} is not valid YAML: {error}. Write texts in quotes.") from error
    return found


def line_of(file: Path, pipeline: str, place: Sequence[str | int]) -> int | None:
    """The line of the innermost part of `place` that a pipeline's attributes have; None without a pipeline's name.

    A part is a key, or of a list the position or the text of an item.
    """
    for root in yaml.compose_all(read_text(file, DeclarationError), _Loader):
        attributes = _child(root, "attributes")
        name = _child(attributes, "name")
        if attributes is None or not isinstance(name, yaml.ScalarNode) or name.value != pipeline:
            continue
        line, node = _line(attributes), attributes
        for part in place:
            found = _child(node, part)
            if found is None:
                break
            line, node = _line(found), found
        return line
    return None


def _child(node: yaml.Node | None, part: str | int) -> yaml.Node | None:
    if isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
        child: yaml.Node = node.value[part]
        return child
    if isinstance(node, yaml.SequenceNode):
        return next((each for each in node.value if each.value == part), None)
    pairs = node.value if isinstance(node, yaml.MappingNode) else []
    return next((value for key, value in pairs if key.value == part), None)


def read_beside(pipeline: str, folder: Path, key: str, name: str) -> tuple[Path, str]:
    """Path and content of the file that `key` names, in the folder of defs.yaml or below it.

    Raises:
        DeclarationError: it is not there, lies elsewhere, or is not UTF-8.
    """
    file = folder / name
    beside = f"Pipeline {pipeline}: {key} names {name!r}, which is"
    try:
        is_inside, is_file = file.resolve().is_relative_to(folder.resolve()), file.is_file()
    except (OSError, RuntimeError, ValueError) as error:  # a circle of links, a name that is too long or has a NUL
        raise DeclarationError(f"{beside} no file: {error}.") from error
    if not is_inside:
        raise DeclarationError(
            f"{beside} outside the pipeline's folder {folder}. Put the file beside defs.yaml; pipelines that share a "
            "file can be documents of one defs.yaml, with `---` between them."
        )
    if not is_file:
        kind = file.suffix or ".sql"
        there = ", ".join(sorted(path.name for path in folder.glob(f"*{kind}"))) or f"no {kind} file"
        raise DeclarationError(f"{beside} not beside {folder / 'defs.yaml'}; there is {there}.")
    return file, read_text(file, DeclarationError)


def _is_pipeline(root: yaml.Node) -> bool:
    pairs = root.value if isinstance(root, yaml.MappingNode) else []
    types = [value.value for key, value in pairs if key.value == "type" and isinstance(value, yaml.ScalarNode)]
    return any(str(each).endswith(COMPONENT) for each in types)


def _check(file: Path, loader: yaml.SafeLoader, node: yaml.Node, where: str, seen: set[int]) -> None:
    """Refuse what YAML would take silently; an anchor's node is checked once."""
    if id(node) in seen:
        return
    seen.add(id(node))
    if isinstance(node, yaml.ScalarNode):
        if misread := _misread(node):
            raise DeclarationError(f"{file}:{_line(node)}: {where}: {misread}")
    elif isinstance(node, yaml.SequenceNode):
        for each in node.value:
            _check(file, loader, each, where, seen)
    else:
        lines: dict[Any, int] = {}
        for name, key, value in _entries(loader, node):
            if name in lines:
                raise DeclarationError(
                    f"{file}: key {key.value!r} of {where} is on line {lines[name]} and again on line {_line(key)}; "
                    "YAML would take the last one silently. Remove one of them."
                )
            lines[name] = _line(key)
            _check(file, loader, value, f"`{key.value}`", seen)


def _entries(loader: yaml.SafeLoader, node: yaml.Node) -> Iterator[tuple[Any, yaml.Node, yaml.Node]]:
    for key, value in node.value:
        if isinstance(key, yaml.ScalarNode) and key.tag != _MERGE:  # `<<` merges; other nodes are no keys to YAML
            yield loader.construct_object(key), key, value


def _misread(node: yaml.ScalarNode) -> str:
    if _TEMPLATE.search(node.value):
        return "templates are not evaluated in a pipeline's declaration. Write the value itself."
    return misread_number(node)


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1
