"""Evaluate a suite on a range of partitions, with the verdicts of one Great Expectations validation per partition.

With `engine="auto"`, `native` judges the commonest types on the commonest columns without importing Great
Expectations. Types about the table's columns are judged once. Great Expectations judges the rest, partition by
partition, which is slower.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from pip_dagster.quality import native
from pip_dagster.quality.expectation_types import expectation_types
from pip_dagster.quality.frame import Use
from pip_dagster.quality.great import Judge, Outcome
from pip_dagster.quality.relation import Chunk, Numbered, Relation, Tally, grouped, narrow
from pip_dagster.quality.suite import Expectation, suggest
from pip_dagster.quality.verdict import Evaluation, Judgement, Verdict, jsonable

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["Engine", "Evaluation", "Verdict", "evaluate"]

Engine = Literal["auto", "great_expectations"]

EXAMPLES = 10


def evaluate(
    relation: Relation,
    *,
    key: Sequence[str],
    expectations: Sequence[Expectation],
    partitions: Sequence[str],
    engine: Engine = "auto",
) -> Evaluation:
    """Judge every partition by every expectation.

    An expectation that cannot be evaluated gets the verdict `errored`; it never raises and never passes.

    Args:
        relation: the rows to judge.
        key: the columns that identify a row for people, shown in examples.
        expectations: the expectations of one section, from `suite_file.load_suites`.
        partitions: the partitions to judge, in the order of the verdicts; one without rows is judged as empty.
        engine: `great_expectations` to have Great Expectations judge everything.

    Raises:
        duckdb.Error: the relation itself cannot be read.
    """
    partitions = list(dict.fromkeys(partitions))
    declared, expectations = expectations, [each.on(relation.types) for each in expectations]
    tally = Tally()
    todo: list[Numbered] = []
    for i, e in enumerate(expectations):
        absent = "; ".join(
            f"column {c!r} is not in the table{suggest(c, relation.types)}"
            for c in sorted(e.columns - set(relation.types))
        )
        if absent:
            tally.judgements |= {(p, i): Judgement("errored", error=absent) for p in partitions}
        else:
            todo.append((i, e))
    if engine == "auto":
        todo = native.judge_rows(relation, todo, partitions, tally)
    judge = Judge()
    todo = _judge_columns(relation, judge, todo, partitions, tally)
    place = {p: n for n, p in enumerate(partitions)}
    for some, columns in narrow(todo):
        covered = [n for n in some if engine == "auto" and native.covers(n[1], relation.types)]
        rest = [n for n in some if n not in covered]
        for together in relation.chunks(partitions, columns):
            chunk = relation.chunk(some, together)
            left = native.judge_aggregates(relation, chunk, covered, tally)
            _judge_partitions(chunk, judge, rest + left, place, tally)
    broken = _broken(tally, expectations, partitions)
    examples = _examples(relation, key, expectations, broken)
    verdicts = (
        (p, e, tally.judgements[p, i], examples.get((p, i), ())) for p in partitions for i, e in enumerate(declared)
    )
    return Evaluation(
        tuple(Verdict(**vars(j), partition=p, expectation=e, examples=tuple(rows)) for p, e, j, rows in verdicts),
        broken.drop_columns(["expectation"]),
    )


def _judge_columns(
    relation: Relation, judge: Judge, todo: Sequence[Numbered], partitions: Sequence[str], tally: Tally
) -> list[Numbered]:
    """Judge the expectations on the table's columns, once for all partitions; return the other expectations."""
    about = [(i, e) for i, e in todo if expectation_types()[e.type].about_columns]
    if about:
        wanted: dict[str, Use] = dict.fromkeys(relation.data_columns, "alone")
        frame = relation.fetch(wanted.items(), []).frame(wanted)
        for (i, _), outcome in zip(about, judge(frame, [e for _, e in about]), strict=True):
            tally.judgements |= {(p, i): _judgement(outcome) for p in partitions}
    return [n for n in todo if n not in about]


def _judge_partitions(
    chunk: Chunk, judge: Judge, todo: Sequence[Numbered], place: Mapping[str, int], tally: Tally
) -> None:
    """One validation per partition: correct for every type."""
    import numpy as np

    for shared, members in grouped(todo):
        frame = chunk.columns.frame(shared)
        for partition, rows in chunk.slices.items():
            outcomes = judge(frame.iloc[rows], [e for _, e in members])
            for (i, expectation), outcome in zip(members, outcomes, strict=True):
                tally.judgements[partition, i] = _judgement(outcome)
                unexpected = outcome.result.get("unexpected_index_list") if expectation.row_level else None
                if unexpected and outcome.error is None:
                    ids = chunk.row_ids[np.array(unexpected, dtype="int64")]
                    tally.broken.append((i, np.full(len(ids), place[partition]), ids))


def _judgement(outcome: Outcome) -> Judgement:
    if outcome.error is not None:
        return Judgement("errored", error=outcome.error)
    return Judgement(
        status="passed" if outcome.success else "failed",
        unexpected_count=outcome.result.get("unexpected_count"),
        element_count=outcome.result.get("element_count"),
        unexpected_percent=outcome.result.get("unexpected_percent"),
        observed=jsonable(outcome.result.get("observed_value")),
    )


def _broken(tally: Tally, expectations: Sequence[Expectation], partitions: Sequence[str]) -> pa.Table:
    """The rows that broke an expectation, with its number, ordered by partition, expectation and row."""
    import numpy as np
    import pyarrow as pa

    none = np.array([], dtype="int64")
    places = np.concatenate([none, *(np.full(len(ids), i) for i, _, ids in tally.broken)])
    codes = np.concatenate([none, *(codes for _, codes, _ in tally.broken)])
    ids = np.concatenate([none, *(ids for _, _, ids in tally.broken)])
    order = np.lexsort((ids, places, codes))
    places, codes, ids = places[order], codes[order], ids[order]

    def named(names: Sequence[str], chosen: np.ndarray[Any, Any]) -> pa.Array:
        return pa.array(list(names), pa.string()).take(pa.array(chosen, pa.int64()))

    return pa.table(
        {
            "partition": named(partitions, codes),
            "row_id": pa.array(ids, pa.int64()),
            "expectation_id": named([e.id for e in expectations], places),
            "severity": named([e.severity for e in expectations], places),
            "expectation": pa.array(places, pa.int64()),
        }
    )


def _examples(
    relation: Relation, key: Sequence[str], expectations: Sequence[Expectation], broken: pa.Table
) -> dict[tuple[str, int], list[dict[str, Any]]]:
    """The first ten rows that broke each expectation, by partition and the expectation's number."""
    import numpy as np

    partitions, places, ids = (broken[c].to_numpy(zero_copy_only=False) for c in ("partition", "expectation", "row_id"))
    changes = np.flatnonzero((partitions[1:] != partitions[:-1]) | (places[1:] != places[:-1])) + 1
    starts = [0, *changes.tolist()] if len(ids) else []
    ends = [*changes.tolist(), len(ids)] if len(ids) else []
    first = {
        (partitions[a], int(places[a])): [int(x) for x in ids[a : min(b, a + EXAMPLES)]]
        for a, b in zip(starts, ends, strict=True)
    }
    columns = list(dict.fromkeys([*key, *(c for _, i in first for c in expectations[i].judged_columns)]))
    rows = relation.rows({x for chosen in first.values() for x in chosen}, columns)
    found = {}
    for (partition, i), chosen in first.items():
        shown = [*key, *(c for c in expectations[i].judged_columns if c not in key)]
        found[partition, i] = [{c: rows[x][c] for c in shown} for x in chosen]
    return found
