"""The law: one Great Expectations validation per partition and expectation, on that partition's rows alone."""

from dataclasses import dataclass

from pip_dagster.quality.expectation_types import expectation_types
from pip_dagster.quality.frame import Columns, uses
from pip_dagster.quality.great import Judge
from pip_dagster.quality.relation import Relation


@dataclass(frozen=True)
class Seen:
    status: str
    unexpected_count: int | None
    element_count: int | None
    unexpected_percent: float | None
    broken: frozenset[int]


def loop(con, relation, expectations, partitions, *, partition_column="part", row_id="rid"):
    """{(partition, expectation id): Seen}; the frame of every partition is fetched by itself."""
    relation = Relation.of(con, relation, partition_column=partition_column, row_id=row_id)
    judge = Judge()
    found = {}
    for p in partitions:
        for e in expectations:
            use = uses(e)
            if expectation_types()[e.type].kind == "table" and "row_count" not in e.type:  # about the columns
                use = {c: "alone" for c in relation.types if c not in (partition_column, row_id)}
            rows: Columns = relation.fetch(use.items(), [p])
            outcome = judge(rows.frame(use), [e])[0]
            if outcome.error is not None:
                found[p, e.id] = Seen("errored", None, None, None, frozenset())
                continue
            ids = rows.row_ids.to_pylist()
            broken = outcome.result.get("unexpected_index_list") or [] if e.row_level else []
            found[p, e.id] = Seen(
                "passed" if outcome.success else "failed",
                outcome.result.get("unexpected_count"),
                outcome.result.get("element_count"),
                outcome.result.get("unexpected_percent"),
                frozenset(ids[i] for i in broken),
            )
    return found


def seen(evaluation):
    """The same of an evaluation."""
    broken: dict[tuple[str, str], set[int]] = {}
    for row in evaluation.broken.to_pylist():
        broken.setdefault((row["partition"], row["expectation_id"]), set()).add(row["row_id"])
    return {
        (v.partition, v.expectation.id): Seen(
            v.status, v.unexpected_count, v.element_count, v.unexpected_percent,
            frozenset(broken.get((v.partition, v.expectation.id), ())),
        )
        for v in evaluation.verdicts
    }  # fmt: skip
