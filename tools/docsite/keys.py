"""The tables of keys in docs/*.md, from the schema of a declaration: type, default, what the description says.

    python tools/docsite/keys.py

writes each table between `<!-- keys: Source -->` and `<!-- /keys -->`; tests/docs/test_site.py fails if one
is stale.
`<!-- keys: SourcesSensor beyond Sensor -->` lists only what differs from the base.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from datetime import time, timedelta
from functools import cache, partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tools.docsite.markdown import cell, table  # noqa: E402 - after the path

MARKED = re.compile(r"<!-- keys: (\w+)(?: beyond (\w+))? -->\n(.*?)<!-- /keys -->", re.DOTALL)
HEADING = re.compile(r"^#{2,} (.+)$", re.MULTILINE)
WORDS = {
    "string": "text",
    "integer": "whole number",
    "number": "number",
    "boolean": "`true` or `false`",
    "null": "none",
}
FORMATS = {"date": "date", "date-time": "date and time", "duration": "duration"}
DURATION = [{"type": "string"}, {"const": 0, "type": "integer"}]

Places = Mapping[str, tuple[str, str]]  # model → document, anchor


def main() -> None:
    """Write the tables."""
    for document, text in current().items():
        if text != document.read_text(encoding="utf-8"):
            document.write_text(text, encoding="utf-8")
            print(f"{document.relative_to(ROOT)}: rewritten")


def current() -> dict[Path, str]:
    """The documents with tables of keys → their text with the tables as they should be."""
    texts = {each: each.read_text(encoding="utf-8") for each in sorted((ROOT / "docs").glob("*.md"))}
    texts = {document: text for document, text in texts.items() if MARKED.search(text)}
    places = _places(texts)
    return {
        document: MARKED.sub(partial(_marked, places=places, document=document.name), text)
        for document, text in texts.items()
    }


def documented() -> set[str]:
    """The models of which a document has a table."""
    return {mark[1] for document in current() for mark in MARKED.finditer(document.read_text(encoding="utf-8"))}


@cache
def schemas() -> dict[str, dict[str, Any]]:
    """Each model of a declaration by its name."""
    from pip_dagster.declaration.spec import PipelineSpec

    schema = PipelineSpec.model_json_schema(mode="validation")
    return {"PipelineSpec": schema, **schema["$defs"]}


def _places(texts: Mapping[Path, str]) -> dict[str, tuple[str, str]]:
    from pymdownx.slugs import slugify

    slug, found = slugify(case="lower"), {}
    for document, text in texts.items():
        for mark in MARKED.finditer(text):
            headings = HEADING.findall(text[: mark.start()])
            found.setdefault(mark[1], (document.name, slug(headings[-1], "-") if headings else ""))
    return found


def _marked(mark: re.Match[str], places: Places, document: str) -> str:
    head = mark[0].split("\n", 1)[0]
    rows = table(("key", "type", "default", "meaning"), _rows(mark[1], mark[2], places, document))
    return f"{head}\n{rows}<!-- /keys -->"


def _rows(model: str, base: str | None, places: Places, document: str) -> Iterator[tuple[str, str, str, str]]:
    schema = schemas()[model]
    known = schemas()[base]["properties"] if base else {}
    for key, field in schema["properties"].items():
        if field == known.get(key) or field.get("deprecated"):
            continue
        default = "required" if key in schema.get("required", []) else _default(model, key)
        yield f"`{key}`", _type(field, places, document), default, cell(field.get("description", ""))


def _type(field: Mapping[str, Any], places: Places, document: str) -> str:
    if ref := field.get("$ref"):
        name = ref.rsplit("/", 1)[1]
        page, anchor = places.get(name, ("", ""))
        target = ("" if page == document else page) + (f"#{anchor}" if anchor else "")
        return f"[block]({target})" if target else "block"
    if "enum" in field or "const" in field:
        words = field.get("enum", [field.get("const")])
        return " or ".join("`off`" if each is False else f"`{each}`" for each in words)
    if any_of := field.get("anyOf", field.get("oneOf")):
        if [each for each in any_of if each.get("type") != "null"] == DURATION:
            return "duration"
        kinds = [_type(each, places, document) for each in any_of if each.get("type") != "null"]
        return " or ".join(dict.fromkeys(kinds))
    if field.get("type") == "array":
        return f"list of {_type(field['items'], places, document)}" if "items" in field else "list"
    if field.get("type") == "object":
        return f"name → {_type(field['additionalProperties'], places, document)}"
    return FORMATS.get(field.get("format", ""), WORDS[field["type"]]) + _limits(field)


def _limits(field: Mapping[str, Any]) -> str:
    low, high = field.get("minimum"), field.get("maximum")
    above, below = field.get("exclusiveMinimum"), field.get("exclusiveMaximum")
    said = [f"above {above:g}" if above is not None else "", f"from {low:g}" if low is not None else ""]
    said += [f"to {high:g}" if high is not None else "", f"below {below:g}" if below is not None else ""]
    return f", {' '.join(filter(None, said))}" if any(said) else ""


def _default(model: str, key: str) -> str:
    from pydantic import BaseModel
    from pydantic_core import PydanticUndefined

    fields = {field.alias or name: field for name, field in _classes()[model].model_fields.items()}
    value = fields[key].get_default(call_default_factory=True)
    if value is None or value in ((), {}, PydanticUndefined):
        return "none"
    if isinstance(value, BaseModel):
        given = value.model_dump(exclude_unset=True)
        return f"`{{{', '.join(f'{name}: {each}' for name, each in given.items())}}}`" if given else "its defaults"
    if isinstance(value, timedelta):
        return _duration(value)
    if isinstance(value, time):
        return f'`"{value:%H:%M}"`'
    if isinstance(value, tuple):
        if {*value} == {*schemas()[model]["properties"][key].get("items", {}).get("enum", ())}:
            return "all"
        return cell(", ".join(f"`{each}`" for each in value))
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _duration(value: timedelta) -> str:
    for unit, length in (("week", 604_800), ("day", 86_400), ("hour", 3_600), ("minute", 60), ("second", 1)):
        count, rest = divmod(value.total_seconds(), length)
        if count and not rest:
            return f"{count:g} {unit}{'' if count == 1 else 's'}"
    return "0"


@cache
def _classes() -> dict[str, Any]:
    from pip_dagster.declaration import spec  # noqa: F401 - loads all of them
    from pip_dagster.declaration.strict import StrictModel

    found: dict[str, Any] = {}
    left = [StrictModel]
    while left:
        each = left.pop()
        found[each.__name__] = each
        left.extend(each.__subclasses__())
    return found


if __name__ == "__main__":
    main()
