"""Which partitions have their labels: how many rows of each have one, and whether its figures count yet."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from pip_dagster.declaration.labels import Labels
from pip_dagster.ledger.performance import LabelEvaluation, Part

# waiting: no label, and none is due yet, or scored again, or rows erased, and not evaluated since.
# maturing: labels may still come. mature: the figures count.
# overdue: no label although there should be some.
State = Literal["waiting", "maturing", "mature", "overdue"]


@dataclass(frozen=True)
class Coverage:
    """The labels of a partition's live rows, or of an arm's; `evaluation` is the newest, None before the first."""

    part: Part
    state: State
    age: timedelta
    evaluation: LabelEvaluation | None

    @property
    def partition_key(self) -> str:
        """The partition."""
        return self.part.live.key

    @property
    def rows(self) -> int:
        """How many rows are live."""
        return self.evaluation.rows if self.evaluation else self.part.live.rows

    @property
    def labelled(self) -> int:
        """How many of them have a label."""
        return self.evaluation.labelled if self.evaluation else 0

    @property
    def coverage(self) -> float:
        """The share of rows with a label."""
        return self.evaluation.coverage if self.evaluation else 0.0

    @property
    def unlike_rest(self) -> bool:
        """Whether the scores of the labelled rows are not like those of all rows."""
        return self.evaluation is not None and self.evaluation.unlike_rest

    @property
    def restated(self) -> bool:
        """Whether its figures replace others that counted."""
        return self.evaluation is not None and self.evaluation.restates is not None


def coverages(
    parts: Sequence[Part],
    evaluations: Mapping[tuple[str, str, str], LabelEvaluation],
    labels: Labels,
    now: datetime,
    lost: Container[str] = (),
) -> list[Coverage]:
    """The state of each part at an instant, in their order.

    Of the parts whose rows were purged only those count whose labels were complete by then: nothing will evaluate the
    others any more.

    Args:
        parts: what is live, oldest first.
        evaluations: the newest of each, by `Part.identity`.
        labels: how late they are declared to be.
        now: the instant.
        lost: scorings that lost rows, and their evaluations, to an erasure.
    """
    newest_of = [(part, evaluations.get(part.identity)) for part in parts]
    there = [each for each in newest_of if each[0].purged_at is None or _was_complete(*each)]
    parts, of = [part for part, _ in there], [evaluation for _, evaluation in there]
    counting = [p.live.start for p, each in zip(parts, of, strict=True) if each and _is_mature(each, now)]
    newest = max(counting, default=None)
    read: dict[str, set[str]] = {}  # partition → the bases whose labels were read
    for each in evaluations.values():
        if each.labelled:
            read.setdefault(each.partition_key, set()).add(each.basis)

    def is_new(part: Part) -> bool:
        """Whether its rows are others than when its labels were read."""
        return part.live.scoring_id in lost or part.basis not in read.get(part.live.key, {part.basis})

    return [
        Coverage(p, _state(p, each, labels, now, newest, is_new(p)), now - p.live.end, each)
        for p, each in zip(parts, of, strict=True)
    ]


def _was_complete(part: Part, evaluation: LabelEvaluation | None) -> bool:
    return evaluation is not None and part.purged_at is not None and _is_mature(evaluation, part.purged_at)


def _is_mature(evaluation: LabelEvaluation, now: datetime) -> bool:
    return evaluation.labelled > 0 and evaluation.mature_at is not None and evaluation.mature_at <= now


def _state(
    part: Part,
    evaluation: LabelEvaluation | None,
    labels: Labels,
    now: datetime,
    newest: datetime | None,
    is_new: bool,
) -> State:
    if evaluation and evaluation.labelled:
        return "mature" if _is_mature(evaluation, now) else "maturing"
    if evaluation is None and is_new:
        return "waiting"
    allowed = labels.arrives_after or labels.complete_after
    if allowed is not None:
        return "overdue" if now >= part.live.end + allowed else "waiting"
    return "overdue" if newest is not None and newest > part.live.start else "waiting"
