"""By which digests the ledger and the audit know a registered version. A number stands for one model for ever."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pip_dagster.errors import NoWarehouseError
from pip_dagster.ledger import audit
from pip_dagster.ledger.record import dicts
from pip_dagster.registry.errors import ReplacedVersion
from pip_dagster.sql.names import literal
from pip_dagster.warehouse.access import reading
from pip_dagster.warehouse.connect import workspace

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from pip_dagster.declaration.project import Project
    from pip_dagster.registry.version import ModelVersion

# Those that people accepted, of which the newest counts; then the oldest of those that scored, of those in the audit's
# entries of what went live, and of those that an alias moved to. What failed may have failed for this reason.
_ACCEPTED = """
  SELECT subject->>'model' AS model_name, (subject->>'version')::INT AS model_version,
         details->>'model_digest' AS model_digest, details->>'manifest_digest' AS manifest_digest,
         'when ' || actor || ' accepted it' AS place, 0 AS rank, -seq AS entry, '' AS id
  FROM ledger.audit WHERE action = 'accepted' AND (subject->>'model') IS NOT NULL
"""
_SCORED = """
  SELECT model_name, model_version, model_digest, manifest_digest,
         'when it scored ' || pipeline || ', partition ' || partition_key AS place,
         1 AS rank, 0 AS entry, scoring_id AS id
  FROM ledger.scorings
  WHERE status <> 'failed' AND manifest_digest IS NOT NULL AND model_version IS NOT NULL
"""
_LIVE = """
  SELECT details->>'model_name' AS model_name, (details->>'model_version')::INT AS model_version,
         details->>'model_digest' AS model_digest, NULL::VARCHAR AS manifest_digest,
         'in the audit, of partition ' || (subject->>'partition_key') AS place, 2 AS rank, seq AS entry, '' AS id
  FROM ledger.audit WHERE action = 'live'
"""
_PROMOTED = """
  SELECT subject->>'model' AS model_name, (details->>'to')::INT AS model_version,
         details->>'model_digest' AS model_digest, details->>'manifest_digest' AS manifest_digest,
         'when ' || (subject->>'alias') || ' moved to it' AS place, 3 AS rank, seq AS entry, '' AS id
  FROM ledger.audit WHERE action = 'promotion' AND (details->>'manifest_digest') IS NOT NULL
"""


@dataclass(frozen=True)
class Recorded:
    """A version as it was recorded first, or accepted last, and where. An old audit entry has no manifest's digest."""

    model_name: str
    model_version: int
    model_digest: str
    manifest_digest: str | None
    place: str

    def differs(self, version: ModelVersion) -> str | None:
        """What of a registered version is not what was recorded."""
        for file, found, known in (
            ("the model", version.digest, self.model_digest),
            ("manifest.json", version.manifest_digest, self.manifest_digest),
        ):
            if known is not None and found != known:
                return (
                    f"{version}: {file} has sha256 {found}, but {known} was recorded {self.place}: the version was "
                    "replaced in the registry"
                )
        return None


def recorded(con: DuckDBPyConnection) -> list[Recorded]:
    """Each version that the ledger or the audit knows. The warehouse is the current catalog."""
    return _first(con, (_ACCEPTED, _SCORED, _LIVE, _PROMOTED))


def _first(con: DuckDBPyConnection, places: Sequence[str], version: str | None = None) -> list[Recorded]:
    """The first record of each version, or of the one that is `version` in SQL: no window over all its scorings."""
    of_each = (
        "QUALIFY row_number() OVER (PARTITION BY model_name, model_version ORDER BY rank, entry, id) = 1 ORDER BY ALL"
    )
    result = con.execute(
        f"SELECT model_name, model_version, model_digest, manifest_digest, place FROM ({' UNION ALL '.join(places)}) "
        + (f"WHERE {version} ORDER BY rank, entry, id LIMIT 1" if version else of_each)
    )
    return [Recorded(**row) for row in dicts(result)]


def check(con: DuckDBPyConnection, version: ModelVersion) -> None:
    """Check that a version is the one that the ledger or the audit knows by its number.

    Raises:
        ReplacedVersion: it is another one; names both digests.
    """
    where = f"model_name = {literal(version.name)} AND model_version = {version.version}"
    if _scored_alike(con, version, where):
        return
    # To parse every entry of the audit takes long; it is needed only for a version that the ledger does not know.
    for known in _first(con, (_ACCEPTED, _SCORED), where) or _first(con, (_LIVE, _PROMOTED), where):
        if text := known.differs(version):
            raise ReplacedVersion(
                f"{text}. It was not used. Restore the version's folder from a backup, or register the other model as "
                f"a new version and promote that. `pip-dagster audit accept --versions --why TEXT` accepts it as it is."
            )


def _scored_alike(con: DuckDBPyConnection, version: ModelVersion, where: str) -> bool:
    """Whether nothing else ever scored as `where`, and nobody accepted any version: quickly found among many."""
    if con.execute("SELECT 1 FROM ledger.audit WHERE action = 'accepted' LIMIT 1").fetchone():
        return False
    scored = f"FROM ledger.scorings WHERE {where} AND status <> 'failed' AND manifest_digest IS NOT NULL"
    digests = con.execute(f"SELECT DISTINCT model_digest, manifest_digest {scored}").fetchall()
    return digests == [(version.digest, version.manifest_digest)]


def check_recorded(project: Project, *versions: ModelVersion, purpose: str) -> None:
    """The same for versions that are about to be used, where the project has a warehouse already.

    Raises:
        ReplacedVersion: as `check`.
        WarehouseError: it cannot be opened.
    """
    with workspace(threads=1) as con, suppress(NoWarehouseError), reading(con, project, purpose=purpose):
        for version in versions:
            check(con, version)


def several(con: DuckDBPyConnection) -> list[tuple[str, int, list[str]]]:
    """Versions that scored under several digests which nobody accepted: model, version and digests."""
    return con.execute(
        "SELECT model_name, model_version, list(DISTINCT manifest_digest ORDER BY manifest_digest) AS digests "
        f"FROM ({_SCORED}) r ANTI JOIN ({_ACCEPTED}) a USING (model_name, model_version, manifest_digest) "
        "GROUP BY ALL HAVING len(digests) > 1 ORDER BY ALL"
    ).fetchall()


def accepted(version: ModelVersion, by: str, why: str, at: int) -> audit.Event:
    """The entry that records that somebody accepted a version as it is."""
    subject = {"model": version.name, "version": version.version}
    details = {"model_digest": version.digest, "manifest_digest": version.manifest_digest, "why": why}
    return audit.Event("accepted", at, by, None, subject, details)
