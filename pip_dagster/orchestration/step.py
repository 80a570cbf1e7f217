"""The outcome of a pipeline's step: what each partition committed and failed with, and how Dagster is notified."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import dagster as dg

from pip_dagster.declaration.key_order import in_order
from pip_dagster.declaration.pipeline import Pipeline
from pip_dagster.flow.fingerprints import Fingerprints
from pip_dagster.flow.result import PartitionResult
from pip_dagster.ledger.checks import CheckEntry
from pip_dagster.orchestration.checks import EACH_REPORTED_UP_TO, Evaluated, news, output, split_evaluations
from pip_dagster.orchestration.column_lineage import lineage_metadata
from pip_dagster.orchestration.expectation_checks import expectation_evaluations
from pip_dagster.orchestration.keys import features_key, predictions_key
from pip_dagster.orchestration.metadata import arms_metadata, features_metadata, predictions_metadata
from pip_dagster.orchestration.picture import mean_scores

_SHOWN = 20


def next_step(name: str, partition: str, reason: str) -> str:
    """What to do about a partition that failed."""
    if "rolled back" in reason:
        return f"Nothing, if the rollback is to stay. `pip-dagster lineage {name} {partition}` shows what is live."
    fix = "Correct the rows or the expectation" if reason.startswith("blocked") else "Remove the cause"
    return (
        f"What was live before is unchanged. {fix}, and materialize the partition again. Where the sensor "
        f"{name}_source_changes is on, it requests the run when a source changes. `pip-dagster lineage {name} "
        f"{partition}` shows the attempt."
    )


@dataclass
class StepOutcome:
    """The results of a step so far. `done`: asset → partition → metadata, for the selected assets only."""

    pipeline: Pipeline
    done: dict[dg.AssetKey, dict[str, dict[str, Any]]]
    why: str
    verdicts: list[CheckEntry] = field(default_factory=list)  # of the expectations
    judged: list[dg.AssetCheckEvaluation] = field(default_factory=list)  # by other checks
    failed: dict[str, str] = field(default_factory=dict)
    reused: int = 0
    read: list[Fingerprints] = field(default_factory=list)  # what the sources held
    last: PartitionResult | None = None  # the last one that was scored

    def add(self, result: PartitionResult) -> None:
        """Note a partition's result."""
        key, features, predictions = result.partition.key, *map(self.done.get, self._keys())
        why = {"why": self.why} if self.why else {}
        self.verdicts.extend(result.checks)
        if self._keys()[1] in self.done:
            self.judged.extend(split_evaluations(self.pipeline, key, result.checks))
        if features is not None and result.features:
            features[key] = why | features_metadata(result.features)
        if result.error:
            self.failed[key] = result.error
            return
        self.reused += result.reused
        if result.scoring:
            self.last = result
            if predictions is not None:
                predictions[key] = why | predictions_metadata(result.scoring, result.reused) | arms_metadata(result)

    def _keys(self) -> tuple[dg.AssetKey, dg.AssetKey]:
        return features_key(self.pipeline.spec), predictions_key(self.pipeline.spec)

    def describe_columns(self) -> None:
        """Add schema, lineage and a picture to the last partition: with every partition they would swell the events."""
        predictions = self.done.get(self._keys()[1])
        if predictions is not None and self.last and self.last.scoring:
            found = lineage_metadata(self.pipeline, self.last.scoring, self.last.columns)
            predictions[self.last.partition.key] |= mean_scores(self.pipeline) | found

    def blocked(self) -> Iterator[dg.AssetObservation]:
        """Why the newest partitions that failed did, and what to do, where the partition's own history shows it."""
        name, key = self.pipeline.spec.name, next(iter(reversed([*self.done])))
        key = self._keys()[1] if self._keys()[1] in self.done else key
        for partition in in_order(self.pipeline.spec.partitions, self.failed)[-EACH_REPORTED_UP_TO:]:
            reason = self.failed[partition]
            yield dg.AssetObservation(
                key,
                partition=partition,
                description=f"Not built: {reason}",
                metadata={"reason": reason, "what to do": next_step(name, partition, reason)},
            )

    def note_failed(self) -> None:
        """Name the partitions that failed on the asset's page, which shows the newest materialization."""
        grid = self.pipeline.spec.partitions
        listed = [f"- {partition}: {self.failed[partition]}" for partition in in_order(grid, self.failed)[-_SHOWN:]]
        for partitions in self.done.values():
            if listed and partitions:
                newest = in_order(grid, partitions)[-1]
                partitions[newest] = {"not built": dg.MetadataValue.md("\n".join(listed)), **partitions[newest]}

    def materializations(self) -> Iterator[dg.AssetMaterialization]:
        """An event for each partition and asset, for a step that ends in failure."""
        for key, partitions in self.done.items():
            for partition, metadata in partitions.items():
                yield dg.AssetMaterialization(asset_key=key, partition=partition, metadata=metadata)

    def checks(self, context: dg.AssetExecutionContext) -> Iterator[Evaluated]:
        """The evaluations of each check that a partition got to, and the outputs of those that the run selected."""
        yield from expectation_evaluations(self.pipeline, self.verdicts, self.done)
        for key in {each.asset_check_key for each in self.judged}:
            yield from news(context.instance, [each for each in self.judged if each.asset_check_key == key])
        yield from map(output, context.selected_asset_check_keys)

    def failure(self, total: int) -> dg.Failure:
        """The failure of a step in which partitions failed, out of a `total`."""
        name, failed = self.pipeline.spec.name, self.failed
        shown = "\n".join(f"- partition {key}: {reason}" for key, reason in list(failed.items())[:_SHOWN])
        more = f"\n- and {len(failed) - _SHOWN} more, in this event's metadata" if len(failed) > _SHOWN else ""
        return dg.Failure(
            description=f"Pipeline {name}: {len(failed)} of {total} partitions failed; the other {total - len(failed)} "
            f"are stored, and earlier results of the failed ones are unchanged.\n{shown}{more}",
            metadata={"failed_partitions": dg.MetadataValue.json(failed)},
            allow_retries=False,
        )
