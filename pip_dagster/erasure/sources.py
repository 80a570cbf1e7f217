"""What the ledger records of source rows: after an erasure as if the subject's had never been counted.

Digests and buckets are sums of hashes: whoever has the other rows can try values until they agree. So they are computed
from the sources again. Where a record is as the source was with the subject, it becomes what the source is without; a
plan is as quiet as before. Any other one is of a source that has changed since: its digest is replaced by a word that
equals none, and a plan finds the change as before.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from pip_dagster.declaration.canonical import canonical
from pip_dagster.declaration.grid import partition_named
from pip_dagster.errors import PipelineError
from pip_dagster.flow.source_digests import WindowedSource, lay_source_digests
from pip_dagster.flow.sources import open_sources
from pip_dagster.ledger.known import SOURCES
from pip_dagster.ledger.observations import lay_observations
from pip_dagster.ledger.record import inputs_digest, with_share
from pip_dagster.privacy.suppressed import Incoming, suppressed_in
from pip_dagster.sql.names import literal
from pip_dagster.warehouse.access import reading
from pip_dagster.warehouse.arrow import arrow_rows

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from pip_dagster.declaration.pipeline import Pipeline

ERASED = "erased"  # in place of a digest that cannot be computed without the subject
_BUCKET = "rows, total, xor, newest, columns"
_WHEN = ("with", "without")
_GIVEN = "pip_given_records"


@dataclass(frozen=True)
class SourcesNow:
    """A pipeline's sources as they are, with the subject and without, in temporary tables of their number.

    Attributes:
        pipeline: Whose sources.
        number: Of the temporary tables.
        why_not: Why they could not be read; the ledger then forgets what it knew of them.
    """

    pipeline: Pipeline
    number: int
    why_not: str | None = None

    @property
    def name(self) -> str:
        """The pipeline's."""
        return self.pipeline.spec.name

    def table(self, what: str, when: str) -> str:
        """The temporary table of `texts`, a partition's sources as JSON, or of `buckets`."""
        return f"temp.main.pip_{what}_{when}_{self.number}"


def read_sources(
    con: DuckDBPyConnection, pipeline: Pipeline, number: int, erasure_id: str, subjects: Sequence[str]
) -> SourcesNow:
    """Read the sources of all partitions that the ledger has; no warehouse is open.

    Raises:
        DeclarationError: a secret is missing.
        WarehouseError: the warehouse cannot be read.
    """
    spec, now = pipeline.spec, SourcesNow(pipeline, number)
    with reading(con, pipeline.project, purpose=f"{spec.name}: erasing"):
        of = f"WHERE pipeline = {literal(spec.name)}"
        recorded = (
            f"SELECT partition_key FROM ledger.extractions {of} UNION SELECT partition_key FROM ledger.scorings {of}"
        )
        keys = [key for (key,) in con.execute(f"{recorded} ORDER BY 1").fetchall()]
        lay_observations(con, spec.name)
        others = suppressed_in(con, pipeline, but=erasure_id)
    assert spec.privacy
    without = replace(others or Incoming(spec.privacy.subject, None), named=frozenset(subjects))
    people = dict(zip(_WHEN, (others, without), strict=True))
    partitions = []
    for key in keys:
        with suppress(ValueError):  # of another grid, which was declared before
            partitions.append(partition_named(spec.partitions, key))
    for when in _WHEN:
        con.execute(
            f"CREATE OR REPLACE TEMP TABLE {_name(now.table('texts', when))} (partition_key VARCHAR, sources VARCHAR)"
        )
        con.execute(
            f"CREATE OR REPLACE TEMP TABLE {_name(now.table('buckets', when))} (source VARCHAR, bucket TIMESTAMP, "
            "rows BIGINT, total VARCHAR, xor VARCHAR, newest VARCHAR, columns VARCHAR)"
        )
    if not partitions:
        return now
    try:
        with open_sources(con, spec, pipeline.project.root) as opened:
            for when in _WHEN:
                _keep(con, now, when, lay_source_digests(con, pipeline, partitions, opened, people[when]))
    except PipelineError as error:
        return SourcesNow(pipeline, number, str(error))
    return now


def _keep(con: DuckDBPyConnection, now: SourcesNow, when: str, windowed: Mapping[str, WindowedSource]) -> None:
    con.execute(f"INSERT INTO {now.table('texts', when)} SELECT partition_key, sources FROM {SOURCES}")
    for name, of in windowed.items():
        con.execute(
            f"INSERT INTO {now.table('buckets', when)} SELECT {literal(name)}, make_timestamp(t), n, total::VARCHAR, "
            f"x::VARCHAR, newest, {literal(of.digest)} FROM {of.buckets}"
        )


def has_subject(con: DuckDBPyConnection, now: SourcesNow) -> bool:
    """Whether the sources still have rows of the subject."""
    texts = (f"(FROM {now.table('texts', when)})" for when in _WHEN)
    return con.execute(f"SELECT 1 FROM ({' EXCEPT '.join(texts)}) LIMIT 1").fetchone() is not None


def forget_sources(con: DuckDBPyConnection, now: SourcesNow) -> list[str]:
    """Replace the records of a pipeline's sources; the scorings that were changed.

    Call it in a transaction, with the warehouse as the current catalog.
    """
    laid = {when: dict(con.execute(f"FROM {now.table('texts', when)}").fetchall()) for when in _WHEN}
    if now.why_not:
        laid = {when: {} for when in _WHEN}
    of = f"WHERE pipeline = {literal(now.name)}"
    sqls: dict[str, dict[str, None]] = {}
    select = f"SELECT extraction_id, partition_key, source_digests, sql_digest FROM ledger.extractions {of}"
    extractions = list[tuple[str, str]]()
    for extraction_id, key, text, sql in con.execute(select).fetchall():
        sqls.setdefault(key, {})[sql] = None
        if (new := _without(text, *(laid[when].get(key) for when in _WHEN))) != text:
            extractions.append((extraction_id, new))
    _update(con, "extractions", "extraction_id", ("source_digests",), extractions)
    select = (
        "SELECT scoring_id, partition_key, source_digests, inputs_digest, code_digest, manifest_digest "
        f"FROM ledger.scorings {of} AND source_digests IS NOT NULL"
    )
    scorings = list[tuple[str, str, str | None]]()
    for scoring_id, key, text, inputs, code, manifest in con.execute(select).fetchall():
        if (new := _without(text, *(laid[when].get(key) for when in _WHEN))) != text:
            others = _declared(now.pipeline, code, sqls.get(key, ()))
            same = (each for each in others if inputs_digest(text, *each, manifest) == inputs)
            found = next(same, None)
            scorings.append((scoring_id, new, inputs_digest(new, *found, manifest) if found else None))
    _update(con, "scorings", "scoring_id", ("source_digests", "inputs_digest"), scorings)
    _forget_buckets(con, now)
    return [scoring_id for scoring_id, *_ in scorings]


def _declared(pipeline: Pipeline, code: str, sqls: Sequence[str] | Mapping[str, None]) -> Iterator[tuple[str, str]]:
    """The digests of SQL and declaration with which a scoring's inputs may have been digested."""
    listed = [*sqls, pipeline.sql_digest, *(each.digest for each in pipeline.features_declared_otherwise)]
    for sql in dict.fromkeys(listed):
        yield sql, code
        yield sql, with_share(code, pipeline.spec.min_row_share)


def _without(text: str, before: str | None, after: str | None) -> str:
    """A record of sources, as JSON, without the subject: of what they are with the subject, and without."""
    if text == after:
        return text
    recorded: dict[str, dict[str, Any]] = json.loads(text)
    had, has = (json.loads(each or "{}") for each in (before, after))
    found = {}
    for source, was in recorded.items():
        same = {each.get(source, {}).get("digest") for each in (had, has)}
        is_now = source in has and was.get("digest") in same
        found[source] = has[source] if is_now else was | {"digest": ERASED}
    return canonical(found)


def _forget_buckets(con: DuckDBPyConnection, now: SourcesNow) -> None:
    """Keep of each bucket its newest record, without the subject; none of one that has changed since."""
    of = f"WHERE pipeline = {literal(now.name)}"
    newest = (
        f"SELECT source, bucket, {_BUCKET}, made_at FROM ledger.source_buckets {of} "
        "QUALIFY row_number() OVER (PARTITION BY source, bucket ORDER BY made_at DESC) = 1"
    )
    same = " OR ".join(
        f"EXISTS (FROM {now.table('buckets', when)} b WHERE b.source = k.source AND b.bucket = k.bucket AND "
        + " AND ".join(f"b.{name} IS NOT DISTINCT FROM k.{name}" for name in _BUCKET.split(", "))
        + ")"
        for when in _WHEN
    )
    con.execute(
        f"CREATE OR REPLACE TEMP TABLE pip_buckets_kept AS SELECT k.source, k.bucket, coalesce(a.rows, 0) AS rows, "
        f"coalesce(a.total, '0') AS total, coalesce(a.xor, '0') AS xor, a.newest, k.columns, k.made_at "
        f"FROM ({newest}) k LEFT JOIN {now.table('buckets', _WHEN[1])} a ON a.source = k.source AND "
        f"a.bucket = k.bucket WHERE {same}"
    )
    con.execute(f"DELETE FROM ledger.source_buckets {of}")
    if not now.why_not:
        con.execute(
            f"INSERT INTO ledger.source_buckets BY NAME SELECT {literal(now.name)} AS pipeline, * "
            "FROM temp.main.pip_buckets_kept"
        )


def _update(
    con: DuckDBPyConnection, table: str, id_: str, names: Sequence[str], rows: Sequence[tuple[str | None, ...]]
) -> None:
    import pyarrow as pa

    if not rows:
        return
    columns = {name: pa.array(of, pa.string()) for name, of in zip((id_, *names), zip(*rows, strict=True), strict=True)}
    sets = ", ".join(f"{name} = g.{name}" for name in names)
    with arrow_rows(con, _GIVEN, pa.table(columns)):
        con.execute(f"UPDATE ledger.{table} SET {sets} FROM {_GIVEN} g WHERE ledger.{table}.{id_} = g.{id_}")


def _name(table: str) -> str:
    return table.rpartition(".")[2]
