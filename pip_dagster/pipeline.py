"""One declared pipeline with the files that belong to it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from pip_dagster.errors import DeclarationError
from pip_dagster.ledger.record import canonical
from pip_dagster.project import Project
from pip_dagster.spec import PipelineSpec


@dataclass(frozen=True)
class Pipeline:
    """A declaration, its feature SQL and the project it lives in."""

    spec: PipelineSpec
    sql: str
    project: Project

    @classmethod
    def load(cls, spec: PipelineSpec, folder: Path, project: Project) -> Pipeline:
        """Read the files that `spec` names, which lie in `folder` beside its defs.yaml.

        Raises:
            DeclarationError: a file is missing.

        """
        file = folder / spec.features.sql
        if not file.is_file():
            there = ", ".join(sorted(path.name for path in folder.glob("*.sql"))) or "no .sql file"
            raise DeclarationError(
                f"Pipeline {spec.name}: features.sql names {spec.features.sql!r}, "
                f"which is not beside {folder / 'defs.yaml'}; "
                f"there is {there}."
            )
        return cls(spec, file.read_text(encoding="utf-8"), project)

    @property
    def scoring_digest(self) -> str:
        """A digest of all in the declaration that can change a score once features and model are given."""
        spec = self.spec
        relevant = {
            "key": spec.features.key,
            "partition_column": spec.features.partition_column,
            "on_unseen_category": spec.scoring.on_unseen_category,
        }
        return hashlib.sha256(canonical(relevant).encode()).hexdigest()

    @property
    def feature_digest(self) -> str:
        """A digest of the feature SQL and of what it may read."""
        relevant = {
            "sql": self.sql,
            "sources": {name: source.model_dump(mode="json") for name, source in self.spec.sources.items()},
            "time_zone": self.spec.partitions.time_zone,
        }
        return hashlib.sha256(canonical(relevant).encode()).hexdigest()
