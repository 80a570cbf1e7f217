"""Stored features: staged rows of a few partitions as revisions, all in one transaction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace

from pip_dagster import clock
from pip_dagster.declaration.canonical import canonical
from pip_dagster.errors import OvertakenError
from pip_dagster.flow.extract import Extract
from pip_dagster.flow.run import Run
from pip_dagster.flow.stage import Stage
from pip_dagster.flow.storing import insert_counted, labelled, named
from pip_dagster.ledger import record
from pip_dagster.ledger.checks import CheckEntry, insert_checks
from pip_dagster.ledger.record import ExtractionEntry
from pip_dagster.ledger.rows import insert_rows
from pip_dagster.privacy.keys import keep_check, pseudonym_key
from pip_dagster.privacy.suppressed import check_suppressed
from pip_dagster.sql.names import quote
from pip_dagster.warehouse.tables import ensure_table
from pip_dagster.warehouse.transaction import transaction


def store_features(run: Run, stage: Stage, made: Sequence[Extract]) -> list[ExtractionEntry]:
    """Keep staged features as new revisions, all in one transaction; not those whose newest has the same content.

    The warehouse is the current catalog.

    Raises:
        PartitionError: another number of rows arrived than was staged; rolled back.
        PartitionError: a person was erased since the rows were read; rolled back.
        OvertakenError: another process stored features of a partition meanwhile; rolled back.
    """
    con, columns, name, keys = run.con, stage.columns, run.pipeline.spec.name, [each.partition.key for each in made]
    with transaction(con, late=True) as turn:
        check_suppressed(con, name, run.people)
        if secret := pseudonym_key(run.pipeline):
            keep_check(con, secret)
        known = record.latest_extractions(con, name, keys)
        entries = [_extraction(run, each, known.get(each.partition.key)) for each in made]
        stored = [entry for entry in entries if entry is not known.get(entry.partition_key)]
        if fresh := {entry.partition_key: entry.revision for entry in stored if entry.is_new}:  # rows take long
            table = ensure_table(con, name, "features", {"partition_key": "VARCHAR", "revision": "VARCHAR"} | columns)
            stored = [replace(entry, table_name=table) if entry.is_new else entry for entry in stored]
            insert_counted(
                con,
                f"{quote(name)}.{quote(table)}",
                labelled(stage.features, fresh, columns),
                sum(each.rows for each in made if each.partition.key in fresh),
                f"{named(name, list(fresh))}: features",
            )
        if stored and turn.is_shared:
            for key, now in record.latest_extractions(turn.take(), name, keys).items():
                if now != known.get(key):
                    raise OvertakenError(f"{named(name, [key])}: another run stored its features meanwhile.")
        insert_rows(con, "extractions", stored)
        ids = {entry.partition_key: entry.extraction_id for entry in stored}
        verdicts = [(each.partition.key, verdict) for each in made for verdict in each.verdicts]
        insert_checks(con, [CheckEntry.of(v, ids[key], name, key) for key, v in verdicts if key in ids])
    kept = {entry.partition_key: entry for entry in stored}
    return [kept.get(entry.partition_key, entry) for entry in entries]


def _extraction(run: Run, made: Extract, known: ExtractionEntry | None) -> ExtractionEntry:
    """The entry for an extraction: the known one, if the new one would equal it."""
    declared = run.pipeline.features_declared(as_known=run.as_known)
    entry = ExtractionEntry(
        extraction_id=record.new_id(),
        pipeline=run.pipeline.spec.name,
        **record.partition_fields(made.partition),
        revision=record.new_id(),
        is_new=True,
        table_name="",
        rows_extracted=made.rows,
        feature_digest=made.digest,
        source_digests=canonical(made.sources),
        sql_digest=declared.digest,
        **asdict(made.cost),
        run_id=run.info.run_id,
        made_by=run.info.made_by,
        made_at=clock.now(),
        provisional=made.provisional,
        declared_parts=declared.parts,
    )
    if known is None or known.feature_digest != made.digest:
        return entry
    same = (known.source_digests, known.sql_digest) == (entry.source_digests, entry.sql_digest)
    if same and bool(known.provisional) == entry.provisional:
        return known
    return replace(entry, revision=known.revision, table_name=known.table_name, is_new=False)
