"""Reads what a plan needs from the ledger."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from pip_dagster.ledger.arms import CHAMPION
from pip_dagster.ledger.checks import SPLIT
from pip_dagster.ledger.plan_values import Arms, Attempt, Known, PlanPart, PurgedPartitions, Wanted
from pip_dagster.ledger.record import dicts
from pip_dagster.sql.names import among, literal

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

# Temporary tables while a plan is made: what partitions should be built from, what the ledger records of them, and
# which of them differ.
SOURCES = "temp.main.pip_sources"
_EXTRACTIONS, _ATTEMPTS, _LIVE, _UNLIKE = (
    f"temp.main.pip_{name}" for name in ("extractions", "attempts", "live", "unlike")
)

# Of partitions that differ in the same, one is judged.
_FIRST = "same IS NULL OR same = partition_key"
_EPOCH, _MICRO = datetime(1970, 1, 1, tzinfo=UTC), timedelta(microseconds=1)

_OF = "pipeline = {pipeline} AND partition_start >= {first} AND partition_start <= {last}"
# What nobody would read stays behind: the parts of a declaration that has not changed, and the sources of a success,
# which are in its extraction.
_LAY_EXTRACTIONS = f"""
  SELECT partition_key, extraction_id, source_digests, sql_digest, feature_digest, made_at,
    CASE WHEN NOT {{same_sql}} THEN declared_parts END AS declared_parts
  FROM ledger.extractions WHERE {_OF}
  QUALIFY row_number() OVER (PARTITION BY partition_key ORDER BY extraction_id DESC) = 1
"""
_ATTEMPT = (
    "scoring_id, status, reason, code_digest, manifest_digest, model_version, feature_digest, inputs_digest, made_at, "
    "provisional, CASE WHEN status <> 'scored' THEN source_digests END AS source_digests, "
    "CASE WHEN NOT {same_code} THEN declared_parts END AS declared_parts"
)
# An attempt counts with the last one if it failed after the last success, from the same inputs.
_LAY_ATTEMPTS = f"""
  WITH last AS (
    SELECT partition_key, {_ATTEMPT} FROM ledger.scorings WHERE {_OF} AND role = 'champion'
    QUALIFY row_number() OVER (PARTITION BY partition_key ORDER BY scoring_id DESC) = 1),
  failed AS (
    SELECT partition_key, scoring_id, inputs_digest FROM ledger.scorings
    WHERE {_OF} AND role = 'champion' AND status = 'failed'),
  ended AS (
    SELECT partition_key, max(scoring_id) AS at FROM ledger.scorings SEMI JOIN failed USING (partition_key)
    WHERE {_OF} AND role = 'champion' AND status <> 'failed' GROUP BY ALL),
  failures AS (
    SELECT f.partition_key, count(*) AS failures FROM failed f
    JOIN last l ON l.partition_key = f.partition_key AND l.status = 'failed'
      AND l.inputs_digest IS NOT DISTINCT FROM f.inputs_digest
    LEFT JOIN ended e ON e.partition_key = f.partition_key
    WHERE f.scoring_id > coalesce(e.at, '') GROUP BY ALL)
  SELECT last.*, coalesce(failures, 0) AS failures FROM last LEFT JOIN failures USING (partition_key)
"""
_LAY_LIVE = f"""
  SELECT l.partition_key, l.live_since, l.change_id, l.kind, l.as_known, l.experiment,
    k.entry_id IS NOT NULL AS undecided, a.arms, s.* EXCLUDE (partition_start)
  FROM ledger.live l
  JOIN (SELECT partition_start, {_ATTEMPT} FROM ledger.scorings WHERE pipeline = {{pipeline}}) s
    ON s.scoring_id = l.scoring_id
  LEFT JOIN (SELECT DISTINCT entry_id FROM ledger.checks
    WHERE pipeline = {{pipeline}} AND section = '{SPLIT}' AND expectation_id = 'arms' AND status <> 'passed') k
    ON k.entry_id = l.change_id
  LEFT JOIN (SELECT change_id, list(struct_pack(arm, low, high, unit) ORDER BY low) AS arms FROM ledger.arms
    WHERE pipeline = {{pipeline}} AND arm <> '{CHAMPION}' GROUP BY ALL) a ON a.change_id = l.change_id
  WHERE l.pipeline = {{pipeline}} AND s.partition_start >= {{first}} AND s.partition_start <= {{last}}
"""
# What makes a partition stale, or is reported, differs in one of these or in the model: see `ledger.changes`.
_ALIKE = """
  a.status = 'scored' AND e.source_digests = w.sources AND {sql_digest} AND l.feature_digest = e.feature_digest
  AND l.code_digest = {code_digest}
  AND NOT coalesce(l.provisional, false) AND NOT l.undecided AND {experiment}
"""


def lay_known(con: DuckDBPyConnection, pipeline: str, starts: Sequence[datetime], declared: Wanted) -> None:
    """Copy what a plan of the partitions with these starts needs from the ledger to temporary tables.

    The warehouse is the current catalog. `declared`: what is wanted by the declaration; its model is not read.
    """
    values = {
        "pipeline": literal(pipeline),
        "first": f"{literal(min(starts).isoformat())}::TIMESTAMPTZ",
        "last": f"{literal(max(starts).isoformat())}::TIMESTAMPTZ",
        "same_sql": f"coalesce({among('sql_digest', declared.sql_digests)}, false)",
        "same_code": f"code_digest = {literal(declared.code_digest)}",
    }
    for table, select in ((_EXTRACTIONS, _LAY_EXTRACTIONS), (_ATTEMPTS, _LAY_ATTEMPTS), (_LIVE, _LAY_LIVE)):
        con.execute(f"CREATE OR REPLACE TEMP TABLE {table.rpartition('.')[2]} AS {select.format(**values)}")


def read_purged(con: DuckDBPyConnection, pipeline: str, partitions: Collection[str]) -> tuple[PurgedPartitions, ...]:
    """Those of the partitions whose newest features were purged, by purge. The warehouse is the current catalog."""
    if not con.execute("SELECT 1 FROM ledger.erasures WHERE kind = 'purge' LIMIT 1").fetchone():
        return ()
    rows = con.execute(
        "SELECT purged_by, max(purged_at), list(partition_key ORDER BY start) FROM (SELECT partition_key, "
        "any_value(partition_start) AS start, arg_max_null(purged_by, extraction_id) AS purged_by, "
        "arg_max_null(purged_at, extraction_id) AS purged_at FROM ledger.extractions WHERE pipeline = "
        f"{literal(pipeline)} GROUP BY 1) WHERE purged_at IS NOT NULL GROUP BY 1 ORDER BY 1"
    ).fetchall()
    named = [PurgedPartitions(of, at, tuple(key for key in keys if key in partitions)) for of, at, keys in rows]
    return tuple(each for each in named if each.keys)


_NOTHING = Known()


@dataclass(frozen=True)
class Unlike:
    """The partitions whose record differs in anything from what is wanted: key → sources as they are now, and record.

    `like`: partition → another of these, which differs in the same, its model, and is on hold for the same reason.
    `others`: how many differ beside them, outside the part of the plan; `never_built`, `more_from`: as of the plan.
    """

    of: Mapping[str, tuple[str, Known]]
    like: Mapping[str, str]
    others: int = 0
    never_built: int = 0
    more_from: datetime | None = None


def read_unlike(
    con: DuckDBPyConnection, wanted: Wanted | None, rescored_from: datetime | None = None, part: PlanPart | None = None
) -> Unlike:
    """What differs; to compare the other partitions in Python would find nothing, at a hundred times the cost.

    After `lay_known`; `SOURCES` holds the sources of all partitions. With None, nothing is recorded of any.
    `rescored_from`: partitions that begin then or later are rescored after a promotion; None: no partition is.
    `part`: which of them to read; all by default.
    """
    if wanted is None:
        con.execute(
            "CREATE OR REPLACE TEMP TABLE pip_unlike AS SELECT partition_key, start_at, sources, true AS never_built, "
            f"NULL::VARCHAR AS same FROM {SOURCES}"
        )
        outside = _leave_out(con, part) if part else {}
        rows = con.execute(f"SELECT partition_key, sources FROM {_UNLIKE}").fetchall()
        return Unlike({key: (sources, _NOTHING) for key, sources in rows}, {}, **outside)
    alike = _ALIKE.format(
        sql_digest=among("e.sql_digest", wanted.sql_digests),
        code_digest=literal(wanted.code_digest),
        experiment=_experiment(con, wanted.arms),
    )
    same_model = f"l.manifest_digest = {literal(wanted.manifest_digest)}"
    kept = "true" if rescored_from is None else f"w.start_at < {(rescored_from - _EPOCH) // _MICRO}"
    promoted = f"coalesce({alike} AND coalesce(l.kind, '') NOT IN ('pinned', 'rollback') AND {kept}, false)"
    oldest = f"min(partition_key) OVER (PARTITION BY {promoted}, l.manifest_digest, l.model_version)"
    con.execute(
        "CREATE OR REPLACE TEMP TABLE pip_unlike AS SELECT partition_key, w.start_at, w.sources, "
        "coalesce(e.extraction_id, a.scoring_id, l.change_id) IS NULL AS never_built, "
        f"CASE WHEN {promoted} THEN {oldest} END AS same FROM {SOURCES} w "
        f"LEFT JOIN {_EXTRACTIONS} e USING (partition_key) LEFT JOIN {_ATTEMPTS} a USING (partition_key) "
        f"LEFT JOIN {_LIVE} l USING (partition_key) WHERE NOT coalesce({alike} AND {same_model}, false)"
    )
    outside = _leave_out(con, part) if part else {}
    known = _read_known(con)
    rows = con.execute(f"SELECT partition_key, sources FROM {_UNLIKE} WHERE {_FIRST}").fetchall()
    others = con.execute(f"SELECT partition_key, same FROM {_UNLIKE} WHERE NOT ({_FIRST})").fetchall()
    return Unlike({key: (sources, known.get(key, _NOTHING)) for key, sources in rows}, dict(others), **outside)


def _leave_out(con: DuckDBPyConnection, part: PlanPart) -> dict[str, Any]:
    """Remove what is outside the part; the counts of `Unlike` about it."""

    def at(instant: datetime) -> int:
        return (instant - _EPOCH) // _MICRO

    def removed(where: str) -> int:
        (count,) = con.execute(f"DELETE FROM {_UNLIKE} WHERE {where}").fetchone() or (0,)
        return int(count)

    never_built = removed(f"never_built AND start_at < {at(part.missing_from)}") if part.missing_from else 0
    others = removed(f"({_FIRST}) AND start_at < {at(part.after)}") if part.after else 0
    beyond = f"SELECT start_at FROM {_UNLIKE} WHERE {_FIRST} ORDER BY start_at LIMIT 1 OFFSET {part.at_most}"
    more_from = None
    if first := con.execute(beyond).fetchone():
        others += removed(f"({_FIRST}) AND start_at >= {first[0]}")
        more_from = _EPOCH + first[0] * _MICRO
    # Those that differ in the same as one that was removed.
    others += removed(f"same IS NOT NULL AND same NOT IN (SELECT partition_key FROM {_UNLIKE})")
    return {"never_built": never_built, "others": others, "more_from": more_from}


def _experiment(con: DuckDBPyConnection, wanted: Arms | None) -> str:
    """SQL of whether the rows of a live scoring are shared out as wanted."""
    if wanted is None:
        return "l.arms IS NULL"
    found = con.execute(
        f"SELECT arms::VARCHAR, any_value(arms) FROM {_LIVE} WHERE arms IS NOT NULL GROUP BY 1"
    ).fetchall()
    fitting = [text for text, arms in found if _ranges(arms) <= wanted.ranges and _unit(arms) == wanted.unit]
    same = f"l.arms IS NULL OR {among('l.arms::VARCHAR', fitting)}"
    return f"l.experiment = {literal(wanted.experiment or '')} AND ({same})"


def _read_known(con: DuckDBPyConnection) -> dict[str, Known]:
    found: dict[str, dict[str, Any]] = {}

    def rows(table: str) -> list[dict[str, Any]]:
        return dicts(con.execute(f"FROM {table} SEMI JOIN (FROM {_UNLIKE} WHERE {_FIRST}) u USING (partition_key)"))

    for row in rows(_EXTRACTIONS):
        found[row["partition_key"]] = {
            "sources": json.loads(row["source_digests"]),
            "sql_digest": row["sql_digest"],
            "declared_parts": row["declared_parts"],
            "feature_digest": row["feature_digest"],
            "read_at": row["made_at"],
            "entries": (row["extraction_id"],),
        }
    for row in rows(_ATTEMPTS):
        of = found.setdefault(row["partition_key"], {})
        of.update(last=_attempt(row), failures=row["failures"], entries=(*of.get("entries", ()), row["scoring_id"]))
    for row in rows(_LIVE):
        of = found.setdefault(row["partition_key"], {})
        of.update(
            live=_attempt(row),
            live_since=row["live_since"],
            deliberate=row["kind"] in ("pinned", "rollback"),
            as_known=bool(row["as_known"]),
            arms=_arms(row),
            entries=(*of.get("entries", ()), row["change_id"]),
        )
    return {key: Known(**of) for key, of in found.items()}


def _arms(row: dict[str, Any]) -> Arms:
    arms = row["arms"] or []
    return Arms(row["experiment"], _unit(arms) if arms else (), _ranges(arms), row["undecided"])


def _ranges(arms: Sequence[dict[str, Any]]) -> frozenset[tuple[str, int, int]]:
    return frozenset((arm["arm"], arm["low"], arm["high"]) for arm in arms)


def _unit(arms: Sequence[dict[str, Any]]) -> tuple[str, ...]:
    return tuple(json.loads(arms[0]["unit"]))


def _attempt(row: dict[str, Any]) -> Attempt:
    return Attempt(
        status=row["status"],
        reason=row["reason"],
        code_digest=row["code_digest"],
        manifest_digest=row["manifest_digest"],
        model_version=row["model_version"],
        feature_digest=row["feature_digest"],
        inputs_digest=row["inputs_digest"],
        sources=json.loads(row["source_digests"]) if row["source_digests"] else None,
        made_at=row["made_at"],
        provisional=bool(row["provisional"]),
        declared_parts=row["declared_parts"],
    )
