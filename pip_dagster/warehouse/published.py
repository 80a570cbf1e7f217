"""What everybody may read at any time: Parquet files and a small database of views over them.

A warehouse file can be opened by nobody while a run writes to it. So after each commit the partition's live predictions
and its ledger are written beside it, each file replaced at once; a reader has the old one or the new one. A lake can be
read at any time; its project may leave this away.
"""

from __future__ import annotations

import glob
import logging
import secrets
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote as url_quote

from pip_dagster.warehouse import advisory
from pip_dagster.warehouse.connect import transaction
from pip_dagster.warehouse.names import literal, quote
from pip_dagster.warehouse.tables import has_view, predictions_select

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from pip_dagster.project import Project

LOG = logging.getLogger("pip_dagster")

_PENDING = """
  SELECT pipeline, partition_key, list(id) AS ids FROM (
    SELECT pipeline, partition_key, change_id AS id FROM ledger.live_changes
    UNION ALL SELECT pipeline, partition_key, scoring_id FROM ledger.scorings
  ) ANTI JOIN ledger.publications p ON p.change_id = id
  GROUP BY ALL ORDER BY ALL
"""


# How many partitions one process publishes before it lets go of their locks.
_BATCH = 16

Pending = tuple[str, str, list[str]]  # pipeline, partition key, ids of what is not published


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
    pending = _pending(con, anew)
    if advisory.is_shared(con):
        _publish_among_others(con, folder, pending, anew)
    else:
        _publish(con, folder, pending)
    try:
        _publish_views(con, folder)
    except (duckdb.Error, OSError) as error:
        LOG.error("%s cannot be written, everything is stored: %s", folder.with_suffix(".duckdb"), error)
    return len(pending)


def _pending(con: DuckDBPyConnection, anew: bool) -> list[Pending]:
    sql = _PENDING.replace("ANTI JOIN ledger.publications p ON p.change_id = id", "") if anew else _PENDING
    return con.execute(sql).fetchall()


def _publish_among_others(con: DuckDBPyConnection, folder: Path, pending: Sequence[Pending], anew: bool) -> None:
    """First what nobody else is publishing; then what somebody was, unless that has made it unnecessary."""
    locks = {(each[0], each[1]): advisory.key_of("publish", each[0], each[1]) for each in pending}

    def publish(keys: set[int]) -> None:
        _publish(con, folder, [each for each in _pending(con, anew) if locks.get((each[0], each[1])) in keys])

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
    for pipeline, partition_key, changes in pending:
        try:
            with transaction(con, late=True):  # all its files as of one moment
                _publish_partition(con, folder, pipeline, partition_key)
            ids += changes
        except (duckdb.Error, OSError) as error:  # a full disk, a file where a folder should be
            LOG.error("%s, partition %s is stored but cannot be published: %s", pipeline, partition_key, error)
    if ids:
        con.execute(
            "INSERT INTO ledger.publications SELECT id, $now FROM (SELECT unnest($ids) AS id) "
            "ANTI JOIN ledger.publications p ON p.change_id = id",
            {"ids": ids, "now": datetime.now(UTC)},
        )


def _publish_partition(con: DuckDBPyConnection, folder: Path, pipeline: str, partition_key: str) -> None:
    of_partition = f"pipeline = {literal(pipeline)} AND partition_key = {literal(partition_key)}"
    live = con.execute(f"SELECT scoring_id FROM ledger.live WHERE {of_partition}").fetchone()
    selects = {
        "ledger": f"SELECT * FROM ledger.partitions WHERE {of_partition} ORDER BY scoring_id",
        "checks": f"SELECT * FROM ledger.checks WHERE {of_partition} ORDER BY made_at",
    }
    if live:
        selects["predictions"] = (
            f"SELECT * FROM ({predictions_select(pipeline)}) p "
            f"WHERE partition_key = {literal(partition_key)} AND scoring_id = {literal(live[0])}"
        )
        if has_view(con, pipeline, "reasons"):
            selects["reasons"] = f"SELECT * FROM {quote(pipeline)}.reasons WHERE scoring_id = {literal(live[0])}"
    if has_view(con, pipeline, "quarantine"):
        selects["quarantine"] = (
            f"SELECT * FROM {quote(pipeline)}.quarantine WHERE partition_key = {literal(partition_key)}"
        )
    for kind, select in selects.items():
        target = partition_file(folder, pipeline, kind, partition_key)
        always = target.exists() or kind in ("ledger", "predictions")
        if not always and not con.execute(f"{select} LIMIT 1").fetchone():
            continue  # nothing to show, as for most partitions
        # A key has at most 38 digits, which was seen to; a quarantined value may have any number.
        exact = "VARCHAR" if kind == "quarantine" else "DECIMAL(38, 0)"
        _replace_parquet(con, _exact_in_parquet(con, select, exact), target)


def _exact_in_parquet(con: DuckDBPyConnection, select: str, exact: str) -> str:
    """The same rows; Parquet has no HUGEINT and DuckDB would write a DOUBLE: two keys could become one."""
    described = con.execute(f"DESCRIBE {select}").fetchall()
    wide = [quote(name) for name, sql_type, *_ in described if sql_type in {"HUGEINT", "UHUGEINT"}]
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


def _publish_views(con: DuckDBPyConnection, folder: Path) -> None:
    """Make the database of views anew where the set of published tables, or their place, has changed."""
    if not folder.is_dir() or _views_show(folder, "\n".join(_view_statements(folder))):
        return
    with advisory.holding(con, [advisory.key_of("views")]) if advisory.is_shared(con) else nullcontext():
        _replace_views(folder, "\n".join(_view_statements(folder)))


def _views_show(folder: Path, script: str) -> bool:
    marker = folder / "views.sql"
    there = folder.with_suffix(".duckdb").is_file() and marker.is_file()
    return there and marker.read_text(encoding="utf-8") == script


def _replace_views(folder: Path, script: str) -> None:
    import duckdb

    database, marker = folder.with_suffix(".duckdb"), folder / "views.sql"
    temporary = database.with_name(f".{database.name}.{secrets.token_hex(4)}.tmp")
    con = duckdb.connect(":memory:")
    try:
        con.execute(f"ATTACH {literal(str(temporary))} AS published (STORAGE_VERSION 'v1.5.0')")
        con.execute("USE published")
        con.execute(script)
        con.execute("USE memory; DETACH published")
    finally:
        con.close()
    # Whoever has the old file open keeps reading it; its views show the same Parquet files.
    temporary.replace(database)
    marker.write_text(script, encoding="utf-8")


def _view_statements(folder: Path) -> Iterable[str]:
    of_all: dict[str, list[str]] = {"ledger": [], "checks": []}
    for pipeline in sorted(path.name for path in folder.iterdir() if path.is_dir()):
        for kind in ("predictions", "quarantine", "reasons", "ledger", "checks"):
            files = folder / pipeline / kind
            if not any(files.glob("*.parquet")):
                continue
            if kind in of_all:
                of_all[kind].append(_all_in(files))
                continue
            yield f"CREATE SCHEMA IF NOT EXISTS {quote(pipeline)};"
            yield f"CREATE VIEW {quote(pipeline)}.{kind} AS {_read([_all_in(files)])};"
    if of_all["ledger"]:
        yield "CREATE SCHEMA ledger;"
        yield f"CREATE VIEW ledger.partitions AS {_read(of_all['ledger'])};"
    if of_all["checks"]:
        yield f"CREATE VIEW ledger.checks AS {_read(of_all['checks'])};"


def _all_in(folder: Path) -> str:
    """A glob of the folder's Parquet files; brackets and stars in the project's own path are no pattern."""
    return f"{glob.escape(str(folder))}/*.parquet"


def _read(globs: list[str]) -> str:
    listed = ", ".join(literal(each) for each in globs)
    return f"SELECT * FROM read_parquet([{listed}], union_by_name = true)"
