"""A pipeline as OpenLineage sees it: its jobs, its datasets, and what is declared of them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from pip_dagster.declaration.pipeline import Pipeline
from pip_dagster.declaration.project import Project
from pip_dagster.errors import RegistryError
from pip_dagster.ledger.column_lineage import row_columns
from pip_dagster.ledger.record import ScoringEntry
from pip_dagster.openlineage import naming
from pip_dagster.openlineage.facets import SOURCE, Facets, facet, input_field, tags
from pip_dagster.openlineage.naming import Dataset
from pip_dagster.quality.suite import Expectation
from pip_dagster.registry.manifest import Manifest
from pip_dagster.registry.store import Registry
from pip_dagster.sql.column_sources import Uses, column_sources
from pip_dagster.sql.tables import folded

# Beyond so many input columns, an event has no column lineage: it would be megabytes, for each partition.
MOST_INPUT_FIELDS = 5_000
# Columns of the predictions beside those of the scored rows.
_ADDED = {
    "model_name": "VARCHAR",
    "model_version": "BIGINT",
    "feature_revision": "VARCHAR",
    "scored_at": "TIMESTAMP WITH TIME ZONE",
    "provisional": "BOOLEAN",
    "arm": "VARCHAR",
}
# Columns of a feature snapshot that the feature SQL does not select.
_OF_SNAPSHOT = ("partition_key", "revision")

Json = dict[str, Any]


@dataclass(frozen=True)
class Subject:
    """What the events of one pipeline have in common.

    Attributes:
        project: where it is.
        pipeline: its name.
        declared: its declaration now; None where there is none any more.
        types: table → columns and SQL types, filled by who reads the ledger.
    """

    project: Project
    pipeline: str
    declared: Pipeline | None
    types: dict[str, dict[str, str]] = field(default_factory=dict)
    _described: dict[tuple[str | None, ...], Facets] = field(default_factory=dict)
    _manifests: dict[tuple[str, int, str | None], Manifest | None] = field(default_factory=dict)

    @cached_property
    def namespace(self) -> str:
        """The namespace of the jobs."""
        return namespace_of(self.project)

    def job(self, step: str | None = None, **facets: Any) -> Json:
        """The job of a step of the pipeline; of none, the pipeline itself."""
        name = f"{self.pipeline}.{step}" if step else self.pipeline
        return {"namespace": self.namespace, "name": name} | ({"facets": {**self._job, **facets}} if step else {})

    @cached_property
    def _job(self) -> Facets:
        found = facet("jobType", processingType="BATCH", integration=SOURCE, jobType="TASK")
        spec = self.declared.spec if self.declared else None
        if spec and spec.description:
            found |= facet("documentation", description=spec.description)
        if spec and spec.owners:
            found |= facet("ownership", owners=[{"name": name, "type": "OWNER"} for name in spec.owners])
        return found

    def sql(self, digest: str) -> Facets:
        """The feature SQL, if the declaration is still the one with this digest."""
        if self.declared is None or self.declared.sql_digest != digest:
            return {}
        return facet("sql", query=self.declared.sql, dialect="duckdb")

    def source(self, name: str) -> Dataset:
        """The dataset that a source is; one that is not declared any more is named within the pipeline."""
        return self._sources.get(name) or Dataset(self.namespace, f"{self.pipeline}.sources.{name}")

    @cached_property
    def _sources(self) -> dict[str, Dataset]:
        spec = self.declared.spec if self.declared else None
        found = {name: naming.of_source(spec, name, self.project.root) for name in spec.sources} if spec else {}
        return {name: each for name, each in found.items() if each}

    def own(self, table: str) -> Dataset:
        """A table of the pipeline in the warehouse."""
        return naming.of_warehouse(self.project, self.pipeline, table)

    def published(self, table: str) -> Facets:
        """The other name of a published table: in the database that readers query."""
        found = naming.of_published(self.project, self.pipeline, table)
        if found is None:
            return {}
        return facet("symlinks", identifiers=[{"namespace": found.namespace, "name": found.name, "type": "TABLE"}])

    def features_facets(self, table: str | None, sql_digest: str) -> Facets:
        """Schema and column lineage of a feature snapshot that is stored in this table, by the SQL of this digest."""
        if table is None or table not in self.types:
            return {}
        key = (table, sql_digest)
        if key not in self._described:
            types = self.types[table]
            self._described[key] = self._schema(types) | self._of_sources(types, sql_digest)
        return self._described[key]

    def _of_sources(self, names: Iterable[str], sql_digest: str) -> Facets:
        """From which columns of the sources each feature comes, as far as the declared SQL tells."""
        if self.declared is None or self.declared.sql_digest != sql_digest:
            return {}
        query, spec = column_sources(self.declared.sql), self.declared.spec
        if query is None:
            return {}
        tables = {folded(source.table): self.source(name) for name, source in spec.sources.items()}
        masked = spec.privacy.subject.lower() if spec.privacy and spec.privacy.pseudonymize else None

        def inputs(uses: Uses, *, masking: bool = False) -> list[Json]:
            return [
                input_field(
                    tables[table].namespace,
                    tables[table].name,
                    column,
                    {"TRANSFORMATION" if masking and each == "IDENTITY" else each for each in how},
                    masking=masking,
                )
                for (table, column), how in sorted(uses.items())
            ]

        fields = {
            name: {"inputFields": inputs(uses, masking=name.lower() == masked)}
            for name in names
            if name not in _OF_SNAPSHOT and (uses := query.of(name)) and {table for table, _ in uses} <= tables.keys()
        }
        effects = query.effects or {}
        if not fields or sum(len(each["inputFields"]) for each in fields.values()) > MOST_INPUT_FIELDS:
            return {}
        known = {table for table, _ in effects} <= tables.keys()
        return facet("columnLineage", fields=fields, **({"dataset": inputs(effects)} if effects and known else {}))

    def predictions_facets(self, entry: ScoringEntry) -> Facets:
        """Schema, column lineage and other name of a scoring's rows; computed once for partitions that share them."""
        key = (entry.table_name, entry.manifest_digest, entry.declared_row)
        if key not in self._described:
            self._described[key] = self.published("predictions") | self._described_row(entry)
        return self._described[key]

    def _described_row(self, entry: ScoringEntry) -> Facets:
        types = self.types.get(entry.table_name or "")
        if types is None:
            return {}
        found = self._schema(types | _ADDED)
        manifest = self.manifest(entry)
        if manifest is None:
            return found
        row = row_columns([name for name in types if name != "scoring_id"], manifest, _decisions(entry), self._unit)
        reads = {name: row.of_features(name) for name in row.reads}
        if sum(map(len, reads.values())) > MOST_INPUT_FIELDS:
            return found
        of = self.own("features")

        def how(name: str) -> tuple[str]:
            return ("TRANSFORMATION" if name in row.computed else "IDENTITY",)

        return found | facet(
            "columnLineage",
            fields={
                name: {"inputFields": [input_field(of.namespace, of.name, each, how(name)) for each in columns]}
                for name, columns in reads.items()
                if columns
            },
        )

    @property
    def _unit(self) -> tuple[str, ...]:
        return self.declared.spec.unit if self.declared else ()

    def _schema(self, types: Mapping[str, str]) -> Facets:
        about = self.declared.spec.columns if self.declared else {}
        fields = [
            {"name": name, "type": kind, "ordinal_position": place}
            | ({"description": about[name]} if name in about else {})
            for place, (name, kind) in enumerate(types.items(), start=1)
        ]
        return facet("schema", fields=fields)

    def manifest(self, entry: ScoringEntry) -> Manifest | None:
        """The manifest of the version that scored, if the registry still has it unchanged."""
        key = (entry.model_name, entry.model_version or 0, entry.manifest_digest)
        if key not in self._manifests:
            self._manifests[key] = None
            try:
                version = Registry(self.project.registry).get(entry.model_name, entry.model_version or 0)
                self._manifests[key] = version.manifest if version.manifest_digest == entry.manifest_digest else None
            except RegistryError:
                pass
        return self._manifests[key]

    def models(self, entries: list[ScoringEntry]) -> list[Json]:
        """The models that these scorings are by, and their members, as inputs: one dataset for each name."""
        found: dict[str, dict[str, Facets]] = {}
        for entry in entries:
            if entry.model_version is None:
                continue
            tagged = {"version": entry.model_version, "manifest_digest": entry.manifest_digest}
            digest = entry.model_digest or ""
            found.setdefault(entry.model_name, {})[digest] = tags("dataset", tagged)
            manifest = self.manifest(entry)
            for member in manifest.composite.members if manifest and manifest.composite else ():
                tagged = {"version": member.version, "manifest_digest": member.manifest_digest}
                digest = manifest.files.get(member.file, member.manifest_digest) if manifest else ""
                found.setdefault(member.model_name, {})[digest] = tags(
                    "dataset", tagged | {"member_of": entry.model_name}
                )
        inputs = []
        for name, versions in found.items():
            facets = facet("version", datasetVersion=" + ".join(versions))
            if len(versions) == 1:
                facets |= next(iter(versions.values()))
            inputs.append(dataset(naming.of_model(name, self.namespace), facets))
        return inputs

    def expectation(self, section: str, name: str) -> Expectation | None:
        """The declared expectation of this id."""
        if self.declared is None:
            return None
        suites = self.declared.suites
        of_sources = suites.sources.get(section.removeprefix("sources."), ())
        among = {"features": suites.features, "predictions": suites.predictions}.get(section, of_sources)
        return next((each for each in among if each.id == name), None)


def namespace_of(project: Project) -> str:
    """The namespace of a project's jobs: the setting, or else the name of its code location or folder."""
    return project.openlineage_namespace or project.location_name or project.root.name or "pip_dagster"


def dataset(of: Dataset, facets: Facets | None = None, **more: Facets) -> Json:
    """A dataset of an event. `more`: `inputFacets` or `outputFacets`."""
    found: Json = {"namespace": of.namespace, "name": of.name, "facets": facets or {}}
    return found | {key: value for key, value in more.items() if value}


def _decisions(entry: ScoringEntry) -> dict[str, str]:
    """The decisions as they were declared when it scored; none of an entry that is older than that record."""
    recorded = json.loads(entry.declared_row) if entry.declared_row else {}
    return dict(recorded.get("decisions", ()))
