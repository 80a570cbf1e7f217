"""A rotation in the middle of a history: labels meet rows under the former secret as well as under the present one."""

from __future__ import annotations

import pytest

import pip_dagster
from pip_dagster.errors import DeclarationError
from pip_dagster.flow.label_window import label_window
from pip_dagster.flow.labels import label_sets, live_bases
from pip_dagster.ledger.performance import live_parts
from pip_dagster.promotion.arm_outcomes import arm_outcomes
from pip_dagster.warehouse.access import reading
from pip_dagster.warehouse.connect import workspace

DAYS = ("2024-03-01", "2024-03-02", "2024-03-03", "2024-03-04")
SECRET, OTHER = "0123456789abcdef" * 3, "f" * 32  # pragma: allowlist secret
FIRST = {"subject": "order_id", "pseudonymize": {"key_env": "KEY_1"}}
ROTATED = {
    "subject": "order_id",
    "pseudonymize": {"key_env": "KEY_2", "version": "k2", "former": {"k1": {"key_env": "KEY_1"}}},
}
SOURCES = {name: {"table": f"raw.{name}", "partition_column": "day"} for name in ("orders", "outcomes")}
DECLARED = {
    "sources": SOURCES,
    "labels": {"sql": "labels.sql", "outcome": "returned"},
    "monitoring": {"performance": {"segments": ["gift"]}},
}


@pytest.fixture
def shop(tiny, monkeypatch):
    """Three days under the first secret, with labels of nine of ten orders."""
    monkeypatch.setenv("KEY_1", SECRET)
    monkeypatch.setenv("KEY_2", OTHER)
    tiny.source(
        "CREATE TABLE raw.outcomes AS SELECT order_id, day, (quantity > 4)::INT AS returned FROM raw.orders "
        "WHERE order_id % 10 > 0"
    )
    (tiny.folder / "labels.sql").write_text(
        "SELECT order_id, returned FROM raw.outcomes WHERE day >= $start_date AND day < $end_date"
    )
    tiny.declare(privacy=FIRST, **DECLARED).run(*DAYS[:3])
    return tiny


def evaluated(shop):
    shop.shell("performance", "orders", "--evaluate")
    return shop.warehouse(
        "SELECT partition_key, rows, labelled, labels_digest FROM ledger.evaluations "
        "QUALIFY row_number() OVER (PARTITION BY partition_key ORDER BY evaluation_id DESC) = 1 ORDER BY ALL"
    )


@pytest.mark.slice
@pytest.mark.lake
def test_performance_counts_the_same_rows_before_and_after(shop):
    before = evaluated(shop)
    assert [row[1] for row in before] == [50, 50, 50] and all(40 <= row[2] < 50 for row in before)
    shop.declare(privacy=ROTATED, **DECLARED).run(DAYS[3])
    assert evaluated(shop)[:3] == before
    assert [row[2] for row in evaluated(shop)][3] > 40
    shop.source(f"UPDATE raw.orders SET amount = 3 WHERE day = '{DAYS[1]}'")
    shop.run(DAYS[1])
    assert [row[:3] for row in evaluated(shop)[:3]] == [row[:3] for row in before]


def window(shop):
    pipeline = shop.pipeline()
    with workspace(threads=1) as con:
        with reading(con, pipeline.project, purpose="a test"):
            live = [part.live for part in live_parts(con, "orders")]
        return label_window(con, pipeline, shop.registry.get("returns", 1).manifest, live)


def test_labels_are_counted_once_and_errors_say_how_many_there_are(shop):
    shop.declare(privacy=ROTATED, **DECLARED)
    assert window(shop).rows == 3 * 45
    shop.source(f"INSERT INTO raw.outcomes SELECT * FROM raw.outcomes WHERE day = '{DAYS[1]}' LIMIT 2")
    with pytest.raises(DeclarationError, match=r'2 keys \("order_id"\) have more than one label'):
        window(shop)
    shop.source(
        "DELETE FROM raw.outcomes WHERE day <> '2024-03-01'", "ALTER TABLE raw.outcomes ALTER returned TYPE TEXT"
    )
    shop.source("UPDATE raw.outcomes SET returned = 'no' WHERE order_id % 10 = 1")
    with pytest.raises(DeclarationError, match="5 outcomes are not"):
        window(shop)


def test_training_rows_have_one_label_and_are_of_the_present_secret(shop):
    shop.declare(privacy=ROTATED, **DECLARED)
    orders = pip_dagster.open(shop.root)["orders"]
    assert orders.features(DAYS[0], DAYS[2]).df()["order_id"].str.startswith("k2_").all()
    rows = orders.training_set(DAYS[0], DAYS[2])
    frame = rows.df()
    assert len(frame) == 150 and rows.manifest.labelled == 135
    assert frame["order_id"].str.startswith("k2_").all()
    stored = shop.warehouse("SELECT count(*), count(DISTINCT order_id) FROM orders.features WHERE order_id LIKE 'k1_%'")
    assert stored == [(150, 150)], "a rotation changes no stored row"


def test_arms_of_stored_rows_stay_and_are_compared_by_the_same_labels(shop):
    shop.registry.set_alias("returns", "challenger", 2, by="ada", why="to compare")
    split = {"split": {"arms": {"challenger": "40%"}, "salt": "spring"}}
    declared = DECLARED | {"scoring": split}

    def arms():
        manifest = shop.registry.get("returns", 1).manifest
        with workspace(threads=1) as con:
            found = arm_outcomes(con, shop.pipeline(), manifest, 9)
        rows = "SELECT arm, order_id, score FROM orders.predictions WHERE partition_key < $$2024-03-04$$ ORDER BY ALL"
        return [(each.arm, each.rows, each.units, each.labelled) for each in found], shop.warehouse(rows)

    shop.declare(privacy=FIRST, **declared).run(*DAYS[:3])
    before = arms()
    assert sum(each[3] for each in before[0]) == 135
    shop.declare(privacy=ROTATED, **declared)
    assert arms() == before
    shop.run(DAYS[3])
    after = arms()
    assert after[1] == before[1] and sum(each[3] for each in after[0]) == 180


@pytest.mark.parametrize("wrong", ["KEY_1", "KEY_2"])
def test_labels_by_another_secret_are_refused_as_features_are(shop, monkeypatch, wrong):
    shop.declare(privacy=ROTATED, **DECLARED).run(DAYS[3])
    evaluated(shop)
    shop.source("UPDATE raw.outcomes SET returned = 1 - returned")
    monkeypatch.setenv(wrong, "e" * 40)
    said = f"'{wrong.replace('KEY_', 'k')}' of the domain 'orders' is another than the one"
    with pytest.raises(DeclarationError, match=said):
        window(shop)
    assert said in shop.shell("performance", "orders", "--evaluate", code=1)
    if wrong == "KEY_2":
        for read in (lambda: label_sets(shop.pipeline(), shop.partitions()), lambda: shop.run(DAYS[0])):
            with pytest.raises(DeclarationError, match=said):
                read()
    assert len(live_bases(shop.pipeline(), DAYS)) == 4
