"""Which scoring is live for which buckets of a partition: rows that belong to a live change."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from pip_dagster.declaration.split import BUCKETS
from pip_dagster.errors import WarehouseError
from pip_dagster.ledger.record import dicts
from pip_dagster.ledger.rows import insert_rows
from pip_dagster.sql.names import among
from pip_dagster.warehouse.tables import refresh_views

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

CHAMPION = "champion"
_COLUMNS = ("scoring_id", "arm", "low", "high", "kind", "salt", "unit")


@dataclass(frozen=True)
class Arm:
    """The buckets [low, high) that are a scoring's.

    `kind`: split or canary. `unit`: JSON, column → how it is hashed.
    """

    scoring_id: str
    arm: str
    low: int
    high: int
    kind: str
    salt: str
    unit: str

    @property
    def share(self) -> float:
        """The share of the units."""
        return (self.high - self.low) / BUCKETS


@dataclass(frozen=True)
class _ArmRow(Arm):
    """One row of `ledger.arms`."""

    change_id: str
    pipeline: str
    partition_key: str


def insert_arms(con: DuckDBPyConnection, changes: Mapping[str, tuple[str, str, Sequence[Arm]]]) -> None:
    """Append the arms of live changes: change id → pipeline, partition key and arms, which cover every bucket once.

    Call it inside the transaction of the live changes. The warehouse is the current catalog.

    Raises:
        WarehouseError: the arms do not cover every bucket once; roll back.
    """
    rows: list[_ArmRow] = []
    for change_id, (pipeline, partition_key, arms) in changes.items():
        if not arms:
            continue
        ends = [0, *(arm.high for arm in sorted(arms, key=lambda arm: arm.low))]
        starts = [*(arm.low for arm in sorted(arms, key=lambda arm: arm.low)), BUCKETS]
        if starts != ends:
            raise WarehouseError(
                f"Pipeline {pipeline}, partition {partition_key}: the buckets of {arms} do not cover each of {BUCKETS} "
                "exactly once. Nothing was changed; this is a defect of pip_dagster, please report it."
            )
        rows += [
            _ArmRow(**asdict(arm), change_id=change_id, pipeline=pipeline, partition_key=partition_key) for arm in arms
        ]
    if not rows:
        return
    known = con.execute("SELECT DISTINCT pipeline, salt, unit FROM ledger.arms").fetchall()
    insert_rows(con, "arms", rows)
    for pipeline in sorted({row.pipeline for row in rows if (row.pipeline, row.salt, row.unit) not in known}):
        refresh_views(con, pipeline)


def arms_of(con: DuckDBPyConnection, change_ids: Sequence[str]) -> dict[str, tuple[Arm, ...]]:
    """Change id → its arms by bucket; no entry where the whole partition is the change's scoring."""
    result = con.execute(
        f"SELECT change_id, {', '.join(_COLUMNS)} FROM ledger.arms WHERE list_contains($ids, change_id) "
        "ORDER BY change_id, low",
        {"ids": list(change_ids)},
    )
    found: dict[str, list[Arm]] = {}
    for row in dicts(result):
        found.setdefault(row.pop("change_id"), []).append(Arm(**row))
    return {change_id: tuple(arms) for change_id, arms in found.items()}


def live_arms(con: DuckDBPyConnection, pipeline: str, partition_keys: Sequence[str]) -> dict[str, tuple[Arm, ...]]:
    """Partition key → its arms by bucket, for those partitions that are split."""
    result = con.execute(
        f"SELECT partition_key, {', '.join(_COLUMNS)} FROM ledger.live_arms "
        f"WHERE pipeline = $pipeline AND {among('partition_key', partition_keys)} AND low IS NOT NULL "
        "ORDER BY partition_key, low",
        {"pipeline": pipeline},
    )
    found: dict[str, list[Arm]] = {}
    for row in dicts(result):
        found.setdefault(row.pop("partition_key"), []).append(Arm(**row))
    return {key: tuple(arms) for key, arms in found.items()}
