"""What a plan compares and what it reports: values without behavior."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from pip_dagster.declaration.digests import Declared
from pip_dagster.declaration.partition import Partition
from pip_dagster.declaration.reruns import IgnoreAfter, Reruns

Kind = Literal[
    "missing",
    "source_changed",
    "features_changed",
    "declaration_changed",
    "expectations_changed",
    "model_promoted",
    "provisional",
    "arms_undecided",
    "arms_changed",
    "blocked",
    "failed",
]
Digests = Mapping[str, Mapping[str, object]]  # source → its rows and digest


@dataclass(frozen=True)
class Reason:
    """Why a partition is stale, or is not although something changed; `text` is for people."""

    kind: Kind
    text: str


@dataclass(frozen=True)
class Stale:
    """A partition to rerun.

    `attempt` counts from 1 with the same inputs. `wanted` is a digest of everything that the partition should be built
    from and of the ledger's entries that a rerun would replace: sources that change and change back request two runs.
    """

    partition: Partition
    reasons: tuple[Reason, ...]
    attempt: int
    wanted: str


@dataclass(frozen=True)
class OnHold:
    """A partition with a change that is reported and does not make it stale, or not before `until`."""

    partition: Partition
    reasons: tuple[Reason, ...]
    until: datetime | None = None


@dataclass(frozen=True)
class PurgedPartitions:
    """Partitions of which a purge removed the contents, in order of time; its certificate has the same id."""

    purge_id: str
    at: datetime
    keys: tuple[str, ...]


@dataclass(frozen=True)
class Plan:
    """Partitions in order of time; `current` counts those with nothing to report.

    `pending`: the keys of those that are stored and not published yet, because a process was killed in between.
    `until`: when time alone can make another partition stale; None for never. `purged`: partitions without contents,
    which are not built again. `expired`: how many others are older than `privacy.retention.content` allows, and are not
    built either. `never_built`: how many that were never built are beyond the part. `more_from`: when the part of the
    plan ends before the last partition that differs, the start of the first beyond it.
    """

    pipeline: str
    stale: tuple[Stale, ...]
    on_hold: tuple[OnHold, ...]
    current: int
    pending: tuple[str, ...] = ()
    until: datetime | None = None
    purged: tuple[PurgedPartitions, ...] = ()
    expired: int = 0
    never_built: int = 0
    more_from: datetime | None = None


@dataclass(frozen=True)
class PlanPart:
    """A part of a plan, so that what it costs is bounded: the partitions that differ from a start on, so many of them.

    `missing_from`: partitions that were never built and begin before are only counted; None: those too are judged.
    """

    at_most: int
    after: datetime | None = None
    missing_from: datetime | None = None


@dataclass(frozen=True)
class Arms:
    """How a partition's rows are shared out. `ranges`: arm, low and high of those that are not the champion's.

    `experiment`: the split or canary that decided it, None where none did. `undecided`: the arms had not scored yet,
    and the run that was to decide ended before it did.
    """

    experiment: str | None
    unit: tuple[str, ...]
    ranges: frozenset[tuple[str, int, int]]
    undecided: bool = False


@dataclass(frozen=True)
class Wanted:
    """What all partitions should be built from.

    `sources`: partition key → what its sources hold, as the canonical JSON of `Digests`. Most are never parsed.

    `otherwise`: the same declaration of features as runs as known and earlier versions stored it.
    `feature_parts` and `scoring_parts`: what the digests of SQL and declaration cover, in the ledger's format.
    `promoted_at`: when the alias last moved; None if it never did. `arms`: of the declared split or canary.
    `min_row_share`: as declared.
    """

    sources: Mapping[str, str]
    sql_digest: str
    code_digest: str
    manifest_digest: str
    model_version: int
    promoted_at: datetime | None = None
    arms: Arms | None = None
    feature_parts: str | None = None
    otherwise: tuple[Declared, ...] = ()
    min_row_share: float = 0
    scoring_parts: str | None = None

    @property
    def sql_digests(self) -> tuple[str, ...]:
        """Every digest of the same declaration of features."""
        return (self.sql_digest, *(each.digest for each in self.otherwise))


@dataclass(frozen=True)
class Attempt:
    """The columns of a row of `ledger.scorings` that a plan reads."""

    status: Literal["scored", "blocked", "failed"]
    reason: str | None
    code_digest: str
    manifest_digest: str | None
    model_version: int | None
    sources: Digests | None
    made_at: datetime
    feature_digest: str | None = None
    inputs_digest: str | None = None
    provisional: bool = False
    declared_parts: str | None = None


@dataclass(frozen=True)
class Known:
    """What the ledger records of a partition.

    `sources`, `sql_digest`, `declared_parts`, `feature_digest`, `read_at`: of its newest extraction. `last`: the newest
    attempt at scoring it. `failures`: how many attempts in a row failed like the last one. `live`, `live_since`: the
    scoring that is live. `deliberate`: a person made it live, by a rollback or a request for that version; it takes
    precedence over the alias until that moves again. `as_known`: its features are as known at the partition's close.
    `arms`: of the live scoring. `entries`: the ids of all these.
    """

    sources: Digests | None = None
    sql_digest: str | None = None
    declared_parts: str | None = None
    feature_digest: str | None = None
    read_at: datetime | None = None
    last: Attempt | None = None
    failures: int = 0
    live: Attempt | None = None
    live_since: datetime | None = None
    deliberate: bool = False
    as_known: bool = False
    arms: Arms | None = None
    entries: tuple[str, ...] = ()


@dataclass(frozen=True)
class Policy:
    """What the declaration says about reruns. `late`: source → what a change after the partition was built does.

    `close`: the instant up to which a partition's features may use data. `is_provisional`: whether a partition with
    this close is provisional at an instant; `complete_at`: from when it is not, None where none ever is.
    """

    reruns: Reruns = field(default_factory=Reruns)
    late: Mapping[str, Literal["rerun", "report"] | IgnoreAfter] = field(default_factory=dict)
    close: Callable[[Partition], datetime] = lambda partition: partition.end
    is_provisional: Callable[[datetime, datetime], bool] = lambda close, at: False
    complete_at: Callable[[datetime], datetime | None] = lambda close: None


Describe = Callable[[str, Partition, Known], str]  # which buckets of a source changed, for people


@dataclass(frozen=True)
class Case:
    """A partition with everything that the plan compares. `from_end`: 1 for the newest."""

    partition: Partition
    from_end: int
    wanted: Wanted
    known: Known
    policy: Policy
    now: datetime
    describe: Describe

    @property
    def provisional(self) -> bool:
        """Whether it would be provisional if it were built now."""
        return self.policy.is_provisional(self.policy.close(self.partition), self.now)
