"""Every type of DuckDB as key, carried column and decision: kept to the bit, or refused before anything is stored."""

import pytest

from pip_dagster.errors import DeclarationError, NoWarehouseError
from pip_dagster.replay import recall
from pip_dagster.replay.replay import replay
from pip_dagster.warehouse.connect import workspace

pytestmark = pytest.mark.lake

FIRST = "2024-03-01"

# Kept in a warehouse file, whatever the role; each value of a row is another where the type has as many.
KEPT = {
    "ARRAY": "[order_id, NULL, 3]::FLOAT[3]",
    "ARRAY in STRUCT": "{'e': [order_id, 1]::INTEGER[2]}",
    "LIST": "[order_id, NULL]",
    "empty LIST": "[]::INTEGER[]",
    "STRUCT": "{'a': order_id, 'b c': 'x'}",
    "MAP": "MAP {'a': order_id}",
    "UNION": "union_value(num := order_id)",
    "ENUM": "'a'::ENUM('a', 'BIT', 'c''d')",
    "LIST of ENUM": "['a'::ENUM('a', 'b')]",
    "BLOB": "'\\x00\\xFF'::BLOB || encode(order_id::VARCHAR)",
    "UUID": "md5(order_id::VARCHAR)::UUID",
    "HUGEINT": "order_id + 9999999999999999999999999999999999999::HUGEINT",
    "LIST of HUGEINT": "[order_id + 9999999999999999999999999999999999999::HUGEINT]",
    "BIGNUM": "('123456789012345678901234567890123456789012345' || order_id)::BIGNUM",
    "TIME": "CASE WHEN order_id = 1 THEN TIME '24:00:00' ELSE TIME '00:00:00.000001' END",
    "TIME_NS": "'12:00:00.123456789'::TIME_NS",
    "TIMESTAMP": "TIMESTAMP '1677-01-01 00:00:00.000001' + to_days(order_id::INT)",
    "infinite TIMESTAMP": "'-infinity'::TIMESTAMP",
    "TIMESTAMP_S": "TIMESTAMP_S '2024-01-01 00:00:01'",
    "TIMESTAMP_MS": "TIMESTAMP_MS '2024-01-01 00:00:01.123'",
    "TIMESTAMP_NS": "TIMESTAMP_NS '2024-01-01 00:00:01.123456789'",
    "TIMESTAMPTZ": "'2024-01-01 00:00:00.000001+05:30'::TIMESTAMPTZ",
    "infinite DATE": "'infinity'::DATE",
    "old DATE": "DATE '5000-01-01 (BC)'",
    "INTERVAL": "INTERVAL '1 month 2 days 3.000001 seconds'",
    "DECIMAL(38,18)": "12345678901234567890.123456789012345678::DECIMAL(38,18)",
    "DECIMAL(4,1)": "1.5::DECIMAL(4,1)",
    "JSON": "'{\"a\": 1}'::JSON",
    "NaN": "'nan'::DOUBLE",
    "FLOAT": "(order_id / 7)::FLOAT",
    "UBIGINT": "order_id::UBIGINT + 18446744073709551000::UBIGINT",
    "UTINYINT": "order_id::UTINYINT",
    "BOOLEAN": "order_id % 2 = 0",
    "VARCHAR": "order_id || chr(0) || 'é''\"'",
}
# Arrow changes or lacks them; each is refused wherever it is carried.
REFUSED = {
    "BIT": "order_id::INTEGER::BIT",
    "TIME WITH TIME ZONE": "'12:00:00+05:30'::TIMETZ",
    "UHUGEINT": "order_id::UHUGEINT",
    "VARIANT": "order_id::VARIANT",
    "MAP(VARCHAR, TIME WITH TIME ZONE)": "MAP {'a': '12:00:00+05:30'::TIMETZ}",
    "STRUCT(b BIT)": "{'b': '0101'::BIT}",
}
# Beside those, what a lake does not return unchanged.
UNKEPT = {
    *("ARRAY", "ARRAY in STRUCT", "UNION", "ENUM", "LIST of ENUM", "HUGEINT", "LIST of HUGEINT", "BIGNUM", "TIME_NS"),
    "INTERVAL",
}


def declare(tiny, expressions, *, key=(), decisions=None):
    listed = "".join(f", {expression} AS t{i}" for i, expression in enumerate(expressions))
    sql = f"SELECT *{listed} FROM raw.orders WHERE day >= $start_date AND day < $end_date"
    return tiny.declare(sql, features={"key": ["order_id", *key]}, decisions=decisions or {})


def verdicts(tiny):
    pipeline = tiny.pipeline()
    with workspace(threads=1) as con:
        entries = recall.find(con, pipeline)
    return {(each.verdict, each.reasons) for each in replay(pipeline, entries, keys=())}


def kept_of(tiny):
    return [sql for name, sql in KEPT.items() if "lake" not in str(tiny.project.warehouse) or name not in UNKEPT]


@pytest.mark.lake("always")
@pytest.mark.parametrize("role", ["key", "carried", "decision"])
def test_a_type_is_kept(tiny, role):
    expressions = [sql for sql in kept_of(tiny) if role != "decision" or sql != KEPT["NaN"]]  # refused, test_not_finite
    columns = [f"t{i}" for i in range(len(expressions))]
    read = " OR ".join(f"{name} IS NULL" for name in columns)
    declare(
        tiny,
        expressions,
        key=columns if role == "key" else (),
        decisions={
            "key": {},
            "carried": {"any_null": read},
            "decision": {f"d{i}": f"t{i}" for i in range(len(columns))} | {"any_null": read},
        }[role],
    )
    result = tiny.run(FIRST)[FIRST]
    assert result.error is None and result.scoring.rows_scored == 50
    assert verdicts(tiny) == {("identical", ())}
    names = [name.replace("t", "d", 1) for name in columns] if role == "decision" else columns
    as_text = "SELECT order_id, {} FROM {} ORDER BY order_id"
    extracted = tiny.warehouse(as_text.format(", ".join(f"{name}::VARCHAR" for name in columns), "orders.features"))
    shown = ", ".join(f"{name}::VARCHAR" for name in names)
    assert tiny.warehouse(as_text.format(shown, "orders.predictions")) == extracted
    for name, stored, read in zip(
        expressions,
        *map(zip_columns, (extracted, tiny.published(as_text.format(shown, "orders.predictions")))),
        strict=True,
    ):
        assert stored == read, name
    assert tiny.scores() == tiny.expected(f"day = '{FIRST}'")


def zip_columns(rows):
    return list(zip(*rows, strict=True))[1:]


@pytest.mark.lake("always")
@pytest.mark.parametrize("role", ["key", "decision"])
def test_a_type_that_is_not_kept_is_refused_before_anything_is_stored(tiny, role):
    for name, expression in REFUSED.items():
        declare(tiny, [expression], key=["t0"] if role == "key" else (), decisions={"d": "t0"} if role != "key" else {})
        with pytest.raises(DeclarationError) as refused:
            tiny.run(FIRST)
        assert "'t0'" in str(refused.value) and "VARCHAR" in str(refused.value), name
    assert not tiny.project.published.exists()
    with pytest.raises(NoWarehouseError):
        tiny.warehouse("FROM ledger.extractions")


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.lake("never")
def test_a_file_keeps_it_as_a_feature_that_nothing_carries(tiny, name):
    declare(tiny, [REFUSED[name]])
    assert tiny.run(FIRST)[FIRST].error is None
    assert verdicts(tiny) == {("identical", ())}


@pytest.mark.slice
@pytest.mark.lake("only")
def test_a_lake_refuses_a_decision_that_it_would_change(tiny):
    for name in UNKEPT:
        row = KEPT[name].replace("order_id", "order_id::INT")
        tiny.declare(decisions={"d": row})
        with pytest.raises(DeclarationError, match="column 'd' of its predictions is .*or in the decision"):
            tiny.run(FIRST)
        with pytest.raises(NoWarehouseError):
            tiny.warehouse("FROM ledger.extractions")


@pytest.mark.parametrize("decision", ["NULL", "CASE WHEN score > 2 THEN NULL END"])
def test_a_decision_without_a_type(tiny, decision):
    tiny.declare(decisions={"nothing": decision})
    assert tiny.run(FIRST)[FIRST].error is None
    assert verdicts(tiny) == {("identical", ())}
