"""What everybody may read at any time: Parquet files and a small database of views over them.

The warehouse itself can be opened by nobody while a run writes to it. So after each commit the partition's live
predictions and its ledger are written beside it, each file replaced at once; a reader has the old one or the new one.
"""

from __future__ import annotations

import glob
import logging
import os
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote as url_quote

from pip_dagster.warehouse.names import REASON_COLUMNS, literal, quote
from pip_dagster.warehouse.tables import has_view, predictions_select

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

LOG = logging.getLogger("pip_dagster")

_TOO_WIDE = {"HUGEINT", "UHUGEINT"}

_PENDING = """
  SELECT pipeline, partition_key, list(id) AS ids FROM (
    SELECT pipeline, partition_key, change_id AS id FROM ledger.live_changes
    UNION ALL SELECT pipeline, partition_key, scoring_id FROM ledger.scorings
  ) ANTI JOIN ledger.publications p ON p.change_id = id
  GROUP BY ALL ORDER BY ALL
"""


def partition_file(folder: Path, pipeline: str, kind: str, partition_key: str) -> Path:
    """Where a partition's `kind` (predictions, ledger) is published."""
    return folder / pipeline / kind / f"{url_quote(partition_key, safe=' ')}.parquet"


def publish_pending(con: DuckDBPyConnection, folder: Path, *, anew: bool = False) -> int:
    """Write what the ledger says and the files do not show yet, whoever committed it; the number of partitions.

    The warehouse is the current catalog, nothing is in transaction. A kill in between leaves partitions pending, and
    the next call writes them. Where the folder is gone, or `anew` is asked for, every partition is written again. One
    that cannot be written stays pending and keeps no other from being: it is told in the log.
    """
    import duckdb

    sql = _PENDING.replace("ANTI JOIN ledger.publications p ON p.change_id = id", "") if anew else _PENDING
    pending = con.execute(sql).fetchall()
    if not anew and not folder.is_dir() and con.execute("SELECT 1 FROM ledger.publications LIMIT 1").fetchone():
        return publish_pending(con, folder, anew=True)
    ids = []
    seen = _Seen(con)
    for pipeline, partition_key, changes in pending:
        try:
            _publish_partition(con, folder, pipeline, partition_key, seen)
            ids += changes
        except (duckdb.Error, OSError) as error:  # a full disk, a file where a folder should be
            LOG.error("%s, partition %s is stored but cannot be published: %s", pipeline, partition_key, error)
    if ids:
        con.execute(
            "INSERT INTO ledger.publications SELECT id, $now FROM (SELECT unnest($ids) AS id) "
            "ANTI JOIN ledger.publications p ON p.change_id = id",
            {"ids": ids, "now": datetime.now(UTC)},
        )
    try:
        _publish_views(folder)
    except (duckdb.Error, OSError) as error:
        LOG.error("%s cannot be written, everything is stored: %s", folder.with_suffix(".duckdb"), error)
    return len(pending)


class _Seen:
    """What is the same for all partitions of a pipeline, looked up once a call."""

    def __init__(self, con: DuckDBPyConnection) -> None:
        self._con = con
        self._views: dict[tuple[str, str], bool] = {}
        self._wide: dict[tuple[str, str], list[str]] = {}

    def view(self, pipeline: str, name: str) -> bool:
        """Whether the pipeline has this view."""
        if (pipeline, name) not in self._views:
            self._views[pipeline, name] = has_view(self._con, pipeline, name)
        return self._views[pipeline, name]

    def wide(self, pipeline: str, kind: str, select: str) -> list[str]:
        """The columns of `select`, which reads this kind of table, that are too wide for Parquet; quoted."""
        if (pipeline, kind) not in self._wide:
            described = self._con.execute(f"DESCRIBE {select}").fetchall()
            self._wide[pipeline, kind] = [quote(n) for n, sql_type, *_ in described if sql_type in _TOO_WIDE]
        return self._wide[pipeline, kind]


def _publish_partition(con: DuckDBPyConnection, folder: Path, pipeline: str, partition_key: str, seen: _Seen) -> None:
    of_partition = f"pipeline = {literal(pipeline)} AND partition_key = {literal(partition_key)}"
    live = con.execute(f"SELECT DISTINCT scoring_id FROM ledger.live_arms WHERE {of_partition}").fetchall()
    selects = {
        "ledger": f"SELECT * FROM ledger.partitions WHERE {of_partition} ORDER BY scoring_id",
        "checks": f"SELECT * FROM ledger.checks WHERE {of_partition} ORDER BY made_at",
    }
    if live:
        # Literals, so that DuckDB skips the row groups of other scorings.
        of_live = f"scoring_id IN ({', '.join(literal(row[0]) for row in live)})"
        of_rows = f"partition_key = {literal(partition_key)} AND {of_live}"
        selects["predictions"] = f"SELECT * FROM ({predictions_select(con, pipeline)}) p WHERE {of_rows}"
        if seen.view(pipeline, "reasons"):
            selects["reasons"] = _live_reasons(con, pipeline, of_live, split=len(live) > 1)
    if seen.view(pipeline, "quarantine"):
        selects["quarantine"] = (
            f"SELECT * FROM {quote(pipeline)}.quarantine WHERE partition_key = {literal(partition_key)}"
        )
    if con.execute(f"SELECT 1 FROM ledger.checks WHERE {of_partition} AND section = 'split' LIMIT 1").fetchone():
        selects["arms"] = f"SELECT * FROM ledger.live_arms WHERE {of_partition} ORDER BY low"
    for kind, select in selects.items():
        target = partition_file(folder, pipeline, kind, partition_key)
        always = target.exists() or kind in ("ledger", "predictions")
        if not always and not con.execute(f"{select} LIMIT 1").fetchone():
            continue  # nothing to show, as for most partitions
        # A key has at most 38 digits, which was seen to; a quarantined value may have any number.
        exact = "VARCHAR" if kind == "quarantine" else "DECIMAL(38, 0)"
        _replace_parquet(con, _exact_in_parquet(seen.wide(pipeline, kind, select), select, exact), target)


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
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        con.execute(f"COPY ({select}) TO {literal(str(temporary))} (FORMAT parquet, COMPRESSION zstd)")
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def _publish_views(folder: Path) -> None:
    """Make the database of views anew where the set of published tables, or their place, has changed."""
    import duckdb

    if not folder.is_dir():
        return
    database, marker = folder.with_suffix(".duckdb"), folder / "views.sql"
    script = "\n".join(_view_statements(folder))
    if database.is_file() and marker.is_file() and marker.read_text(encoding="utf-8") == script:
        return
    temporary = database.with_name(f".{database.name}.{os.getpid()}.tmp")
    temporary.unlink(missing_ok=True)
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
    of_all: dict[str, list[str]] = {"ledger": [], "checks": [], "arms": []}
    for pipeline in sorted(path.name for path in folder.iterdir() if path.is_dir()):
        for kind in ("predictions", "quarantine", "reasons", "ledger", "checks", "arms"):
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
    for kind in ("checks", "arms"):
        if of_all[kind]:
            yield f"CREATE VIEW ledger.{kind} AS {_read(of_all[kind])};"


def _all_in(folder: Path) -> str:
    """A glob of the folder's Parquet files; brackets and stars in the project's own path are no pattern."""
    return f"{glob.escape(str(folder))}/*.parquet"


def _read(globs: list[str]) -> str:
    listed = ", ".join(literal(each) for each in globs)
    return f"SELECT * FROM read_parquet([{listed}], union_by_name = true)"
