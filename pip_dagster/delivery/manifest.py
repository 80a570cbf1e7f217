"""The manifest of a partition's delivered files: a small JSON file that is replaced last, in one step.

A reader opens the manifest and then the files that it names, which are never changed. So it sees one scoring whole.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote as url_quote

from pip_dagster.delivery.target import DeliveryChange, DeliveryError, ShownChange

LATEST = "latest.json"
VERSION = 1


@dataclass(frozen=True)
class File:
    """A file of rows: its path from the manifest's folder, its bytes and their SHA-256."""

    path: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class DeliveryManifest:
    """What is shown of a partition; `columns`: name → SQL type in DuckDB."""

    pipeline: str
    target: str
    partition_key: str
    partition_start: str
    partition_end: str
    change_id: str
    scoring_ids: tuple[str, ...]
    kind: str
    declaration: str
    rows: int
    digest: str
    columns: Mapping[str, str]
    files: tuple[File, ...]
    delivered_at: str
    version: int = VERSION

    @classmethod
    def of(cls, change: DeliveryChange, files: tuple[File, ...]) -> DeliveryManifest:
        """The manifest of a change with these files."""
        return cls(
            pipeline=change.pipeline,
            target=change.target,
            partition_key=change.partition_key,
            partition_start=change.start.astimezone(UTC).isoformat(),
            partition_end=change.end.astimezone(UTC).isoformat(),
            change_id=change.change_id,
            scoring_ids=change.scoring_ids,
            kind=change.kind,
            declaration=change.declaration,
            rows=change.rows,
            digest=change.digest,
            columns=dict(change.columns),
            files=files,
            delivered_at=datetime.now(UTC).isoformat(timespec="seconds"),
        )

    @property
    def shown(self) -> ShownChange:
        """The change that it is of."""
        return ShownChange(self.change_id, self.declaration)

    def text(self) -> str:
        """The manifest as JSON."""
        return json.dumps(asdict(self), ensure_ascii=False, indent=1) + "\n"

    def check_owner(self, pipeline: str, target: str, place: str) -> None:
        """Refuse a place that another pipeline or target delivers to.

        Raises:
            DeliveryError: it is of another.
        """
        if (self.pipeline, self.target) != (pipeline, target):
            raise DeliveryError(
                f"Pipeline {pipeline}: target {target} would replace what target {self.target} of pipeline "
                f"{self.pipeline} has delivered to {place}. Give one of them another place; if that is a former name, "
                f"remove {place}/{folder_of(self.partition_key)} first."
            )


def parsed(text: str | bytes, place: str) -> DeliveryManifest:
    """The manifest that a text holds.

    Raises:
        DeliveryError: it is damaged, or of a newer version.
    """
    try:
        found: dict[str, Any] = json.loads(text)
        if int(found["version"]) > VERSION:
            raise DeliveryError(f"{place} was written by a newer pip_dagster; upgrade this one.")
        files = tuple(File(**each) for each in found.pop("files"))
        return DeliveryManifest(**found | {"files": files, "scoring_ids": tuple(found["scoring_ids"])})
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise DeliveryError(
            f"{place} is not a manifest of delivered rows ({type(error).__name__}). Remove it, and deliver the "
            "partition again by name."
        ) from error


def folder_of(partition_key: str) -> str:
    """The folder of a partition, as a name that every file system and S3 take."""
    return url_quote(partition_key, safe=" ")
