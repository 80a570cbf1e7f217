"""An open pipeline: its rows, its plan, and what produced a partition."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Unpack

from pip_dagster.api.lineage import PartitionLineage, lineage_entries
from pip_dagster.api.plans import PipelinePlan
from pip_dagster.api.published import open_published
from pip_dagster.api.replays import Replays
from pip_dagster.api.rows import Predictions, TrainingSet
from pip_dagster.api.shown import Shown, ShownTable, silent
from pip_dagster.declaration.grid import closed_partitions, partitions_of_range
from pip_dagster.errors import RangeError
from pip_dagster.flow.training_manifest import TrainingRequest, TrainingRules

if TYPE_CHECKING:
    from pip_dagster.declaration.partition import Partition
    from pip_dagster.declaration.pipeline import Pipeline

# A partition key, a date, or a time; a time without an offset is in the grid's time zone.
Bound = str | date | datetime


class PipelineHandle(Shown):
    """A pipeline. Ranges are from the partition of `start` to that of `end`, both included.

    A bound is a partition key, a `date` or a `datetime`. By default a range is the whole grid, up to the newest
    partition that is over. A range for training may begin before the grid.

    Attributes:
        pipeline: its declaration, with the files that it names.
    """

    def __init__(self, pipeline: Pipeline) -> None:
        self.pipeline = pipeline

    @property
    def name(self) -> str:
        """Its name, which is also the schema of its tables."""
        return self.pipeline.spec.name

    def features(
        self,
        start: Bound | None = None,
        end: Bound | None = None,
        *,
        columns: Sequence[str] | None = None,
        as_known: bool = False,
        progress: Callable[[str], None] = silent,
    ) -> TrainingSet:
        """Features as scoring would be given them: the rows that the expectations admit, without labels and proof.

        They are built from the sources by the pipeline's own SQL; nothing is stored.

        Args:
            start: of the range.
            end: of the range.
            columns: the features to give; all when None. Key and partition column always are.
            as_known: build each partition from the rows that were available at its close, by `available_at`.
            progress: is called with what is being done.

        Raises:
            RangeError: a bound is not valid, or the range is not over.
        """
        rules: TrainingRules = {"labels": False, "as_known": as_known, "prove": 0}
        return self.training_set(start, end, columns=columns, progress=progress, **rules)

    def training_set(
        self,
        start: Bound | None = None,
        end: Bound | None = None,
        *,
        columns: Sequence[str] | None = None,
        progress: Callable[[str], None] = silent,
        **rules: Unpack[TrainingRules],
    ) -> TrainingSet:
        """Features as scoring would be given them, each row beside its declared label.

        Args:
            start: of the range.
            end: of the range.
            columns: the features to give; all when None. Key and partition column always are.
            progress: is called with what is being done.
            **rules: `labels` (True): False gives the features alone. `as_known` (False): build each partition from the
                rows that were available at its close. `mature_only` (True): leave out partitions whose labels are not
                complete. `labelled_only` (False): leave out rows without a label. `prove` (3): in how many partitions
                to prove that features do not depend on later rows; 0 skips it.

        Raises:
            RangeError: a bound is not valid, or the range is not over.
            TypeError: a rule is unknown.
        """
        chosen = None if columns is None else tuple(columns)
        partitions = tuple(self._partitions(start, end))
        return TrainingSet(TrainingRequest(self.pipeline, partitions, chosen, **rules), progress)

    def predictions(
        self, start: Bound | None = None, end: Bound | None = None, *, version: int | None = None, live: bool = True
    ) -> Predictions:
        """Scored rows, as published.

        Args:
            start: of the range.
            end: of the range.
            version: of this model version only.
            live: False reads every stored scoring from the warehouse, live or not, the newest of each version.

        Raises:
            RangeError: a bound is not valid, or the range is not over.
        """
        found = self._partitions(start, end)
        step = self.pipeline.spec.partitions.step
        # Of 02:00, 02:30 and the 02:00 that the clocks repeat, the last one's text is the second.
        keys = tuple(each.key for each in found) if step and step < timedelta(hours=1) else ()
        return Predictions(self.pipeline, found[0].key, found[-1].key, version, live, keys)

    def lineage(self, partition: str) -> PartitionLineage:
        """What produced a partition: sources, features, model, code, libraries, who and when; every attempt at it.

        Raises:
            NotFoundError: the partition is not published.
            WarehouseError: nothing is.
        """
        with open_published(self.pipeline.project) as con:
            return PartitionLineage(self.name, partition, tuple(lineage_entries(con, self.name, partition)))

    def replay(
        self, partition: str, *, version: int | None = None, progress: Callable[[str], None] = silent
    ) -> Replays:
        """Score the recorded features of a partition again with the recorded model, and compare to the bit.

        Args:
            partition: its key.
            version: replay the newest scoring by this version instead of the live one.
            progress: is called with what is being done.

        Raises:
            ReplayError: there is no such scoring, or it stored no scores.
            WarehouseError: the warehouse cannot be opened.
        """
        from pip_dagster.replay import recall
        from pip_dagster.replay.replay import replay
        from pip_dagster.warehouse.connect import workspace

        with workspace(threads=1) as con:
            entries = recall.find(con, self.pipeline, partition=partition, version=version)
        found = replay(self.pipeline, entries, progress=progress)
        return Replays(self.name, tuple(sorted(found, key=lambda each: each.entry.scoring_id)))

    def plan(self, start: Bound | None = None, end: Bound | None = None) -> PipelinePlan:
        """The stale partitions with reasons, and those on hold. Runs nothing.

        Raises:
            PipelineError: the declaration, a source or the warehouse cannot be read.
            RangeError: a bound is not valid, or the range is not over, or no partition of the grid is in it.
        """
        from pip_dagster.flow.plan import make_plan

        now = datetime.now(UTC)
        partitions = closed_partitions(self.pipeline.spec.partitions, now)
        if start is not None or end is not None:
            wanted = {each.key for each in self._partitions(start, end)}
            there = partitions
            partitions = [each for each in there if each.key in wanted]
            if not partitions:
                known = f"{there[0].key} to {there[-1].key}" if there else "none yet"
                raise RangeError(
                    f"Pipeline {self.name}: none of its partitions begins from {start} to {end}; it has {known}.",
                    pipeline=self.name,
                    given=(start, end),
                )
        return PipelinePlan(make_plan(self.pipeline, partitions, now=now))

    def _partitions(self, start: Bound | None, end: Bound | None) -> list[Partition]:
        declared, now = self.pipeline.spec.partitions, datetime.now(UTC)
        if end is None:
            closed = closed_partitions(declared, now)
            if not closed:
                raise RangeError(f"Pipeline {self.name}: no partition is over yet.", pipeline=self.name, given=end)
            end = closed[-1].key
        try:
            return partitions_of_range(declared, declared.start if start is None else start, end, now)
        except ValueError as error:
            text = f"Pipeline {self.name}: the range from {start} to {end} is not valid: {error}."
            raise RangeError(text, pipeline=self.name, given=(start, end)) from error

    def _table(self) -> ShownTable:
        spec = self.pipeline.spec
        rows = [
            ("description", spec.description),
            ("partitions", f"every {spec.partitions.every} from {spec.partitions.start}, {spec.partitions.time_zone}"),
            ("sources", ", ".join(f"{name} ({source.table})" for name, source in spec.sources.items())),
            ("key", ", ".join(spec.features.key)),
            ("model", f"{spec.scoring.model_name}, alias {spec.scoring.alias}"),
            ("labels", self.pipeline.labels.outcome if self.pipeline.labels else "none declared"),
        ]
        return ShownTable(f"Pipeline {self.name}", ("what", "value"), rows)
