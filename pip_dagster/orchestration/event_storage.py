"""Dagster's event log on SQLite, which also stores the events of many partitions in one transaction."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg

from pip_dagster.orchestration.dagster_private import ASSET_CHECK_EVENTS, INDEX_SHARD_NAME, SqliteEventLogStorage

# Databases whose engine is kept: the index, and those of the runs that are at work or looked at.
_ENGINES = 8


class BatchedEventStorage(SqliteEventLogStorage):
    """For `event_log_storage` in dagster.yaml: a run of a year's dates then costs seconds less.

    Dagster collects the events of many partitions, up to `DAGSTER_EVENT_BATCH_SIZE` of them. Its own storage stores a
    batch one by one, and opens and commits two databases for each. Files and tables are the same: without this class
    in dagster.yaml, Dagster continues with what is there.

    Dagster's own also creates an engine for each connection, and the engine has the statements that SQLAlchemy has
    compiled. Here engines are kept, and connections are not: each is closed when it was used, as before.
    """

    def __init__(self, base_dir: str, inst_data: Any = None) -> None:
        self._engines: dict[str, Any] = {}
        super().__init__(base_dir, inst_data)

    @classmethod
    def from_config_value(cls, inst_data: Any, config_value: Any) -> BatchedEventStorage:
        """Open the events below the instance's folder, `base_dir`, where Dagster's own storage has them."""
        return cls(str(Path(config_value["base_dir"]) / "history" / "runs"), inst_data)

    @contextmanager
    def _connect(self, shard: str) -> Iterator[Any]:
        """A transaction in the database of a run, or in the index. The first one creates the database."""
        engine = self._engines.get(shard) if shard in self._initialized_dbs else None
        if engine is not None:
            with self._db_lock, engine.begin() as con:
                yield con
            return
        with super()._connect(shard) as con:
            self._engines[shard] = con.engine
            for oldest in [*self._engines][:-_ENGINES]:
                self._engines.pop(oldest, None)
            yield con

    def has_table(self, table_name: str) -> bool:
        """Whether the index has a table. Dagster also asks while a connection has the lock."""
        if (engine := self._engines.get(INDEX_SHARD_NAME)) is None:
            return super().has_table(table_name)
        with engine.connect() as con:
            return bool(engine.dialect.has_table(con, table_name))

    def store_event_batch(self, events: Sequence[dg.EventLogEntry]) -> None:
        """Store a run's events in its own database, then those of assets and checks in the index of all runs.

        Dagster only batches events that go into both.
        """
        statements = [self.prepare_insert_event(event) for event in events]
        with self.run_connection(events[0].run_id) as con:
            for statement in statements:
                con.execute(statement)
        with self.index_connection() as con:
            ids = [con.execute(statement).lastrowid for statement in statements]
        stored = dict(zip(ids, events, strict=True))
        of_assets = {
            each: event for each, event in stored.items() if event.dagster_event_type not in ASSET_CHECK_EVENTS
        }
        self.store_asset_event_tags([*of_assets.values()], [*of_assets])
        last = {event.get_dagster_event().asset_key: each for each, event in of_assets.items()}
        for each in last.values():  # an asset's row names its last event
            self.store_asset_event(of_assets[each], each)
        for each in ids:
            if each not in of_assets:
                self.store_asset_check_event(stored[each], each)
