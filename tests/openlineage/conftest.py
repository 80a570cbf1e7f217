"""Events of a project, each of them validated with the published schemas."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from referencing import Registry, Resource

from pip_dagster.declaration.find import find_pipeline
from pip_dagster.openlineage.events import line
from pip_dagster.openlineage.export import export
from pip_dagster.openlineage.subject import Subject

SPEC = Path(__file__).parent / "spec"
Event = dict[str, Any]


class Schemas:
    """The published schemas. A facet must be one of them, at the version and in the place that it names."""

    def __init__(self) -> None:
        self.facets = {path.stem: json.loads(path.read_text()) for path in sorted((SPEC / "facets").iterdir())}
        event = json.loads((SPEC / "OpenLineage.json").read_text())
        documents = [event, *self.facets.values()]
        self._registry = Registry().with_resources([(each["$id"], Resource.from_contents(each)) for each in documents])
        self._event = self._validator({"$ref": event["$id"]})
        self._urls = {f"{each['$id']}#/$defs/{name}" for name, each in self.facets.items()}
        self._by_url: dict[str, Any] = {}

    def _validator(self, schema: Any) -> Any:
        return jsonschema.Draft202012Validator(
            schema, registry=self._registry, format_checker=jsonschema.FormatChecker()
        )

    def check(self, event: Event) -> None:
        self._event.validate(event)
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", event["eventTime"])
        for place, facets in self._facets(event):
            for key, facet in facets.items():
                url = facet["_schemaURL"]
                assert url in self._urls, f"{place} {key}: {url} is not published"
                assert url.endswith(f"{place}Facet"), f"{key} does not belong to {place}"
                if url not in self._by_url:
                    document = self.facets[url.rpartition("/")[2]]
                    assert list(document["properties"]) == [key]
                    self._by_url[url] = self._validator({"$ref": url})
                self._by_url[url].validate(facet)

    def _facets(self, event: Event) -> list[tuple[str, dict[str, Any]]]:
        found = [("Run", event["run"].get("facets", {})), ("Job", event["job"].get("facets", {}))]
        for kind in ("input", "output"):
            for dataset in event[f"{kind}s"]:
                found.append(("Dataset", dataset["facets"]))
                found.append(("Dataset", dataset.get(f"{kind}Facets", {})))
        return found


@pytest.fixture(scope="session")
def schemas() -> Schemas:
    return Schemas()


@pytest.fixture
def exported(schemas: Schemas) -> Callable[..., list[Event]]:
    """The events of a project's pipeline, in order, each valid and the same in a second export."""

    def of(tiny: Any, pipeline: str = "orders", ranges: Any = ()) -> list[Event]:
        exports = []
        for _ in range(2):
            lines: list[str] = []
            subject = Subject(tiny.project, pipeline, find_pipeline(tiny.project, pipeline))
            export(tiny.project, subject, ranges, lambda event, to=lines: to.append(line(event)))
            exports.append(lines)
        assert exports[0] == exports[1], "the same ledger gives the same bytes"
        events = [json.loads(each) for each in exports[0]]
        for event in events:
            schemas.check(event)
        starts, ends = events[::2], events[1::2]
        assert [e["eventType"] for e in starts] == ["START"] * len(starts)
        assert [e["run"]["runId"] for e in starts] == [e["run"]["runId"] for e in ends]
        assert len({e["run"]["runId"] for e in ends}) == len(ends), "one run an entry"
        assert all(start["eventTime"] <= end["eventTime"] for start, end in zip(starts, ends, strict=True))
        return ends

    return of


def tags(facets: dict[str, Any]) -> dict[str, str]:
    return {each["key"]: each["value"] for each in facets["tags"]["tags"]}


@pytest.fixture(scope="session")
def tags_of() -> Callable[[dict[str, Any]], dict[str, str]]:
    """Key → value of the tags among some facets."""
    return tags
