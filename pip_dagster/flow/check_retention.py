"""What monitoring cannot know because `privacy.retention.content` is shorter than that takes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from pip_dagster.declaration.every import LONGEST
from pip_dagster.plural import plural
from pip_dagster.statistics.novelty import LEAST_HISTORY

if TYPE_CHECKING:
    from pip_dagster.declaration.pipeline import Pipeline

# Two of the newest three partitions are judged.
_JUDGED = LEAST_HISTORY + 2


def retention_warnings(pipeline: Pipeline) -> Iterator[str]:
    """A sentence for each figure that rows are purged too early for."""
    spec, labels = pipeline.spec, pipeline.labels
    kept = spec.privacy.retention.content if spec.privacy else None
    if kept is None:
        return
    rows = f"rows are purged {plural(kept.days, 'day')} after a partition's end"
    remedy = "Declare a longer `privacy.retention.content`"
    for name in ("complete_after", "arrives_after"):
        wait = getattr(labels, name) if labels else None
        if wait is not None and wait >= kept:
            yield (
                f"{rows}, and `labels.{name}` is not shorter: performance is never measured, and nothing is "
                f"calibrated. {remedy}"
            )
            break
    if spec.monitoring is None:
        return
    length = LONGEST[spec.partitions.every]
    if (there := kept // length) < _JUDGED:
        yield (
            f"{rows}, so that at most {plural(there, 'partition')} can be compared: drift is judged from {_JUDGED}. "
            f"{remedy}"
        )
    elif "season" in spec.monitoring.references and kept < spec.monitoring.season + length:
        yield (
            f"{rows}, before `monitoring.season` has passed: drift is never compared with the same season. {remedy}, "
            "or `monitoring.references: [training, previous]`"
        )
