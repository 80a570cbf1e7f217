"""The clock of contents: from when on a partition's rows must not be kept."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from pip_dagster.plural import plural

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pip_dagster.declaration.partition import Partition
    from pip_dagster.declaration.spec import PipelineSpec


def content_before(spec: PipelineSpec, now: datetime) -> datetime | None:
    """Contents of partitions that ended by then are purged; None where they are kept forever."""
    period = spec.privacy.retention.content if spec.privacy else None
    return now - period if period else None


def evidence_before(spec: PipelineSpec, now: datetime) -> datetime | None:
    """Evidence of partitions that ended by then need not be kept; None where it is kept forever."""
    period = spec.privacy.retention.evidence if spec.privacy else None
    return now - period if period else None


def past_content(spec: PipelineSpec, partitions: Iterable[Partition], now: datetime) -> set[str]:
    """The keys of those whose contents must not be kept any more."""
    before = content_before(spec, now)
    return {each.key for each in partitions if each.end <= before} if before else set()


def refusal(spec: PipelineSpec, partition: Partition) -> str:
    """Why such a partition is not built."""
    period = spec.privacy.retention.content if spec.privacy else None
    assert period
    return (
        f"it ended on {partition.end:%Y-%m-%d %H:%M %Z}, and `privacy.retention.content` keeps contents for "
        f"{plural(period.days, 'day')}: what was built now would be purged. Declare a longer period to build it"
    )
