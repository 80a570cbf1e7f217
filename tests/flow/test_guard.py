"""What XGBoost would score silently wrong, one trap after the other: each fails here if its guard is taken away."""

import pytest
import xgboost as xgb

from pip_dagster.errors import DeclarationError
from pip_dagster.flow.guard import encode_features
from pip_dagster.registry.engines import engine_named
from pip_dagster.registry.errors import DigestMismatch
from pip_dagster.registry.manifest import Feature

SELECT = "SELECT {columns} FROM raw.orders WHERE day >= $start_date AND day < $end_date"
DAY = "2024-03-01"
POISONED = "2024-03-02"


def features(**replaced):
    """Feature SQL in which some columns are another expression; None leaves one out."""
    columns = {name: name for name in ("order_id", "day", "amount", "quantity", "gift", "shop")} | replaced
    return SELECT.format(columns=", ".join(f"{sql} AS {name}" for name, sql in columns.items() if sql))


def only_failure(results, *words):
    """The poisoned day alone has failed, for the reason that these words tell."""
    assert {key for key, result in results.items() if result.error} == {POISONED}
    for word in words:
        assert word in results[POISONED].error


def poison(tiny, **columns):
    """Give one row of the poisoned day these values."""
    values = ", ".join(f"{name} = {value}" for name, value in columns.items())
    tiny.source(f"UPDATE raw.orders SET {values} WHERE order_id = 60")


def test_the_scores_are_those_of_plain_xgboost(scored):
    expected = scored.expected()
    assert len(expected) == 200
    assert scored.scores() == expected
    assert len(set(expected.values())) > 50, "a model that tells rows apart, or nothing here could fail"


@pytest.mark.parametrize(
    "order", ["shop, gift, quantity, amount, order_id, day", "day, quantity, amount, shop, order_id, gift"]
)
def test_columns_in_any_order_score_the_same(tiny, order):
    tiny.declare(SELECT.format(columns=order)).run(DAY)
    assert tiny.scores() == tiny.expected(f"day = '{DAY}'")


def test_columns_that_the_model_does_not_know_change_nothing(tiny):
    tiny.declare(SELECT.format(columns="1 AS a0, 'x' AS amount2, *, NULL AS zz")).run(DAY)
    assert tiny.scores() == tiny.expected(f"day = '{DAY}'")


def test_a_missing_column_is_refused_and_the_close_one_named(tiny):
    tiny.declare(features(quantity=None, quantty="quantity"))
    with pytest.raises(DeclarationError, match=r"features\.sql.*'quantity' is missing \(there is 'quantty'\)"):
        tiny.run()
    assert not warehouse_exists(tiny)


def test_a_feature_is_found_in_other_capitals_unless_two_features_could_be_meant():
    rules = engine_named("xgboost").matrix

    def names(*features, **columns):
        found = [Feature(name=name, type="float") for name in features]
        return [each.name for each in encode_features(found, columns, rules, where="Pipeline p")]

    assert names("distance", Distance="DOUBLE") == ["distance"]
    with pytest.raises(DeclarationError, match=r"'distance' is missing \(there is 'Distance'\)"):
        names("Distance", "distance", Distance="DOUBLE")


def warehouse_exists(tiny):
    return tiny.project.warehouse.is_file()


class TestAnUnseenCategory:
    def test_is_scored_as_missing_and_counted(self, tiny):
        poison(tiny, shop="'Zuerich'")
        results = tiny.run()
        assert not any(result.error for result in results.values())
        assert tiny.scores() == tiny.expected()  # plain XGBoost with NaN for that code
        unseen = {"policy": "missing", "rows": {"shop": 1}}
        assert {key: result.scoring.found for key, result in results.items() if result.scoring.found} == {
            POISONED: {"unseen_category": unseen}
        }

    def test_scores_as_null_does(self, tiny):
        poison(tiny, shop="'Zuerich'")
        tiny.run(POISONED)
        unseen = tiny.scores(where="order_id = 60")
        poison(tiny, shop="NULL")
        assert not tiny.run(POISONED)[POISONED].scoring.found, "a NULL is no unseen category"
        assert tiny.scores(where="order_id = 60") == unseen

    def test_by_policy_error_fails_its_partition_and_stores_nothing_of_it(self, tiny):
        tiny.declare(scoring={"on_unseen_category": "error"})
        poison(tiny, shop="'Zuerich'")
        only_failure(tiny.run(), "shop in 1 row", "on_unseen_category is error")
        assert tiny.scores() == tiny.expected(f"day <> '{POISONED}'")
        assert tiny.warehouse(f"SELECT count(*) FROM orders.scores WHERE partition_key = '{POISONED}'") == [(0,)]
        assert tiny.warehouse("SELECT status, count(*) FROM ledger.scorings GROUP BY ALL ORDER BY ALL") == [
            ("failed", 1),
            ("scored", 3),
        ]

    def test_by_policy_quarantine_is_kept_apart_whole_with_its_reason(self, tiny):
        tiny.declare(scoring={"on_unseen_category": "quarantine"})
        poison(tiny, shop="'Zuerich'")
        entry = tiny.run()[POISONED].scoring
        assert (entry.rows_in, entry.rows_scored, entry.rows_quarantined) == (50, 49, 1)
        assert tiny.scores() == tiny.expected("order_id <> 60")
        kept = tiny.warehouse(
            "SELECT order_id, shop, quantity, note, broken, partition_key, scoring_id FROM orders.quarantine"
        )
        [quantity] = tiny.source_frame("order_id = 60")["quantity"]
        reason = ["unseen_category"]
        assert kept == [(60, "Zuerich", quantity, "not a feature", reason, POISONED, entry.scoring_id)]

    @pytest.mark.slice
    def test_differs_from_a_known_one_by_case_or_a_blank(self, tiny):
        tiny.declare(scoring={"on_unseen_category": "error"})
        for near in ("'PLAIN'", "'plain '", "''", "'Zu\u0308rich'"):
            poison(tiny, shop=near)
            only_failure(tiny.run(), "never seen")


def test_non_ascii_and_quoted_categories_have_the_codes_of_training(scored, helpers):
    for shop in helpers.SHOPS:
        where = "shop = '" + shop.replace("'", "''") + "'"
        expected = scored.expected(where)
        assert expected and scored.scores(where=f"order_id IN ({', '.join(map(str, expected))})") == expected
    one = scored.source_frame("order_id = 1")
    predicted = scored.expected("order_id = 1")
    others = {shop: matrix_score(scored, helpers, one.assign(shop=shop)) for shop in helpers.SHOPS}
    assert len(set(others.values())) > 1 and predicted[1] == others[one["shop"][0]], "the category matters to the score"


def matrix_score(tiny, helpers, frame):
    booster = xgb.Booster(model_file=str(tiny.registry.get("returns", 1).path / "model.ubj"))
    return float(booster.predict(helpers.matrix(frame))[0])


@pytest.mark.parametrize("code", ["0", "1::FLOAT", "list_position(['plain', 'x'], shop)", "gift"])
def test_codes_instead_of_categories_are_refused(tiny, code):
    tiny.declare(features(shop=code))
    with pytest.raises(DeclarationError, match=r"'shop' is .*categories 'Zürich'.* the category itself, not a code"):
        tiny.run(DAY)


def test_categories_from_an_enum_score_like_text(tiny, helpers):
    names = ", ".join("'" + name.replace("'", "''") + "'" for name in reversed(helpers.SHOPS))
    tiny.declare(features(shop=f"shop::ENUM({names})")).run(DAY)
    assert tiny.scores() == tiny.expected(f"day = '{DAY}'")


@pytest.mark.parametrize("infinity", ["inf", "-inf"])
@pytest.mark.parametrize("kind", ["DOUBLE", "FLOAT"])
def test_an_infinity_fails_its_partition_and_names_the_column(tiny, infinity, kind):
    tiny.declare(features(amount=f"amount::{kind}"))
    poison(tiny, amount=f"'{infinity}'::DOUBLE")
    only_failure(tiny.run(), "amount in 1 row (infinite")
    assert tiny.scores() == tiny.expected(f"day <> '{POISONED}'")


def test_a_double_beyond_float32_fails_its_partition(tiny):
    poison(tiny, amount="1e39")
    only_failure(tiny.run(), "amount in 1 row", "beyond float32")


def test_a_fraction_where_the_model_knows_whole_numbers_fails_its_partition(tiny):
    tiny.declare(features(quantity="CASE order_id WHEN 60 THEN 2.5 ELSE quantity END::DOUBLE"))
    only_failure(tiny.run(), "quantity in 1 row", "not whole")
    tiny.declare(features(quantity="CASE order_id WHEN 60 THEN 2.5 ELSE quantity END::DECIMAL(9, 2)"))
    only_failure(tiny.run(), "quantity in 1 row", "not whole")


@pytest.mark.parametrize(
    "replaced",
    [
        {"quantity": "quantity::DOUBLE"},
        {"quantity": "quantity::HUGEINT"},
        {"quantity": "quantity::UBIGINT"},
        {"quantity": "quantity::DECIMAL(9, 2)"},
        {"amount": "amount::DECIMAL(18, 2)"},
        {"amount": "amount::FLOAT"},
        {"quantity": "(SELECT sum(o.quantity) FROM raw.orders o WHERE o.order_id = orders.order_id)"},
    ],
)
def test_another_type_of_number_scores_the_same(tiny, replaced):
    tiny.declare(features(**replaced)).run(DAY)
    assert tiny.scores() == tiny.expected(f"day = '{DAY}'")


@pytest.mark.parametrize(
    ("replaced", "message"),
    [
        ({"gift": "gift::INT"}, r"'gift' is INTEGER; the model was trained on BOOLEAN"),
        ({"quantity": "gift"}, r"'quantity' is BOOLEAN; the model was trained on a number"),
        ({"amount": "amount::VARCHAR"}, r"'amount' is VARCHAR; the model was trained on a number"),
        ({"amount": "day"}, r"'amount' is DATE; the model was trained on a number"),
        ({"amount": "[amount]"}, r"'amount' is DOUBLE\[\]"),
        ({"amount": None, "gift": "1"}, r"'amount' is missing.*; 'gift' is INTEGER"),
    ],
)
def test_a_type_that_cannot_mean_the_feature_is_refused_before_anything_is_stored(tiny, replaced, message):
    tiny.declare(features(**replaced))
    with pytest.raises(DeclarationError, match=message):
        tiny.run()
    assert not warehouse_exists(tiny)


@pytest.mark.slice
def test_nan_and_null_are_both_missing(tiny):
    for nothing in ("NULL", "'nan'::DOUBLE"):
        poison(tiny, amount=nothing)
        tiny.run(POISONED)
        assert tiny.scores() == tiny.expected(f"day = '{POISONED}'")
    poison(tiny, quantity="NULL", gift="NULL")
    tiny.run(POISONED)
    assert tiny.scores() == tiny.expected(f"day = '{POISONED}'")


def test_a_column_with_no_value_at_all_is_found(tiny):
    tiny.source(f"UPDATE raw.orders SET amount = NULL WHERE day = '{POISONED}'")
    results = tiny.run()
    assert results[POISONED].scoring.found == {"all_missing": ["amount"]}
    assert results[DAY].scoring.found == {}
    assert tiny.scores() == tiny.expected()


def test_a_model_file_with_one_bit_flipped_never_reaches_xgboost(scored, monkeypatch):
    tiny = scored
    before = tiny.scores()
    file = tiny.registry.get("returns", 1).path / "model.ubj"
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.chmod(0o644)
    file.write_bytes(data)
    tiny.source("UPDATE raw.orders SET quantity = quantity + 1")
    loaded = []
    monkeypatch.setattr(xgb.Booster, "load_model", lambda self, data: loaded.append(data))
    with pytest.raises(DigestMismatch, match=r"returns v1: model\.ubj has sha256 .* was not used"):
        tiny.run()
    assert not loaded
    assert tiny.warehouse("SELECT count(*) FROM ledger.scorings") == [(4,)]
    assert tiny.scores() == before


def test_a_manifest_with_another_category_order_is_refused(tiny):
    file = tiny.registry.get("returns", 1).path / "manifest.json"
    file.chmod(0o644)
    file.write_text(file.read_text().replace("plain", "Plain"))
    with pytest.raises(DeclarationError, match=r"returns.*manifest\.json has sha256"):
        tiny.run()
    assert not warehouse_exists(tiny)
