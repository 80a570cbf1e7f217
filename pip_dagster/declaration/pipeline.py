"""One declared pipeline with the files that belong to it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

from pip_dagster.declaration.automation import Alerts
from pip_dagster.declaration.canonical import canonical
from pip_dagster.declaration.digests import (
    EXPECTATIONS,
    SOURCES,
    UNIT,
    Declared,
    by_last_name,
    digest,
    digest_of_features,
    expected,
    of_sources,
    parts,
    stored_of,
)
from pip_dagster.declaration.files import read_beside
from pip_dagster.declaration.gates import Gates
from pip_dagster.declaration.labels import Labels
from pip_dagster.declaration.project import Project
from pip_dagster.declaration.spec import PipelineSpec, Source
from pip_dagster.errors import DeclarationError
from pip_dagster.quality.suite import Suites, suggest
from pip_dagster.quality.suite_file import load_suites
from pip_dagster.sql.expression import naming
from pip_dagster.sql.output_columns import UNNAMED, columns_behind, output_columns
from pip_dagster.sql.repeatable import changing
from pip_dagster.sql.tables import Readable, folded, tables_read


@dataclass(frozen=True)
class Pipeline:
    """A declaration, its feature SQL and the project it lives in."""

    spec: PipelineSpec
    sql: str
    project: Project
    suites: Suites = field(default_factory=Suites)
    labels_sql: str | None = None
    folder: Path | None = None  # of its files

    @classmethod
    def load(cls, spec: PipelineSpec, folder: Path, project: Project) -> Pipeline:
        """Read the files that `spec` names, which lie in `folder` beside its defs.yaml.

        Raises:
            DeclarationError: a file is missing, lies outside `folder`, is not UTF-8, or its SQL may read more than the
                declared sources.
        """
        _, sql = read_beside(spec.name, folder, "features.sql", spec.features.sql)
        sources_read(spec, sql, spec.features.sql)
        _check_repeatable(spec, sql)
        labels = spec.declared_labels
        key = "labels.sql" if spec.labels else "gates.labels.sql"
        labels_sql = read_beside(spec.name, folder, key, labels.sql)[1] if labels else None
        if labels and labels_sql is not None:
            sources_read(spec, labels_sql, labels.sql)
        return cls(spec, sql, project, _load_suites(spec, folder, sql), labels_sql, folder)

    @property
    def gates(self) -> Gates:
        """The declared gates, or the defaults."""
        return self.spec.gates or Gates()

    @property
    def alerts(self) -> Alerts | None:
        """Who is notified of failed runs and blocked partitions: the declaration's alerts, or else the project's."""
        return self.spec.alerts or self.project.alerts

    @property
    def labels(self) -> Labels | None:
        """Where outcomes are, as declared by `labels` or by `gates.labels`; None without either."""
        return self.spec.declared_labels

    @property
    def labels_name(self) -> str:
        """The key of defs.yaml that declares the labels, for messages."""
        return "labels" if self.spec.labels else "gates.labels"

    @property
    def label_key(self) -> tuple[str, ...]:
        """The columns by which a label finds its row; none without labels."""
        labels = self.labels
        return (labels.key or self.spec.features.key) if labels else ()

    @property
    def unit(self) -> tuple[str, ...]:
        """The declared unit of labelled rows; none where neither `labels.unit` nor `gates.unit` declares it."""
        return (self.labels.unit if self.labels else ()) or self.gates.unit

    @property
    def segments(self) -> tuple[str, ...]:
        """The feature columns by whose values performance is measured."""
        rules = self.spec.monitoring
        if rules is None:
            return self.gates.segments
        own = rules.performance.segments
        return rules.segments or self.gates.segments if own is None else own

    @property
    def label_assets(self) -> tuple[str, ...]:
        """The assets that arriving labels materialize: the declared ones, or `performance` of what is monitored."""
        declared = self.spec.sensors.labels_arrived.assets
        if declared is not None:
            return declared
        return (f"{self.spec.name}/performance",) if self.evaluates else ()

    @property
    def evaluates(self) -> bool:
        """Whether performance is measured: labels and monitoring are both declared."""
        return self.labels is not None and self.spec.monitoring is not None

    @cached_property
    def label_sources(self) -> frozenset[str]:
        """The names of the declared sources that the labels are read from."""
        return sources_read(self.spec, self.labels_sql or "", self.labels.sql) if self.labels else frozenset()

    @cached_property
    def read_sources(self) -> dict[str, Source]:
        """The declared sources that decide what the features are; those that only labels read are not among them.

        These are the sources that the feature SQL reads, and those with expectations that the labels do not read. No
        other source can make a partition stale.
        """
        declared = self.spec.sources
        if len(declared) == 1:
            return declared
        read = sources_read(self.spec, self.sql, self.spec.features.sql)
        judged = self.suites.sources.keys() - self.label_sources
        return {name: each for name, each in declared.items() if name in read or name in judged}

    @cached_property
    def key_columns(self) -> frozenset[str]:
        """The columns, of the sources too, that identify rows or units, in lower case. No text has their values."""
        named = {*self.spec.features.key, *self.spec.unit, *self.label_key, *self.unit}
        named |= {self.spec.privacy.subject} if self.spec.privacy else set()
        return columns_behind(self.sql, named)

    def may_quote(self, columns: Iterable[str]) -> bool:
        """Whether values of these columns may stand in texts: of none with `privacy`, else of those that are no key."""
        return self.spec.privacy is None and not self.key_columns & {column.lower() for column in columns}

    def is_provisional(self, close: datetime, at: datetime) -> bool:
        """Whether, `at` an instant, a source of a partition that closes at `close` may still be incomplete."""
        complete_at = self.complete_at(close)
        return complete_at is not None and at < complete_at

    def complete_at(self, close: datetime) -> datetime | None:
        """When the sources of a partition that closes at `close` are complete; None where no source declares it."""
        return None if self._complete_after is None else close + self._complete_after

    @cached_property
    def _complete_after(self) -> timedelta | None:
        """How long after a close the last source is complete."""
        waits = [source.complete_after for source in self.read_sources.values() if source.complete_after is not None]
        return max(waits, default=None)

    @cached_property
    def scoring_digest(self) -> str:
        """A digest of everything declared that, for given features, can change a score or whether it goes live."""
        inputs = by_last_name(self._scoring_inputs)
        if not inputs["unit"]:
            del inputs["unit"]  # digests that were stored before there were splits do not have it
        return digest(inputs)

    @cached_property
    def scoring_parts(self) -> str:
        """What `scoring_digest` covers, part by part, so that a plan can name the part that changed: canonical JSON."""
        return parts(self._scoring_inputs)

    @property
    def declared_row(self) -> str:
        """What a replay needs of the declaration: the key, and the decisions in their order; JSON."""
        return canonical({"key": self.spec.features.key, "decisions": [*self.spec.decisions.items()]})

    @property
    def _scoring_inputs(self) -> dict[str, Any]:
        """What `scoring_digest` and `scoring_parts` cover. A stored digest is only equal while this list is."""
        spec = self.spec
        return {
            "features.key": spec.features.key,
            "features.partition_column": spec.features.partition_column,
            "scoring.on_unseen_category": spec.scoring.on_unseen_category,
            UNIT: self._carried_unit,
            "decisions": spec.decisions,
            # Reasons change no score, but belong to a scoring: another selection needs another scoring.
            "explanations": spec.explanations.model_dump(mode="json") if spec.explanations else None,
            "quality.max_quarantined": spec.quality.max_quarantined if spec.quality else None,
            f"{EXPECTATIONS}features": expected(self.suites.features),
            f"{EXPECTATIONS}predictions": expected(self.suites.predictions),
        }

    @property
    def _carried_unit(self) -> list[str]:
        """The unit's columns that are stored with the scored row. The arms' shares themselves change no score."""
        known = (*self.spec.features.key, self.spec.features.partition_column)
        return [name for name in self.spec.unit if name not in known]

    @cached_property
    def feature_digest(self) -> str:
        """A digest of the feature SQL, of what it reads from its sources, and of the expectations on these."""
        return digest_of_features(self._feature_inputs(of_sources(self.read_sources)))

    @property
    def sql_digest(self) -> str:
        """The feature digest as `ledger.extractions` stores it."""
        return self.features_declared().digest

    @property
    def feature_parts(self) -> str:
        """What `sql_digest` covers, part by part, so that a plan can name the part that changed: canonical JSON."""
        return self.features_declared().parts

    def features_declared(self, *, as_known: bool = False) -> Declared:
        """What the features of a run depend on; `as_known`: of one that hides what could not be known."""
        return Declared.of(self._feature_inputs(of_sources(self.read_sources, as_known=as_known)))

    @property
    def features_declared_otherwise(self) -> tuple[Declared, ...]:
        """The same declaration as other entries hold it: of runs as known, and as earlier versions stored it.

        These covered the files of the sources and `available_at`; the oldest, sources that only labels read as well.
        """
        former = ({name: stored_of(each) for name, each in of.items()} for of in (self.read_sources, self.spec.sources))
        named = [{f"{SOURCES}{name}": each for name, each in sources.items()} for sources in former]
        return (self.features_declared(as_known=True), *(Declared.of(self._feature_inputs(each)) for each in named))

    def _feature_inputs(self, sources: dict[str, Any]) -> dict[str, Any]:
        """What the digest and the parts of features cover. A stored digest is only equal while this list is."""
        inputs: dict[str, Any] = {"features.sql": self.sql, "partitions.time_zone": self.spec.partitions.time_zone}
        if self.spec.privacy and self.spec.privacy.pseudonymize:  # a rotated secret makes nothing stale
            inputs["privacy"] = [self.spec.privacy.subject, self.spec.privacy.domain or self.spec.name]
        sections = self.suites.sources.items()
        return inputs | sources | {f"{EXPECTATIONS}{SOURCES}{name}": expected(each) for name, each in sections if each}


def sources_read(spec: PipelineSpec, sql: str, file: str) -> frozenset[str]:
    """The names of the declared sources that a SELECT reads; `file` is where it stands, for the error.

    Raises:
        DeclarationError: it is not one SELECT, or may read or write anything but the declared sources.
    """
    names = {folded(source.table): name for name, source in spec.sources.items()}
    with naming(f"Pipeline {spec.name}, {file}:"):
        return frozenset(names[table] for table in tables_read(sql, Readable(frozenset(names))))


def _check_repeatable(spec: PipelineSpec, sql: str) -> None:
    """Refuse feature SQL that each task of a cluster would see other rows by."""
    found = changing(sql) if spec.scoring.ray else []
    if found:
        raise DeclarationError(
            f"Pipeline {spec.name}, {spec.features.sql}: {', '.join(found)} differs each time the SQL runs, and with "
            "`scoring.engine: ray` it runs once for each share of the rows. Use $start, $end or a column instead, or "
            "declare `engine: local`."
        )


def _load_suites(spec: PipelineSpec, folder: Path, sql: str) -> Suites:
    """The declared expectations, checked as far as possible without opening a database.

    The columns of a source are known once it is open, and so are those of a feature SQL that selects `*` from one.
    """
    if spec.quality is None:
        return Suites()
    file, _ = read_beside(spec.name, folder, "quality.expectations", spec.quality.expectations)
    suites = load_suites(file)
    for name in suites.sources.keys() - spec.sources.keys():
        raise DeclarationError(
            f"Pipeline {spec.name}: {file} has a section for a source {name!r}, "
            f"which defs.yaml does not declare{suggest(name, spec.sources)}."
        )
    found = output_columns(sql) if suites.features else None
    if found is None:
        return suites
    for expectation in suites.features:
        for column in sorted(expectation.columns):
            is_text_of_expression = UNNAMED in found and not re.fullmatch(r"\w+", column)
            if column.lower() not in found and not is_text_of_expression:
                raise DeclarationError(
                    f"Pipeline {spec.name}: {expectation.origin}: expectation {expectation.id!r} is on column "
                    f"{column!r}, which {spec.features.sql} does not have{suggest(column, sorted(found))}."
                )
    return suites
