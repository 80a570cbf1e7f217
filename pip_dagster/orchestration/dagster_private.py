"""All that this package uses of Dagster without a public name. A Dagster upgrade has this one page to read.

`tests/orchestration/test_dagster_private.py` says what breaks when one of them changes.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dagster as dg
from dagster._core.events import ASSET_CHECK_EVENTS
from dagster._core.launcher.base import CheckRunHealthResult, WorkerStatus
from dagster._core.storage.event_log import SqliteEventLogStorage
from dagster._core.storage.event_log.sqlite.sqlite_event_log import INDEX_SHARD_NAME
from dagster._utils.warnings import suppress_dagster_warnings

# The result of a run launcher's health check: `dg.RunLauncher` and the method are public, the type is not. The storage
# of events is a documented class to name in dagster.yaml; of what `event_storage.py` uses of it, `_connect`, `_db_lock`
# and `_initialized_dbs` have no public names. Dagster's own functions that load definitions warn of no betas.
__all__ = [
    "ASSET_CHECK_EVENTS",
    "INDEX_SHARD_NAME",
    "CheckRunHealthResult",
    "SqliteEventLogStorage",
    "WorkerStatus",
    "suppress_dagster_warnings",
]


def failed_evaluations(instance: dg.DagsterInstance, key: dg.AssetCheckKey) -> Iterator[str | None]:
    """The partitions of a check's failed evaluations. Public methods return the newest evaluation of a check only."""
    from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecordStatus

    history = instance.event_log_storage.get_asset_check_execution_history
    status = {AssetCheckExecutionRecordStatus.FAILED}
    return (record.partition for record in history(key, limit=100_000, status=status))


def forget_planned_checks(instance: dg.DagsterInstance, run_id: str) -> None:
    """Remove the rows that Dagster planned for the checks of a run of partitions: one a check and partition.

    It plans them for checks without partitions as well, which have one evaluation a run. The others would stay in the
    history as skipped, and a check that no partition got to would show as not evaluated, whatever it was before.
    """
    from dagster._core.storage.event_log import SqlEventLogStorage
    from dagster._core.storage.event_log.schema import AssetCheckExecutionsTable as Rows

    storage = instance.event_log_storage
    if isinstance(storage, SqlEventLogStorage):
        planned = Rows.c.execution_status == "PLANNED"
        with storage.index_connection() as con:
            con.execute(Rows.delete().where(Rows.c.run_id == run_id, planned, Rows.c.partition.is_not(None)))


@dataclass(frozen=True)
class FinishedRuns:
    """A backfill whose runs were started here, not by the daemon, and what it has built of its `keys`."""

    backfill_id: str
    assets: Sequence[dg.AssetKey]
    keys: Sequence[str]
    done: Collection[str]
    began: float
    tags: Mapping[str, str]


def record_backfill(instance: dg.DagsterInstance, asset_graph: Any, of: FinishedRuns) -> None:
    """Group the runs with the tag `dagster/backfill` in the UI. A run with the tag and without a record is not listed.

    The status is a final one: the daemon would execute a backfill that is requested.
    """
    from dagster._core.definitions.assets.graph.asset_graph_subset import AssetGraphSubset
    from dagster._core.definitions.events import AssetKeyPartitionKey
    from dagster._core.execution.backfill import BulkActionStatus, PartitionBackfill

    record = PartitionBackfill.from_asset_partitions(
        asset_graph=asset_graph,
        backfill_id=of.backfill_id,
        tags=dict(of.tags),
        backfill_timestamp=of.began,
        asset_selection=[*of.assets],
        partition_names=[*of.keys],
        dynamic_partitions_store=instance,
        all_partitions=False,
        title=None,
        description=None,
        run_config=None,
    )
    data = record.get_asset_backfill_data(asset_graph)

    def subset(keys: Collection[str]) -> Any:
        named = {AssetKeyPartitionKey(asset, key) for asset in of.assets for key in keys}
        return AssetGraphSubset.from_asset_partition_set(named, asset_graph)

    done = subset(of.done)
    data = data._replace(requested_subset=done, materialized_subset=done)
    is_whole = {*of.done} >= {*of.keys}
    record = (
        record.with_asset_backfill_data(data, dynamic_partitions_store=instance, asset_graph=asset_graph)
        .with_status(BulkActionStatus.COMPLETED_SUCCESS if is_whole else BulkActionStatus.COMPLETED_FAILED)
        .with_end_timestamp(time.time())
    )
    if instance.get_backfill(of.backfill_id):
        instance.update_backfill(record)
    else:
        instance.add_backfill(record)


def requested_backfills(instance: dg.DagsterInstance) -> list[Any]:
    """The backfills that Dagster is working on. `get_backfills` is public, the type of its filter is not."""
    from dagster._core.execution.backfill import BulkActionsFilter, BulkActionStatus

    return list(instance.get_backfills(filters=BulkActionsFilter(statuses=[BulkActionStatus.REQUESTED])))


def backfill_targets(backfill: Any, assets: Iterable[dg.AssetKey], asset_graph: Any, keys: Iterable[str]) -> set[str]:
    """The partitions among `keys` that a backfill of these assets is about; all of them if its data cannot be read.

    Dagster stores them serialized; only methods of the backfill itself read them.
    """
    keys = set(keys)
    try:
        data = backfill.get_asset_backfill_data(asset_graph)
        subsets = [data.get_target_partitions_subset(asset) for asset in assets]
        return {key for key in keys if any(key in subset for subset in subsets)}
    except Exception:  # written by another version of Dagster, or for a grid that has changed since
        return keys


def forget_input_version(context: dg.AssetExecutionContext, key: dg.AssetKey) -> None:
    """Have the step read an input's data version again at its end.

    Dagster reads it when the step begins. A step that observes its own input would otherwise be stale at once.
    """
    context.get_step_execution_context().wipe_input_asset_version_info(key)


@contextmanager
def output_copied_quietly() -> Iterator[None]:
    """The processes that copy a run's output are in process groups of their own: Ctrl-C does not reach them.

    It would end one of them with a traceback on the terminal. Dagster ends them with the step.
    """
    from dagster._core.execution import compute_logs

    names = vars(compute_logs)
    names["subprocess"] = SimpleNamespace(Popen=partial(subprocess.Popen, process_group=0))
    try:
        yield
    finally:
        names["subprocess"] = subprocess


def instance_of(launcher: dg.RunLauncher) -> dg.DagsterInstance:
    """The instance that a launcher belongs to, which Dagster registers with it after it is constructed."""
    return launcher._instance


def project_root(definitions: dg.Definitions) -> Path | None:
    """The folder of the project that `dg.load_from_defs_folder` loaded. The tree is public, its folder is not."""
    return definitions.component_tree.project_root if definitions.component_tree else None


def is_code_server() -> bool:
    """Whether this process loads definitions in order to serve them to the UI and the daemon, rather than for a run."""
    from dagster._core.definitions.definitions_load_context import DefinitionsLoadContext, DefinitionsLoadType

    loads = DefinitionsLoadContext
    return loads.is_set() and loads.get().load_type == DefinitionsLoadType.INITIALIZATION


def without_component_types(tree: dg.ComponentTree) -> dg.Definitions:
    """What `tree.build_defs` builds, without the schemas of component types. The methods used are not documented."""
    children = tree.find_root_decl().iterate_child_component_decls()
    found = [tree.build_defs(each.loc) for each in children]
    return dg.Definitions.merge(*found, dg.Definitions(component_tree=tree))


def without_component_tree(definitions: dg.Definitions) -> dg.Definitions:
    """The same definitions without the tree of components, of which a code location has one."""
    from dagster_shared.record import replace

    return replace(definitions, component_tree=None)


class EventStore:
    """The rows in which an instance on SQLite or Postgres keeps events. No public method changes a stored event."""

    def __init__(self, instance: dg.DagsterInstance) -> None:
        from dagster._core.storage.event_log.schema import AssetCheckExecutionsTable, AssetKeyTable
        from dagster._core.storage.event_log.schema import SqlEventLogStorageTable as Events

        self._storage: Any = instance.event_log_storage
        self.is_sqlite = isinstance(self._storage, SqliteEventLogStorage)
        self.tables = (Events, AssetCheckExecutionsTable, AssetKeyTable)
        columns = (Events.c.event, AssetCheckExecutionsTable.c.evaluation_event, AssetKeyTable.c.last_materialization)
        self._column = {table.name: column for table, column in zip(self.tables, columns, strict=True)}

    def connections(self, run_ids: Iterable[str]) -> Iterator[Any]:
        """A function for each database that connects to it: of SQLite the index and one a run."""
        yield self._storage.index_connection
        for run_id in run_ids if self.is_sqlite else ():
            if self.path(run_id).is_file():
                yield partial(self._storage.run_connection, run_id)

    def path(self, name: str) -> Path:
        """The file of a database of SQLite."""
        return Path(self._storage._base_dir) / f"{name}.db"

    def runs_of(self, asset_prefix: str, keys: Sequence[str]) -> list[str]:
        """Runs with an event about one of these partitions of an asset whose key, as JSON, begins so."""
        import sqlalchemy as db

        found: dict[str, None] = {}
        events, checks, _ = self.tables
        with self._storage.index_connection() as con:
            for table in (events, checks):
                chosen = table.c.asset_key.startswith(asset_prefix, autoescape=True) & table.c.partition.in_(keys)
                found |= dict.fromkeys(
                    row[0] for row in con.execute(db.select(table.c.run_id).where(chosen).distinct())
                )
        return list(found)

    def read(self, connect: Any, table: Any, run_ids: Sequence[str] | None) -> list[tuple[int, str]]:
        """Row ids with their serialized events: those of the runs, or all."""
        import sqlalchemy as db

        column = self._column[table.name]
        chosen = column.is_not(None) if run_ids is None else column.is_not(None) & table.c.run_id.in_(run_ids)
        with connect() as con:
            return [(row[0], row[1]) for row in con.execute(db.select(table.c.id, column).where(chosen))]

    def replace(self, connect: Any, table: Any, events: Sequence[tuple[int, str]]) -> None:
        """Store other serialized events in these rows, all or none."""
        import sqlalchemy as db

        if not events:
            return
        # One statement for all: SQLAlchemy takes more time for each than the database does.
        update = table.update().where(table.c.id == db.bindparam("at"))
        update = update.values({self._column[table.name].name: db.bindparam("changed")})
        with connect() as con:
            con.execute(update, [{"at": number, "changed": text} for number, text in events])

    def vacuum_postgres(self) -> None:
        """Rebuild Postgres' tables: pages keep what was replaced. They are locked meanwhile."""
        import sqlalchemy as db

        with self._storage.index_connection() as con:
            url = con.engine.url
        engine = db.create_engine(url, isolation_level="AUTOCOMMIT", poolclass=db.pool.NullPool)
        with engine.connect() as con:
            for table in self.tables:
                con.execute(db.text(f"VACUUM FULL {table.name}"))


def event_data(about: dg.AssetMaterialization | dg.AssetObservation) -> Any:
    """The specific data of an event about a materialization or an observation."""
    from dagster._core.events import AssetObservationData, StepMaterializationData

    if isinstance(about, dg.AssetObservation):
        return AssetObservationData(about)
    return StepMaterializationData(about)
