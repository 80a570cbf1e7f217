"""No text quotes a row: whatever fails, nothing that is stored, chained, logged, sent or shown has a key in it.

Keys are numbers that nothing else can be; so are the values of the other columns, which `privacy` hides as well.
"""

import json
import logging
import random
from pathlib import Path

import dagster as dg
import duckdb
import pytest
import yaml

from pip_dagster.alerts.blocked import blocked_partitions
from pip_dagster.orchestration.definitions import build_definitions
from pip_dagster.warehouse import kinds

pytestmark = pytest.mark.slice

DAYS = ("2024-03-01", "2024-03-02", "2024-03-03", "2024-03-04")
FEATURES, PREDICTIONS = dg.AssetKey(["orders", "features"]), dg.AssetKey(["orders", "predictions"])
KEYS = [7_310_000_000_000 + 7_919 * i + random.randrange(7_919) for i in range(200)]
QUANTITY, SHOP = 86_753_091, "zebra-86753"
SQL = """
    SELECT order_id, day, amount, quantity, gift, shop{more} FROM raw.orders
    WHERE day >= $start_date AND day < $end_date
"""
FUNCTION = """
def deliver(change, reader):
    raise ValueError(f"cannot take {reader.read_all().column('order_id').to_pylist()}")
"""
BETWEEN = "expect_column_values_to_be_between"
EXPECTED = {
    "sources": {
        "orders": [
            {"type": "expect_column_max_to_be_between", "kwargs": {"column": "order_id", "max_value": 9}, "name": "a"},
            {"type": BETWEEN, "kwargs": {"column": "order_id", "max_value": 9}, "name": "b"},
        ]
    },
    "features": [
        {"type": BETWEEN, "kwargs": {"column": "order_id", "max_value": 9}, "name": "c"},
        {"type": "expect_column_min_to_be_between", "kwargs": {"column": "order_id", "max_value": 9}, "name": "d"},
        {"type": BETWEEN, "kwargs": {"column": "quantity", "max_value": 100}, "name": "e"},
        {"type": "expect_column_max_to_be_between", "kwargs": {"column": "quantity", "max_value": 99}, "name": "f"},
        {"type": "expect_column_values_to_be_in_set", "kwargs": {"column": "shop", "value_set": ["x"]}, "name": "g"},
        {"type": "expect_column_distinct_values_to_be_in_set", "kwargs": {"column": "order_id", "value_set": [1]}},
        {
            "type": "expect_column_values_to_match_strftime_format",
            "kwargs": {"column": "shop", "strftime_format": "%Y"},
        },
    ],
}


def warnings(sections):
    """The same as warnings, so that partitions are scored."""
    return {
        name: warnings(each) if isinstance(each, dict) else [one | {"severity": "warning"} for one in each]
        for name, each in sections.items()
    }


class Nasty:
    """A project in which everything fails, with its Dagster; `texts` is all that it has told anybody."""

    def __init__(self, tiny, instance, home, declared):
        self.tiny, self.instance, self.home, self.declared = tiny, instance, home, declared
        listed = ", ".join(f"({i}, {key})" for i, key in enumerate(KEYS))
        tiny.source(
            "ALTER TABLE raw.orders ALTER order_id TYPE BIGINT",
            f"UPDATE raw.orders o SET order_id = k.key FROM (VALUES {listed}) k(i, key) WHERE o.order_id = k.i",
        )

    def declare(self, more="", sections=None, **changes):
        suite = self.tiny.folder / "expectations.yaml"
        suite.write_text(yaml.safe_dump(sections or {}, sort_keys=False))
        quality = {"expectations": "expectations.yaml", "max_quarantined": 0.5}
        self.tiny.declare(SQL.format(more=more), quality=quality, **self.declared, **changes)

    def run(self, selection=(FEATURES, PREDICTIONS)):
        definitions = build_definitions(self.tiny.pipeline())
        tags = dict(zip(("start", "end"), (DAYS[0], DAYS[-1]), strict=True))
        return definitions.resolve_implicit_global_asset_job_def().execute_in_process(
            instance=self.instance,
            asset_selection=list(selection),
            tags={f"dagster/asset_partition_range_{name}": day for name, day in tags.items()},
            raise_on_error=False,
        )

    def spoil(self, statement, day=DAYS[0]):
        self.tiny.source(f"UPDATE raw.orders SET {statement} WHERE day = '{day}' AND order_id % 10 < 3")

    def texts(self):
        """Where → what stands there."""
        found = {}
        for kind in kinds.KINDS:
            if kind.schema == kinds.LEDGER and kind.form == "table":
                found[f"ledger.{kind.name}"] = str(self.tiny.warehouse(f"FROM ledger.{kind.name}"))
        with duckdb.connect(str(self.tiny.project.published_database), read_only=True) as con:
            for name in ("partitions", "checks"):
                found[f"published {name}"] = str(con.execute(f"FROM ledger.{name}").fetchall())
        for file in [each for each in self.home.rglob("*") if each.is_file()]:
            found[str(file)] = file.read_bytes().decode("latin-1")
        found["blocked"] = str(blocked_partitions(self.tiny.project, "orders"))
        for words in (["status", "orders", "--json"], ["lineage", "orders", DAYS[0], "--json"]):
            found[words[0]] = self.tiny.shell(*words)
        page, data = self.home.parent / "report.html", self.home.parent / "report.json"
        self.tiny.shell("report", "orders", "--output", str(page), "--json", str(data))
        found |= {"report": page.read_text(), "report as JSON": data.read_text()}
        return found


@pytest.fixture
def nasty(tiny, tmp_path, private):
    home = tmp_path / "home"
    home.mkdir()
    with dg.DagsterInstance.local_temp(str(home)) as instance:
        yield Nasty(tiny, instance, home, {"privacy": {"subject": "order_id"}} if private else {})


@pytest.fixture(params=["without privacy", pytest.param("with privacy", marks=pytest.mark.soak)])
def private(request):
    return request.param == "with privacy"


def assert_nowhere(texts, words):
    found = {(where, word) for where, text in texts.items() for word in words if str(word) in text}
    assert not found


def test_whatever_fails_no_text_has_a_key(nasty, private, caplog, capfd, tmp_path):
    caplog.set_level(logging.INFO)
    nasty.declare()
    assert nasty.run().success
    (nasty.tiny.root / "places.py").write_text(FUNCTION)
    guard = ", CASE WHEN quantity < 0 THEN (order_id || shop)::INT ELSE 0 END AS parsed"
    deliver = {"crm": {"python": "places:deliver", "retries": 0}}

    # Verdicts, a quarantine, blocked partitions, and deliveries that fail with a text full of keys.
    nasty.spoil(f"quantity = {QUANTITY}, shop = '{SHOP}'")
    nasty.declare(sections=warnings(EXPECTED), deliver=deliver)
    assert nasty.run(selection=(FEATURES, PREDICTIONS, dg.AssetKey(["orders", "delivered"]))).run_id
    nasty.declare(sections=EXPECTED)
    assert not nasty.run().success
    critical = {"features": [each for each in EXPECTED["features"] if each.get("name") in ("e", "f")]}
    nasty.declare(sections=critical)
    nasty.run()

    # The SQL, a decision, keys that are NULL or occur twice.
    nasty.spoil("quantity = -1", DAYS[1])
    nasty.spoil("order_id = NULL", DAYS[2])
    copied = f"INSERT INTO raw.orders SELECT * FROM raw.orders WHERE day = '{DAYS[3]}' LIMIT 3"
    nasty.tiny.source(copied)
    nasty.declare(more=guard)
    failed = nasty.run()
    reasons = dict(
        nasty.tiny.warehouse("SELECT partition_key, max_by(reason, scoring_id) FROM ledger.scorings GROUP BY 1")
    )
    assert "Could not convert string … to INT32" in reasons[DAYS[1]] and "LINE" in reasons[DAYS[1]]
    assert "with a NULL in the key" in reasons[DAYS[2]] and "3 keys (order_id) occur more than once" in reasons[DAYS[3]]
    assert not failed.success
    nasty.declare(decisions={"wrong": "CAST(order_id || shop AS INT) > 0"})
    nasty.run()

    # Rows outside the range, and an error that nobody foresaw.
    nasty.tiny.source("DELETE FROM raw.orders WHERE order_id IS NULL")
    nasty.declare()
    text = (nasty.tiny.folder / "features.sql").read_text().replace("day < $end_date", "day < $end_date + 30")
    (nasty.tiny.folder / "features.sql").write_text(text.replace("$start_date AND", "$start_date + 2 AND"))
    nasty.run()

    printed = capfd.readouterr()
    texts = nasty.texts() | {"log": caplog.text, "printed": printed.out + printed.err}
    assert_nowhere(texts, KEYS)
    if private:
        assert_nowhere(texts, [QUANTITY, SHOP])
    else:  # of what may be quoted, it can be seen where to look
        assert str(QUANTITY) in texts["ledger.checks"]
    checks = nasty.tiny.warehouse("SELECT count(*), count(examples) FROM ledger.checks WHERE unexpected_count > 0")
    assert checks[0][0] > 5 and bool(checks[0][1]) != private
    assert json.loads(texts["status"]) and "3 keys" in texts["ledger.scorings"]
    assert nasty.tiny.warehouse("SELECT count(*) FROM ledger.deliveries WHERE error LIKE '%ValueError%'") != [(0,)]
    events = "".join(text for where, text in texts.items() if str(nasty.home) in where)
    assert "Could not convert string" in events and Path(nasty.home).is_dir()
