"""The gate between features and model: which rows are scored, which are quarantined, which partitions are blocked.

An expectation on single rows without `mostly` is about each row: a row that breaks a critical one is quarantined. Any
other critical expectation is about the partition, and blocks it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from pip_dagster.flow.stage import GIVEN, SCHEMA, Stage
from pip_dagster.ledger.checks import CheckEntry
from pip_dagster.quality.suite import Expectation, check_columns
from pip_dagster.quality.verdict import Verdict
from pip_dagster.sql.names import among, quote_all
from pip_dagster.warehouse.memory import with_more

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from pip_dagster.declaration.pipeline import Pipeline
    from pip_dagster.ledger.record import ScoringEntry

ROW_ID = "pip_row_id"
_VIEW = f"{SCHEMA}.validated"

Verdicts = tuple[Verdict, ...]


@dataclass(frozen=True)
class Validation:
    """The verdicts of each partition, and why some are blocked."""

    verdicts: Mapping[str, Verdicts] = field(default_factory=dict)
    blocked: Mapping[str, str] = field(default_factory=dict)

    def __add__(self, other: Validation) -> Validation:
        verdicts = {key: (*self.verdicts.get(key, ()), *found) for key, found in other.verdicts.items()}
        blocked = {key: "; ".join(filter(None, (self.blocked.get(key), why))) for key, why in other.blocked.items()}
        return Validation({**self.verdicts, **verdicts}, {**self.blocked, **blocked})

    def checks(self, entry: ScoringEntry) -> tuple[CheckEntry, ...]:
        """The verdicts on a partition as the ledger keeps them with its scoring."""
        key = entry.partition_key
        return tuple(CheckEntry.of(v, entry.scoring_id, entry.pipeline, key) for v in self.verdicts.get(key, ()))


def validate(
    con: DuckDBPyConnection,
    pipeline: Pipeline,
    expectations: Sequence[Expectation],
    relation: str,
    columns: Mapping[str, str],
    partitions: Sequence[str],
    quarantine: Stage | None = None,
) -> Validation:
    """Judge the rows of `partitions` in `relation`, a temporary table of the columns `columns` and a partition_key.

    Rows that break a critical expectation are quarantined if they are the features of the stage `quarantine`.

    Raises:
        SuiteError: an expectation is on a column that is not there.
    """
    if not expectations:
        return Validation()
    check_columns(expectations, columns)
    from pip_dagster.quality.evaluate import evaluate
    from pip_dagster.quality.relation import Relation

    listed = quote_all(dict.fromkeys(("partition_key", *columns)))
    con.execute(f"CREATE OR REPLACE VIEW {_VIEW} AS SELECT rowid AS {ROW_ID}, {listed} FROM {relation}")
    evaluation = with_more(
        con,
        lambda: evaluate(
            Relation.of(con, _VIEW, partition_column="partition_key", row_id=ROW_ID),
            key=(),  # which no text may quote
            expectations=expectations,
            partitions=partitions,
        ),
    )
    con.execute(f"DROP VIEW {_VIEW}")
    of_rows = [expectation.id for expectation in expectations if is_about_rows(expectation)]
    if quarantine and of_rows:
        critical = f"severity = 'critical' AND {among('expectation_id', of_rows)}"
        quarantine.quarantine(f"SELECT row_id, expectation_id FROM {GIVEN} WHERE {critical}", evaluation.broken)
    verdicts = {
        partition: tuple(_quotable(each, pipeline) for each in evaluation.of(partition)) for partition in partitions
    }
    reasons = {key: blocking_reason(found, rows_quarantined=quarantine is not None) for key, found in verdicts.items()}
    return Validation(verdicts, {key: reason for key, reason in reasons.items() if reason})


def validate_features(stage: Stage, pipeline: Pipeline, partitions: Sequence[str]) -> Validation:
    """Judge the staged features of `partitions`; those rows are quarantined that the expectations do not admit."""
    stage.admit_all()
    suite = pipeline.suites.features
    return validate(stage.con, pipeline, suite, stage.features, stage.columns, partitions, stage)


def _quotable(verdict: Verdict, pipeline: Pipeline) -> Verdict:
    """The verdict as it may be stored and shown: with counts, and with values of the columns that may be quoted."""
    columns = verdict.expectation.judged_columns
    if pipeline.may_quote(columns):
        return verdict
    shown = [column for column in columns if pipeline.may_quote([column])]
    examples = tuple({column: row[column] for column in shown} for row in verdict.examples) if shown else ()
    return replace(verdict, examples=examples, observed=verdict.observed if verdict.expectation.counts else None)


def is_about_rows(expectation: Expectation) -> bool:
    """Whether a row that breaks it is what is wrong, rather than the partition that has too many of them."""
    return expectation.row_level and "mostly" not in expectation.kwargs


def blocking_reason(verdicts: Verdicts, *, rows_quarantined: bool) -> str | None:
    """Why these verdicts block a partition; `rows_quarantined`: rows that break an expectation do not block it."""
    reasons = [
        CheckEntry.of(verdict, "", "", verdict.partition).text
        for verdict in verdicts
        if verdict.expectation.severity == "critical"
        and (
            verdict.status == "errored"
            or (verdict.status == "failed" and not (rows_quarantined and is_about_rows(verdict.expectation)))
        )
    ]
    return "; ".join(reasons) or None
