"""One declared pipeline with the files that belong to it."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from pip_dagster.declaration.automation import Alerts
from pip_dagster.declaration.canonical import canonical
from pip_dagster.declaration.gates import Gates
from pip_dagster.declaration.project import Project
from pip_dagster.declaration.spec import PipelineSpec, Source
from pip_dagster.errors import DeclarationError
from pip_dagster.quality.suite import Expectation, Suites, suggest
from pip_dagster.quality.suite_file import load_suites

# How the parts of a declaration begin, in `declared_parts`, that are sections of expectations.yaml.
EXPECTATIONS = "expectations."
_PART = 16  # digits of a part's digest: it says which part changed, the whole digest whether any did


@dataclass(frozen=True)
class Pipeline:
    """A declaration, its feature SQL and the project it lives in."""

    spec: PipelineSpec
    sql: str
    project: Project
    suites: Suites = field(default_factory=Suites)
    labels_sql: str | None = None

    @classmethod
    def load(cls, spec: PipelineSpec, folder: Path, project: Project) -> Pipeline:
        """Read the files that `spec` names, which lie in `folder` beside its defs.yaml.

        Raises:
            DeclarationError: a file is missing.

        """
        sql = _read_sql(spec, folder, "features.sql", spec.features.sql)
        labels = spec.gates.labels if spec.gates else None
        labels_sql = _read_sql(spec, folder, "gates.labels.sql", labels.sql) if labels else None
        return cls(spec, sql, project, _load_suites(spec, folder, sql), labels_sql)

    @property
    def gates(self) -> Gates:
        """The declared gates, or those by default."""
        return self.spec.gates or Gates()

    @property
    def alerts(self) -> Alerts | None:
        """Who is told of failed runs and blocked partitions, by the declaration or else by the project."""
        return self.spec.alerts or self.project.alerts

    @property
    def label_key(self) -> tuple[str, ...]:
        """The columns by which a label finds its row; none without labels."""
        labels = self.gates.labels
        return (labels.key or self.spec.features.key) if labels else ()

    @cached_property
    def scoring_digest(self) -> str:
        """A digest of all in the declaration that, features given, can change a score or whether it is live."""
        spec = self.spec
        # Reasons change no score, but belong to a scoring: another selection needs another scoring.
        explained = {"explanations": spec.explanations.model_dump(mode="json")} if spec.explanations else {}
        carried = {"unit": self._carried_unit} if self._carried_unit else {}
        return _digest(
            explained
            | carried
            | {
                "key": spec.features.key,
                "partition_column": spec.features.partition_column,
                "on_unseen_category": spec.scoring.on_unseen_category,
                "decisions": spec.decisions,
                "explanations": spec.explanations.model_dump(mode="json") if spec.explanations else None,
                "max_quarantined": spec.quality.max_quarantined if spec.quality else None,
                "expectations": [_said(e) for e in (*self.suites.features, *self.suites.predictions)],
            }
        )

    @property
    def _carried_unit(self) -> list[str]:
        """The unit of a split, carried with the scored row. Who is live for which share changes no score."""
        known = (*self.spec.features.key, self.spec.features.partition_column)
        return [name for name in self.spec.unit if name not in known]

    @cached_property
    def feature_digest(self) -> str:
        """A digest of the feature SQL, of what it may read, and of what is expected of that."""
        return _digest(
            {
                "sql": self.sql,
                "sources": {name: _read_of(source) for name, source in self.spec.sources.items()},
                "time_zone": self.spec.partitions.time_zone,
                "expectations": [_said(e) for of in self.suites.sources.values() for e in of],
            }
        )

    @property
    def sql_digest(self) -> str:
        """The feature digest as `ledger.extractions` holds it."""
        return hashlib.sha256(self.feature_digest.encode()).hexdigest()

    @cached_property
    def scoring_parts(self) -> str:
        """What `scoring_digest` covers, part by part, so that a plan can say which changed: canonical JSON."""
        spec = self.spec
        return _parts(
            {
                "features.key": spec.features.key,
                "features.partition_column": spec.features.partition_column,
                "scoring.on_unseen_category": spec.scoring.on_unseen_category,
                "unit of the split": self._carried_unit,
                "decisions": spec.decisions,
                "explanations": spec.explanations.model_dump(mode="json") if spec.explanations else None,
                "quality.max_quarantined": spec.quality.max_quarantined if spec.quality else None,
                f"{EXPECTATIONS}features": [_said(e) for e in self.suites.features],
                f"{EXPECTATIONS}predictions": [_said(e) for e in self.suites.predictions],
            }
        )

    @cached_property
    def feature_parts(self) -> str:
        """What `feature_digest` covers, part by part, so that a plan can say which changed: canonical JSON."""
        parts: dict[str, object] = {"features.sql": self.sql, "partitions.time_zone": self.spec.partitions.time_zone}
        parts |= {f"sources.{name}": _read_of(source) for name, source in self.spec.sources.items()}
        for name, expectations in self.suites.sources.items():
            if expectations:
                parts[f"{EXPECTATIONS}sources.{name}"] = [_said(e) for e in expectations]
        return _parts(parts)


def _read_sql(spec: PipelineSpec, folder: Path, key: str, name: str) -> str:
    file = folder / name
    if not file.is_file():
        there = ", ".join(sorted(path.name for path in folder.glob("*.sql"))) or "no .sql file"
        raise DeclarationError(
            f"Pipeline {spec.name}: {key} names {name!r}, which is not beside {folder / 'defs.yaml'}; there is {there}."
        )
    return file.read_text(encoding="utf-8")


def _digest(relevant: dict[str, object]) -> str:
    return hashlib.sha256(canonical(relevant).encode()).hexdigest()


def _parts(relevant: dict[str, object]) -> str:
    return canonical({name: _digest({name: value})[:_PART] for name, value in relevant.items()})


def _read_of(source: Source) -> dict[str, object]:
    """What a source's declaration says about the rows that are read, not when they are again nor what people see."""
    kept_apart = {"change_column", "late_data", "complete_after", "description", "asset_key"}
    return source.model_dump(mode="json", exclude=kept_apart)


def _said(expectation: Expectation) -> dict[str, object]:
    """What an expectation says, wherever it stands."""
    names = ("id", "section", "type", "kwargs", "severity", "row_condition")
    return {name: getattr(expectation, name) for name in names}


def _load_suites(spec: PipelineSpec, folder: Path, sql: str) -> Suites:
    """The declared expectations, refused where they can be without opening a database.

    What columns a source has is only known when it is open. A feature that an expectation is on must at least be a
    word of the feature SQL, unless that takes columns by `*`.
    """
    if spec.quality is None:
        return Suites()
    suites = load_suites(folder / spec.quality.expectations)
    for name in suites.sources.keys() - spec.sources.keys():
        raise DeclarationError(
            f"Pipeline {spec.name}: {folder / spec.quality.expectations} has a section for a source {name!r}, "
            f"which defs.yaml does not declare{suggest(name, spec.sources)}."
        )
    words = set(re.findall(r'"(?:[^"]|"")*"|\w+', sql))
    named = {word.strip('"').replace('""', '"').lower() for word in words}
    bare = re.sub(r"--[^\n]*|/\*.*?\*/", " ", sql, flags=re.DOTALL)
    takes_all = re.search(r"(?:\bselect\b(?:\s+distinct\b)?|,|\.)\s*\*|\bcolumns\s*\(", bare, re.IGNORECASE)
    if not takes_all and not re.match(r"\s*(?:from|with)\b", bare, re.IGNORECASE):
        for expectation in suites.features:
            for column in sorted(expectation.columns):
                if column.lower() not in named:
                    raise DeclarationError(
                        f"Pipeline {spec.name}: {expectation.origin}: expectation {expectation.id!r} is on column "
                        f"{column!r}, which {spec.features.sql} does not have{suggest(column, sorted(named))}."
                    )
    return suites
