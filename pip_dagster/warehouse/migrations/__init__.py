"""The migrations of the warehouse, one file each, with the reason in its docstring.

Each migrates from the version before it. Add new ones at the end, and never change an old one. Use only SQL that a
DuckLake accepts too: no keys, checks, sequences or indexes. One that SQL cannot do is a function of the connection;
it runs behind the SQL of all later ones.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from pip_dagster.warehouse.migrations import (
    m0001_ledger,
    m0002_checks,
    m0003_audit,
    m0004_arms,
    m0005_provisional,
    m0006_backfills,
    m0007_declared_parts,
    m0008_typed_live_changes,
    m0009_declared_row,
    m0010_published_rows,
    m0011_costs_and_live_since,
    m0012_profiles,
    m0013_performance,
    m0014_estimates,
    m0015_alarms,
    m0016_drift,
    m0017_published_digests,
    m0018_cluster,
    m0019_deliveries,
    m0020_lineage_emissions,
    m0021_commitments,
    m0022_erasures,
    m0023_texts,
    m0024_purged,
    m0025_published_deliveries,
)

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

Migration = str | Callable[["DuckDBPyConnection"], None]

MIGRATIONS: tuple[Migration, ...] = (
    m0001_ledger.SQL,
    m0002_checks.SQL,
    m0003_audit.SQL,
    m0004_arms.SQL,
    m0005_provisional.SQL,
    m0006_backfills.SQL,
    m0007_declared_parts.SQL,
    m0008_typed_live_changes.SQL,
    m0009_declared_row.SQL,
    m0010_published_rows.SQL,
    m0011_costs_and_live_since.SQL,
    m0012_profiles.SQL,
    m0013_performance.SQL,
    m0014_estimates.SQL,
    m0015_alarms.SQL,
    m0016_drift.SQL,
    m0017_published_digests.SQL,
    m0018_cluster.SQL,
    m0019_deliveries.SQL,
    m0020_lineage_emissions.SQL,
    m0021_commitments.SQL,
    m0022_erasures.SQL,
    m0023_texts.migrate,
    m0024_purged.SQL,
    m0025_published_deliveries.SQL,
)
