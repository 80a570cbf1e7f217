"""The scorecard: points of 28 tests; a section is the sum of its seven, the score the smallest section."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from pip_dagster import __version__, clock
from pip_dagster.errors import NoWarehouseError, PipelineError
from pip_dagster.plural import plural
from pip_dagster.scorecard.catalogue import PROVEN, SECTIONS, STATED, TESTS, ScoreTest, Section
from pip_dagster.scorecard.found import Evidence, Found, missing
from pip_dagster.scorecard.records import Records
from pip_dagster.scorecard.statements import Stated, stated
from pip_dagster.warehouse import schema
from pip_dagster.warehouse.access import reading
from pip_dagster.warehouse.connect import workspace
from pip_dagster.warehouse.stamp import newest_entry

if TYPE_CHECKING:
    from pip_dagster.declaration.pipeline import Pipeline

SCHEMA = 1
# As the paper words them, for a score above each.
_MEANINGS = (
    (5.0, "exceptional: automated testing and monitoring"),
    (3.0, "strong: fit for what is critical"),
    (2.0, "reasonably tested: more can be automated"),
    (1.0, "a first pass at production: more is needed"),
    (0.0, "not untested, with serious holes to be expected"),
)
_NOT_PRODUCTION = "more a research project than a production system"


@dataclass(frozen=True)
class ScoreLine:
    """One test: its points, the evidence of them and until when it holds, or what is missing and would earn it."""

    name: str
    section: Section
    title: str
    points: float
    evidence: tuple[Evidence, ...] = ()
    expires: datetime | None = None
    missing: str = ""
    days: int | None = None


@dataclass(frozen=True)
class Scorecard:
    """All of them; `faults` are statements that count nothing, in words.

    `chain_fault`: why the audit that they are read from cannot be trusted; then nothing counts.
    """

    schema: int
    pipeline: str
    as_of: datetime
    software: str
    model: str | None
    manifest_digest: str | None
    ledger_entry: int | None
    ledger_head: str | None
    score: float
    meaning: str
    sections: dict[Section, float]
    lines: tuple[ScoreLine, ...]
    faults: tuple[str, ...]
    chain_fault: str | None = None

    def of(self, section: Section) -> tuple[ScoreLine, ...]:
        """The lines of a section."""
        return tuple(line for line in self.lines if line.section == section)


def scorecard(pipeline: Pipeline, *, now: datetime | None = None) -> Scorecard:
    """Compute it from the warehouse, or from an empty one where there is none.

    Raises:
        WarehouseError: the warehouse cannot be read.
    """
    with _opened(pipeline) as records:
        records = replace(records, now=now) if now else records
        of_statements = list(stated(records))
        fault = records.chain_fault
        lines = tuple(_line(records, test, of_statements) for test in TESTS)
        if fault:
            why = "The audit does not verify."
            lines = tuple(replace(line, points=0.0, evidence=(), expires=None, missing=why) for line in lines)
        entry, head = newest_entry(records.con) or (None, None)
        sections = sums(lines)
        score = min(sections.values())
        return Scorecard(
            schema=SCHEMA,
            pipeline=records.name,
            as_of=records.now,
            software=__version__,
            model=str(records.version) if records.version else None,
            manifest_digest=records.version.manifest_digest if records.version else None,
            ledger_entry=entry,
            ledger_head=head,
            score=score,
            meaning=next((text for above, text in _MEANINGS if score > above), _NOT_PRODUCTION),
            sections=sections,
            lines=lines,
            faults=tuple(
                f"Entry {each.seq}, a statement of {each.test}, counts nothing: {each.fault}."
                for each in of_statements
                if each.fault
            ),
            chain_fault=fault,
        )


def sums(lines: Sequence[ScoreLine]) -> dict[Section, float]:
    """The sum of each section's points."""
    return {section: sum(line.points for line in lines if line.section == section) for section in SECTIONS}


@contextmanager
def _opened(pipeline: Pipeline) -> Iterator[Records]:
    """The ledger, read-only; an empty one where there is none yet."""
    with workspace(threads=1) as con:
        try:
            with reading(con, pipeline.project, purpose=f"{pipeline.spec.name}: computing the scorecard"):
                yield Records(con, pipeline, clock.wall())
                return
        except NoWarehouseError:
            pass
        schema.ensure(con, "memory", read_only=False, new=lambda: None)
        yield Records(con, pipeline, clock.wall())


def _line(records: Records, test: ScoreTest, of_statements: Sequence[Stated]) -> ScoreLine:
    """What evidence proves, or else what a statement says, or else what is missing."""
    line = ScoreLine(test.name, test.section, test.title, 0.0, days=test.days)
    found = Found()
    if test.find and test.days:
        found = _found(records, test)
        if found.evidence:
            oldest = min(each.at for each in found.evidence)
            expires = oldest + timedelta(days=test.days)
            if expires > records.now:
                return replace(line, points=PROVEN, evidence=found.evidence, expires=expires)
            found = missing(f"The evidence is of {oldest:%Y-%m-%d}; it holds for {plural(test.days, 'day')}")
    newest = next((each for each in of_statements if each.test == test.name and each.statement), None)
    if newest and newest.statement and not newest.fault:
        of = newest.statement
        made, until = datetime.fromisoformat(of.made_at), datetime.fromisoformat(of.until)
        text = f"{of.by}, signed by {of.key}: {of.why}"
        return replace(
            line, points=STATED, evidence=(Evidence("statement", str(newest.seq), made, text),), expires=until
        )
    earn = test.earn.replace("PIPELINE", records.name)
    return replace(line, missing=f"{found.why}. {earn}" if found.why else earn)


def _found(records: Records, test: ScoreTest) -> Found:
    assert test.find
    try:
        return test.find(records)
    except PipelineError as error:  # of the registry: one damaged file must not hide the other tests
        return missing(str(error).rstrip("."))
