"""What anybody may read at any time: files of rows, and a small database of views over them.

While a run writes to a warehouse file, nobody else can open it. So after each commit the partition's live predictions
and its ledger are written beside it, in one change: a reader sees what was there before or what is there now. A lake
can be read at any time; its project may publish nothing.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING

from pip_dagster import clock
from pip_dagster.declaration.lake import is_transient
from pip_dagster.errors import MemoryLimitError, WarehouseLockedError
from pip_dagster.quoted import said
from pip_dagster.sql.names import among, literal
from pip_dagster.warehouse import advisory, published_rows, stamp
from pip_dagster.warehouse.memory import with_more
from pip_dagster.warehouse.pending import is_behind, pending_of, published_from
from pip_dagster.warehouse.published_change import Keep, change
from pip_dagster.warehouse.published_rows import Table
from pip_dagster.warehouse.published_select import rows_of
from pip_dagster.warehouse.published_views import parquet_folders, publish_views
from pip_dagster.warehouse.transaction import transaction

if TYPE_CHECKING:
    from datetime import datetime

    from duckdb import DuckDBPyConnection

    from pip_dagster.declaration.project import Project

LOG = logging.getLogger("pip_dagster")

_FIX = "Fix that and run `pip-dagster publish`; otherwise the next run publishes it."


def publish_pending(con: DuckDBPyConnection, project: Project, *, everything: bool = False, whole: bool = False) -> int:
    """Write what the ledger holds and the files do not show yet, whoever committed it; how many partitions it wrote.

    The warehouse is the current catalog and no transaction is open. A kill leaves partitions pending for the next
    call. With `everything`, or where the folder is gone or is older than the ledger, every partition is written. One
    that cannot be written stays pending, is logged, and does not block the others. In a shared warehouse one process
    at a time publishes a pipeline; otherwise an older state could replace a newer one. `whole`: no file is written as a
    copy of the present one, in which the bytes of replaced rows stay.
    """
    import duckdb

    if not project.publishes:
        return 0
    everything = everything or is_behind(con, project)
    if everything:  # what a kill or an error leaves undone is then pending
        with transaction(con):
            con.execute("DELETE FROM ledger.publications")
    done, filled = 0, dict[Table, frozenset[str]]()
    for pipeline, group in groupby(pending_of(con), key=itemgetter(0)):
        try:
            with _alone(con, pipeline) as still_alone:
                # Another process may have published some before it let this one in.
                shared = advisory.is_shared(con)
                pending = [each for each in pending_of(con) if each[0] == pipeline] if shared else list(group)
                ids = {key: ids for _, key, ids in pending}
                done += _publish(con, project, pipeline, ids, _Writing(filled, still_alone, everything, whole))
        except WarehouseLockedError as error:
            LOG.error("%s: its partitions stay pending: %s", pipeline, error)
    try:
        publish_views(con, project.published, filled, everything=everything)
        if (old := parquet_folders(project.published)) and not pending_of(con):
            for folder in old:
                shutil.rmtree(folder)
    except (duckdb.Error, OSError) as error:
        LOG.error("%s cannot be written, everything is stored: %s. %s", project.published_database, said(error), _FIX)
    return done


@contextmanager
def _alone(con: DuckDBPyConnection, pipeline: str) -> Iterator[Callable[[], None]]:
    """Be the only process that publishes this pipeline; yields a check of whether it still is."""
    if not advisory.is_shared(con):  # a warehouse file has one writer
        yield lambda: None
        return
    with advisory.holding(con, [advisory.key_of("publish", pipeline)]) as holder:
        yield lambda: advisory.check(holder)


@dataclass(frozen=True)
class _Writing:
    """How to publish, and the tables filled so far with their STRUCTs.

    `discard`: keep nothing of the present files. `whole`: keep none of their bytes.
    """

    filled: dict[Table, frozenset[str]]
    still_alone: Callable[[], None]
    discard: bool
    whole: bool


def _publish(
    con: DuckDBPyConnection, project: Project, pipeline: str, ids: Mapping[str, list[str]], writing: _Writing
) -> int:
    """Publish the partitions in `ids`, partition → ids of its changes. After an error the rest stays pending."""
    import duckdb

    folder, done = project.published / pipeline, list[str]()
    try:
        published_rows.remove_unfinished(folder)
        damaged = published_rows.unreadable(con, folder) if writing.discard else set()
        written: set[Path] = set()
        sizes, since = _sizes(con, pipeline, ids)
        for file, keys in published_rows.places(con, folder, sizes, without=damaged):
            read = partial(rows_of, con, pipeline, keys, since)
            discard = writing.discard and file not in written
            keep: Keep = "nothing" if discard else "rows" if writing.whole else "bytes"
            to = partial(change, con, file, keys, read, writing.still_alone, keep=keep, pipeline=pipeline)
            filled = with_more(con, to)  # a file may have more rows than the run that is published
            for table, structs in filled.items():
                writing.filled[table] = writing.filled.get(table, frozenset()) | structs
            written.add(file)
            done += keys
        for file in damaged - written:
            file.unlink()
    # A full disk, a damaged file, a file where a folder should be, too little memory.
    except (duckdb.Error, OSError, MemoryLimitError) as error:
        if is_transient(error):
            raise
        left = sorted(ids.keys() - {*done})
        which = f"partition {left[0]} is" if len(left) == 1 else f"partitions {left[0]} to {left[-1]} are"
        LOG.error("%s, %s stored but cannot be published: %s. %s", pipeline, which, said(error).rstrip("."), _FIX)
    recorded = [each for key in done for each in ids[key]]
    if not recorded or not _stamped(con, project):
        return 0
    con.execute(
        "INSERT INTO ledger.publications SELECT id, $now FROM (SELECT unnest($ids) AS id) ANTI JOIN "
        f"(FROM ledger.publications WHERE {published_from(con, min(recorded))}) p ON p.change_id = id",
        {"ids": recorded, "now": clock.now()},
    )
    return len(done)


def _sizes(con: DuckDBPyConnection, pipeline: str, keys: Iterable[str]) -> tuple[dict[str, int], datetime | None]:
    """Partition → its rows, about, in order; an alarm may be about one that was never scored.

    And when their oldest scoring was recorded; not of a shared warehouse, where older ones may yet be committed.
    """
    select = (
        f"SELECT partition_key, coalesce(max(rows_in), 0), epoch_us(min(made_at)) FROM ledger.scorings "
        f"WHERE pipeline = {literal(pipeline)} AND {among('partition_key', keys)} GROUP BY 1"
    )
    found = con.execute(select).fetchall()
    times = [at for *_, at in found]
    unknown = not times or None in times or advisory.is_shared(con)  # None: an infinite time
    since = None if unknown else clock.instant(min(times))
    return dict(sorted((dict.fromkeys(keys, 0) | {key: rows for key, rows, _ in found}).items())), since


def _stamped(con: DuckDBPyConnection, project: Project) -> bool:
    """Write the stamp beside the published files; if that fails, what was written stays pending."""
    path = stamp.published_stamp(project)
    try:
        with advisory.holding(con, [advisory.key_of("stamp")]) if advisory.is_shared(con) else nullcontext():
            stamp.write(con, path)
    except OSError as error:
        LOG.error("%s cannot be written, everything is stored: %s. %s", path, error, _FIX)
        return False
    return True
