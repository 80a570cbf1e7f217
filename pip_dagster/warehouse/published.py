"""What everybody may read at any time: Parquet files and a small database of views over them.

A warehouse file can be opened by nobody while a run writes to it. So after each commit the partition's live predictions
and its ledger are written beside it, each file replaced at once; a reader has the old one or the new one. A lake can be
read at any time; its project may leave this away.
"""

from __future__ import annotations

import logging
import secrets
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote as url_quote

from pip_dagster.declaration.lake import is_transient
from pip_dagster.sql.names import REASON_COLUMNS, among, literal, quote
from pip_dagster.warehouse import advisory
from pip_dagster.warehouse.pending import Pending, pending_of
from pip_dagster.warehouse.published_views import publish_views
from pip_dagster.warehouse.tables import has_view, predictions_select
from pip_dagster.warehouse.transaction import transaction

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from pip_dagster.declaration.project import Project

LOG = logging.getLogger("pip_dagster")

_TOO_WIDE = {"HUGEINT", "UHUGEINT"}

# How many partitions one process publishes before it lets go of their locks.
_BATCH = 16


def partition_file(folder: Path, pipeline: str, kind: str, partition_key: str) -> Path:
    """Where a partition's `kind` (predictions, ledger) is published."""
    return folder / pipeline / kind / f"{url_quote(partition_key, safe=' ')}.parquet"


def publish_pending(con: DuckDBPyConnection, project: Project, *, anew: bool = False) -> int:
    """Write what the ledger says and the files do not show yet, whoever committed it; the number of partitions.

    The warehouse is the current catalog, nothing is in transaction. A kill in between leaves partitions pending, and
    the next call writes them. Where the folder is gone, or `anew` is asked for, every partition is written again. One
    that cannot be written stays pending and keeps no other from being: it is told in the log. In a shared warehouse
    a partition is published by one process at a time, or an older state could replace a newer one.
    """
    import duckdb

    folder = project.published
    if not project.publishes:
        return 0
    if not anew and not folder.is_dir() and con.execute("SELECT 1 FROM ledger.publications LIMIT 1").fetchone():
        anew = True
    if anew and not advisory.is_shared(con):  # whatever is not done of it, by a kill or an error, is pending still
        con.execute("DELETE FROM ledger.publications")
        anew = False
    pending = pending_of(con, anew=anew)
    if advisory.is_shared(con):
        _publish_among_others(con, folder, pending, anew)
    else:
        _publish(con, folder, pending)
    try:
        publish_views(con, folder)
    except (duckdb.Error, OSError) as error:
        again = "Mend that: the next run writes it, or `pip-dagster publish`."
        LOG.error("%s cannot be written, everything is stored: %s. %s", folder.with_suffix(".duckdb"), error, again)
    return len(pending)


def _publish_among_others(con: DuckDBPyConnection, folder: Path, pending: Sequence[Pending], anew: bool) -> None:
    """First what nobody else is publishing; then what somebody was, unless that has made it unnecessary."""
    locks = {(each[0], each[1]): advisory.key_of("publish", each[0], each[1]) for each in pending}

    def publish(keys: set[int]) -> None:
        _publish(con, folder, [each for each in pending_of(con, anew=anew) if locks.get((each[0], each[1])) in keys])

    busy: list[int] = []
    for batch in _batches(list(locks.values())):
        with advisory.holding_free(con, batch) as free:
            if free:
                publish(free)
        busy += [key for key in batch if key not in free]
    for batch in _batches(busy):
        with advisory.holding(con, batch):
            publish(set(batch))


def _batches(keys: Sequence[int]) -> Iterable[Sequence[int]]:
    return (keys[at : at + _BATCH] for at in range(0, len(keys), _BATCH))


def _publish(con: DuckDBPyConnection, folder: Path, pending: Sequence[Pending]) -> None:
    import duckdb

    ids: list[str] = []
    for pipeline, group in groupby(pending, key=itemgetter(0)):
        left = deque(group)
        while left:
            try:
                with transaction(con, late=True):  # all its files as of one moment
                    there = _There.of(con, pipeline, [key for _, key, _ in left])
                    while left:
                        _publish_partition(con, folder, pipeline, left[0][1], there)
                        ids += left.popleft()[2]
            except (duckdb.Error, OSError) as error:  # a full disk, a file where a folder should be
                if is_transient(error):
                    raise
                key = left.popleft()[1]
                again = "Mend that: the next run publishes it, or `pip-dagster publish`."
                LOG.error("%s, partition %s is stored but cannot be published: %s. %s", pipeline, key, error, again)
    if ids:
        con.execute(
            "INSERT INTO ledger.publications SELECT id, $now FROM (SELECT unnest($ids) AS id) ANTI JOIN "
            f"(FROM ledger.publications WHERE change_id >= {literal(min(ids))}) p ON p.change_id = id",
            {"ids": ids, "now": datetime.now(UTC)},
        )


@dataclass(frozen=True)
class _There:
    """What there is to show of some partitions: the live scorings of each, and which have rows of a kind.

    `predictions` selects those of all partitions; `wide`: kind → quoted columns that are too wide for Parquet.
    """

    live: dict[str, list[str]]
    having: dict[str, set[str]]
    predictions: str
    wide: dict[str, list[str]] = field(default_factory=dict)

    @classmethod
    def of(cls, con: DuckDBPyConnection, pipeline: str, keys: Sequence[str]) -> _There:
        """Read it at once: for each partition by itself, a lake would take several times as long."""
        of_keys = among("partition_key", keys)
        of_pipeline = f"WHERE pipeline = {literal(pipeline)} AND {of_keys}"
        of_live = f"SELECT partition_key, list(DISTINCT scoring_id) FROM ledger.live_arms {of_pipeline} GROUP BY ALL"
        live: dict[str, list[str]] = dict(con.execute(of_live).fetchall())
        wanted = {"checks": f"FROM ledger.checks {of_pipeline}"}
        wanted["arms"] = f"FROM ledger.checks {of_pipeline} AND section = 'split'"
        if has_view(con, pipeline, "reasons"):
            shown = among("scoring_id", [each for of in live.values() for each in of])
            wanted["reasons"] = f"FROM {quote(pipeline)}.reasons WHERE {shown}"
        if has_view(con, pipeline, "quarantine"):
            wanted["quarantine"] = f"FROM {quote(pipeline)}.quarantine WHERE {of_keys}"
        having = {
            kind: {row[0] for row in con.execute(f"SELECT DISTINCT partition_key {select}").fetchall()}
            for kind, select in wanted.items()
        }
        return cls(live, having, predictions_select(con, pipeline) if live else "")

    def too_wide(self, con: DuckDBPyConnection, kind: str, select: str) -> list[str]:
        """The columns of `select`, which reads this kind of table, that Parquet does not hold; looked up once."""
        if kind not in self.wide:
            described = con.execute(f"DESCRIBE {select}").fetchall()
            self.wide[kind] = [quote(name) for name, sql_type, *_ in described if sql_type in _TOO_WIDE]
        return self.wide[kind]


def _publish_partition(con: DuckDBPyConnection, folder: Path, pipeline: str, partition_key: str, there: _There) -> None:
    of_partition = f"pipeline = {literal(pipeline)} AND partition_key = {literal(partition_key)}"
    live = there.live.get(partition_key)
    selects = {
        "ledger": f"SELECT * FROM ledger.partitions WHERE {of_partition} ORDER BY scoring_id",
        "checks": f"SELECT * FROM ledger.checks WHERE {of_partition} ORDER BY made_at",
    }
    if live:
        # Literals, so that DuckDB skips the row groups of other scorings.
        of_live = among("scoring_id", live)
        of_rows = f"partition_key = {literal(partition_key)} AND {of_live}"
        selects["predictions"] = f"SELECT * FROM ({there.predictions}) p WHERE {of_rows}"
        if "reasons" in there.having:
            selects["reasons"] = _live_reasons(con, pipeline, of_live, split=len(live) > 1)
    if "quarantine" in there.having:
        selects["quarantine"] = (
            f"SELECT * FROM {quote(pipeline)}.quarantine WHERE partition_key = {literal(partition_key)}"
        )
    if partition_key in there.having["arms"]:
        selects["arms"] = f"SELECT * FROM ledger.live_arms WHERE {of_partition} ORDER BY low"
    for kind, select in selects.items():
        target = partition_file(folder, pipeline, kind, partition_key)
        always = target.exists() or kind in ("ledger", "predictions")
        if not always and partition_key not in there.having[kind]:
            continue  # nothing to show, as for most partitions
        # A key has at most 38 digits, which was seen to; a quarantined value may have any number.
        exact = "VARCHAR" if kind == "quarantine" else "DECIMAL(38, 0)"
        _replace_parquet(con, _exact_in_parquet(there.too_wide(con, kind, select), select, exact), target)


def _live_reasons(con: DuckDBPyConnection, pipeline: str, of_live: str, *, split: bool) -> str:
    """The reasons of live scorings; in a split partition, those of the rows for which their scoring is the live one."""
    reasons = f"SELECT r.* FROM {quote(pipeline)}.reasons r"
    if not split:
        return f"{reasons} WHERE {of_live}"
    shared = con.execute(
        "SELECT column_name FROM duckdb_columns() WHERE database_name = current_database() AND schema_name = $p "
        "AND table_name IN ('reasons', 'scores') AND NOT list_contains($reasons, column_name) "
        "GROUP BY 1 HAVING count(*) = 2 ORDER BY 1",
        {"p": pipeline, "reasons": sorted(REASON_COLUMNS)},
    ).fetchall()
    same = " AND ".join(f"p.{quote(name)} IS NOT DISTINCT FROM r.{quote(name)}" for (name,) in shared)
    live = f"SELECT * FROM ({predictions_select(con, pipeline)}) WHERE {of_live}"
    return f"{reasons} SEMI JOIN ({live}) p ON {same} WHERE r.{of_live}"


def _exact_in_parquet(wide: list[str], select: str, exact: str) -> str:
    """The same rows; Parquet has no HUGEINT and DuckDB would write a DOUBLE: two keys could become one."""
    casts = ", ".join(f"{column}::{exact} AS {column}" for column in wide)
    return f"SELECT * REPLACE ({casts}) FROM ({select})" if casts else select


def _replace_parquet(con: DuckDBPyConnection, select: str, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
    try:
        con.execute(f"COPY ({select}) TO {literal(str(temporary))} (FORMAT parquet, COMPRESSION zstd)")
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
