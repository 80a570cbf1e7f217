"""Which scoring each partition goes back to: a pure function of its live changes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from pip_dagster.ledger.arms import Arm
from pip_dagster.ledger.record import LiveKind


@dataclass(frozen=True)
class PastScores:
    """A finished scoring that may be live, with the arms of a split and the models that scored them."""

    scoring_id: str
    model_name: str
    version: int
    feature_digest: str | None
    arms: tuple[Arm, ...] = ()
    arm_models: tuple[tuple[str, int], ...] = ()

    @property
    def model(self) -> tuple[str, int]:
        """Model and version."""
        return self.model_name, self.version

    @property
    def whole(self) -> PastScores:
        """The same for every row of the partition."""
        return replace(self, arms=(), arm_models=())

    @property
    def label(self) -> str:
        """The version, and those of its arms."""
        others = sorted(version for _, version in set(self.arm_models) - {self.model})
        return f"v{self.version}" + "".join(f" and v{version} in an arm" for version in others)

    def is_by(self, model: tuple[str, int]) -> bool:
        """Whether a model's version decides about any row."""
        return model == self.model or model in self.arm_models


@dataclass(frozen=True)
class Change:
    """A live change with its scores."""

    change_id: str
    kind: LiveKind
    made_at: datetime
    scores: PastScores


@dataclass(frozen=True)
class History:
    """A partition with its live changes, oldest first; the last one holds."""

    partition_key: str
    start: datetime
    end: datetime
    changes: Sequence[Change]

    @property
    def live(self) -> PastScores:
        """What is live now."""
        return self.changes[-1].scores


@dataclass(frozen=True)
class Flip:
    """A partition that goes from one scoring to another."""

    partition_key: str
    before: PastScores
    after: PastScores

    @property
    def other_features(self) -> bool:
        """Whether the scores that it goes to come from features that were corrected since."""
        return self.before.feature_digest != self.after.feature_digest


@dataclass(frozen=True)
class Missing:
    """A partition that cannot be rolled back, and why."""

    partition_key: str
    start: datetime
    end: datetime
    live_version: int
    reason: str


@dataclass(frozen=True)
class RollbackPlan:
    """What a rollback changes. `kept`: partitions that stay. `wanted`: model and version, if there is a single one."""

    flips: Sequence[Flip]
    missing: Sequence[Missing]
    kept: int
    wanted: tuple[str, int] | None


def previous(changes: Sequence[Change]) -> PastScores | None:
    """The scoring by another version that was live before the present one.

    A rollback undoes the changes after the scoring that it went back to. Rolling back twice therefore goes two versions
    back instead of returning to the one that was withdrawn.
    """
    stack: list[PastScores] = []
    for change in changes:
        ids = [scores.scoring_id for scores in stack]
        if change.kind == "rollback" and change.scores.scoring_id in ids:
            del stack[ids.index(change.scores.scoring_id) + 1 :]
        else:
            stack.append(change.scores)
    return next((scores for scores in reversed(stack) if scores.model != stack[-1].model), None)


def to_previous(histories: Sequence[History], withdrawn: tuple[str, int]) -> RollbackPlan:
    """Withdraw a model's version where it is live, also in an arm; partitions of other versions are left alone.

    The earlier scoring becomes live for the whole partition, without the arms that it had at the time.
    """
    concerned = [history for history in histories if history.live.is_by(withdrawn)]
    targets: dict[str, PastScores | None] = {}
    for history in concerned:
        target = previous(history.changes) if history.live.model == withdrawn else history.live
        targets[history.partition_key] = target and target.whole
    plan = _plan(concerned, targets, f"no other version was live before v{withdrawn[1]}")
    # The newest partition decides which version the next run should score with.
    last = max((h for h in concerned if targets[h.partition_key]), key=lambda h: h.start, default=None)
    target = targets[last.partition_key] if last else None
    return RollbackPlan(plan.flips, plan.missing, len(histories) - len(concerned), target.model if target else None)


def newest(histories: Sequence[History]) -> PastScores:
    """What went live last of all."""
    return max((history.changes[-1] for history in histories), key=lambda change: change.change_id).scores


def to_version(
    histories: Sequence[History], model: str, version: int, scored: Mapping[str, PastScores]
) -> RollbackPlan:
    """To each partition's newest scores by one version, `scored` by partition; for all of its rows."""
    targets = {
        history.partition_key: history.live.whole
        if history.live.model == (model, version)
        else scored.get(history.partition_key)
        for history in histories
    }
    plan = _plan(histories, targets, f"v{version} has never scored it as champion")
    return RollbackPlan(plan.flips, plan.missing, plan.kept, (model, version))


def as_of(histories: Sequence[History], at: datetime) -> RollbackPlan:
    """To what was live at an instant, arms included."""
    targets = {
        history.partition_key: next((c.scores for c in reversed(history.changes) if c.made_at <= at), None)
        for history in histories
    }
    return _plan(histories, targets, f"nothing was live at {at:%Y-%m-%d %H:%M:%S %Z}")


def _plan(histories: Sequence[History], targets: Mapping[str, PastScores | None], reason: str) -> RollbackPlan:
    flips, missing, kept = [], [], 0
    for history in histories:
        key, target = history.partition_key, targets.get(history.partition_key)
        if target is None:
            missing.append(Missing(key, history.start, history.end, history.live.version, reason))
        elif (target.scoring_id, target.arms) == (history.live.scoring_id, history.live.arms):
            kept += 1
        else:
            flips.append(Flip(key, history.live, target))
    return RollbackPlan(flips, missing, kept, None)
