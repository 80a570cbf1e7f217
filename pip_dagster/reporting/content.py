"""What a report says. The page and the JSON are both written from it, so that they never disagree."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

SCHEMA = "pip_dagster.report/1"
# Of fewer rows no aggregate of a segment or window is reported: it could be about a person.
LEAST_ROWS = 10

State = Literal["ok", "warning", "alarm", "unknown"]
ReadFrom = Literal["warehouse", "published files", "nothing"]
Status = Literal["live", "provisional", "blocked", "failed", "missing"]
Figure = float | None


@dataclass(frozen=True)
class Provenance:
    """What the report was read from. Its clock is the ledger: `as_of` is the time of the newest entry.

    `ledger_entry` and `ledger_head` are number and hash of the newest audit entry that does not record a report.
    """

    read_from: ReadFrom
    as_of: str | None
    ledger_entry: int | None
    ledger_head: str | None
    model: str
    model_version: int | None
    model_digest: str | None
    manifest_digest: str | None
    data_up_to: str | None
    software: str


@dataclass(frozen=True)
class Period:
    """The partitions of the report, of `stored` that the ledger knows."""

    first: str | None
    last: str | None
    partitions: int
    stored: int


@dataclass(frozen=True)
class Summary:
    """The report in a sentence, since when that is so, and what to do."""

    state: State
    sentence: str
    since: str | None
    action: str


@dataclass(frozen=True)
class Tile:
    """One of the six answers at the head."""

    name: str
    state: State
    word: str
    text: str


@dataclass(frozen=True)
class AlarmLine:
    """An alarm, or a warning, as people on call read it."""

    state: State
    status: str
    event: str
    rule: str
    subject: str
    since: str | None
    partition: str
    value: Figure
    threshold: Figure
    chance: Figure
    rows: int | None
    cause: str
    command: str
    silenced: str = ""


@dataclass(frozen=True)
class Day:
    """A partition of the period. `status` is of its live scoring, or of the newest attempt where nothing is live."""

    partition: str
    status: Status
    version: int | None = None
    rows: int | None = None
    quarantined: int | None = None
    mean_score: Figure = None
    seconds: Figure = None
    attempts: int = 0
    failed_attempts: int = 0
    reason: str | None = None
    unmet: tuple[str, ...] = ()
    critical: bool = False
    unseen: int = 0
    drift: Literal["alarm", "noted", "ok", "unjudged"] | None = None
    drifted: tuple[str, ...] = ()
    labels: str | None = None
    coverage: Figure = None

    @property
    def is_live(self) -> bool:
        """Whether it has scores that readers see."""
        return self.status in ("live", "provisional")


@dataclass(frozen=True)
class Window:
    """Shares of a window's rows by bin."""

    first: str
    last: str
    rows: int
    shares: tuple[float, ...]


@dataclass(frozen=True)
class Distribution:
    """Scores by bin: in training, and week by week, the newest last."""

    name: str
    bins: tuple[str, ...]
    training: tuple[float, ...] | None
    training_rows: int
    weeks: tuple[Window, ...]


@dataclass(frozen=True)
class ColumnLine:
    """A column's drift at the end of the period, and the PSI beyond noise of each partition, as in `days`.

    `weight` is gain times the smaller of the PSI beyond noise of the newest seven and 28 partitions. `bins`, `training`
    and `now` are shares of rows in training and in the newest seven together.
    """

    kind: str
    name: str
    state: str
    gain: Figure
    weight: Figure
    p: Figure
    psi_1: Figure
    psi_7: Figure
    psi_28: Figure
    changed: str
    mean: Figure
    training_mean: Figure
    missing_training: Figure
    missing_now: Figure
    unseen: int
    series: tuple[Figure, ...]
    bins: tuple[str, ...]
    training: tuple[float, ...] | None
    now: tuple[float, ...]


@dataclass(frozen=True)
class CheckLine:
    """An expectation that was not met, or that rows broke, in the period."""

    section: str
    expectation: str
    severity: str
    description: str
    partitions_failed: int
    rows: int | None
    last_failed: str | None


@dataclass(frozen=True)
class AttemptLine:
    """An attempt that was blocked or failed, or a partition scored more than once."""

    partition: str
    at: str
    status: str
    reason: str
    run_id: str


@dataclass(frozen=True)
class RateSeries:
    """A decision, or the mean score, by partition, with the band of what was usual before it."""

    name: str
    is_rate: bool
    counts: tuple[int | None, ...]
    values: tuple[Figure, ...]
    low: tuple[Figure, ...]
    high: tuple[Figure, ...]


@dataclass(frozen=True)
class Point:
    """A metric of one partition: measured, with its interval, and estimated before labels came.

    `unlike_rest`: the scores of the labelled rows are not like those of all rows.
    """

    partition: str
    value: Figure
    low: Figure
    high: Figure
    rows: int | None
    coverage: Figure
    maturity: str | None
    restated: bool = False
    unlike_rest: bool = False
    estimate: Figure = None
    estimate_low: Figure = None
    estimate_high: Figure = None
    hit: bool | None = None


@dataclass(frozen=True)
class SegmentLine:
    """A metric where a column has one value."""

    column: str
    value: str
    rows: int
    metric: Figure
    low: Figure
    high: Figure


@dataclass(frozen=True)
class MetricSeries:
    """A metric over the period; `reference` was measured at registration on held-out rows, if it was.

    `higher_is_better` is None for a metric that is best at 0. `segments` are of the newest 28 partitions that count,
    the worst first; `suppressed` of them have too few labels. `judged`: whether there are enough partitions to find a
    loss.
    """

    metric: str
    higher_is_better: bool | None
    reference: Figure
    points: tuple[Point, ...]
    segments: tuple[SegmentLine, ...] = ()
    suppressed: int = 0
    judged: bool = False
    hit_rate: Figure = None
    estimates_hidden: str | None = None


@dataclass(frozen=True)
class LiftLine:
    """A tenth of the rows by score, the highest first."""

    decile: int
    rows: int
    mean_score: Figure
    mean_outcome: Figure
    lift: Figure


@dataclass(frozen=True)
class ReliabilityLine:
    """A bin of scores: its rows, the mean score and the mean outcome."""

    rows: int
    mean_score: Figure
    mean_outcome: Figure


@dataclass(frozen=True)
class CalibrationFigures:
    """How scores compare with outcomes. `by_chance`: the error that a perfect model would show on as many rows."""

    source: str
    error: Figure
    by_chance: Figure
    bins: tuple[ReliabilityLine, ...]


@dataclass(frozen=True)
class Named:
    """A name and its value, both texts."""

    name: str
    value: str


@dataclass(frozen=True)
class VersionLine:
    """A registered version, and how many partitions of the period it has live."""

    version: int
    registered_at: str
    registered_by: str
    aliases: tuple[str, ...]
    description: str
    metrics: tuple[Named, ...]
    verified: str | None
    live_partitions: int
    model_digest: str


@dataclass(frozen=True)
class MoveLine:
    """An alias moved. `exception` is the kind of exception that was made for it, empty if none."""

    at: str
    alias: str
    before: int | None
    after: int
    by: str
    why: str
    exception: str


@dataclass(frozen=True)
class GateLine:
    """A gate of the newest report on the champion."""

    name: str
    state: str
    figure: Figure
    threshold: Figure
    text: str


@dataclass(frozen=True)
class Audit:
    """The audit chain at the time. `intact` is None where it was not verified."""

    entries: int
    head: str
    intact: bool | None
    text: str


@dataclass(frozen=True)
class ExceptionLine:
    """An exception that a person accepted."""

    at: str
    by: str
    what: str
    why: str
    until: str | None = None


@dataclass(frozen=True)
class Report:
    """A pipeline over a period.

    `unavailable` names the parts that could not be had, each with the reason; they are empty then.
    """

    schema: str
    pipeline: str
    description: str
    owners: tuple[str, ...]
    origin: Provenance
    period: Period
    verdict: Summary
    tiles: tuple[Tile, ...]
    alarms: tuple[AlarmLine, ...] = ()
    days: tuple[Day, ...] = ()
    scores: tuple[Distribution, ...] = ()
    columns: tuple[ColumnLine, ...] = ()
    checks: tuple[CheckLine, ...] = ()
    attempts: tuple[AttemptLine, ...] = ()
    decisions: tuple[RateSeries, ...] = ()
    performance: tuple[MetricSeries, ...] = ()
    lift: tuple[LiftLine, ...] = ()
    card: tuple[Named, ...] = ()
    versions: tuple[VersionLine, ...] = ()
    moves: tuple[MoveLine, ...] = ()
    gates: tuple[GateLine, ...] = ()
    calibration: CalibrationFigures | None = None
    audit: Audit | None = None
    accepted: tuple[ExceptionLine, ...] = ()
    retention: tuple[Named, ...] = ()
    limits: tuple[str, ...] = ()
    thresholds: tuple[Named, ...] = ()
    digests: tuple[Named, ...] = ()
    unavailable: dict[str, str] = field(default_factory=dict)
