"""What may be declared as SQL over one row: exactly one expression, whose value depends on that row alone."""

from __future__ import annotations

import json
import os
import subprocess
from datetime import datetime
from functools import cache
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pip_dagster.errors import DeclarationError
from pip_dagster.sql.expression import bracketed, substituted
from pip_dagster.sql.row_sql import RowExpression, row_condition, row_expression, row_instant

import duckdb  # isort: skip

OTHER = os.environ.get("PIP_DAGSTER_DUCKDB2_PYTHON")
COLUMNS = {
    "score": "FLOAT",
    "distance": "INTEGER",
    "carrier": "VARCHAR",
    "day": "DATE",
    "loaded_at": "TIMESTAMP WITH TIME ZONE",
    "plane": 'STRUCT(seats INTEGER, maker STRUCT("name" VARCHAR))',
    "legs": "INTEGER[]",
    "payload": "JSON",
    'Odd "name"': "INTEGER",
}

NOT_ONE = [
    *("", "  ", "-- nothing", "/* nothing */", "score >", "(score", "score)", "score /* never closed", "'score"),
    *("score;", "score; DROP TABLE y", "score); DROP TABLE y; --", "1) FROM x --", "score) , (SELECT 1", "1; SELECT 2"),
    *("score AS a", "score a", "a: score", "score AS a, 1 AS b", "score, 1", "score,", "DISTINCT score", "ALL score"),
    *("score FROM t", "score WHERE true", "score LIMIT 1", "score ORDER BY 1", "score GROUP BY ALL", "true) OR (true"),
    *("score QUALIFY true", "score USING SAMPLE 1", "score UNION SELECT 1", "score INTO t", "SELECT score", "FROM t"),
    *("score WINDOW w AS ()", "score HAVING true", "DROP TABLE y", "score\x00"),
]
MORE_THAN_THE_ROW = {
    "score > (SELECT avg(score) FROM memory.pip_stage.scores)": "a subquery",
    "(SELECT count(*) FROM read_csv('/etc/passwd')) > 0": "a subquery",
    "(FROM t)": "a subquery",
    "EXISTS (SELECT 1)": "a subquery",
    "distance IN (SELECT 1)": "a subquery",
    "ARRAY(SELECT 1)": "a subquery",
    "score = ANY([1, 2])": "a subquery",
    "CASE WHEN score > 0 THEN (SELECT 1) END": "a subquery",
    "row_number() OVER () > 5": "a window",
    "avg(score) OVER (ORDER BY day)": "a window",
    "score > lag(score) OVER (ORDER BY day)": "a window",
    "avg(score)": r"avg\(\)",
    "count(*)": r"count_star\(\)",
    "count(score)": r"count\(\)",
    "list(score)": r"list\(\)",
    "max(day) FILTER (score > 0)": r"max\(\)",
    "string_agg(carrier, ',')": r"string_agg\(\)",
    "geomean(score)": r"geomean\(\), which is a macro that uses avg\(\)",
    "json_group_array(score)": r"a macro that uses string_agg\(\)",
    "unnest(legs)": r"unnest\(\)",
    "generate_subscripts(legs, 1)": r"unnest\(\)",
    "score > ?": "a parameter",
    "score > $x": "a parameter",
    "score > $1": "a parameter",
    "list_filter(legs, x -> x > 1)": "a lambda",
    "list_transform(legs, lambda x: x + 1)": "a lambda",
    "list_filter(legs, distance -> distance > 1)": "a lambda",
    "[x for x in legs if x > 1]": "a lambda",
    "*": r"`\*`",
    "COLUMNS(*)": r"`\*`",
    "COLUMNS('s.*')": r"`\*`",
    "scores.*": r"`\*`",
    "#1": "by position",
    "DEFAULT": "DEFAULT",
    "read_csv('/etc/passwd')": r"read_csv\(\)",
    "read_text('/etc/passwd')": r"read_text\(\)",
    "query('SELECT 1')": r"query\(\)",
    "getvariable('x')": r"getvariable\(\)",
    "current_setting('threads')": r"current_setting\(\)",
    "getenv('HOME')": r"getenv\(\)",
    "version()": r"version\(\)",
    "current_user()": r"current_user\(\)",
    "current_schema()": r"current_schema\(\)",
    "current_catalog()": r"current_catalog\(\), which is a macro",
    "get_block_size('memory')": "a macro that contains a subquery",
    "duckdb_settings()": r"duckdb_settings\(\)",
    "pg_catalog.pg_table_is_visible(1)": r"pg_table_is_visible\(\)",
    "json_serialize_plan('SELECT 1')": r"json_serialize_plan\(\)",
    "random() < 0.5": r"random\(\)",
    "uuid()": r"uuid\(\)",
    "gen_random_uuid()": r"gen_random_uuid\(\)",
    "loaded_at > now()": r"now\(\)",
    "day < today()": r"today\(\)",
    "current_localtimestamp() > loaded_at": r"current_localtimestamp\(\)",
    "age(day)": r"age\(\), which counts from today",
    "day.age()": r"age\(\), which counts from today",
    "ago(INTERVAL 1 DAY) > day": "a macro that reads current_timestamp",
    "nextval('s')": r"nextval\(\)",
    "txid_current()": r"txid_current\(\)",
    "error('stop')": r"error\(\)",
    "stats(score)": r"stats\(\)",
    "vector_type(score)": r"vector_type\(\)",
    "st_distance(score, score)": r"st_distance\(\)",
    "system.main.abs(score)": r"system.main.abs\(\)",
    "carier.lower()": r"carier.lower\(\)",
}
OTHER_COLUMNS = {
    "scor > 0.5": "'scor', which is not a column of the scored row.* did you mean 'score'",
    "DISTANZE > 5": "'DISTANZE'",
    "current_date > day": "'current_date'",
    "current_timestamp": "'current_timestamp'",
    "current_user": "'current_user'",
    "rowid": "'rowid'",
    "memory.pip_stage.scores.score": "'memory.pip_stage.scores.score'",
    "scores.score > 1": r"'scores\.score'.* did you mean 'score'",
    "payload -> x": "'x'",
}
CANNOT_RUN = {
    "plane.wings": "wings",
    "carrier + 1 DAY": "is not a single",
    "carrier LIKE 5 + day": "cannot be evaluated",
    "score::no_such_type": "no_such_type",
    "abs(score) FILTER (score > 1)": "FILTER",
    "rond(score)": r"did you mean round\(\)\?",
    "round()": "round",
}
ACCEPTED = [
    *("score >= 0.5", "score >= 0.5 -- the likely ones", "score /* raw */ > 0.5", "SCORE > 0.5 AND Distance > 100"),
    *("true", "NULL", "CASE WHEN score > 0.8 THEN 'high' WHEN score > 0.5 THEN 'mid' ELSE 'low' END", "-distance"),
    *("CASE carrier WHEN 'AA' THEN 1 END", "score BETWEEN 0.2 AND 0.4", "carrier IN ('AA', 'HA')", "NOT score > 0.5"),
    *("carrier NOT IN ('AA')", "distance IN legs", "carrier LIKE 'A%'", "carrier ILIKE '%a' ESCAPE '!'"),
    *("carrier SIMILAR TO 'A.'", "regexp_matches(carrier, 'A')", "coalesce(score, 0)", "ifnull(score, 0)"),
    *("nullif(distance, 0)", "if(score > 0.5, 1, 0)", "greatest(score, 0.1)", "score IS NULL"),
    *("score IS DISTINCT FROM 1", "score::DOUBLE + 1", "CAST(score AS DECIMAL(5, 2))"),
    *("TRY_CAST(carrier AS INTEGER)", "TRY(1 // distance)", "round(score, 1)", "roundbankers(score, 1)"),
    *("ln(score) * 2 ^ 3 % 4", "distance // 100", "log10(distance)", "day + INTERVAL 1 DAY"),
    *("day + INTERVAL '2 months'", "date_trunc('month', day)", "extract(dow FROM day)", "DATE '2024-01-01' <= day"),
    *("date_diff('day', day, DATE '2024-01-01')", "age(day, DATE '2024-01-01')"),
    *("loaded_at AT TIME ZONE 'Europe/Berlin'", "strftime(day, '%Y')", "last_day(day)", "to_timestamp(distance)"),
    *("plane.seats > 100", "plane.maker.name", "plane['seats']", "(plane).seats", "{'a': distance}.a"),
    *("row(1, score)", "legs[1]", "legs[1:2]", "len(legs)", "list_sum(legs)", "list_contains(legs, 3)", "[score, 1]"),
    *("MAP {'a': score}", "payload -> '$.a'", "payload ->> '$.a'", "payload.a"),
    *("json_extract_string(payload, '$.a')", "upper(carrier) || '-' || distance", "carrier.lower().trim()"),
    *("split_part(carrier, '-', 1)", "md5(carrier)", '"Odd ""name""" + 1', '"score" > 1'),
    *("carrier = 'it''s; -- not a comment'", "$$a$$ || carrier", "carrier[1:2]", "main.abs(score)"),
    *("carrier COLLATE NOCASE = 'aa'", "substring(carrier FROM 1 FOR 2)", "hash(carrier) % 10"),
]


def judge(text: str, columns: dict[str, str] = COLUMNS) -> RowExpression:
    return row_expression(text, columns, where="Pipeline flights: decisions.late", row="the scored row")


@pytest.mark.parametrize("text", NOT_ONE)
def test_a_text_that_is_not_a_single_expression_is_refused(text: str) -> None:
    with pytest.raises(DeclarationError, match="is not a single SQL expression"):
        judge(text)
    with pytest.raises(DeclarationError, match="is not a single SQL expression"):
        bracketed(text)
    with pytest.raises(DeclarationError, match="is not a single SQL expression"):
        substituted(text, {})


@pytest.mark.parametrize(("text", "says"), (MORE_THAN_THE_ROW | OTHER_COLUMNS | CANNOT_RUN).items())
def test_what_depends_on_more_than_the_row_is_refused(text: str, says: str) -> None:
    with pytest.raises(DeclarationError, match=says) as refused:
        judge(text)
    assert str(refused.value).startswith(f"Pipeline flights: decisions.late {text!r} ")


@pytest.mark.parametrize("text", ACCEPTED)
def test_what_people_write_is_accepted_and_runs_in_a_larger_statement(text: str) -> None:
    found = judge(text)
    row = ", ".join(f'NULL::{kind} AS "{name.replace(chr(34), chr(34) * 2)}"' for name, kind in COLUMNS.items())
    with duckdb.connect() as con:
        described = con.execute(f"DESCRIBE SELECT *, {found.sql} AS value, 1 AS last FROM (SELECT {row})").fetchall()
        assert con.execute(f"SELECT count(*) FROM (SELECT {row}) WHERE {found.sql} IS NULL").fetchone()
        again = substituted(text, {name.lower(): f'"{name.replace(chr(34), chr(34) * 2)}"' for name in COLUMNS})
        assert con.execute(f"DESCRIBE SELECT {again} AS value FROM (SELECT {row})").fetchall()[0][1] == found.sql_type
    assert [each[0] for each in described] == [*COLUMNS, "value", "last"]
    assert described[-2][1] == found.sql_type


def test_it_says_what_was_read_as_it_was_offered() -> None:
    assert judge("CARRIER.lower() = 'score' AND Distance > 1 AND plane.seats > DISTANCE").columns == (
        *("carrier", "distance", "plane"),
    )
    assert judge("current_date > day", {"day": "DATE", "current_date": "DATE"}).columns == ("current_date", "day")


def test_a_condition_is_boolean() -> None:
    assert row_condition("score > 0", COLUMNS, where="x", row="y").sql_type == "BOOLEAN"
    with pytest.raises(DeclarationError, match="is FLOAT; expected BOOLEAN"):
        row_condition("score", COLUMNS, where="x", row="y")


@pytest.mark.parametrize("text", ["day", "loaded_at", "loaded_at + INTERVAL 1 HOUR", "'2024-01-01'", "day::TIMESTAMP"])
def test_an_instant_is_a_date_or_a_time(text: str) -> None:
    sql = row_instant(text, COLUMNS, where="x", row="y", time_zone="UTC")
    with duckdb.connect() as con:
        row = "SELECT DATE '2024-01-01' AS day, TIMESTAMPTZ '2024-01-01 00:00:00+00' AS loaded_at"
        assert con.execute(f"DESCRIBE SELECT {sql} AS v FROM ({row})").fetchall()[0][1] == "TIMESTAMP WITH TIME ZONE"


@pytest.mark.parametrize("text", ["distance", "legs", "score > 1", "TIME '12:00'", "plane"])
def test_another_value_is_not_an_instant(text: str) -> None:
    with pytest.raises(DeclarationError, match="; expected an instant, as in `loaded_at`"):
        row_instant(text, COLUMNS, where="x", row="y", time_zone="UTC")


NAIVE = ("DATE", "TIMESTAMP", "TIMESTAMP_S", "TIMESTAMP_MS", "TIMESTAMP_NS")


@pytest.mark.parametrize("zone", ["Pacific/Auckland", "America/Los_Angeles", "UTC"])
@pytest.mark.parametrize("kind", NAIVE)
def test_wall_clock_time_is_that_of_the_partitions(kind: str, zone: str) -> None:
    sql = row_instant("seen", {"seen": kind}, where="x", row="y", time_zone=zone)
    with duckdb.connect() as con:
        con.execute("SET TimeZone = 'UTC'")
        found = con.execute(f"SELECT {sql} FROM (SELECT TIMESTAMP '2024-01-15 00:00:00'::{kind} AS seen)").fetchone()
    assert found and found[0] == datetime(2024, 1, 15, tzinfo=ZoneInfo(zone))


@pytest.mark.parametrize(
    "text",
    [
        *("day::TIMESTAMPTZ", "greatest(day, loaded_at)", "loaded_at::DATE", "loaded_at::TIMESTAMP"),
        *("CASE WHEN loaded_at > day THEN loaded_at END", "coalesce(loaded_at, day)", "(loaded_at)::DATE + 1"),
    ],
)
def test_a_cast_that_reads_utc_is_refused_elsewhere(text: str) -> None:
    assert row_instant(text, COLUMNS, where="x", row="y", time_zone="UTC")
    with pytest.raises(DeclarationError, match=r"x .* casts .* in UTC; .*`timezone\('Pacific/Auckland', …\)`"):
        row_instant(text, COLUMNS, where="x", row="y", time_zone="Pacific/Auckland")


@pytest.mark.parametrize(
    "text",
    [
        *(
            "loaded_at + INTERVAL 2 HOUR",
            "greatest(timezone('Pacific/Auckland', day), loaded_at)",
            "day + INTERVAL 1 DAY",
        ),
        *("timezone('Pacific/Auckland', loaded_at)::DATE", "'2024-01-01 00:00:00+00'::TIMESTAMPTZ", "day::TIMESTAMP"),
    ],
)
def test_a_cast_that_names_its_zone_is_taken(text: str) -> None:
    assert row_instant(text, COLUMNS, where="x", row="y", time_zone="Pacific/Auckland")


def test_text_is_an_instant_in_utc_only() -> None:
    with pytest.raises(DeclarationError, match=r"is text; .*`\(carrier\)::TIMESTAMPTZ` if the text has a UTC offset"):
        row_instant("carrier", COLUMNS, where="x", row="y", time_zone="Pacific/Auckland")


def test_columns_are_replaced_as_columns_only() -> None:
    replaced = substituted("carrier.lower() = 'carrier' AND s.carrier > 1", {"carrier": "coalesce(carrier, 'x')"})
    with duckdb.connect() as con:
        row = con.execute(f"SELECT {replaced} FROM (SELECT NULL AS carrier, {{'carrier': 2}} AS s)").fetchone()
        assert row == (False,)


def test_a_long_sum_is_judged_and_a_deep_one_is_refused() -> None:
    assert judge(" + ".join(["distance"] * 200)).columns == ("distance",)
    with pytest.raises(DeclarationError, match="is not a single SQL expression"):
        judge("(" * 3000 + "distance" + ")" * 3000 + " + distance" * 3000)


@pytest.mark.skipif(not OTHER, reason="PIP_DAGSTER_DUCKDB2_PYTHON names no interpreter")
def test_another_duckdb_judges_alike() -> None:
    code = """
import json, sys
from pip_dagster.sql.row_sql import row_expression
from pip_dagster.errors import DeclarationError
columns, texts = json.load(sys.stdin)
def accepted(text):
    try:
        return bool(row_expression(text, columns, where="x", row="y"))
    except DeclarationError:
        return False
print(json.dumps([text for text in texts if accepted(text)]))
"""
    texts = [*NOT_ONE, *MORE_THAN_THE_ROW, *OTHER_COLUMNS, *CANNOT_RUN, *ACCEPTED]
    told = subprocess.run(
        [str(OTHER), "-c", code], input=json.dumps([COLUMNS, texts]), capture_output=True, text=True, check=True
    )
    assert json.loads(told.stdout) == ACCEPTED


ROWS = 12


@cache
def table() -> duckdb.DuckDBPyConnection:
    con = duckdb.connect(config={"threads": 2})
    con.execute(
        "CREATE TABLE rows AS SELECT i AS id, (i % 7 / 7)::FLOAT AS score, nullif(i % 5, 3)::INTEGER AS distance, "
        "['AA', 'ha', NULL, ''][i % 4 + 1] AS carrier, DATE '2024-01-01' + i::INTEGER AS day, "
        f"[i % 3, i % 2] AS legs FROM range({ROWS}) t(i)"
    )
    return con


READABLE = ["score", "distance", "carrier", "day", "legs", "legs[1]", "0.5", "NULL", "'AA'", "true", "2"]
BEYOND = ["rowid", "count(*)", "random()", "now()", "current_date", "uuid()", "(SELECT max(score) FROM rows)", "*"]
BEYOND += ["row_number() OVER ()", "unnest(legs)", "stats(score)", "nextval('s')", "getvariable('x')", "rows.score"]
LEAVES = st.sampled_from(READABLE * 6 + BEYOND)


def larger(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    one = ["NOT {}", "({})", "-{}", "{} IS NULL", "{}::VARCHAR", "TRY_CAST({} AS INTEGER)", "abs({})", "lower({})"]
    one += ["avg({})", "list({})", "max({}) OVER ()", "hash({})", "typeof({})", "vector_type({})", "[{}]", "{}, 1"]
    one += ["{} AS a", "{} FROM rows", "{} --", "sum({}) FILTER (true)", "list_sum({})", "age({})", "{}) , ({}"]
    two = ["{} + {}", "{} > {}", "{} AND {}", "{} IN ({}, 1)", "coalesce({}, {})", "CASE WHEN {} THEN {} END"]
    two += ["{} || {}", "greatest({}, {})", "{} IS DISTINCT FROM {}", "lag({}) OVER (ORDER BY {})", "{} -> {}"]
    return st.one_of(
        st.tuples(st.sampled_from(one), inner).map(lambda each: each[0].replace("{}", each[1])),
        st.tuples(st.sampled_from(two), inner, inner).map(lambda each: each[0].format(*each[1:])),
    )


@settings(max_examples=150, deadline=None)
@given(st.recursive(LEAVES, larger, max_leaves=6), st.integers(1, ROWS), st.integers(0, ROWS - 1))
def test_an_accepted_expression_gives_a_row_the_same_value_whatever_is_beside_it(
    text: str, chunk: int, alone: int
) -> None:
    con = table()
    columns = {row[0]: row[1] for row in con.execute("DESCRIBE rows").fetchall() if row[0] != "id"}
    try:
        sql = judge(text, columns).sql
    except DeclarationError:
        return

    def values(where: str, order: str = "id") -> dict[int, str]:
        rows = con.execute(
            f"SELECT id, ({sql})::VARCHAR FROM (SELECT * FROM rows WHERE {where} ORDER BY {order})"
        ).fetchall()
        assert len({row[0] for row in rows}) == len(rows), "a row must stay one row"
        return dict(rows)

    try:
        whole = values("true")
    except duckdb.Error:  # a cast that fails on a row, for example
        return
    assert set(whole) == set(range(ROWS))
    assert values("true", "hash(id)") == whole
    parts: dict[int, str] = {}
    for first in range(0, ROWS, chunk):
        parts |= values(f"id >= {first} AND id < {first + chunk}")
    assert parts == whole
    assert values(f"id = {alone}") == {alone: whole[alone]}
