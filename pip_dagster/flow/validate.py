"""The gate between features and model: which rows are scored, which are kept apart, which partitions are blocked.

An expectation without `mostly` on single rows speaks of each row: one that breaks it, where it is critical, goes to
quarantine. Any other critical expectation speaks of the partition, and blocks it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pip_dagster.flow.guard import Encoded
from pip_dagster.flow.query import STAGED
from pip_dagster.ledger.checks import CheckEntry
from pip_dagster.quality.suite import Expectation, check_columns
from pip_dagster.quality.verdict import Verdict
from pip_dagster.sql.names import literal

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from pip_dagster.declaration.spec import PipelineSpec

# Rows that are not scored: one entry for each reason.
BROKEN = "memory.pip_stage.broken"
ROW_ID = "pip_row_id"
_VIEW = "memory.pip_stage.validated"

Verdicts = tuple[Verdict, ...]


@dataclass(frozen=True)
class Validation:
    """The verdicts of each partition, and why some are blocked."""

    verdicts: Mapping[str, Verdicts] = field(default_factory=dict)
    blocked: Mapping[str, str] = field(default_factory=dict)


def validate(
    con: DuckDBPyConnection,
    spec: PipelineSpec,
    expectations: Sequence[Expectation],
    relation: str,
    columns: Mapping[str, str],
    partitions: Sequence[str],
) -> Validation:
    """Judge the rows of `partitions` in `relation`, a staging table of the columns `columns` and a partition_key.

    Raises:
        SuiteError: an expectation is on a column that is not there.

    """
    if not expectations:
        return Validation()
    check_columns(expectations, columns)
    from pip_dagster.quality.evaluate import evaluate
    from pip_dagster.quality.relation import Relation

    con.execute(f"CREATE OR REPLACE VIEW {_VIEW} AS SELECT rowid AS {ROW_ID}, * FROM {relation}")
    evaluation = evaluate(
        Relation.of(con, _VIEW, partition_column="partition_key", row_id=ROW_ID),
        key=[name for name in spec.features.key if name in columns],
        expectations=expectations,
        partitions=partitions,
    )
    verdicts = {partition: evaluation.of(partition) for partition in partitions}
    if relation == STAGED:
        _keep_apart(con, evaluation.broken, expectations)
    reasons = {key: blocking_reason(found, rows_apart=relation == STAGED) for key, found in verdicts.items()}
    return Validation(verdicts, {key: reason for key, reason in reasons.items() if reason})


def nothing_apart(con: DuckDBPyConnection) -> None:
    """An empty `BROKEN`; before anything is staged that is to be validated or scored."""
    con.execute("CREATE SCHEMA IF NOT EXISTS memory.pip_stage")
    con.execute(f"CREATE OR REPLACE TABLE {BROKEN} (row_id BIGINT, reason VARCHAR)")


def admitted(relation: str = STAGED) -> str:
    """SQL of the rows that may be scored."""
    return f"(SELECT * FROM {relation} WHERE rowid NOT IN (SELECT row_id FROM {BROKEN}))"


def _keep_apart(con: DuckDBPyConnection, broken: object, expectations: Sequence[Expectation]) -> None:
    of_rows = [expectation.id for expectation in expectations if speaks_of_rows(expectation)]
    if not of_rows:
        return
    con.register("pip_broken", broken)
    try:
        listed = ", ".join(map(literal, of_rows))
        con.execute(
            f"INSERT INTO {BROKEN} SELECT row_id, expectation_id FROM pip_broken "
            f"WHERE severity = 'critical' AND expectation_id IN ({listed})"
        )
    finally:
        con.unregister("pip_broken")


def speaks_of_rows(expectation: Expectation) -> bool:
    """Whether a row that breaks it is what is wrong, rather than the partition that has too many of them."""
    return expectation.row_level and "mostly" not in expectation.kwargs


def blocking_reason(verdicts: Verdicts, *, rows_apart: bool) -> str | None:
    """Why these verdicts let nothing through; `rows_apart`: rows that break an expectation are quarantined instead."""
    reasons = [
        CheckEntry.of(verdict, "", "", verdict.partition).text
        for verdict in verdicts
        if verdict.expectation.severity == "critical"
        and (
            verdict.status == "errored"
            or (verdict.status == "failed" and not (rows_apart and speaks_of_rows(verdict.expectation)))
        )
    ]
    return "; ".join(reasons) or None


def keep_unseen_apart(con: DuckDBPyConnection, unseen: Sequence[str]) -> None:
    """Quarantine the rows for which one of the SQL conditions `unseen` holds."""
    if unseen:
        con.execute(f"INSERT INTO {BROKEN} SELECT rowid, 'unseen_category' FROM {STAGED} WHERE {' OR '.join(unseen)}")


def keep_unmatched_apart(con: DuckDBPyConnection, encoded: Sequence[Encoded]) -> None:
    """Quarantine the rows that no model of a composite is for, where it was composed so."""
    for condition in (feature.apart for feature in encoded if feature.apart):
        con.execute(f"INSERT INTO {BROKEN} SELECT rowid, 'no_segment' FROM {STAGED} WHERE {condition}")


def apart_counts(con: DuckDBPyConnection) -> dict[str, int]:
    """Rows kept apart, by partition."""
    rows = con.execute(
        f"SELECT partition_key, count(*) FROM {STAGED} WHERE rowid IN (SELECT row_id FROM {BROKEN}) GROUP BY ALL"
    ).fetchall()
    return dict(rows)
