"""The one list of the warehouse's tables and views. Views, publishing and erasure enumerate this list and no other.

A new table needs an entry here. One of the ledger needs a migration too; `ensure_table` creates those of a pipeline.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pip_dagster.sql.names import quote

LEDGER = "ledger"


@dataclass(frozen=True)
class Kind:
    """A table or view of the warehouse.

    Attributes:
        name: Its name in SQL.
        schema: `ledger`, or None for one in each pipeline's own schema.
        form: `table`; `view`; or `column sets`, a table for each set of columns and a view of all under `name`.
        retention: `content` holds values from the sources, or computed from them, and may be erased when they must be
            forgotten. `evidence` holds digests, counts, decisions and texts, and is kept as long as the warehouse. Its
            texts quote no row (`quoted.py`). `examples` and `observed` of the checks hold values of columns that are
            no key, which an erasure empties.
        pending_id: The id by which a new row makes its partition pending; None for a kind that does not.
    """

    name: str
    schema: str | None
    form: Literal["table", "view", "column sets"]
    retention: Literal["content", "evidence"]
    pending_id: str | None = None

    def in_sql(self, pipeline: str) -> str:
        """The kind of this pipeline, qualified and quoted."""
        return f"{quote(self.schema or pipeline)}.{quote(self.name)}"


@dataclass(frozen=True)
class PublishedKind(Kind):
    """A kind that is published: a table in the files of published rows, and a view over them once it has rows.

    Attributes:
        view: The table's and the view's name, in the kind's schema; the kind's name by default.
        live: `scoring` publishes only rows of live scorings. `row` also drops the rows of a split partition for which
            another scoring is live.
        always: Have the view although there are no rows.
        where_in: SQL of a relation, with pipelines and partition keys, that has rows for the partitions to publish;
            all by default. It spares reading the view where no partition has any.
        order: The column by which a partition's rows are ordered.
        scored_at: The column with the time of a row's scoring; None where not every row has one.
        private: Columns that are not published.
    """

    view: str | None = None
    live: Literal["scoring", "row"] | None = None
    always: bool = False
    where_in: str | None = None
    order: str | None = None
    scored_at: str | None = None
    private: tuple[str, ...] = ()


KINDS: tuple[Kind, ...] = (
    Kind("meta", LEDGER, "table", "evidence"),
    Kind("extractions", LEDGER, "table", "evidence"),
    Kind("live_changes", LEDGER, "table", "evidence", pending_id="change_id"),
    Kind("scorings", LEDGER, "table", "evidence", pending_id="scoring_id"),
    Kind("publications", LEDGER, "table", "evidence"),
    Kind("published_digests", LEDGER, "table", "evidence"),
    Kind("published_columns", LEDGER, "table", "evidence"),
    Kind("audit", LEDGER, "table", "evidence"),
    Kind("arms", LEDGER, "table", "evidence"),
    Kind("canaries", LEDGER, "table", "evidence"),
    Kind("source_buckets", LEDGER, "table", "evidence"),
    Kind("backfills", LEDGER, "table", "evidence"),
    Kind("backfill_partitions", LEDGER, "table", "evidence"),
    Kind("profiles", LEDGER, "table", "evidence"),
    Kind("evaluations", LEDGER, "table", "evidence", pending_id="evaluation_id"),
    Kind("performance", LEDGER, "table", "evidence"),
    Kind("alarm_marks", LEDGER, "table", "evidence"),
    Kind("alarm_states", LEDGER, "view", "evidence"),
    Kind("alarm_deliveries", LEDGER, "table", "evidence"),
    Kind("silences", LEDGER, "table", "evidence"),
    Kind("retrains", LEDGER, "table", "evidence"),
    Kind("calibrators", LEDGER, "table", "evidence"),
    Kind("estimates", LEDGER, "table", "evidence", pending_id="estimate_id"),
    Kind("judgements", LEDGER, "table", "evidence", pending_id="judgement_id"),
    Kind("drift", LEDGER, "table", "evidence"),
    Kind("lineage_emissions", LEDGER, "table", "evidence"),
    Kind("anchor_nonces", LEDGER, "table", "evidence"),
    Kind("rewrites", LEDGER, "table", "evidence"),
    Kind("erasures", LEDGER, "table", "evidence"),
    Kind("erasure_steps", LEDGER, "table", "evidence"),
    Kind("suppressions", LEDGER, "table", "evidence"),
    Kind("erased_partitions", LEDGER, "table", "evidence"),
    Kind("held_rows", LEDGER, "table", "content"),
    Kind("held_subjects", LEDGER, "table", "evidence"),
    Kind("live", LEDGER, "view", "evidence"),
    Kind("live_evaluations", LEDGER, "view", "evidence"),
    Kind("performance_figures", LEDGER, "view", "evidence"),
    Kind("graded_estimates", LEDGER, "view", "evidence"),
    Kind("live_drift", LEDGER, "view", "evidence"),
    PublishedKind(*("partitions", LEDGER, "view", "evidence"), always=True, order="scoring_id", scored_at="made_at"),
    PublishedKind("checks", LEDGER, "table", "evidence", order="made_at"),
    PublishedKind("alarms", LEDGER, "table", "evidence", pending_id="event_id", order="event_id"),
    # A target may write anything into a receipt, such as what finds rows in another system.
    PublishedKind(
        *("deliveries", LEDGER, "table", "evidence"),
        pending_id="delivery_id",
        order="delivery_id",
        private=("receipt",),
    ),
    Kind("features", None, "column sets", "content"),
    Kind("scores", None, "column sets", "content"),
    PublishedKind("predictions", None, "view", "content", live="scoring", always=True, scored_at="scored_at"),
    PublishedKind("reasons", None, "column sets", "content", live="row"),
    PublishedKind("quarantine", None, "column sets", "content"),
    PublishedKind(
        *("performance", None, "view", "evidence"), where_in="(FROM ledger.evaluations)", order="evaluation_id"
    ),
    PublishedKind("estimates", None, "view", "evidence", where_in="(FROM ledger.estimates)", order="estimate_id"),
    PublishedKind("drift", None, "view", "evidence", live="scoring", where_in="(FROM ledger.drift)"),
    PublishedKind(
        *("live_arms", LEDGER, "view", "evidence"),
        view="arms",
        # A partition that is the champion's again is published too, so that nobody reads the arms it had.
        where_in="(FROM ledger.checks WHERE section = 'split')",
        order="low",
    ),
)


def with_column_sets() -> tuple[Kind, ...]:
    """The kinds of a pipeline that have a table for each set of columns."""
    return tuple(kind for kind in KINDS if kind.form == "column sets")


def published() -> tuple[PublishedKind, ...]:
    """The kinds that are published."""
    return tuple(kind for kind in KINDS if isinstance(kind, PublishedKind))


def announcing() -> tuple[Kind, ...]:
    """The kinds whose new rows make their partition pending."""
    return tuple(kind for kind in KINDS if kind.pending_id)
