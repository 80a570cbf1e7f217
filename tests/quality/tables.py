"""Random tables, suites and partitions for the property tests."""

import datetime as dt
from decimal import Decimal

from hypothesis import strategies as st

from pip_dagster.quality.suite import Expectation
from pip_dagster.sql.names import quote

NAN = float("nan")
DAY = dt.date(2013, 1, 1)
NOON = dt.datetime(2013, 1, 1, 12)
UTC = dt.UTC

# column name: (type, values); names with spaces, quotes, unicode and case on purpose
COLUMNS = {
    "small": ("SMALLINT", [0, 1, 2, 3, -4, None]),
    "Big": ("BIGINT", [0, 1, 2, 2**53, 2**53 + 1, -3, None]),
    "u big": ("UBIGINT", [0, 1, 2, 2**64 - 1, None]),
    "real": ("DOUBLE", [0.0, -0.0, 0.1, 0.5, 1.5, 2.0, NAN, float("inf"), None]),
    'größe "ß"': ("FLOAT", [0.0, 0.1, 0.5, 2.0, NAN, None]),
    "dec": ("DECIMAL(20,2)", [Decimal("0.10"), Decimal("1.10"), Decimal("2.00"), Decimal("-1.00"), None]),
    "huge": ("HUGEINT", [0, 1, 2, 2**70, None]),
    "flag": ("BOOLEAN", [True, False, None]),
    "text": ("VARCHAR", ["a", "b", "ü", "O'Hare", "", "2013-01-02", None]),
    "origin": ("ENUM('JFK', 'EWR', 'ü \"q\"')", ["JFK", "EWR", 'ü "q"', None]),
    "day": ("DATE", [DAY, DAY + dt.timedelta(days=1), dt.date(1600, 1, 1), dt.date(9999, 12, 31), None]),
    "at": ("TIMESTAMP", [NOON, NOON + dt.timedelta(seconds=1), dt.datetime(1600, 1, 1), dt.datetime(9999, 1, 1), None]),
    "seen_at": (
        "TIMESTAMP WITH TIME ZONE",
        [NOON.replace(tzinfo=UTC), (NOON + dt.timedelta(days=1)).replace(tzinfo=UTC), None],
    ),
    "empty": ("DOUBLE", [None]),
}
PARTITIONS = ["2013-01-01", "2013-01-02", "ü 'x'", "none"]
NUMBERS = ["small", "Big", "u big", "real", 'größe "ß"', "dec", "huge", "empty"]

numbers = st.sampled_from([-4, 0, 1, 2, 2.5, 0.1, 0.5, 2**53, 1e300])
instants = st.sampled_from(
    ["2013-01-02", DAY, NOON, "2013-01-01T12:00:01", "2013-01-01 12:00:00", "2013-01-01T12:00:00+00:00",
     NOON.replace(tzinfo=UTC), dt.datetime(2013, 1, 1, 14, tzinfo=dt.timezone(dt.timedelta(hours=2)))]
)  # fmt: skip
bounds = st.one_of(numbers, numbers, numbers, instants)
mostly = st.sampled_from([1, 1, 0.5, 0.75, 2 / 3, 0.9, 0])
columns = st.sampled_from(sorted(COLUMNS))
members = st.one_of(
    st.lists(st.sampled_from(["a", "ü", "JFK", "O'Hare", 'ü "q"', ""]), min_size=1, max_size=3),
    st.lists(st.sampled_from([0, 1, 2, 2**53 + 1, -4]), min_size=1, max_size=3),
    st.lists(st.sampled_from([0.0, 0.1, 1.1, 2, 0.5]), min_size=1, max_size=3),
    st.just([True]),
)


@st.composite
def rows(draw, max_rows=14):
    """Rows as (partition, row id, values)."""
    n = draw(st.integers(0, max_rows))
    ids = draw(st.permutations(range(n)))
    return [
        (draw(st.sampled_from(PARTITIONS[:3])), i, *(draw(st.sampled_from(v)) for _, v in COLUMNS.values()))
        for i in ids
    ]


def create(con, table_rows, name="t"):
    """The table of some rows."""
    con.execute("SET TimeZone='UTC'")
    listed = ", ".join(f"{quote(c)} {t}" for c, (t, _) in COLUMNS.items())
    con.execute(f"CREATE OR REPLACE TABLE {name} (part VARCHAR, rid BIGINT, {listed})")
    if table_rows:
        holes = ", ".join("?" * len(table_rows[0]))
        con.executemany(f"INSERT INTO {name} VALUES ({holes})", table_rows)


@st.composite
def leaves(draw):
    column = draw(
        st.sampled_from(
            ["text", "origin", "small", "Big", "real", "dec", "huge", "text", "small", "flag", "day", "u big"]
        )
    )
    if draw(st.integers(0, 3)) == 0:
        return {"type": "nullity", "column": {"name": column}, "is_null": draw(st.booleans())}
    operator = draw(st.sampled_from(["==", "!=", "<", "<=", ">", ">=", "IN", "NOT_IN"]))
    if column in ("text", "origin"):
        operator = draw(st.sampled_from(["==", "!=", "IN", "NOT_IN", operator]))
        value = st.sampled_from(["a", "JFK", "b", "O'Hare"])
    else:
        value = st.sampled_from([0, 1, 2] if column in ("Big", "u big") else [0, 1, 2, 0.5, 0.1])
    parameter = draw(st.lists(value, min_size=1, max_size=2) if "IN" in operator else value)
    return {"type": "comparison", "column": {"name": column}, "operator": operator, "parameter": parameter}


@st.composite
def conditions(draw):
    kind = draw(st.sampled_from([None, None, "leaf", "and", "or"]))
    if kind is None:
        return None
    if kind == "leaf":
        return draw(leaves())
    return {"type": kind, "conditions": draw(st.lists(leaves(), min_size=1, max_size=2))}


@st.composite
def expectations(draw, types=None):
    """One expectation of any kind that loading would accept, on columns that may not suit it."""
    kind = draw(st.sampled_from(types or sorted(MAKERS)))
    type_, kwargs = MAKERS[kind](draw)
    condition = draw(conditions()) if "table_column" not in type_ and "in_set" not in kind[:7] else None
    return Expectation("", "features", type_, kwargs, row_condition=condition)


@st.composite
def suites(draw, size=5, types=None):
    found = draw(st.lists(expectations(types), min_size=1, max_size=size))
    return [
        Expectation(f"e{i}", e.section, e.type, e.kwargs, row_condition=e.row_condition) for i, e in enumerate(found)
    ]


FAMILIES = [["small", "real", 'größe "ß"', "dec", "huge", "empty"], ["Big", "u big"], ["text", "origin"], ["day", "at"]]


def fitting(draw, column):
    """A limit for a column, mostly of its own kind."""
    if draw(st.integers(0, 6)) == 0:
        return draw(bounds)
    days = st.sampled_from(["2013-01-02", DAY, DAY - dt.timedelta(days=1)])
    naive = st.sampled_from([NOON, "2013-01-01T12:00:01", "2013-01-01 12:00:00", dt.datetime(2013, 1, 1)])
    zoned = st.sampled_from([NOON.replace(tzinfo=UTC), "2013-01-01T12:00:00+00:00", "2013-01-02T13:00:00+01:00"])
    return draw({"day": days, "at": naive, "seen_at": zoned}.get(column, numbers))


def fitting_members(draw, column):
    """A set for a column, mostly of its own kind."""
    if draw(st.integers(0, 6)) == 0:
        return draw(members)
    if column in ("text", "origin"):
        return draw(st.lists(st.sampled_from(["a", "ü", "JFK", "O'Hare", 'ü "q"', ""]), min_size=1, max_size=3))
    whole = [0, 1, 2, -3, -4, 2**53 - 1]
    values = whole if column in ("small", "Big", "u big") else [*whole, 0.1, 0.5, 1.1, -0.0]
    return draw(st.lists(st.sampled_from(values), min_size=1, max_size=3))


def _in_set(name):
    def make(draw):
        column = draw(columns)
        return name, {"column": column, "mostly": draw(mostly), "value_set": fitting_members(draw, column)}

    return make


def _between(name, share=False):
    def make(draw):
        column = draw(st.one_of(st.sampled_from(NUMBERS), st.sampled_from(["day", "at", "seen_at"]), columns))
        kwargs = {"column": column} | ({"mostly": draw(mostly)} if share else {})
        limits = draw(st.sampled_from([("min_value",), ("max_value",), ("min_value", "max_value"), ()]))
        kwargs |= {k: fitting(draw, column) for k in limits}
        return name, kwargs | {k: draw(st.booleans()) for k in ("strict_min", "strict_max") if draw(st.booleans())}

    return make


def _aggregate(name):
    def make(draw):
        column = draw(st.one_of(st.sampled_from(NUMBERS), columns))
        kwargs = {
            "column": column,
            "min_value": draw(st.sampled_from([0, 1, 0.5, 2])),
            "strict_min": draw(st.booleans()),
        }
        if "unique_value_count" in name:
            kwargs["min_value"] = int(kwargs["min_value"])
        return name, kwargs | ({"max_value": draw(st.sampled_from([2, 3, 1000]))} if draw(st.booleans()) else {})

    return make


def _column(name, **more):
    return lambda draw: (
        name, {"column": draw(columns), "mostly": draw(mostly)} | {k: draw(v) for k, v in more.items()}
    )  # fmt: skip


def _pair(name, **more):
    rules = st.sampled_from(["both_values_are_missing", "either_value_is_missing", "neither"])

    def make(draw):
        family = draw(st.sampled_from([*FAMILIES, sorted(COLUMNS)]))
        kwargs = {"column_A": draw(st.sampled_from(family)), "column_B": draw(st.sampled_from(family))}
        kwargs |= {"mostly": draw(mostly), "ignore_row_if": draw(rules)}
        return name, kwargs | {k: draw(v) for k, v in more.items()}

    return make


RULES = ["all_values_are_missing", "any_value_is_missing", "never"]


def _several(name, **more):
    return lambda draw: (
        name,
        {"column_list": draw(st.lists(columns, min_size=2, max_size=3, unique=True)), "mostly": draw(mostly)}
        | draw(st.sampled_from([{}, *({"ignore_row_if": r} for r in RULES)]))
        | {k: draw(v) for k, v in more.items()},
    )  # fmt: skip


_AGGREGATES = ["mean", "sum", "min", "max", "median", "stdev", "unique_value_count",
               "proportion_of_unique_values", "proportion_of_non_null_values"]  # fmt: skip


def _fixed(name, **kwargs):
    return lambda draw: (name, {k: draw(v) for k, v in kwargs.items()})


MAKERS = {
    "not_null": _column("expect_column_values_to_not_be_null"),
    "null": _column("expect_column_values_to_be_null"),
    "between": _between("expect_column_values_to_be_between", share=True),
    "in_set": _in_set("expect_column_values_to_be_in_set"),
    "not_in_set": _in_set("expect_column_values_to_not_be_in_set"),
    "unique": _column("expect_column_values_to_be_unique"),
    "regex": _column("expect_column_values_to_match_regex", regex=st.sampled_from(["^[0a]", "^2013", "1"])),
    "not_regex": _column("expect_column_values_to_not_match_regex_list", regex_list=st.just(["^a", "0$"])),
    "lengths": _column("expect_column_value_lengths_to_be_between", max_value=st.integers(0, 4)),
    "strftime": _column("expect_column_values_to_match_strftime_format", strftime_format=st.just("%Y-%m-%d")),
    "of_type": _column("expect_column_values_to_be_of_type", type_=st.sampled_from(["str", "int64", "Int64", "date"])),
    "increasing": _column("expect_column_values_to_be_increasing", strictly=st.booleans()),
    "outliers": _column(
        "expect_column_value_z_scores_to_be_less_than", threshold=st.just(1), double_sided=st.just(True)
    ),
    "greater": _pair("expect_column_pair_values_a_to_be_greater_than_b", or_equal=st.booleans()),
    "equal": _pair("expect_column_pair_values_to_be_equal"),
    "pair_in_set": _pair(
        "expect_column_pair_values_to_be_in_set", value_pairs_set=st.just([[0, 1], [1, 1], ["a", "JFK"]])
    ),
    "compound": _several("expect_compound_columns_to_be_unique"),
    "total": _several("expect_multicolumn_sum_to_equal", sum_total=st.sampled_from([0, 1, 3])),
    "all_equal": _several("expect_multicolumn_values_to_be_equal"),
    "distinct": _several("expect_select_column_values_to_be_unique_within_record"),
    "max_instant": _fixed("expect_column_max_to_be_between", column=columns, min_value=instants),
    "rows_between": _fixed(
        "expect_table_row_count_to_be_between", min_value=st.integers(0, 3), max_value=st.integers(0, 5)
    ),
    "rows_equal": _fixed("expect_table_row_count_to_equal", value=st.integers(0, 4)),
    "quantile": _fixed(
        "expect_column_quantile_values_to_be_between",
        column=st.sampled_from(NUMBERS),
        quantile_ranges=st.just({"quantiles": [0.5], "value_ranges": [[0, 1]]}),
    ),
    "mode": _fixed("expect_column_most_common_value_to_be_in_set", column=columns, value_set=members),
    "table_columns": _fixed(
        "expect_table_columns_to_match_set", column_set=st.just(["text"]), exact_match=st.booleans()
    ),
    **{name: _aggregate(f"expect_column_{name}_to_be_between") for name in _AGGREGATES},
}  # fmt: skip
