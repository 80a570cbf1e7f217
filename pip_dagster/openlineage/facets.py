"""OpenLineage's facets as dictionaries: each names the published schema that it follows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pip_dagster import __version__
from pip_dagster.sql.column_sources import DIRECT

SPEC = "https://openlineage.io/spec"
EVENT = f"{SPEC}/2-0-2/OpenLineage.json#/$defs/RunEvent"
PRODUCER = f"urn:pip-dagster:{__version__}"
SOURCE = "PIP_DAGSTER"

# The key of a facet in an event → its schema and the version of that.
_SCHEMAS = {
    "columnLineage": ("ColumnLineageDatasetFacet", "1-2-0"),
    "dataQualityAssertions": ("DataQualityAssertionsDatasetFacet", "1-1-0"),
    "documentation": ("DocumentationJobFacet", "1-1-0"),
    "errorMessage": ("ErrorMessageRunFacet", "1-0-1"),
    "inputStatistics": ("InputStatisticsInputDatasetFacet", "1-0-0"),
    "jobType": ("JobTypeJobFacet", "2-0-4"),
    "lifecycleStateChange": ("LifecycleStateChangeDatasetFacet", "1-0-1"),
    "nominalTime": ("NominalTimeRunFacet", "1-0-1"),
    "outputStatistics": ("OutputStatisticsOutputDatasetFacet", "1-0-2"),
    "ownership": ("OwnershipJobFacet", "1-0-1"),
    "parent": ("ParentRunFacet", "1-2-0"),
    "processing_engine": ("ProcessingEngineRunFacet", "1-1-1"),
    "schema": ("SchemaDatasetFacet", "1-2-0"),
    "sql": ("SQLJobFacet", "1-1-0"),
    "symlinks": ("SymlinksDatasetFacet", "1-0-1"),
    "test": ("TestRunFacet", "1-0-1"),
    "version": ("DatasetVersionDatasetFacet", "1-0-1"),
}
_TAGS = {"dataset": "TagsDatasetFacet", "run": "TagsRunFacet"}

Facets = dict[str, Any]


def facet(key: str, **content: Any) -> Facets:
    """A facet under its key."""
    schema, version = _SCHEMAS[key]
    return _under(key, schema, version, content)


def tags(of: str, values: Mapping[str, object]) -> Facets:
    """Tags of a run or dataset, without those that have no value."""
    listed = [
        {"key": key, "value": _text(value), "source": SOURCE} for key, value in values.items() if value is not None
    ]
    return _under("tags", _TAGS[of], "1-0-0", {"tags": listed}) if listed else {}


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _under(key: str, schema: str, version: str, content: Mapping[str, Any]) -> Facets:
    url = f"{SPEC}/facets/{version}/{schema}.json#/$defs/{schema}"
    return {key: {"_producer": PRODUCER, "_schemaURL": url, **content}}


def input_field(namespace: str, name: str, column: str, subtypes: Iterable[str], *, masking: bool = False) -> Facets:
    """A column that another one, or the rows of a dataset, depend on, and how."""
    transformations = [
        {
            "type": "DIRECT" if each in DIRECT else "INDIRECT",
            "subtype": each,
            "description": "",
            "masking": masking and each in DIRECT,
        }
        for each in sorted(subtypes)
    ]
    return {"namespace": namespace, "name": name, "field": column, "transformations": transformations}
