"""Replay: the recorded features through the recorded model once more, compared with what was stored.

A prediction is a function of features, model, declaration and engine. The first two are checked by digest before
they are used, the third is taken from the record (which rows were quarantined, which columns a scored row carries), and
the fourth is reported beside the result, since it is the only one that may have changed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from pip_dagster.errors import PipelineError, RegistryError
from pip_dagster.flow.engine import available_threads, choose_device, library_versions
from pip_dagster.flow.findings import ScoringPolicy
from pip_dagster.flow.score import Scores, score
from pip_dagster.flow.scored_row import score_columns
from pip_dagster.flow.stage import Stage
from pip_dagster.plural import plural
from pip_dagster.registry.store import Registry
from pip_dagster.replay import recall
from pip_dagster.replay.compare import RowComparison, compare, of_partition
from pip_dagster.replay.declared import spec_of
from pip_dagster.replay.recall import Recalled
from pip_dagster.replay.recorded_rows import RecordedRow, recorded_rows
from pip_dagster.warehouse.connect import workspace
from pip_dagster.warehouse.memory import rows_for

if TYPE_CHECKING:
    from pip_dagster.declaration.pipeline import Pipeline
    from pip_dagster.ledger.record import ScoringEntry
    from pip_dagster.registry.engines.protocol import Predictor
    from pip_dagster.registry.version import ModelVersion

Verdict = Literal["identical", "differs", "cannot replay"]

# Staged at once: what the workspace must hold, and what is compared partition by partition.
_CHUNK_ROWS = 200_000
_CHUNK_PARTITIONS = 100


@dataclass(frozen=True)
class Replay:
    """What came of one scoring's replay.

    `reasons`: what differs, or why it could not be replayed, each naming the thing at fault. `engine_then`,
    `engine_now`: library versions and device. `not_evaluated`: decisions whose SQL was not recorded; only their stored
    values are checked, by the ledger's digest.
    """

    entry: ScoringEntry
    verdict: Verdict
    reasons: tuple[str, ...]
    engine_then: dict[str, Any]
    engine_now: dict[str, Any]
    comparison: RowComparison | None = None
    rows: tuple[RecordedRow, ...] = ()
    not_evaluated: tuple[str, ...] = ()

    @property
    def engine_differences(self) -> dict[str, tuple[Any, Any]]:
        """Library or `device` → what it was then and is now, where the two differ."""
        names = [*self.engine_then, *(name for name in self.engine_now if name not in self.engine_then)]
        pairs = {name: (self.engine_then.get(name), self.engine_now.get(name)) for name in names}
        return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


@dataclass(frozen=True)
class _Model:
    version: ModelVersion
    predictor: Predictor
    device: str


def replay(
    pipeline: Pipeline,
    entries: Sequence[ScoringEntry],
    *,
    keys: Sequence[str] = (),
    progress: Callable[[str], None] = lambda _: None,
) -> Iterator[Replay]:
    """Replay these scorings, a few partitions at a time, those of one model together; a result for each.

    The warehouse is open only while recorded rows are copied out of it. `keys`: rows to show whole, each as
    `recorded_rows` takes it.

    Raises:
        WarehouseError: the warehouse cannot be opened.
    """
    threads, name, done = available_threads(), pipeline.spec.name, 0
    with workspace(threads=threads) as con:
        stage = Stage(con)
        yield from (_cannot(entry, _purged(entry)) for entry in entries if entry.purged_at)
        entries = [entry for entry in entries if not entry.purged_at]
        places = recall.places(con, pipeline, entries)
        groups: dict[tuple[Any, ...], list[ScoringEntry]] = {}
        for entry in entries:
            of_model = (entry.model_name, entry.model_version, entry.model_digest, entry.manifest_digest, entry.device)
            declared = (entry.declared_row, entry.declared_parts, entry.code_digest)
            of_group = (of_model, entry.table_name, places.get(entry.feature_revision or ""), declared)
            groups.setdefault(of_group, []).append(entry)
        models: dict[tuple[Any, ...], _Model | str] = {}
        for (wanted, _, table, _), group in groups.items():
            if wanted not in models:
                models.clear()  # one at a time: an auditor may have hundreds of versions
                models[wanted] = _load(pipeline, group[0], threads)
            model = models[wanted]
            for chunk in _chunks(group, 0 if isinstance(model, str) else model.version.manifest.width):
                progress(f"{name}: replaying {chunk[0].partition_key} to {chunk[-1].partition_key}, {done} done")
                done += len(chunk)
                if isinstance(model, str):
                    yield from (_cannot(entry, model) for entry in chunk)
                    continue
                try:
                    yield from _replay_chunk(stage, pipeline, model, chunk, table, keys)
                except PipelineError as error:
                    yield from (_cannot(entry, str(error), model.device) for entry in chunk)


def _chunks(entries: Sequence[ScoringEntry], columns: int) -> Iterator[list[ScoringEntry]]:
    """A few at a time, fewer of many columns, and one of a partition, whose key alone distinguishes its rows."""
    chunk: list[ScoringEntry] = []
    rows = rows_for(_CHUNK_ROWS, columns)
    for entry in entries:
        if any(each.partition_key == entry.partition_key for each in chunk):
            yield chunk
            chunk = []
        chunk.append(entry)
        if len(chunk) == _CHUNK_PARTITIONS or sum(each.rows_in or 0 for each in chunk) >= rows:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _load(pipeline: Pipeline, entry: ScoringEntry, threads: int) -> _Model | str:
    """The very model that scored, every file verified; or why it cannot be had."""
    from pip_dagster.registry.load import load_predictor

    if entry.model_version is None:
        return "the ledger names no model version"
    try:
        version = Registry(pipeline.project.registry).get(entry.model_name, entry.model_version)
        version.verify()
        for file, found, recorded in (
            ("manifest.json", version.manifest_digest, entry.manifest_digest),
            ("model.ubj", version.digest, entry.model_digest),
        ):
            if found != recorded:
                return (
                    f"{version}: {file} has sha256 {found}, but the ledger recorded {recorded} when it scored: "
                    "the registry's version has been replaced since"
                )
        # On the recorded device if there is one; a difference between the two is part of the result.
        device = choose_device("auto").name if entry.device == "cuda" else "cpu"
        return _Model(version, load_predictor(version, nthread=threads, device=device), device)
    except RegistryError as error:
        return str(error)


def _replay_chunk(
    stage: Stage,
    pipeline: Pipeline,
    model: _Model,
    entries: Sequence[ScoringEntry],
    table: str | None,
    keys: Sequence[str],
) -> list[Replay]:
    manifest = model.version.manifest
    recalled = recall.recall(stage, pipeline, entries, table, manifest)
    partitions = [entry.partition_key for entry in entries]
    # Which rows were quarantined is recorded, so today's policy must not quarantine others or block the partition.
    policy = ScoringPolicy("missing", 1.0, recalled.carried, refuse_not_finite=False)
    spec = spec_of(pipeline, entries[0], list(recalled.stored_columns))
    quotes = pipeline.spec.privacy is None
    scores = score(stage, spec, model.predictor, manifest, partitions, policy)
    return [
        _judge(stage, model, entry, recalled, scores, recorded_rows(stage, spec, recalled, entry, keys), quotes=quotes)
        for entry in entries
    ]


def _judge(
    stage: Stage,
    model: _Model,
    entry: ScoringEntry,
    recalled: Recalled,
    scores: Scores,
    rows: tuple[RecordedRow, ...],
    *,
    quotes: bool,
) -> Replay:
    """Everything that is wrong with one scoring, by name."""
    key, reasons = entry.partition_key, list(recalled.faults.get(entry.scoring_id, ()))
    if refused := scores.failed.get(key):
        verdict: Verdict = "differs" if reasons else "cannot replay"
        reasons.append(f"the guard refuses the recorded features: {refused}")
        return Replay(entry, verdict, tuple(reasons), _then(entry), _now(model.device), rows=rows)
    both = {name: kind for name, kind in recalled.score_columns.items() if scores.columns.get(name) == kind}
    stored = of_partition(recalled.scores, "scoring_id", entry.scoring_id)
    replayed = of_partition(stage.scores, "partition_key", key)
    comparison = compare(stage.con, stored, replayed, recalled.carried, both)
    reasons += _differences(comparison, quotes=quotes)
    own = {"partition_key", *recalled.carried, *score_columns(model.version.manifest)}
    lacking = tuple(name for name in recalled.stored_columns if name not in own and name not in scores.columns)
    comparable = {name: kind for name, kind in recalled.stored_columns.items() if name not in lacking}
    if scores.columns != comparable:
        reasons.append(
            f"it stored the columns {_typed(comparable)}; replayed, a row has {_typed(scores.columns)}. Only "
            f"{', '.join(both)} could be compared"
        )
        verdict = "differs" if len(reasons) > 1 else "cannot replay"
        return Replay(entry, verdict, tuple(reasons), _then(entry), _now(model.device), comparison, rows)
    digest = scores.scored[key].score_digest
    if digest != entry.score_digest and not lacking:
        reasons.append(f"the replayed scores have digest {digest}; the ledger recorded {entry.score_digest}")
    verdict = "differs" if reasons else "identical"
    return Replay(entry, verdict, tuple(reasons), _then(entry), _now(model.device), comparison, rows, lacking)


def _typed(columns: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {sql_type}" for name, sql_type in columns.items())


def _differences(found: RowComparison, *, quotes: bool) -> Iterator[str]:
    """The comparison in words; `quotes`: with the key of a row each."""
    furthest = ", ".join(
        f"{name} in {of.differing}"
        + ("" if of.max_ulps is None else f" by up to {of.max_ulps:,} ULPs ({of.max_absolute:.6g})")
        + (f", {of.incomparable} with a number on one side only" if of.incomparable else "")
        for name, of in found.columns.items()
        if of.differing
    )
    texts = {
        "differing": f"{found.differing} of {found.compared} scored rows differ, {furthest}",
        "missing": f"{plural(found.missing, 'row')} without a stored score",
        "extra": f"{found.extra} stored scores have no row that was scored",
    }
    for kind, text in texts.items():
        if listed := found.examples.get(kind):
            yield f"{text}, such as {named(listed[0])}" if quotes else text


def named(example: Mapping[str, Any]) -> str:
    """The key of a row that differs, in words."""
    return ", ".join(f"{name} = {value}" for name, value in example.items() if not isinstance(value, dict))


def _then(entry: ScoringEntry) -> dict[str, Any]:
    return dict(json.loads(entry.engine)) | {"device": entry.device}


def _now(device: str | None) -> dict[str, Any]:
    return library_versions() | {"device": device}


def _purged(entry: ScoringEntry) -> str:
    return (
        f"its contents were purged at {entry.purged_at:%Y-%m-%d %H:%M:%S %Z} by {entry.purged_by}, as "
        f"`privacy.retention.content` declares: `pip-dagster certificate {entry.purged_by}`"
    )


def _cannot(entry: ScoringEntry, reason: str, device: str | None = None) -> Replay:
    """A scoring of which nothing could be scored; the device is then the recorded one."""
    return Replay(entry, "cannot replay", (reason,), _then(entry), _now(device or entry.device))
