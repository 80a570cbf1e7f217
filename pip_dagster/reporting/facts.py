"""What a report needs of the ledger, read at once, so that the warehouse is held for a moment only."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from pip_dagster.declaration.grid import closed_partitions, partition_named
from pip_dagster.declaration.monitoring import Monitoring
from pip_dagster.errors import DeclarationError
from pip_dagster.ledger.audit import instant
from pip_dagster.ledger.not_live import LAST
from pip_dagster.ledger.plan_values import PurgedPartitions
from pip_dagster.ledger.profiles import live_profiled, profile_rows
from pip_dagster.ledger.promotions import alias_moves
from pip_dagster.ledger.purged import purged_of
from pip_dagster.ledger.verify import verify
from pip_dagster.monitoring.series import Series, needed_for, series_of
from pip_dagster.registry.store import Registry
from pip_dagster.reporting.content import ReadFrom
from pip_dagster.sql.names import among, literal
from pip_dagster.warehouse.stamp import stamps_of

if TYPE_CHECKING:
    from pip_dagster.declaration.pipeline import Pipeline
    from pip_dagster.registry.version import ModelVersion
    from pip_dagster.reporting.source import OpenLedger

MOST = 1000
# Of more entries, the chain is left to `audit verify`: it is read as a whole.
_MOST_VERIFIED = 20_000


@dataclass(frozen=True)
class Chain:
    """The audit at the time: its newest entry that records no report, and what verifying it found."""

    entry: int
    head: str
    at: datetime
    fault: str | None
    verified: bool


@dataclass(frozen=True)
class Facts:
    """Rows of the ledger about the partitions `keys`, oldest first; `grid` has those that should be there between.

    `stored`: how many partitions the ledger knows. `scorings`: every attempt of the champion. `checks`: the newest
    verdict of each expectation that was not met, or that rows broke. `series`: the profiles of the partitions, and of
    those before that show what is usual. `accepted`: audit entries of exceptions. `purged`: those of the partitions
    whose contents are gone.
    """

    keys: tuple[str, ...]
    grid: tuple[str, ...]
    stored: int
    as_of: datetime | None
    scorings: Sequence[dict[str, Any]]
    checks: Sequence[dict[str, Any]]
    series: Series | None = None
    chain: Chain | None = None
    accepted: Sequence[dict[str, Any]] = ()
    read_from: ReadFrom = "warehouse"
    why_published: str | None = None
    purged: Sequence[PurgedPartitions] = ()


def read_facts(
    source: OpenLedger, pipeline: Pipeline, version: ModelVersion | None, first: str | None, last: str | None
) -> Facts:
    """Read them; `first` and `last` are partition keys, by default the newest 90 partitions.

    Raises:
        DeclarationError: a key names no partition, or there are more than 1,000 between them.
    """
    name = pipeline.spec.name
    keys, stored = _period(source, pipeline, first, last)
    among_keys = among("partition_key", keys) if keys else "false"
    scorings = source.rows(
        f"SELECT * FROM ledger.partitions WHERE pipeline = {literal(name)} AND role = 'champion' AND {among_keys} "
        "ORDER BY partition_start, scoring_id"
    )
    chain = _chain(source, pipeline) if source.why_published is None else None
    return Facts(
        keys=keys,
        grid=_grid(pipeline, scorings),
        stored=stored,
        as_of=_as_of(source, name, chain),
        scorings=scorings,
        checks=source.rows(_CHECKS.format(pipeline=literal(name), among=among_keys)) if _has_checks(source) else (),
        series=_series(source, pipeline, version, keys) if source.has("ledger", "profiles") else None,
        chain=chain,
        accepted=_accepted(source) if source.has("ledger", "audit") else (),
        read_from=source.read_from,
        why_published=source.why_published,
        purged=purged_of(source.con, name, keys),
    )


# What the ledger knows of a pipeline has a time; the newest is the report's.
_DATED = {"partitions": "made_at", "evaluations": "evaluated_at", "alarms": "made_at", "estimates": "made_at"}


def _as_of(source: OpenLedger, pipeline: str, chain: Chain | None) -> datetime | None:
    newest = [chain.at] if chain else []
    for table, column in _DATED.items():
        if not source.has("ledger", table):
            continue
        row = source.con.execute(
            f"SELECT epoch_us(max({column})) FROM ledger.{table} WHERE pipeline = {literal(pipeline)}"
        ).fetchone()
        if row and row[0] is not None:
            newest.append(instant(row[0]))
    return max(newest, default=None)


# The newest verdict of each expectation on each partition.
_CHECKS = """
  SELECT * FROM (
    SELECT partition_key, section, expectation_id, arg_max(status, made_at) AS status,
           arg_max(severity, made_at) AS severity, arg_max_null(unexpected_count, made_at) AS unexpected_count,
           arg_max(description, made_at) AS description
    FROM ledger.checks WHERE pipeline = {pipeline} AND section <> 'split' AND {among} GROUP BY ALL
  ) WHERE status <> 'passed' OR unexpected_count > 0 ORDER BY partition_key, section, expectation_id
"""


def _has_checks(source: OpenLedger) -> bool:
    return source.has("ledger", "checks")


def _period(source: OpenLedger, pipeline: Pipeline, first: str | None, last: str | None) -> tuple[tuple[str, ...], int]:
    name = pipeline.spec.name
    if first is not None and last is not None and _start(pipeline, first) > _start(pipeline, last):
        raise DeclarationError(f"Pipeline {name}: the report is from {first} to {last}, which is earlier. Swap them.")
    bounds = [(key, op) for key, op in ((first, ">="), (last, "<=")) if key is not None]
    where = "".join(
        f" AND partition_start {op} {literal(_start(pipeline, key).isoformat())}::TIMESTAMPTZ" for key, op in bounds
    )
    of = f"FROM ledger.partitions WHERE pipeline = {literal(name)} AND role = 'champion'"
    limit = LAST if first is None else MOST + 1
    found = source.con.execute(
        f"SELECT partition_key {of}{where} GROUP BY partition_key ORDER BY max(partition_start) DESC LIMIT {limit}"
    ).fetchall()
    if len(found) > MOST:
        raise DeclarationError(
            f"Pipeline {name}: there are more than {MOST:,} partitions from {first or 'the first'} to "
            f"{last or 'the newest'}; a report has at most that many. Name a shorter range with --from and --to."
        )
    stored = source.con.execute(f"SELECT count(DISTINCT partition_key) {of}").fetchone()
    return tuple(row[0] for row in reversed(found)), stored[0] if stored else 0


def _start(pipeline: Pipeline, key: str) -> datetime:
    try:
        return partition_named(pipeline.spec.partitions, key).start
    except ValueError:
        raise DeclarationError(
            f"Pipeline {pipeline.spec.name}: {key!r} is not the key of a partition of its grid; expected for example "
            f"{closest(pipeline)}."
        ) from None


def closest(pipeline: Pipeline) -> str:
    """The first key of the grid, as an example."""
    declared = pipeline.spec.partitions
    start = declared.start
    return f"{start:%Y-%m-%d-%H:%M}" if declared.step else f"{start:%Y-%m-%d}"


def _grid(pipeline: Pipeline, scorings: Sequence[dict[str, Any]]) -> tuple[str, ...]:
    """The keys of the grid from the first of these scorings to the last."""
    if not scorings:
        return ()
    declared = pipeline.spec.partitions
    local = scorings[0]["partition_start"].astimezone(declared.zone).replace(tzinfo=None)
    part = declared.model_copy(update={"start": local, "end": None, "end_offset": 0})
    return tuple(each.key for each in closed_partitions(part, scorings[-1]["partition_end"]))


def _series(source: OpenLedger, pipeline: Pipeline, version: ModelVersion | None, keys: Sequence[str]) -> Series | None:
    """The profiles of the partitions on the bins of a version, with what judging them needs before; None without."""
    if version is None:
        return None
    spec, digest, wanted_keys = pipeline.spec, version.manifest_digest, {*keys}
    live = live_profiled(source.con, spec.name, digest, spec.partitions.zone)
    wanted = [at for at, each in enumerate(live) if each.partition_key in wanted_keys]
    if not wanted:
        return None
    needed = needed_for(live, wanted, spec.monitoring or Monitoring())
    rows = profile_rows(source.con, spec.name, digest, [live[at].scoring_id for at in needed])
    places = {at: place for place, at in enumerate(needed)}
    return series_of([live[at] for at in needed], rows, version.manifest, pipeline, [places[at] for at in wanted])


def _chain(source: OpenLedger, pipeline: Pipeline) -> Chain | None:
    found = source.con.execute(
        "SELECT seq, hash, epoch_us(made_at) FROM ledger.audit WHERE action <> 'report' ORDER BY seq DESC LIMIT 1"
    ).fetchone()
    if found is None:
        return None
    entry, head, micros = found
    at = instant(micros)
    if entry > _MOST_VERIFIED:
        return Chain(entry, head, at, None, verified=False)
    registry = Registry(pipeline.project.registry)
    fault = verify(source.con, moves=alias_moves(registry), registry=registry, stamps=stamps_of(pipeline.project))
    return Chain(entry, head, at, str(fault) if fault else None, verified=True)


def _accepted(source: OpenLedger) -> list[dict[str, Any]]:
    """Entries that record an exception somebody accepted, newest first."""
    found = source.rows(
        "SELECT epoch_us(made_at) AS at, actor, action, subject, details FROM ledger.audit "
        "WHERE action = 'accepted' OR details LIKE '%\"accepted_by\"%' ORDER BY seq DESC LIMIT 100"
    )
    return [
        row | {"at": instant(row["at"]), "subject": json.loads(row["subject"]), "details": json.loads(row["details"])}
        for row in found
    ]
