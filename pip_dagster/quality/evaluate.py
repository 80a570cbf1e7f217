"""Evaluate a suite on a range of partitions: one pass, and the verdicts of one validation per partition.

Each type takes the fastest path that property tests show to be equal to one validation per partition (`loop`):

- row-level types: one validation over the range, attributed to the partitions (`mapped`);
- aggregates: a profile with a row per partition, judged in one validation (`profile`);
- types about the table's columns: judged once (`_judge_columns`);
- with `engine="auto"`, the commonest types on the commonest columns: in DuckDB, without importing Great Expectations
  (`native`). Great Expectations judges the rest.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal

from pip_dagster.quality import native
from pip_dagster.quality.chunk import Chunk, Numbered, Tally
from pip_dagster.quality.expectation_types import expectation_types
from pip_dagster.quality.frame import Use
from pip_dagster.quality.great import Judge
from pip_dagster.quality.loop import judge_alone, judgement
from pip_dagster.quality.mapped import judge_range, over_a_range
from pip_dagster.quality.profile import METRICS, judge_profile
from pip_dagster.quality.relation import Relation
from pip_dagster.quality.suite import Expectation, suggest
from pip_dagster.quality.verdict import Evaluation, Judgement, Verdict

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
    for together in relation.chunks(partitions) if todo else ():
        _judge_chunk(relation, relation.chunk(todo, together), judge, todo, engine, place, tally)
    broken = _broken(tally, expectations, partitions)
    examples = _examples(relation, key, expectations, broken)
    verdicts = (
        (p, e, tally.judgements[p, i], examples.get((p, i), ())) for p in partitions for i, e in enumerate(expectations)
    )
    return Evaluation(
        tuple(Verdict(**vars(j), partition=p, expectation=e, examples=tuple(rows)) for p, e, j, rows in verdicts),
        broken.drop_columns(["expectation"]),
    )


def _judge_columns(
    relation: Relation, judge: Judge, todo: Iterable[Numbered], partitions: Sequence[str], tally: Tally
) -> list[Numbered]:
    """Judge the expectations on the table's columns, once for all partitions; return the other expectations."""
    others: list[Numbered] = []
    about: list[Numbered] = []
    for i, e in todo:
        is_about = expectation_types()[e.type].kind == "table" and e.type not in METRICS
        (about if is_about else others).append((i, e))
    if about:
        wanted: dict[str, Use] = dict.fromkeys(relation.data_columns, "alone")
        frame = relation.fetch(wanted.items(), []).frame(wanted)
        for (i, _), outcome in zip(about, judge(frame, [e for _, e in about]), strict=True):
            tally.judgements |= {(p, i): judgement(outcome) for p in partitions}
    return others


def _judge_chunk(
    relation: Relation,
    chunk: Chunk,
    judge: Judge,
    todo: Sequence[Numbered],
    engine: Engine,
    place: dict[str, int],
    tally: Tally,
) -> None:
    import numpy as np

    part = Tally()
    if engine == "auto":
        covered = [n for n in todo if native.covers(n[1], relation.types)]
        todo = [n for n in todo if n not in covered] + native.judge_aggregates(relation, chunk, covered, part)
    aggregates = [n for n in todo if n[1].type in METRICS]
    ranged = [n for n in todo if over_a_range(n[1])]
    rest = [n for n in todo if n not in aggregates and n not in ranged]
    rest += judge_range(chunk, judge, ranged, part)
    alone = judge_profile(chunk, judge, aggregates, part)
    for partition in chunk.partitions if rest else ():
        alone.setdefault(partition, []).extend(rest)
    judge_alone(chunk, judge, alone, part)
    tally.judgements |= part.judgements
    places = np.array([place[p] for p in chunk.partitions], dtype="int64")
    tally.broken.extend((i, places[codes], ids) for i, codes, ids in part.broken)


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
