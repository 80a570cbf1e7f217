"""Profiles of what was scored before monitoring was declared, or by an older version: read from the warehouse again."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from itertools import groupby
from typing import TYPE_CHECKING

from pip_dagster.errors import DeclarationError
from pip_dagster.flow.guard_composite import encode_model
from pip_dagster.flow.profile import ToProfile, profiles_of
from pip_dagster.flow.stage import Stage, stored_columns
from pip_dagster.ledger.lost_rows import lost_rows
from pip_dagster.ledger.profiles import Profile, ProfileEntry, insert_profiles, profiled_segments, unprofiled
from pip_dagster.plural import plural
from pip_dagster.replay.recall import places
from pip_dagster.sql.names import among, quote, quote_all
from pip_dagster.warehouse.access import reading, writing
from pip_dagster.warehouse.transaction import transaction

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from pip_dagster.declaration.pipeline import Pipeline
    from pip_dagster.flow.model import ScoringModel
    from pip_dagster.ledger.record import ScoringEntry
    from pip_dagster.registry.version import ModelVersion

LOG = logging.getLogger("pip_dagster")

_CHUNK = 31


def profile_stored(
    con: DuckDBPyConnection,
    pipeline: Pipeline,
    model: ScoringModel,
    *,
    keys: Collection[str] | None = None,
    unfit: bool = False,
    progress: Callable[[str], None] = lambda text: None,
) -> list[str]:
    """Profile live partitions on the bins of `model`, newest first, a chunk a transaction; those it profiled.

    Only those in `keys`, where they are named; `unfit`: some of them may not fit the model. A segment that was declared
    since is profiled too.

    Scores of another version are not profiled: only its features are comparable. A kill costs a chunk. Partitions whose
    stored features are not those of the model are left out, and reported at the end.

    Raises:
        DeclarationError: the stored features of `keys` do not fit the model.
    """
    name, digest, done = pipeline.spec.name, model.version.manifest_digest, list[str]()
    segments = pipeline.spec.monitoring.segments if pipeline.spec.monitoring else ()
    misfits: dict[str, list[str]] = {}
    with writing(con, pipeline.project, purpose=f"{name}: reading the ledger", publish=False):
        entries = [e for e in unprofiled(con, name, digest, segments) if keys is None or e.partition_key in keys]
    tables = places(con, pipeline, entries)
    for listed in _chunks(entries, tables):
        with writing(con, pipeline.project, purpose=f"{name}: storing profiles", publish=False):
            ids, table = [e.scoring_id for e in listed], tables[listed[0].feature_revision or ""]
            there = [each for each in segments if each in stored_columns(con, name, table)]
            # Another process may have profiled some meanwhile.
            lacking = {e.scoring_id for e in unprofiled(con, name, digest, there, ids)}
            chunk = [e for e in listed if e.scoring_id in lacking]
            if chunk:
                known = profiled_segments(con, digest, ids)
                try:
                    profiles = _profiles(con, pipeline, model, chunk, table, there)
                except DeclarationError as error:  # of another version, with other features
                    if keys is not None and not unfit:
                        raise
                    misfits.setdefault(str(error), []).extend(e.partition_key for e in chunk)
                    continue
                found = [
                    ProfileEntry.of(e, p, digest)
                    for e in chunk
                    for p in profiles[e.partition_key]
                    if (e.scoring_id, p.segment) not in known
                ]
                with transaction(con):
                    insert_profiles(con, found)
        done += [e.partition_key for e in chunk]
        progress(f"{name}: profiled {len(done)} of {len(entries)} partitions")
    for why, left in misfits.items():
        progress(f"{plural(len(left), 'partition')}, {left[-1]} to {left[0]}, cannot be profiled: {why}")
    return done


def profile_what_lost_rows(con: DuckDBPyConnection, pipeline: Pipeline, version: ModelVersion) -> list[str]:
    """Profile the live partitions that lost rows, and their profiles with them, to an erasure; those it profiled."""
    from pip_dagster.flow.model import ScoringModel

    name = pipeline.spec.name
    with reading(con, pipeline.project, purpose=f"{name}: reading the ledger"):
        lost = lost_rows(con, name)
        lacking = unprofiled(con, name, version.manifest_digest, of=lost) if lost else []
    if not lacking:
        return []
    model, keys = ScoringModel.resolve(pipeline, 1, version=version.version), {e.partition_key for e in lacking}
    return profile_stored(con, pipeline, model, keys=keys, unfit=True, progress=LOG.info)


def _chunks(entries: Sequence[ScoringEntry], tables: dict[str, str]) -> Iterator[list[ScoringEntry]]:
    """Partitions in order whose features, and whose scores, are in one table each."""
    known = [(tables[entry.feature_revision], entry) for entry in entries if entry.feature_revision in tables]
    for _, group in groupby(known, key=lambda each: (each[0], each[1].table_name, each[1].manifest_digest)):
        listed = [entry for _, entry in group]
        for at in range(0, len(listed), _CHUNK):
            yield listed[at : at + _CHUNK]


def _profiles(
    con: DuckDBPyConnection,
    pipeline: Pipeline,
    model: ScoringModel,
    chunk: Sequence[ScoringEntry],
    table: str,
    segments: Sequence[str],
) -> dict[str, list[Profile]]:
    name, manifest, spec = pipeline.spec.name, model.version.manifest, pipeline.spec
    stage, keys = Stage(con), [entry.partition_key for entry in chunk]
    stage.load(name, table, [entry.feature_revision or "" for entry in chunk])
    scored = f"{quote(name)}.{quote(chunk[0].table_name or '')}"
    live = f"(SELECT * FROM {scored} WHERE {among('scoring_id', [entry.scoring_id for entry in chunk])})"
    same = quote_all(["partition_key", *spec.features.key])
    encoded = encode_model(manifest, stage.columns, where=f"Pipeline {name}, stored features")
    relation = f"(SELECT f.* FROM {stage.features} f SEMI JOIN {live} s USING ({same}))"
    gains, types = model.predictor.gains(), {row[0]: row[1] for row in con.execute(f"DESCRIBE {scored}").fetchall()}
    scores = live if chunk[0].manifest_digest == model.version.manifest_digest else None
    of = ToProfile(con, relation, encoded, manifest, gains, scores, types, spec.features.key)
    return profiles_of(replace(of, segments=segments), keys)
