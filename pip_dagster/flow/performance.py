"""How good stored scores were, once their labels are known: evaluated part by part, kept with the labels' digest."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from itertools import groupby
from typing import TYPE_CHECKING

from pip_dagster import clock
from pip_dagster.errors import DeclarationError, NoWarehouseError, OlderWarehouseError, RegistryError
from pip_dagster.flow.scored_figures import PartFigures, measure_parts
from pip_dagster.flow.scored_rows import PartRows, ScoredRows, part_name, stage_scored_rows
from pip_dagster.flow.stage import stored_columns
from pip_dagster.ledger.performance import (
    LabelEvaluation,
    Part,
    PerformanceRow,
    insert_evaluations,
    live_parts,
    newest_evaluations,
)
from pip_dagster.ledger.record import new_id
from pip_dagster.registry.store import Registry
from pip_dagster.statistics.maturity import mature_at, usual_coverage
from pip_dagster.warehouse.access import reading, writing
from pip_dagster.warehouse.interrupts import raise_if_interrupted
from pip_dagster.warehouse.transaction import transaction
from pip_dagster.warehouse.windows import in_windows

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from pip_dagster.declaration.pipeline import Pipeline

# What is staged at once: so many partitions, and so many rows unless one partition has more.
_PARTITIONS, _ROWS = 183, 500_000
# After so many partitions with one and the same problem, the others of the chunk have it too.
_SAME = 5

Identity = tuple[str, str, str]


@dataclass
class Evaluated:
    """Partition keys by what an evaluation found: new figures, the same labels as before, no label, or a problem."""

    done: list[str] = field(default_factory=list)
    unchanged: list[str] = field(default_factory=list)
    unlabelled: list[str] = field(default_factory=list)
    problems: dict[str, str] = field(default_factory=dict)


def evaluate(
    con: DuckDBPyConnection,
    pipeline: Pipeline,
    partitions: Collection[str] | None = None,
    *,
    progress: Callable[[str], None] = lambda text: None,
    now: datetime | None = None,
) -> Evaluated:
    """Evaluate live partitions whose labels are new or changed, newest first; a kill costs the chunk at work.

    What cannot be evaluated is a problem of its partition, and the others go on.

    Args:
        con: a workspace, without the warehouse open.
        pipeline: declares labels.
        partitions: their keys; all that are live when None.
        progress: is called with what is being done.
        now: the time of the evaluation, for tests.

    Raises:
        DeclarationError: a declared segment or unit is not among the newest features.
        SourceError: a source of the labels cannot be read.
        WarehouseError: it cannot be read or written.
    """
    name, at, found = pipeline.spec.name, now or clock.wall(), Evaluated()
    with _ledger(con, pipeline) as there:
        parts = live_parts(con, name) if there else []
        known = newest_evaluations(con, name) if there else {}
        _check_columns(con, pipeline, parts)
    wanted = [each for each in parts if partitions is None or each.live.key in partitions]
    if not wanted:
        return found
    run = _Run(con, pipeline, at, known, found)
    done = 0
    for chunk in _chunks(wanted):
        run.evaluate(chunk)
        done += len(chunk)
        progress(f"{name}: evaluated {done} of {len(wanted)}, {chunk[0].live.key} to {chunk[-1].live.key}")
    for listed in (found.done, found.unchanged, found.unlabelled):
        listed[:] = sorted(set(listed))
    if found.done:
        with writing(con, pipeline.project, purpose=f"{name}: publishing performance"):
            pass
    return found


def live_keys(con: DuckDBPyConnection, pipeline: Pipeline) -> list[str]:
    """The partitions that are live, in order. `con` is a workspace without the warehouse open."""
    with _ledger(con, pipeline) as there:
        return [*dict.fromkeys(part.live.key for part in live_parts(con, pipeline.spec.name))] if there else []


@contextmanager
def _ledger(con: DuckDBPyConnection, pipeline: Pipeline) -> Iterator[bool]:
    """The ledger, migrated if an earlier version wrote it; False where there is none, and none is created."""
    purpose = f"{pipeline.spec.name}: reading the ledger"
    try:
        with reading(con, pipeline.project, purpose=purpose):
            yield True
        return
    except NoWarehouseError:
        yield False
        return
    except OlderWarehouseError:
        pass
    with writing(con, pipeline.project, purpose=purpose, publish=False):
        yield True


def _check_columns(con: DuckDBPyConnection, pipeline: Pipeline, parts: Sequence[Part]) -> None:
    """Refuse a segment or unit that the newest stored features do not have; older ones need not have it."""
    columns = stored_columns(con, pipeline.spec.name, parts[-1].live.revisions[0].table) if parts else {}
    for what, names in (("segments of performance", pipeline.segments), ("unit of labels", pipeline.unit)):
        if parts and (missing := [each for each in names if each not in columns]):
            raise DeclarationError(
                f"Pipeline {pipeline.spec.name}: {', '.join(missing)}, declared as {what}, is not among the stored "
                f"features, which are {', '.join(columns)}."
            )


def _chunks(parts: Sequence[Part]) -> Iterator[list[Part]]:
    """Parts of one version and the same tables, newest first; each chunk is in the order of its partitions."""

    def tables(part: Part) -> tuple[object, ...]:
        split = part.arm if part.basis != part.live.scoring_id else ""
        return part.model_name, part.model_version, part.live.scores_table, part.live.revisions[0].table, split

    for _, group in groupby(sorted(parts, key=tables), key=tables):
        chunk: list[Part] = []
        for part in sorted(group, key=lambda each: each.live.start, reverse=True):
            if chunk and (len(chunk) == _PARTITIONS or sum(p.live.rows for p in chunk) + part.live.rows > _ROWS):
                yield chunk[::-1]
                chunk = []
            chunk.append(part)
        yield chunk[::-1]


def _is_known(each: LabelEvaluation, known: Mapping[Identity, LabelEvaluation]) -> bool:
    before = known.get((each.basis, each.scoring_id, each.arm))
    return (
        before is not None
        and (before.labels_digest, before.segments) == (each.labels_digest, each.segments)
        and not clock.is_ahead(before.evaluated_at, each.evaluated_at)
    )


@dataclass
class _Run:
    """One evaluation of several chunks."""

    con: DuckDBPyConnection
    pipeline: Pipeline
    at: datetime
    known: dict[Identity, LabelEvaluation]
    found: Evaluated

    def evaluate(self, chunk: Sequence[Part]) -> None:
        """Evaluate a chunk; if that fails, each of its parts by itself, so that one bad partition blocks no other."""
        try:
            evaluations, rows = self._measured(chunk)
        except (DeclarationError, RegistryError) as error:
            raise_if_interrupted(error)
            if len(chunk) == 1 or isinstance(error, RegistryError):
                self.found.problems |= {part.live.key: str(error) for part in chunk}
                return
            for i, part in enumerate(chunk):
                self.evaluate([part])
                if same := self._always_the_same():  # such as SQL that cannot run
                    self.found.problems |= {each.live.key: same for each in chunk[i + 1 :]}
                    return
            return
        if evaluations:
            self._store(evaluations, rows)

    def _always_the_same(self) -> str:
        """The problem of the newest five partitions that have one, if it is one and the same."""
        newest = [*self.found.problems.values()][-_SAME:]
        return newest[0] if len(newest) == _SAME and len({*newest}) == 1 else ""

    def _store(self, evaluations: Sequence[LabelEvaluation], rows: Sequence[PerformanceRow]) -> None:
        def store(_: None) -> None:
            with transaction(self.con):
                # Another process may have evaluated the same labels meanwhile.
                known = newest_evaluations(self.con, self.pipeline.spec.name)
                same = {each.evaluation_id for each in evaluations if _is_known(each, known)}
                insert_evaluations(
                    self.con,
                    [each for each in evaluations if each.evaluation_id not in same],
                    [each for each in rows if each.evaluation_id not in same],
                )

        purpose = f"{self.pipeline.spec.name}: storing performance"
        in_windows(self.con, self.pipeline.project, [None], store, purpose=purpose, publish=False)
        self.known |= {(each.basis, each.scoring_id, each.arm): each for each in evaluations}
        self.found.done += [each.partition_key for each in evaluations]

    def _measured(self, chunk: Sequence[Part]) -> tuple[list[LabelEvaluation], list[PerformanceRow]]:
        project = self.pipeline.project
        manifest = Registry(project.registry).get(chunk[0].model_name, chunk[0].model_version).manifest
        staged = stage_scored_rows(self.con, self.pipeline, manifest, chunk)
        fresh = [part for part in chunk if self._is_news(part, staged)]
        figures = measure_parts(self.con, self.pipeline, staged, [part_name(part) for part in fresh])
        coverages = self._coverages(chunk, staged)
        evaluations: list[LabelEvaluation] = []
        rows: list[PerformanceRow] = []
        for part in fresh:
            of = figures[part_name(part)]
            usual = usual_coverage([share for start, share in coverages if start < part.live.start])
            evaluation = self._evaluation(part, staged.parts[part_name(part)], of, usual)
            evaluations.append(evaluation)
            rows += [
                PerformanceRow(
                    evaluation.evaluation_id, evaluation.pipeline, part.live.key, part.live.scoring_id, *each
                )
                for each in of.rows
            ]
        return evaluations, rows

    def _is_news(self, part: Part, staged: ScoredRows) -> bool:
        """Whether a part has other labels than at its newest evaluation; recorded in what was found, if not."""
        of, before = staged.parts.get(part_name(part), PartRows(0, 0, "")), self.known.get(part.identity)
        if before is None and not of.labelled:
            self.found.unlabelled.append(part.live.key)
            return False
        # A clock that was ahead evaluated the others: what it took for complete may not be, or count only then.
        was_ahead = before is not None and clock.is_ahead(before.evaluated_at, self.at)
        if (
            before
            and not was_ahead
            and before.labels_digest == of.digest
            and before.segments == [*self.pipeline.segments]
        ):
            self.found.unchanged.append(part.live.key)
            return False
        return of.rows > 0

    def _coverages(self, chunk: Sequence[Part], staged: ScoredRows) -> list[tuple[datetime, float]]:
        """When each evaluated partition begins, and its share of labelled rows: those known, and those of the chunk."""
        found = {each.partition_start: each.coverage for each in self.known.values() if each.labelled}
        for part in chunk:
            of = staged.parts.get(part_name(part))
            if of and of.labelled:
                found[part.live.start] = of.labelled / of.rows
        return sorted(found.items())

    def _evaluation(self, part: Part, of: PartRows, figures: PartFigures, usual: float | None) -> LabelEvaluation:
        before, live = self.known.get(part.identity), part.live
        changed = before if before and before.labelled and before.labels_digest != of.digest else None
        counted = changed is not None and changed.mature_at is not None and changed.mature_at <= self.at
        restates = changed if changed and (counted or of.labelled <= changed.labelled) else None
        labels = self.pipeline.labels
        assert labels
        coverage = of.labelled / of.rows
        mature = mature_at(
            (live.start, live.end),
            self.at,
            coverage,
            complete_after=labels.complete_after,
            before=before.coverage if before else None,
            usual=usual,
        )
        return LabelEvaluation(
            evaluation_id=new_id(before.evaluation_id if before else None),
            pipeline=self.pipeline.spec.name,
            partition_key=live.key,
            partition_start=live.start,
            partition_end=live.end,
            scoring_id=live.scoring_id,
            basis=part.basis,
            arm=part.arm,
            model_name=part.model_name,
            model_version=part.model_version,
            feature_revision=live.revisions[0].revision,
            labels_digest=of.digest,
            segments=[*self.pipeline.segments],
            rows=of.rows,
            labelled=of.labelled,
            score_psi=figures.score_psi,
            unlike_rest=figures.unlike_rest,
            mature_at=mature if of.labelled else None,
            restates=restates.evaluation_id if restates else None,
            evaluated_at=self.at,
        )
