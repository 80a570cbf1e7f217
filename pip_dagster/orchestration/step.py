"""The outcome of a pipeline's step: what each partition committed and failed with, and how Dagster is notified."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import dagster as dg

from pip_dagster.declaration.pipeline import Pipeline
from pip_dagster.flow.result import PartitionResult
from pip_dagster.orchestration.checks import evaluations, news, summary
from pip_dagster.orchestration.column_lineage import lineage_metadata
from pip_dagster.orchestration.keys import features_key, predictions_key
from pip_dagster.orchestration.metadata import arms_metadata, features_metadata, predictions_metadata


@dataclass
class StepOutcome:
    """The results of a step so far. `done`: asset → partition → metadata, for the selected assets only."""

    pipeline: Pipeline
    done: dict[dg.AssetKey, dict[str, dict[str, Any]]]
    why: str
    judged: list[dg.AssetCheckEvaluation] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    reused: int = 0
    last: PartitionResult | None = None  # the last one that was scored

    def add(self, result: PartitionResult) -> None:
        """Note a partition's result."""
        key, features, predictions = result.partition.key, *map(self.done.get, self._keys())
        why = {"why": self.why} if self.why else {}
        self.judged.extend(evaluations(self.pipeline, key, result.checks, self.done))
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
        """Add schema and column lineage to the last partition: with every partition they would swell the events."""
        predictions = self.done.get(self._keys()[1])
        if predictions is not None and self.last and self.last.scoring:
            found = lineage_metadata(self.pipeline, self.last.scoring, self.last.columns)
            predictions[self.last.partition.key] |= found

    def materializations(self) -> Iterator[dg.AssetMaterialization]:
        """An event for each partition and asset, for a step that ends in failure."""
        for key, partitions in self.done.items():
            for partition, metadata in partitions.items():
                yield dg.AssetMaterialization(asset_key=key, partition=partition, metadata=metadata)

    def checks(self, context: dg.AssetExecutionContext) -> Iterator[dg.AssetCheckEvaluation | dg.AssetCheckResult]:
        """The partitions' evaluations, then the one result that the step owes for each of its checks."""
        yield from news(context.instance, self.judged, context.selected_asset_check_keys)
        for check in context.selected_asset_check_keys:
            yield summary(check, self.judged)

    def failure(self, total: int) -> dg.Failure:
        """The failure of a step in which partitions failed, out of a `total`."""
        name, failed = self.pipeline.spec.name, self.failed
        shown = "\n".join(f"- partition {key}: {reason}" for key, reason in list(failed.items())[:20])
        more = f"\n- and {len(failed) - 20} more, in this event's metadata" if len(failed) > 20 else ""
        return dg.Failure(
            description=f"Pipeline {name}: {len(failed)} of {total} partitions failed; the other {total - len(failed)} "
            f"are stored, and earlier results of the failed ones are unchanged.\n{shown}{more}",
            metadata={"failed_partitions": dg.MetadataValue.json(failed)},
            allow_retries=False,
        )
