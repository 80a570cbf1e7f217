"""What anybody may read at any time: Parquet files and a small database of views over them.

While a run writes to a warehouse file, nobody else can open it. So after each commit the partition's live predictions
and its ledger are written beside it. Each file is replaced at once: a reader sees the old one or the new one. A lake
can be read at any time; its project may publish nothing.
"""

from __future__ import annotations

import logging
import re
import secrets
from collections import deque
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote as url_quote

from pip_dagster import clock
from pip_dagster.declaration.lake import is_transient
from pip_dagster.sql.names import REASON_COLUMNS, among, bare_type, literal, quote
from pip_dagster.warehouse import advisory, kinds, stamp
from pip_dagster.warehouse.kinds import PublishedKind
from pip_dagster.warehouse.pending import Pending, is_behind, pending_of
from pip_dagster.warehouse.published_views import publish_views
from pip_dagster.warehouse.tables import views_of
from pip_dagster.warehouse.transaction import transaction

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from pip_dagster.declaration.project import Project

LOG = logging.getLogger("pip_dagster")

_TOO_WIDE = {"HUGEINT", "UHUGEINT"}
# Types that DuckDB writes to Parquet as others, with other values; the rest keep their values.
_AS_TEXT = re.compile(r"\b(U?HUGEINT|INTERVAL|TIME WITH TIME ZONE|UNION)\b")

# How many partitions one process publishes before it releases their locks.
_BATCH = 16

_FIX = "Fix that and run `pip-dagster publish`; otherwise the next run publishes it."


def partition_file(folder: Path, pipeline: str, kind: str, partition_key: str) -> Path:
    """Where a partition's rows of `kind` (predictions, ledger) are published."""
    return folder / pipeline / kind / f"{url_quote(partition_key, safe=' ')}.parquet"


def publish_pending(con: DuckDBPyConnection, project: Project, *, everything: bool = False) -> int:
    """Write what the ledger holds and the files do not show yet, whoever committed it; how many partitions it wrote.

    The warehouse is the current catalog and no transaction is open. A kill leaves partitions pending for the next
    call. With `everything`, or where the folder is gone or is older than the ledger, every partition is written. One
    that cannot be written stays pending, is logged, and does not block the others. In a shared warehouse one process
    at a time publishes a partition; otherwise an older state could replace a newer one.
    """
    import duckdb

    folder = project.published
    if not project.publishes:
        return 0
    everything = everything or is_behind(con, project)
    if everything and not advisory.is_shared(con):  # what a kill or an error leaves undone is then pending
        con.execute("DELETE FROM ledger.publications")
        everything = False
    pending = pending_of(con, everything=everything)
    if advisory.is_shared(con):
        done = _publish_among_others(con, project, pending, everything=everything)
    else:
        done = _publish(con, project, pending)
    try:
        publish_views(con, folder)
    except (duckdb.Error, OSError) as error:
        LOG.error("%s cannot be written, everything is stored: %s. %s", folder.with_suffix(".duckdb"), error, _FIX)
    return done


def _publish_among_others(
    con: DuckDBPyConnection, project: Project, pending: Sequence[Pending], *, everything: bool
) -> int:
    """First what no other process is publishing; then the rest, unless the other process has published it."""
    locks = {(each[0], each[1]): advisory.key_of("publish", each[0], each[1]) for each in pending}

    def publish(keys: set[int]) -> int:
        listed = pending_of(con, everything=everything)
        return _publish(con, project, [each for each in listed if locks.get((each[0], each[1])) in keys])

    busy: list[int] = []
    done = 0
    for batch in _batches(list(locks.values())):
        with advisory.holding_free(con, batch) as free:
            if free:
                done += publish(free)
        busy += [key for key in batch if key not in free]
    for batch in _batches(busy):
        with advisory.holding(con, batch):
            done += publish(set(batch))
    return done


def _batches(keys: Sequence[int]) -> Iterable[Sequence[int]]:
    return (keys[at : at + _BATCH] for at in range(0, len(keys), _BATCH))


def _publish(con: DuckDBPyConnection, project: Project, pending: Sequence[Pending]) -> int:
    import duckdb

    folder, ids, done = project.published, list[str](), 0
    for pipeline, group in groupby(pending, key=itemgetter(0)):
        left = deque(group)
        while left:
            try:
                with transaction(con, late=True):  # all its files as of one moment
                    snapshot = _Snapshot.of(con, pipeline, [key for _, key, _ in left])
                    while left:
                        snapshot.write(folder, left[0][1])
                        ids += left.popleft()[2]
                        done += 1
            except (duckdb.Error, OSError) as error:  # a full disk, a file where a folder should be
                if is_transient(error):
                    raise
                key = left.popleft()[1]
                LOG.error("%s, partition %s is stored but cannot be published: %s. %s", pipeline, key, error, _FIX)
    if ids and _stamped(con, project):
        con.execute(
            "INSERT INTO ledger.publications SELECT id, $now FROM (SELECT unnest($ids) AS id) ANTI JOIN "
            f"(FROM ledger.publications WHERE change_id >= {literal(min(ids))}) p ON p.change_id = id",
            {"ids": ids, "now": clock.now()},
        )
        return done
    return 0


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


@dataclass(frozen=True)
class _Snapshot:
    """What there is to publish of some partitions of a pipeline, as of one transaction.

    `live`: partition → its live scorings. `having`: kind → the partitions that have rows of it. `casts`: kind → what
    replaces the columns that Parquet cannot hold.
    """

    con: DuckDBPyConnection
    pipeline: str
    live: dict[str, list[str]]
    having: dict[PublishedKind, set[str]]
    casts: dict[PublishedKind, list[str]] = field(default_factory=dict)

    @classmethod
    def of(cls, con: DuckDBPyConnection, pipeline: str, keys: Sequence[str]) -> _Snapshot:
        """Read it for all partitions at once: one by one, a lake would take several times as long."""
        of_keys = among("partition_key", keys)
        live_arms = f"ledger.live_arms WHERE pipeline = {literal(pipeline)} AND {of_keys}"
        select = f"SELECT partition_key, list(DISTINCT scoring_id) FROM {live_arms} GROUP BY ALL"
        snapshot = cls(con, pipeline, dict(con.execute(select).fetchall()), {})
        views = views_of(con, pipeline)
        scorings = [scoring for live in snapshot.live.values() for scoring in live]
        for kind in kinds.published():
            if kind.schema is None and kind.name not in views:
                continue
            rows = kind.has_rows or kind.in_sql(pipeline)
            where = snapshot._where(kind, of_keys, scorings)
            select = f"SELECT DISTINCT partition_key FROM {rows} WHERE {where}"
            snapshot.having[kind] = {*keys} if kind.always else {row[0] for row in con.execute(select).fetchall()}
        return snapshot

    def _where(self, kind: PublishedKind, of_keys: str, scorings: Sequence[str]) -> str:
        """The rows to publish. Literals, so that DuckDB skips the row groups of other scorings."""
        if kind.schema:
            return f"pipeline = {literal(self.pipeline)} AND {of_keys}"
        return f"{of_keys} AND {among('scoring_id', scorings)}" if kind.live else of_keys

    def write(self, folder: Path, key: str) -> None:
        """Write the files of a partition; a kind that it has no rows of only where there is a file of it already."""
        live = self.live.get(key, [])
        for kind, having in self.having.items():
            target = partition_file(folder, self.pipeline, kind.folder or kind.name, key)
            if (live or not kind.live) and (key in having or target.exists()):
                where = self._where(kind, f"partition_key = {literal(key)}", live)
                _replace_parquet(self.con, self._exact(kind, self._rows(kind, where, split=len(live) > 1)), target)

    def _rows(self, kind: PublishedKind, where: str, *, split: bool) -> str:
        rows = f"{kind.in_sql(self.pipeline)} r"
        if kind.live == "row" and split:
            same = " AND ".join(f"p.{name} IS NOT DISTINCT FROM r.{name}" for name in self._row_columns(kind))
            live = f"SELECT * FROM {quote(self.pipeline)}.predictions WHERE {where}"
            rows = f"{rows} SEMI JOIN ({live}) p ON {same}"
        order = f" ORDER BY {kind.order}" if kind.order else ""
        return f"SELECT * FROM {rows} WHERE {where}{order}"

    def _row_columns(self, kind: PublishedKind) -> list[str]:
        """The columns, quoted, by which a row of this kind and a scored row are the same."""
        found = self.con.execute(
            "SELECT column_name FROM duckdb_columns() WHERE database_name = current_database() AND schema_name = $p "
            "AND table_name IN ($kind, 'scores') AND NOT list_contains($own, column_name) "
            "GROUP BY 1 HAVING count(*) = 2 ORDER BY 1",
            {"p": self.pipeline, "kind": kind.name, "own": sorted(REASON_COLUMNS)},
        ).fetchall()
        return [quote(name) for (name,) in found]

    def _exact(self, kind: PublishedKind, select: str) -> str:
        """The same rows; Parquet has no HUGEINT and DuckDB would write a DOUBLE: two keys could become one."""
        if kind not in self.casts:
            types = {quote(name): sql_type for name, sql_type, *_ in self.con.execute(f"DESCRIBE {select}").fetchall()}
            wide = {column: kind.wide_as for column, sql_type in types.items() if sql_type in _TOO_WIDE}
            text = {column: "VARCHAR" for column, sql_type in types.items() if _AS_TEXT.search(bare_type(sql_type))}
            self.casts[kind] = [f"{column}::{sql_type} AS {column}" for column, sql_type in (text | wide).items()]
        casts = ", ".join(self.casts[kind])
        return f"SELECT * REPLACE ({casts}) FROM ({select})" if casts else select


def _replace_parquet(con: DuckDBPyConnection, select: str, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
    try:
        con.execute(f"COPY ({select}) TO {literal(str(temporary))} (FORMAT parquet, COMPRESSION zstd)")
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
