"""What a first user stumbles over: names that are taken, stars, brackets, decisions that depend on their neighbours."""

import shutil

import pytest
import yaml
from pydantic import ValidationError

from pip_dagster.errors import DeclarationError
from pip_dagster.warehouse.connect import open_warehouse, workspace
from pip_dagster.warehouse.published import publish_pending

FIRST, SECOND = "2024-03-01", "2024-03-02"
WHERE = "WHERE day >= $start_date AND day < $end_date"
SMALL = {"type": "expect_column_values_to_be_between", "kwargs": {"column": "quantity", "max_value": 50}}


def expect(tiny, **section):
    (tiny.folder / "expectations.yaml").write_text(yaml.safe_dump(section))
    return tiny


@pytest.mark.parametrize(
    "sql", ["SELECT * FROM raw.orders", "SELECT *\nFROM raw.orders", "SELECT o.* FROM raw.orders o", "FROM raw.orders"]
)
def test_an_expectation_is_taken_on_a_feature_that_comes_by_a_star(tiny, sql):
    expect(tiny, features=[SMALL]).declare(f"{sql} {WHERE}", quality="expectations.yaml")
    assert tiny.run(FIRST)[FIRST].error is None


@pytest.mark.parametrize(
    "sql",
    [
        "WITH o AS (SELECT order_id, day, gift, shop, quantity, amount FROM raw.orders) SELECT * FROM o",
        "WITH o AS (SELECT *, quantitty FROM raw.orders) SELECT order_id, day, gift, shop, quantity, amount FROM o",
        "FROM raw.orders SELECT order_id, day, gift, shop, quantity, amount",
        "SELECT order_id, day, gift, shop, quantity, amount /* quantitty */ FROM raw.orders",
        "SELECT order_id, day, gift, shop, quantity, amount, quantitty AS q FROM raw.orders",
    ],
)
def test_an_expectation_on_a_column_that_the_sql_does_not_give_is_refused_at_load(tiny, sql):
    wrong = {**SMALL, "kwargs": {"column": "quantitty", "max_value": 50}}
    expect(tiny, features=[wrong]).declare(f"{sql} {WHERE}", quality="expectations.yaml")
    with pytest.raises(
        DeclarationError, match=r"expectations.yaml:\d+: .*'quantitty', which features.sql does not have"
    ):
        tiny.pipeline()
    expect(tiny, features=[SMALL])
    assert tiny.pipeline().suites.features


def test_a_product_is_no_star(tiny):
    wrong = {**SMALL, "kwargs": {"column": "quantitty", "max_value": 50}}
    expect(tiny, features=[wrong]).declare(
        f"SELECT order_id, day, gift, shop, quantity, amount, quantity * 2 AS twice FROM raw.orders {WHERE}",
        quality="expectations.yaml",
    )
    with pytest.raises(DeclarationError, match="'quantity'"):
        tiny.pipeline()


@pytest.mark.parametrize("name", ["rowid", "ROWID", "row_id", "reasons", "Broken", "row_key", "feature_revision"])
def test_a_column_that_would_shadow_our_own_is_refused(tiny, name):
    tiny.declare(f"SELECT *, 1 AS {name} FROM raw.orders {WHERE}")
    with pytest.raises(DeclarationError, match="rename"):
        tiny.run(FIRST)


@pytest.mark.parametrize("name", ["published", "memory", "warehouse", "pip_stage", "pip_wide"])
def test_a_pipeline_with_the_name_of_a_schema_of_the_warehouse_is_refused(tiny, name):
    with pytest.raises(ValidationError, match=name):
        tiny.declare(name=name).pipeline()


@pytest.mark.parametrize("name", ["memory", "pip_stage", "temp", "information_schema"])
def test_a_source_in_a_schema_that_duckdb_or_the_stage_has_is_refused(tiny, name):
    with pytest.raises(ValidationError, match=name):
        tiny.declare(sources={"orders": {"table": f"{name}.orders"}}).pipeline()


@pytest.mark.parametrize(
    ("decision", "says"),
    [
        ("rank() OVER (ORDER BY score)", "window"),
        ("score > random()", "random"),
        ("now() > '2020-01-01'", "now"),
        ("current_date > day", "current_date"),
        ("score > (SELECT avg(score) FROM memory.pip_stage.scores)", "a subquery"),
        ("(SELECT count(*) FROM read_csv('/etc/passwd')) > 0", "a subquery"),
        ("current_setting('threads') > 1", r"current_setting\(\)"),
        ("getvariable('x')", r"getvariable\(\)"),
        ("score > 0.5) , (SELECT 1", "is not a single SQL expression"),
        ("score, 1", "it gives several values"),
        ("unnest([score])", r"unnest\(\)"),
    ],
)
def test_a_decision_depends_on_its_row_alone(tiny, decision, says):
    with pytest.raises(DeclarationError, match=f"Pipeline orders: decisions.late .*{says}"):
        tiny.declare(decisions={"late": decision}).run(FIRST)


def test_a_decision_on_a_misspelt_feature_names_the_one_that_is_there(tiny):
    with pytest.raises(DeclarationError, match=r"did you mean 'amount'\?"):
        tiny.declare(decisions={"big": "amuont > 50"}).run(FIRST)


@pytest.mark.parametrize("name", ["model_version", "scored_at", "scoring_id"])
def test_a_decision_cannot_be_called_like_what_the_predictions_say_themselves(tiny, name):
    with pytest.raises(DeclarationError, match=name):
        tiny.declare(decisions={name: "true"}).run(FIRST)


def test_a_decision_finds_columns_as_duckdb_does(tiny):
    tiny.declare(decisions={"big": 'AMOUNT > 50 AND "Quantity" > 2'})
    assert tiny.run(FIRST)[FIRST].error is None


def test_a_key_of_another_type_than_the_stored_ones_fails_and_they_stay(tiny):
    tiny.run(FIRST)
    tiny.declare(f"SELECT * REPLACE (order_id::VARCHAR AS order_id) FROM raw.orders {WHERE}")
    assert "in the stored scores it is BIGINT" in tiny.run(SECOND)[SECOND].error
    assert tiny.scores() == tiny.expected(f"day = '{FIRST}'")
    tiny.declare(f"SELECT * REPLACE (order_id::INTEGER AS order_id) FROM raw.orders {WHERE}")
    assert tiny.run(SECOND)[SECOND].error is None


def test_a_parquet_source_is_found_under_a_path_with_brackets(tiny):
    root = tiny.root.parent / "shop [1]"
    tiny.source(f"COPY raw.orders TO '{tiny.root / 'orders.parquet'}' (FORMAT parquet)")
    shutil.move(tiny.root, root)
    moved = type(tiny)(root).declare(
        sources={"orders": {"table": "raw.orders", "parquet": "orders*.parquet", "partition_column": "day"}}
    )
    assert moved.run(FIRST)[FIRST].error is None


def test_published_files_that_were_removed_are_written_again(tiny):
    tiny.run()
    before = tiny.scores()
    shutil.rmtree(tiny.project.published)
    tiny.run(FIRST)
    assert tiny.scores() == before


def test_a_damaged_published_file_is_written_again_when_asked(tiny):
    tiny.run()
    before = tiny.scores()
    (tiny.project.published / "orders" / "rows-0001.duckdb").write_bytes(b"")
    with workspace(threads=1) as con, open_warehouse(con, tiny.project.warehouse, purpose="test"):
        assert publish_pending(con, tiny.project, everything=True) == 4
    assert tiny.scores() == before


def test_a_quarantined_value_of_any_size_can_be_published(tiny):
    expect(tiny, features=[SMALL]).declare(
        "SELECT * REPLACE (CASE WHEN order_id % 50 = 0 THEN 170141183460469231731687303715884105727 ELSE quantity END "
        f"AS quantity) FROM raw.orders {WHERE}",
        quality="expectations.yaml",
    )
    result = tiny.run(FIRST)[FIRST]
    assert (result.error, result.scoring.rows_quarantined) == (None, 1)
    assert tiny.published("SELECT quantity FROM orders.quarantine") == [(170141183460469231731687303715884105727,)]


def test_a_deadline_that_is_no_number_is_told(tiny, monkeypatch):
    monkeypatch.setenv("PIP_DAGSTER_LOCK_DEADLINE", "soon")
    with pytest.raises(Exception, match="expected seconds"):
        tiny.run(FIRST)
