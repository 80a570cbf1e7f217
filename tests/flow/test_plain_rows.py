"""Stored features that only the model reads: no row is staged where each of its numbers may be scored."""

import pytest

from pip_dagster.flow import plain_rows, stage

SELECT = "SELECT {columns} FROM raw.orders WHERE day >= $start_date AND day < $end_date"
DAY = "2024-03-02"


def declared(tiny, attributes=None, **replaced):
    """A project without gaps in its features, whose features of one day are stored; those replaced are other SQL."""
    columns = {"order_id": None, "day": None, "amount": "coalesce(amount, 0)", "quantity": "coalesce(quantity, 0)"}
    columns |= {"gift": "coalesce(gift, false)", "shop": "coalesce(shop, 'Köln')"} | replaced
    sql = SELECT.format(columns=", ".join(f"{value or name} AS {name}" for name, value in columns.items()))
    tiny.declare(sql, **(attributes or {})).run(DAY, predictions=False)
    return tiny


@pytest.fixture
def ways(monkeypatch):
    """How each partition's features went to the model: `plain`, `staged`, or `refused` by the first and then staged."""
    found = []
    write, load = plain_rows._write, stage.Stage.load

    def writing(*arguments):
        written = write(*arguments)
        found.append("plain" if written else "refused")
        return written

    def loading(*arguments):
        found.append("staged")
        load(*arguments)

    monkeypatch.setattr(plain_rows, "_write", writing)
    monkeypatch.setattr(stage.Stage, "load", loading)
    return found


@pytest.mark.parametrize("held", [plain_rows._HELD, 0])
def test_go_to_the_model_unstaged_and_replay_to_the_bit_staged(tiny, ways, monkeypatch, held):
    monkeypatch.setattr(plain_rows, "_HELD", held)
    declared(tiny)
    (result,) = tiny.run(DAY, features=False).values()
    assert ways == ["plain"]
    assert (result.scoring.rows_in, result.scoring.rows_scored) == (result.features.rows_extracted,) * 2 != (0, 0)
    tiny.shell("replay", "orders", DAY)
    assert ways == ["plain", "staged"]


def test_are_decided_on_with_their_partition(tiny, ways):
    declared(tiny, {"decisions": {"mine": f"partition_key = '{DAY}' AND amount >= 0"}})
    (result,) = tiny.run(DAY, features=False).values()
    assert not result.error
    assert ways == ["plain"]
    assert set(tiny.published("SELECT partition_key, mine, amount >= 0 FROM orders.predictions")) == {(DAY, True, True)}


@pytest.mark.parametrize(
    "replaced",
    [
        {"amount": "CASE order_id WHEN 60 THEN NULL ELSE coalesce(amount, 0) END"},
        {"amount": "CASE order_id WHEN 60 THEN 'nan' ELSE coalesce(amount, 0) END::DOUBLE"},
        {"amount": "CASE order_id WHEN 60 THEN '-3.4028234663852886e38' ELSE coalesce(amount, 0) END::DOUBLE"},
        {"shop": "CASE order_id WHEN 60 THEN 'never seen' ELSE 'Köln' END"},
        {"gift": "CASE order_id WHEN 60 THEN NULL ELSE true END"},
    ],
)
def test_are_staged_where_a_value_is_missing_or_could_be_refused(tiny, ways, replaced):
    declared(tiny, **replaced)
    (result,) = tiny.run(DAY, features=False).values()
    assert not result.error
    assert ways == ["refused", "staged"]


@pytest.mark.parametrize(
    ("replaced", "why"),
    [
        ({"amount": "CASE order_id WHEN 60 THEN 'inf' ELSE coalesce(amount, 0) END::DOUBLE"}, "infinite"),
        ({"amount": "CASE order_id WHEN 60 THEN '-inf' ELSE coalesce(amount, 0) END::FLOAT"}, "infinite"),
        ({"amount": "CASE order_id WHEN 60 THEN 1e39 ELSE coalesce(amount, 0) END::DOUBLE"}, "beyond float32"),
        ({"amount": "CASE order_id WHEN 60 THEN 3.4028235e38 ELSE 0 END::DOUBLE"}, "beyond float32"),
        ({"quantity": "CASE order_id WHEN 60 THEN 1.00000000001 ELSE 1 END::DOUBLE"}, "not whole"),
    ],
)
def test_are_refused_as_staged_ones_are(tiny, ways, replaced, why):
    declared(tiny, **replaced)
    (result,) = tiny.run(DAY, features=False).values()
    assert "in 1 row (" in result.error
    assert why in result.error
    assert ways == ["refused", "staged"]


@pytest.mark.parametrize(
    "reader",
    [
        {"monitoring": {}},
        {"explanations": {"top": 1, "at_most": 2}},
    ],
)
def test_are_staged_where_others_read_them_too(tiny, ways, reader):
    declared(tiny, reader)
    (result,) = tiny.run(DAY, features=False).values()
    assert not result.error
    assert ways == ["staged"]


def test_of_several_small_partitions_are_staged_together(tiny, ways):
    declared(tiny).run("2024-03-01", predictions=False)
    results = tiny.run("2024-03-01", DAY, features=False)
    assert not any(result.error for result in results.values())
    assert ways == ["staged"]
