"""What Dagster keeps of a run, without what is erased: its events, the newest event of each asset, and its output.

Events of concerned partitions lose metadata and texts and say that they were erased. They stay: partitions remain
materialized, checks keep their outcome, and every event can be read. Those of other partitions are not touched.
"""

from __future__ import annotations

import json
import re
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from functools import lru_cache
from pathlib import Path
from typing import Any

import dagster as dg

from pip_dagster.erasure.place import ErasureRequest, Removed
from pip_dagster.errors import ErasureError
from pip_dagster.orchestration.dagster_private import EventStore, event_data
from pip_dagster.orchestration.runs import PARTITION, RANGE_END, RANGE_START, UNFINISHED
from pip_dagster.warehouse import lock

ERASED = "erased"
_METHOD = "metadata and texts of events replaced, output of the runs deleted, databases rewritten"
_REMAINS = (
    "backups of DAGSTER_HOME, or of its Postgres, whose log of writes and archive have them too; data versions of "
    "source tables that were observed, digests of all their rows"
)


class DagsterPlace:
    """The runs of concerned partitions. An asset belongs to the pipeline that its key begins with."""

    name = "dagster"

    def __init__(self, instance: dg.DagsterInstance) -> None:
        self._instance = instance
        self._store = EventStore(instance)

    def count(self, request: ErasureRequest) -> int:
        """Events that have something to erase; each is in two databases of SQLite, and counts twice."""
        runs, change = self._runs(request), _changing(request)
        return sum(len(self._changes(*each, runs, change)) for each in self._tables(runs))

    def remove(self, request: ErasureRequest) -> Removed:
        """Redact the events, delete the output of the runs, and rewrite each database.

        Raises:
            ErasureError: a run of these partitions has not ended, or a database stays in use.
        """
        runs, change = self._runs(request), _changing(request)
        for run in self._instance.get_runs(filters=dg.RunsFilter(statuses=[*UNFINISHED])):
            if run.run_id in runs:
                raise ErasureError(
                    f"Run {run.run_id} of partitions that erasure {request.erasure_id} concerns is "
                    f"{run.status.value.lower()}: it would write events of them again. Wait for it, and resume."
                )
        removed = 0
        for con, table in self._tables(runs):
            changes = self._changes(con, table, runs, change)
            self._store.replace(con, table, changes)
            removed += len(changes)
        for run_id in runs:
            self._instance.compute_log_manager.delete_logs(prefix=[run_id, "compute_logs"])
        until = time.monotonic() + lock.declared_deadline()
        if self._store.is_sqlite:
            for name in ("index", *runs):
                _rewrite(self._store.path(name), until)
        else:
            self._store.vacuum_postgres()
        return Removed(removed, removed, 0, _METHOD, remains=_REMAINS)  # `verify` reads all of them again

    def verify(self, request: ErasureRequest) -> str:
        """Read every event of the concerned runs again.

        Raises:
            ErasureError: an event has something to erase.
        """
        if left := self.count(request):
            raise ErasureError(
                f"{left} events in Dagster still have something of erasure {request.erasure_id}: a run wrote them "
                "meanwhile. Wait until it has ended and resume the erasure."
            )
        return "every event of the runs of these partitions was read: none has metadata or texts of theirs"

    def _tables(self, runs: Sequence[str]) -> Iterator[tuple[Any, Any]]:
        for connect in self._store.connections(runs):
            for table in self._store.tables:
                yield connect, table

    def _changes(
        self, connect: Any, table: Any, runs: Sequence[str], change: Callable[[str], str | None]
    ) -> list[tuple[int, str]]:
        of = None if table.name == "asset_keys" else runs
        changed = ((number, change(text)) for number, text in self._store.read(connect, table, of))
        return [(number, text) for number, text in changed if text is not None]

    def _runs(self, request: ErasureRequest) -> list[str]:
        """Runs with an event of a concerned partition, or whose tags name one."""
        found = dict.fromkeys(
            run_id
            for pipeline, keys in request.partitions.items()
            for run_id in self._store.runs_of(f'["{pipeline}"', keys)
        )
        for run in self._instance.get_runs(filters=dg.RunsFilter(statuses=[*UNFINISHED])):
            if any(_named(run.tags, keys) for keys in request.partitions.values()):
                found.setdefault(run.run_id)
        return list(found)


def _named(tags: Mapping[str, str], keys: Sequence[str]) -> bool:
    first, last = tags.get(RANGE_START), tags.get(RANGE_END)
    return tags.get(PARTITION) in keys or (first is not None and any(first <= key <= str(last) for key in keys))


def redacted(event: dg.EventLogEntry, request: ErasureRequest) -> dg.EventLogEntry:
    """The event without what concerns the erasure; the same object where nothing does."""
    note = _text(request)
    inner = event.dagster_event
    data: Any = inner.event_specific_data if inner else None
    about = getattr(data, "materialization", None) or getattr(data, "asset_observation", None) or data
    if isinstance(about, (dg.AssetMaterialization, dg.AssetObservation, dg.AssetCheckEvaluation)):
        if not _concerned(about, request) or _note(about) == note or str(_note(about)).startswith(ERASED):
            return event
        assert inner
        blank = _blank(about, note)
        given = blank if isinstance(blank, dg.AssetCheckEvaluation) else event_data(blank)
        return event._replace(user_message=note, dagster_event=inner._replace(event_specific_data=given, message=note))
    texts = [
        event.user_message,
        inner.message if inner else None,
        str(event.error_info or ""),
        str(getattr(data, "error", None) or ""),
    ]
    if not any(_names(text, request) for text in texts if text) or event.user_message == note:
        return event
    if inner is None:
        return event._replace(user_message=note, error_info=None)
    if getattr(data, "error", None) is not None and hasattr(data, "_replace"):
        data = data._replace(error=data.error._replace(message=note, stack=[], cause=None, context=None))
    return event._replace(user_message=note, dagster_event=inner._replace(event_specific_data=data, message=note))


def _concerned(about: Any, request: ErasureRequest) -> bool:
    keys = request.partitions.get(about.asset_key.path[0], ())
    named = about.metadata.get("partition")
    return about.partition in keys or getattr(named, "value", None) in keys


def _note(about: Any) -> object:
    return getattr(about.metadata.get("note"), "value", None)


def _blank(about: Any, note: str) -> Any:
    """The same outcome with a note for metadata. The data version, a hash of what was run, stays for staleness."""
    from dagster_shared.record import replace

    metadata = {"note": dg.MetadataValue.text(note)}
    metadata |= {"partition": about.metadata["partition"]} if "partition" in about.metadata else {}
    if isinstance(about, dg.AssetCheckEvaluation):
        return replace(about, metadata=metadata, description=note)
    return about._replace(metadata=metadata, description=note)


def _changing(request: ErasureRequest) -> Callable[[str], str | None]:
    """What replaces the text of an event; None where nothing in it concerns the erasure.

    To parse one takes a millisecond. So that is done only of those that name a partition or the subject and have not
    been replaced, and once of one that is in two databases.
    """
    found = {key for keys in request.partitions.values() for key in keys}
    found |= {value for values in request.subjects.values() for value in values}
    written = {json.dumps(each, ensure_ascii=ascii)[1:-1] for each in found for ascii in (True, False)}
    named, note = re.compile("|".join(map(re.escape, sorted(written))) or "(?!)"), _text(request)

    @lru_cache(maxsize=2**13)
    def change(text: str) -> str | None:
        if named.search(text) is None or note in text:
            return None
        stored: Any = dg.deserialize_value(text)
        event = stored.event_log_entry if isinstance(stored, dg.EventLogRecord) else stored
        other = redacted(event, request)
        if other is event:
            return None
        return dg.serialize_value(stored._replace(event_log_entry=other) if stored is not event else other)

    return change


def _text(request: ErasureRequest) -> str:
    return f"{ERASED} by {request.erasure_id}"


def _names(text: str, request: ErasureRequest) -> bool:
    """Whether a text names a concerned partition, or has the subject's value as a word of its own."""
    wanted = {key for keys in request.partitions.values() for key in keys}
    wanted |= {value for values in request.subjects.values() for value in values}
    return any(re.search(rf"(?<!\w){re.escape(each)}(?!\w)", text) for each in wanted if each in text)


def _rewrite(file: Path, until: float) -> None:
    """Deleted bytes stay in free pages and in the log of writes, until both are rebuilt.

    Raises:
        ErasureError: another process reads or writes the file all the time.
    """
    busy = ""
    with lock.said_wait(lambda: busy):
        while file.is_file():
            try:
                with closing(sqlite3.connect(file, timeout=1, isolation_level=None)) as con:
                    con.execute("VACUUM")
                    if con.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0:
                        return
            except sqlite3.OperationalError as error:
                if "locked" not in str(error) and "busy" not in str(error):
                    raise ErasureError(
                        f"{file} cannot be rewritten: {error}. Repair it and resume the erasure."
                    ) from error
            if time.monotonic() > until:
                raise ErasureError(f"{file} is in use all the time. Stop Dagster's webserver and daemon, and resume.")
            time.sleep(0.2)
