"""Stored scores: a few partitions in one transaction, so that a kill leaves each wholly old or wholly new."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import TYPE_CHECKING

from pip_dagster.errors import PartitionError
from pip_dagster.flow.explain import store_reasons
from pip_dagster.flow.run import Run
from pip_dagster.flow.score import Scored
from pip_dagster.flow.score_chunk import ScoredChunk
from pip_dagster.flow.stage import Stage
from pip_dagster.flow.storing import insert_counted, labelled, named
from pip_dagster.ledger.checks import CheckEntry, insert_checks, split_check
from pip_dagster.ledger.live import live_change, make_live, note_backfill
from pip_dagster.ledger.profiles import ProfileEntry, insert_profiles
from pip_dagster.ledger.record import RunInfo, ScoringEntry
from pip_dagster.ledger.rows import insert_rows
from pip_dagster.plural import plural
from pip_dagster.privacy.suppressed import check_suppressed
from pip_dagster.sql.names import WHOLE_NUMBERS, literal, quote, quote_all
from pip_dagster.warehouse.lock import take_waited
from pip_dagster.warehouse.tables import ensure_table
from pip_dagster.warehouse.transaction import transaction

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection


@dataclass(frozen=True)
class ScoredPartition:
    """A partition that was scored, and may be blocked, with its entry and checks for the ledger."""

    scored: Scored
    entry: ScoringEntry
    checks: Sequence[CheckEntry] = ()


def store_scores(
    run: Run, stage: Stage, chunk: ScoredChunk, attempts: Sequence[ScoredPartition], pending: str | None = None
) -> list[ScoringEntry]:
    """One transaction: quarantine, scores, profiles, reason codes, ledger entries, checks, a champion's live pointers.

    A blocked scoring is stored in the same way, but does not become live. `pending`: what is still
    undecided about its arms.

    The warehouse is the current catalog.

    Raises:
        PartitionError: rows in are not rows scored plus rows quarantined; rolled back.
        WithdrawnError: a partition was rolled back since the run was requested; rolled back.
    """
    con, spec, scored_columns = run.con, run.pipeline.spec, chunk.scores.columns
    pipeline = spec.name
    with transaction(con, late=True) as turn:
        check_suppressed(con, pipeline, run.people)
        for each in attempts:
            if each.scored.rows_quarantined:
                _quarantine(stage, each.entry, each.scored.rows_quarantined, spec.features.key)
        columns = {"partition_key": "VARCHAR", "scoring_id": "VARCHAR"} | scored_columns
        _check_key_types(con, pipeline, {name: scored_columns[name] for name in (*spec.features.key, *spec.unit)})
        table = ensure_table(con, pipeline, "scores", columns)
        insert_counted(
            con,
            f"{quote(pipeline)}.{quote(table)}",
            labelled(
                stage.scores,
                {each.entry.partition_key: each.entry.scoring_id for each in attempts},
                [name for name in scored_columns if name != "partition_key"],
            ),
            sum(each.scored.rows_scored for each in attempts),
            f"{named(pipeline, [each.entry.partition_key for each in attempts])}: scores",
        )
        for each in attempts:
            scored = each.scored
            # A partition blocked for its quarantine has rows that are neither.
            if each.entry.status == "scored" and scored.rows_in != scored.rows_scored + scored.rows_quarantined:
                raise PartitionError(
                    f"{named(pipeline, [each.entry.partition_key])}: {plural(scored.rows_in, 'row')} came in, "
                    f"{scored.rows_scored} were scored and {scored.rows_quarantined} quarantined; the sum must agree. "
                    "Nothing was stored."
                )
        waited = take_waited()
        entries = [replace(each.entry, table_name=table, lock_seconds=waited) for each in attempts]
        insert_rows(con, "scorings", entries)
        insert_checks(con, [check for each in attempts for check in each.checks])
        insert_profiles(con, _profiles(chunk, entries))
        if chunk.reasons:
            for entry in entries:
                store_reasons(stage, chunk.reasons, entry)
        if champions := [entry for entry in entries if entry.role == "champion" and entry.status == "scored"]:
            _go_live(con, champions, run.info, "scored", pending, turn.take())
    return entries


def _profiles(chunk: ScoredChunk, entries: Sequence[ScoringEntry]) -> list[ProfileEntry]:
    return [
        ProfileEntry.of(entry, profile, entry.manifest_digest or "")
        for entry in entries
        for profile in chunk.profiles.get(entry.partition_key, ())
    ]


def _go_live(
    con: DuckDBPyConnection,
    entries: Sequence[ScoringEntry],
    run: RunInfo,
    why: str,
    pending: str | None,
    committed: DuckDBPyConnection | None = None,
) -> None:
    why = run.live_why or why
    change_ids = make_live(con, entries, run, f"{why}; {pending}" if pending else why, committed=committed)
    if pending:
        undecided = [
            split_check(entry.pipeline, entry.partition_key, change_id, "arms", passed=False, observed=pending)
            for entry, change_id in zip(entries, change_ids, strict=True)
        ]
        insert_checks(con, undecided)
    note_backfill(con, entries, run)


def _check_key_types(con: DuckDBPyConnection, pipeline: str, key: dict[str, str]) -> None:
    """Refuse a key or unit of another type than stored rows have: in one view, its values could not be distinguished.

    Raises:
        PartitionError: names both types. Whole numbers may grow wider or narrower.
    """
    whole = WHOLE_NUMBERS - {"UHUGEINT"}  # beside a signed type it becomes a DOUBLE
    tables = con.execute(  # `duckdb_columns` would bind every view of the warehouse
        "SELECT table_name FROM duckdb_tables() WHERE database_name = current_database() "
        "AND schema_name = $pipeline AND starts_with(table_name, 'scores__') ORDER BY 1",
        {"pipeline": pipeline},
    ).fetchall()
    described = [con.execute(f"DESCRIBE {quote(pipeline)}.{quote(table)}").fetchall() for (table,) in tables]
    for name, kind, *_ in chain.from_iterable(described):
        if name in key and kind != key[name] and not {kind, key[name]} <= whole:
            raise PartitionError(
                f"Pipeline {pipeline}: {name!r} of key or unit is {key[name]}, in the stored scores it is {kind}. "
                f"Cast it to {kind} in the feature SQL, or give the pipeline another name."
            )


def _quarantine(stage: Stage, entry: ScoringEntry, rows: int, row_key: Sequence[str]) -> None:
    """Store the partition's rows in quarantine, whole, each with every reason."""
    key, pipeline = entry.partition_key, entry.pipeline
    kept = dict.fromkeys(("partition_key", "scoring_id", "feature_revision"), "VARCHAR")
    kept |= {"broken": "VARCHAR[]", "row_key": "VARCHAR"}
    table = ensure_table(stage.con, pipeline, "quarantine", kept | stage.columns)
    fields = ", ".join(f"{quote(name)} := {quote(name)}::VARCHAR" for name in row_key)
    insert_counted(
        stage.con,
        f"{quote(pipeline)}.{quote(table)}",
        f"SELECT partition_key, {literal(entry.scoring_id)}, {literal(entry.feature_revision or '')}, reasons, "
        f"to_json(struct_pack({fields}))::VARCHAR, {quote_all(stage.columns)} "
        f"FROM {stage.quarantined_rows} WHERE partition_key = {literal(key)}",
        rows,
        f"{named(pipeline, [key])}: quarantine",
    )


def point_at(
    con: DuckDBPyConnection,
    entry: ScoringEntry,
    run: RunInfo,
    why: str,
    pending: str | None = None,
    failed: str | None = None,
) -> None:
    """Make a scoring live that is stored, unless it is live already; its arms then stay as they are.

    A request by version, or as known, is recorded even then: otherwise the next plan would revert it. So is
    that it holds after the newest attempt that `failed` (its id): `status` would otherwise show that attempt.
    """
    with transaction(con):
        live = live_change(con, entry.pipeline, entry.partition_key)
        requested = run.kind == "pinned" and not (live and live.records(run))
        # A pin stays one: only the person who set it may replace it.
        again = live and live.kind != "pinned" and (failed or "") > live.change_id
        if live is None or live.scoring_id != entry.scoring_id or requested or again:
            _go_live(con, [entry], run, why, pending)
        else:
            note_backfill(con, [entry], run)


def store_failure(con: DuckDBPyConnection, entry: ScoringEntry, checks: Sequence[CheckEntry] = ()) -> None:
    """Write down an attempt that stored no scores; what was live stays live."""
    with transaction(con, late=True):
        insert_rows(con, "scorings", [entry])
        insert_checks(con, checks)
