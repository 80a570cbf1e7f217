"""Each scoring keeps the counts of its columns on the bins of the model's reference: they are those of its rows."""

import numpy as np
import pytest

FIRST, SECOND = "2024-03-01", "2024-03-02"


@pytest.fixture
def monitored(tiny):
    tiny.declare(monitoring={}, decisions={"high": "score > 0.5"})
    return tiny


def profiles(tiny, key=FIRST):
    rows = tiny.warehouse(
        "SELECT column_kind, name, rows, counts, missing, unseen, mean, sd, gain FROM ledger.profiles "
        f"WHERE partition_key = '{key}' ORDER BY column_kind, name"
    )
    return {row[1]: row[2:] for row in rows}


def expected(values, reference):
    """Counts by numpy: bin i holds edges[i-1] < x <= edges[i]."""
    present = np.array([value for value in values if value is not None and value == value], np.float64)
    places = np.searchsorted(reference.edges, present, side="left")
    return np.bincount(places, minlength=len(reference.counts)).tolist(), len(values) - len(present), present


@pytest.mark.lake("always")
def test_counts_are_those_of_the_rows(monitored):
    monitored.run(FIRST, SECOND)
    manifest = monitored.registry.get("returns", "champion").manifest
    for key in (FIRST, SECOND):
        found = profiles(monitored, key)
        assert set(found) == {"amount", "quantity", "gift", "shop", "score", "high"}
        for name in ("amount", "quantity", "gift", "score"):
            table = "orders.scores" if name == "score" else "orders.features"
            values = [row[0] for row in monitored.warehouse(f"SELECT {name} FROM {table} WHERE partition_key='{key}'")]
            counts, missing, present = expected(values, (manifest.feature_reference | manifest.score_reference)[name])
            rows, got, got_missing, unseen, mean, sd, gain = found[name]
            assert (rows, got, got_missing, unseen) == (len(values), counts, missing, 0), name
            assert (mean, sd) == (pytest.approx(present.astype(np.float32).mean()), pytest.approx(present.std())), name
        shops = dict(
            monitored.warehouse(f"SELECT shop, count(*) FROM orders.features WHERE partition_key='{key}' GROUP BY 1")
        )
        assert found["shop"][1] == [shops.get(each, 0) for each in manifest.feature_reference["shop"].labels]
        high = monitored.warehouse(f"SELECT count(*) FROM orders.predictions WHERE partition_key='{key}' AND high")
        assert found["high"][1] == [found["high"][0] - high[0][0], high[0][0]]
    gains = {name: row[6] for name, row in profiles(monitored).items()}
    assert sum(gain for gain in gains.values() if gain) == pytest.approx(1) and gains["score"] is None


def test_without_a_declaration_nothing_is_kept(tiny):
    tiny.declare()
    tiny.run(FIRST)
    assert profiles(tiny) == {}


def test_unseen_categories_and_quarantined_rows(monitored):
    monitored.declare(monitoring={}, scoring={"on_unseen_category": "quarantine"}, quality=None)
    monitored.source(f"UPDATE raw.orders SET shop = 'new' WHERE order_id % 50 = 0 AND day = '{FIRST}'")
    monitored.run(FIRST)
    rows = monitored.warehouse(f"SELECT count(*) FROM orders.predictions WHERE partition_key = '{FIRST}'")[0][0]
    found = profiles(monitored)
    assert found["shop"][0] == found["score"][0] == rows < 50 and found["shop"][3] == 0
    monitored.declare(monitoring={}, scoring={"on_unseen_category": "missing"})
    monitored.run(FIRST)
    newest = monitored.warehouse(
        "SELECT rows, missing, unseen FROM ledger.profiles JOIN ledger.live USING (scoring_id) WHERE name = 'shop'"
    )
    assert newest == [(50, 0, 50 - rows)]
