"""Whatever the conditions and the rows: each row goes to exactly one segment, the one that plain pandas gives it."""

from __future__ import annotations

from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from pip_dagster.registry.booster_signature import BoosterSignature
from pip_dagster.registry.composite import Composite, Member, Segment, Term
from pip_dagster.registry.encoding import segments_of
from pip_dagster.registry.route import read_columns, route
from pip_dagster.sql.names import literal, quote

TEXTS = ("a", "it's", 'say "x"', "Ω", "日本", "", "NULL", "$x", "a\\b", "-- b", "note")
NAMES = {"text": 'the "text"', "number": "Zahl ü", "flag": "from"}
TYPES = {NAMES["text"]: "VARCHAR", NAMES["number"]: "DOUBLE", NAMES["flag"]: "BOOLEAN"}

ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "text": st.none() | st.sampled_from([*TEXTS, "other"]),
            "number": st.none() | st.just(float("nan")) | st.integers(-3, 3).map(float),
            "flag": st.none() | st.booleans(),
        }
    ),
    min_size=1,
    max_size=30,
)
CONDITIONS = st.lists(
    st.one_of(
        st.tuples(st.just("text"), st.lists(st.sampled_from(TEXTS), min_size=1, max_size=3).map(tuple)),
        st.tuples(st.just("number"), st.integers(-3, 3)),
        st.tuples(st.just("flag"), st.just(True)),
    ),
    min_size=1,
    max_size=4,
    unique=True,
)


def sql(condition: tuple[str, Any]) -> str:
    name, wanted = condition
    if name == "text":
        return f"{quote(NAMES[name])} IN ({', '.join(map(literal, wanted))})"
    return f"{quote(NAMES[name])} > {wanted}" if name == "number" else quote(NAMES[name])


def holds(condition: tuple[str, Any], row: dict[str, Any]) -> bool | None:
    """The three values of SQL, in plain Python; NaN is a missing value."""
    name, wanted = condition
    value = row[name]
    if value is None or value != value:
        return None
    return value in wanted if name == "text" else value > wanted if name == "number" else bool(value)


def member() -> Member:
    signature = BoosterSignature(
        engine="xgboost",
        task="regression",
        features=(),
        objective="x",
        booster="x",
        outputs=(),
        iteration_range=(0, 1),
        xgboost_version="0",
    )
    return Member(file="m", model_name="m", version=1, manifest_digest="", signature=signature)


@settings(max_examples=25, deadline=None)
@given(rows=ROWS, conditions=CONDITIONS, others=st.booleans(), enum=st.booleans())
def test_every_row_has_one_segment_the_first_that_holds(
    rows: list[dict[str, Any]], conditions: list[tuple[str, Any]], others: bool, enum: bool
) -> None:
    columns: dict[str, str] = {}
    for condition in conditions:
        columns |= read_columns(sql(condition), TYPES)
    segments = [Segment(name=str(i), when=sql(c), terms=(Term(member=0),)) for i, c in enumerate(conditions)]
    if others:
        segments.append(Segment(name="rest", when=None, terms=(Term(member=0),)))
    composite = Composite(
        members=(member(),), segments=tuple(segments), columns=columns, unmatched=None if others else "quarantine"
    )
    expected, undecided = [], []
    for row in rows:
        tried = [holds(condition, row) for condition in conditions]
        first = tried.index(True) if True in tried else None
        expected.append(first if first is not None else len(conditions) if others else None)
        undecided.append(None in tried[:first])
    table = pa.table({NAMES[name]: [row[name] for row in rows] for name in NAMES})
    table = table.cast(pa.schema([(NAMES["text"], pa.string()), (NAMES["number"], pa.float64()), ("from", pa.bool_())]))
    wanted = np.array([np.nan if each is None else each for each in expected], dtype=np.float32)
    np.testing.assert_array_equal(segments_of(table, composite), wanted)

    # The same in production's SQL, over DuckDB's own types; an ENUM knows only the values that it has.
    with duckdb.connect() as con:
        con.register("rows", table)
        con.execute("CREATE TABLE t AS SELECT * FROM rows")
        types = dict(TYPES)
        present = sorted({row["text"] for row in rows if row["text"] is not None})
        if enum and present:
            types[NAMES["text"]] = f"ENUM({', '.join(map(literal, present))})"
            con.execute(f"ALTER TABLE t ALTER {quote(NAMES['text'])} TYPE {types[NAMES['text']]}")
        found = route(composite, types)
        select = f"SELECT {found.number}, {found.unmatched}, {found.failed}, {found.undecided} FROM t"
        got = pd.DataFrame(con.execute(select).fetchall())
    np.testing.assert_array_equal(got[0].astype(np.float32), wanted)
    assert got[1].tolist() == [each is None for each in expected]
    assert not got[2].any()
    assert got[3].tolist() == undecided
