"""Verifies that the published files hold what was published: rows by their recorded digests, views by their SQL."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pip_dagster.ledger.fault import Fault
from pip_dagster.ledger.verify_recorded import warehouse_faults
from pip_dagster.plural import plural
from pip_dagster.sql.names import literal, quote
from pip_dagster.warehouse import kinds
from pip_dagster.warehouse.arrow import arrow_rows, table_of
from pip_dagster.warehouse.connect import workspace
from pip_dagster.warehouse.pending import is_behind, pending_publications
from pip_dagster.warehouse.published_digest import columns_by_digest, digest_sql, secret_of
from pip_dagster.warehouse.published_rows import ATTACHED, columns_of, detach, files_of
from pip_dagster.warehouse.published_views import altered_views

if TYPE_CHECKING:
    from pathlib import Path

    from duckdb import DuckDBPyConnection

    from pip_dagster.declaration.project import Project

_AGAIN = "`pip-dagster publish` writes everything again from the warehouse."

# Of each partition, the tables of its newest publication. One that is pending may have the old rows or the new ones.
_RECORDED = """
  CREATE OR REPLACE TEMP TABLE recorded AS
  SELECT pipeline, partition_key, table_name, file, rows, digest, columns_digest
  FROM ledger.published_digests d
  WHERE NOT EXISTS (FROM temp.unjudged p WHERE p.pipeline = d.pipeline AND p.partition_key = d.partition_key)
  QUALIFY made_at = max(made_at) OVER (PARTITION BY pipeline, partition_key)
"""

# What differs, by file and partition. `found` has a row for each file that has rows of a partition.
_DIFFERENCES = """
  SELECT coalesce(f.pipeline, r.pipeline), coalesce(f.partition_key, r.partition_key),
         coalesce(f.file, r.file), coalesce(f.table_name, r.table_name), f.rows, r.rows, f.digest IS NULL
  FROM temp.found f FULL JOIN temp.recorded r
    ON r.pipeline = f.pipeline AND r.partition_key = f.partition_key AND r.table_name = f.table_name
    AND r.file = f.file AND r.columns_digest IS NOT DISTINCT FROM f.columns_digest
  WHERE f.digest IS DISTINCT FROM r.digest
  ORDER BY ALL
"""


def published_faults(con: DuckDBPyConnection, project: Project) -> Iterator[Fault]:
    """What was altered in the published files, by partition and file. The warehouse is the current catalog."""
    if not project.publishes:
        return
    if is_behind(con, project):
        what = "lacks what was published last: it is gone, or an older one was put back"
        yield Fault(None, "published", f"{project.published} {what}. {_AGAIN}")
    _stage(con, project)
    yield from warehouse_faults(con)
    for pipeline, key in con.execute(_UNWRITTEN).fetchall():
        what = "has a change that is recorded as published, but nothing was published since"
        yield Fault(None, "published", f"{pipeline}, partition {key}: {what}. {_AGAIN}")
    with workspace(threads=2) as own:
        _copy(con, own, ("recorded", "unjudged"))
        own.execute("CREATE TEMP TABLE found AS FROM temp.recorded WHERE false")
        yield from _faults_of_files(own, project, _Recorded(secret_of(con), columns_by_digest(con)))
        if altered := altered_views(own, project.published):
            yield Fault(None, "published", f"{project.published_database}: {altered}. {_AGAIN}")


def _copy(con: DuckDBPyConnection, own: DuckDBPyConnection, names: Sequence[str]) -> None:
    """Copy temporary tables to another database: no file can be detached in the transaction that reads a lake."""
    for name in names:
        with arrow_rows(own, "copied", table_of(con, f"FROM temp.{name}")):
            own.execute(f"CREATE TEMP TABLE {name} AS FROM copied")


@dataclass(frozen=True)
class _Recorded:
    """What digests are made of: the warehouse's secret, and the columns by their digest."""

    secret: str
    columns: Mapping[str, Mapping[str, str]]


def _faults_of_files(own: DuckDBPyConnection, project: Project, recorded_as: _Recorded) -> Iterator[Fault]:
    import duckdb

    for folder in sorted({file.parent for file in project.published.glob("*/*.duckdb")}):
        for file in files_of(folder):
            try:
                _read(own, file, recorded_as)
            except duckdb.Error as error:
                yield Fault(None, "published", f"{file} cannot be read: {str(error).splitlines()[0]} {_AGAIN}")
                return
    seen: set[tuple[str, str, str]] = set()
    for pipeline, key, file, table, now, recorded, gone in own.execute(_DIFFERENCES).fetchall():
        if (pipeline, key, file) in seen:  # another table of the same
            continue
        seen.add((pipeline, key, file))
        where = f"{pipeline}, partition {key}: {table} in {project.published / file}"
        if recorded is None:
            what = f"has {plural(now, 'row')} that were not published there"
        elif gone:
            what = f"has none of the {plural(recorded, 'row')} that were published"
        elif now != recorded:
            what = f"has {plural(now, 'row')}; {recorded:,} were published"
        else:
            what = f"has other values than the {plural(recorded, 'row')} that were published"
        yield Fault(None, "published", f"{where} {what}. {_AGAIN}")


# Partitions whose newest publication is older than a live change that counts as published.
_UNWRITTEN = """
  SELECT DISTINCT c.pipeline, c.partition_key FROM ledger.live_changes c
  SEMI JOIN ledger.publications p ON p.change_id = c.change_id
  JOIN (SELECT pipeline, partition_key, max(made_at) AS made_at FROM ledger.published_digests GROUP BY ALL) d
    ON d.pipeline = c.pipeline AND d.partition_key = c.partition_key AND d.made_at < c.made_at
  ANTI JOIN temp.unjudged u ON u.pipeline = c.pipeline AND u.partition_key = c.partition_key
  ORDER BY ALL
"""


def pending_partitions(con: DuckDBPyConnection) -> int:
    """How many partitions were not compared, since they are pending; after the faults."""
    found = con.execute("SELECT count(*) FROM temp.waiting").fetchone()
    return int(found[0]) if found else 0


def without_digest(con: DuckDBPyConnection) -> int:
    """How many published partitions have no digest, since an earlier version published them; after the faults."""
    found = con.execute("SELECT count(*) FROM (FROM temp.undigested EXCEPT FROM temp.waiting)").fetchone()
    return int(found[0]) if found else 0


def _stage(con: DuckDBPyConnection, project: Project) -> None:
    """The digests that count, and the partitions whose rows are not judged: pending, or without a digest."""
    con.execute("CREATE OR REPLACE TEMP TABLE waiting (pipeline VARCHAR, partition_key VARCHAR)")
    if waiting := [(pipeline, key) for pipeline, key, _ in pending_publications(con, project)]:
        values = ", ".join(f"({literal(pipeline)}, {literal(key)})" for pipeline, key in waiting)
        con.execute(f"INSERT INTO temp.waiting VALUES {values}")
    announced = " UNION ".join(f"SELECT pipeline, partition_key FROM {kind.in_sql('')}" for kind in kinds.announcing())
    con.execute(
        f"CREATE OR REPLACE TEMP TABLE undigested AS SELECT * FROM ({announced}) "
        "EXCEPT SELECT pipeline, partition_key FROM ledger.published_digests"
    )
    con.execute("CREATE OR REPLACE TEMP TABLE unjudged AS FROM temp.waiting UNION FROM temp.undigested")
    con.execute(_RECORDED)


def _read(con: DuckDBPyConnection, file: Path, recorded_as: _Recorded) -> None:
    """Compute the digests of the rows in this file, over the columns that were recorded."""
    name, pipeline = ATTACHED.format(0), file.parent.name
    place = f"{pipeline}/{file.name}"
    try:
        con.execute(f"ATTACH {literal(str(file))} AS {name} (READ_ONLY)")
        for (schema, table), columns in columns_of(con, name)[0].items():
            if len(columns) == 1:
                continue
            rows = f"{name}.{quote(schema)}.{quote(table)}"
            of = f"pipeline = {literal(pipeline)} AND table_name = {literal(table)} AND file = {literal(place)}"
            here = f"{literal(pipeline)}, partition_key, {literal(table)}, {literal(place)}"
            into = f"INSERT INTO temp.found SELECT {here}"
            signatures = con.execute(f"SELECT DISTINCT columns_digest FROM temp.recorded WHERE {of}").fetchall()
            for (signature,) in signatures:
                if signature not in recorded_as.columns:  # then its partitions have another digest than recorded
                    continue
                with_it = f"{of} AND columns_digest = {literal(signature)}"
                where = f"partition_key IN (SELECT partition_key FROM temp.recorded WHERE {with_it})"
                digests = _digests(rows, columns, recorded_as.columns[signature], recorded_as.secret, where)
                con.execute(f"{into}, rows, digest, {literal(signature)} FROM ({digests})")
            known = (
                f"SELECT partition_key FROM temp.recorded WHERE {of} "
                f"UNION ALL SELECT partition_key FROM temp.unjudged WHERE pipeline = {literal(pipeline)}"
            )
            others = f"FROM {rows} WHERE partition_key IS NULL OR partition_key NOT IN ({known}) GROUP BY partition_key"
            con.execute(f"{into}, count(*), '', NULL {others}")
    finally:
        detach(con, [name])


def _digests(rows: str, columns: Mapping[str, str], recorded: Mapping[str, str], secret: str, where: str) -> str:
    """SQL of the digests of these rows. A column that came later is NULL in them, or they were altered."""
    missing = "".join(f", NULL AS {quote(name)}" for name in sorted(recorded.keys() - columns.keys()))
    later = " OR ".join(f"{quote(name)} IS NOT NULL" for name in sorted(columns.keys() - recorded.keys()))
    found = digest_sql(f"(SELECT *{missing} FROM {rows})", recorded, secret, where)
    if not later:
        return found
    filled = f"SELECT partition_key FROM {rows} WHERE {later}"
    return f"SELECT * REPLACE (CASE WHEN partition_key IN ({filled}) THEN '' ELSE digest END AS digest) FROM ({found})"
