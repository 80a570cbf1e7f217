"""Errors in words that quote no row."""

import duckdb
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pip_dagster.errors import SourceError
from pip_dagster.orchestration.failure import UnforeseenError, as_failure, quoting_nothing
from pip_dagster.quoted import first, message, of_duckdb, of_server, said

TOKEN = "zq7TOKEN7qz"
CON = duckdb.connect()
CON.execute("CREATE TABLE t (v VARCHAR)")
COMPUTED = [
    *(
        f"v::{name}"
        for name in ("INT", "DOUBLE", "DECIMAL(5, 2)", "DATE", "TIMESTAMP", "TIMESTAMPTZ", "TIME", "BOOLEAN")
    ),
    *("v::UUID", "v::INTERVAL", "v::BLOB", "v::BIT", "v::INT[]", "v::STRUCT(a INT)", "v::JSON", "v::ENUM('a')"),
    *("error(v)", "error('Could not convert string ' || v)", "strptime(v, '%Y')", "json_extract(v, '$.a')", "unhex(v)"),
    *("from_base64(v)", "date_trunc(v, now())", "timezone(v, now())", "regexp_matches('a', v || '(')", "printf(v, 1)"),
]
around = st.text(st.sampled_from("ab '\"\n();:,%{}[]\\…0ERROR LINE1"), max_size=12)


def error_of(expression, value):
    CON.execute("DELETE FROM t")
    CON.execute("INSERT INTO t VALUES ($v)", {"v": value})
    try:
        CON.execute(f"SELECT {expression} FROM t").fetchall()
    except duckdb.Error as error:
        return error
    except UnicodeDecodeError:  # of Python, about a text that DuckDB made
        return None
    return None


@given(st.sampled_from(COMPUTED), around, around)
@example("v::INT", "' to INT32 when casting from source column ", "")
@example("v::INT", "", "\n\nLINE 1: x\n        ^")
@example("error(v)", "Map keys must be unique.", "")
def test_whatever_the_value_is_no_error_of_duckdb_has_it(expression, before, behind):
    error = error_of(expression, f"{before}{TOKEN}{behind}")
    if error is not None:
        assert TOKEN not in said(error), error
        assert first(error)


@pytest.mark.parametrize(
    ("expression", "kept"),
    [
        ("v::INT", ["Conversion Error", "to INT32", "source column v", "LINE 1: SELECT v::INT FROM t"]),
        ("v::DATE", ["expected format is (YYYY-MM-DD)", "source column v"]),
        ("v::INT[]", ["can't be cast to the destination type INTEGER[]"]),
        ("nothing(v)", ["Scalar Function with name nothing does not exist"]),
        ("error(v)", ["Invalid Input Error", "not kept"]),
        ("ln(length(v) - 11)", ["cannot take logarithm of zero"]),
        ("(SELECT 1 UNION ALL SELECT 2)", ["More than one row returned by a subquery"]),
    ],
)
def test_kind_column_types_and_line_stay(expression, kept):
    text = said(error_of(expression, TOKEN))
    assert [words for words in kept if words not in text] == [], text


def test_servers_and_libraries():
    assert of_server(f'duplicate key: "{TOKEN}" and "x"\nDETAIL: Key (id)=({TOKEN})') == 'duplicate key: "…"'
    assert TOKEN not in of_duckdb(f'IO Error: Failed to prepare COPY "SELECT a": ERROR: invalid input: "{TOKEN}"')
    sqlite = 'Mismatch Type Error: Invalid type in column "a": column was declared as integer, found '
    sqlite += f'"{TOKEN}" of type "text" instead.'
    assert 'of type "text" instead' in of_duckdb(sqlite) and TOKEN not in of_duckdb(sqlite)
    assert said(FileNotFoundError(2, "No such file or directory", "/a/b")) == "No such file or directory: /a/b"
    assert said(ValueError(TOKEN)).startswith("ValueError: its text is not kept")
    assert said(SourceError("orders.csv is empty")) == "orders.csv is empty"
    known = "TypeError: '>=' not supported between instances of 'str' and 'int'"
    assert message(known) == known and TOKEN not in message(f"TypeError: {TOKEN}")


def test_dagster_gets_neither_the_text_of_a_library_nor_that_of_a_cause():
    with pytest.raises(UnforeseenError) as found, quoting_nothing():
        CON.execute(f"SELECT error('{TOKEN}')")
    assert found.value.__suppress_context__ and TOKEN not in str(found.value)
    with pytest.raises(Exception, match="cannot be read") as failed, as_failure():
        try:
            raise ValueError(TOKEN)
        except ValueError as error:
            raise SourceError("it cannot be read") from error
    causes, cause = [], failed.value
    while cause is not None:
        causes.append(str(cause))
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)
    assert len(causes) == 2 and TOKEN not in str(causes)
