"""Performance over real runs: a regression is found from the labels, by its asset, its check and the command."""

import json
from datetime import UTC, datetime

import dagster as dg
import pytest

from pip_dagster.monitoring.performance import performance_findings
from pip_dagster.warehouse.connect import workspace

DAYS = [f"2024-03-{day:02}" for day in range(1, 25)]
# Each day its own three quarters of all 200 orders; what came of them follows the model until the 18th.
WORLD = (
    """CREATE OR REPLACE TABLE raw.orders AS
    SELECT (row_number() OVER ())::INTEGER AS order_id, d::DATE AS day, * EXCLUDE (order_id, day)
    FROM raw.orders, generate_series(DATE '2024-03-01', DATE '2024-03-24', INTERVAL 1 DAY) g(d)
    WHERE hash(order_id, d) % 4 < 3""",
    """CREATE TABLE raw.outcomes AS SELECT order_id, day,
    (coalesce(quantity + if(gift, 2, 0) + if(shop IN ('Zürich', 'plain'), 3, 0) + amount / 60, 0)
     + hash(order_id) % 100 / 40 - 1.25 > 7)::INT AS returned FROM raw.orders""",
)
REGRESSION = "UPDATE raw.outcomes SET returned = hash(order_id, 3) % 3 // 2 WHERE day > '2024-03-17'"
SOURCES = {name: {"table": f"raw.{name}", "partition_column": "day"} for name in ("orders", "outcomes")}
LABELS = {"sql": "labels.sql", "outcome": "returned"}


@pytest.fixture
def year(tiny):
    tiny.source(*WORLD)
    (tiny.folder / "labels.sql").write_text(
        "SELECT order_id, returned FROM raw.outcomes WHERE day >= $start_date AND day < $end_date"
    )
    tiny.declare(sources=SOURCES, labels=LABELS, monitoring={"performance": {"segments": ["gift"]}})
    tiny.run(*DAYS)
    return tiny


def execute(tiny, first, last):
    from pip_dagster.orchestration.definitions import build_definitions

    tags = {"dagster/asset_partition_range_start": first, "dagster/asset_partition_range_end": last}
    job = build_definitions(tiny.pipeline()).get_repository_def().get_job("__ASSET_JOB")
    key = dg.AssetKey(["orders", "performance"])
    instance = dg.DagsterInstance.ephemeral()
    result = job.get_subset(asset_selection={key}).execute_in_process(
        instance=instance, tags=tags, raise_on_error=False
    )
    events = [e.event_specific_data.materialization for e in result.all_events if e.is_step_materialization]
    return result, {event.partition: event.metadata for event in events}, result.get_asset_check_evaluations()


def findings(tiny):
    with workspace(threads=1) as con:
        found = performance_findings(con, tiny.pipeline())
    return {(each.rule, each.subject): each for each in found}


@pytest.mark.slice
def test_a_regression_is_in_alarm_and_equal_weeks_are_not(year):
    result, metadata, (check,) = execute(year, DAYS[0], DAYS[-1])
    assert result.success and [*metadata] == DAYS
    assert check.passed and check.description == f"No loss beyond what is allowed, up to partition {DAYS[-1]}."
    assert metadata[DAYS[0]]["auc"].value > 0.8 and metadata[DAYS[0]]["share with labels"].value == 1.0
    assert {each.state for each in findings(year).values()} == {"ok"}
    year.source(REGRESSION)
    result, metadata, (check,) = execute(year, DAYS[17], DAYS[-1])
    assert result.success and metadata[DAYS[20]]["restated"].value is True
    assert not check.passed and check.severity == dg.AssetCheckSeverity.WARN and "In alarm: auc: " in check.description
    found = findings(year)["trailing", "auc"]
    assert (found.state, found.event, found.partition_key, found.partitions) == ("alarm", "performance", DAYS[-1], 7)
    assert found.value < found.threshold < 1 and found.command == f"pip-dagster performance orders {DAYS[-1]}"
    assert findings(year)["trailing", "auc where gift = 'true'"].state == "alarm"


@pytest.mark.slice
def test_the_command_shows_windows_partitions_and_one_partition(year, monkeypatch):
    assert "no live partition is evaluated; 24 partitions are waiting" in year.shell("performance", "orders", code=1)
    text = year.shell("performance", "orders", "--evaluate", "--from", DAYS[2], "--to", DAYS[-1])
    assert "22 partitions evaluated" in text
    assert "7 to 2024-03-24" in text and "gift = false" in text and "No loss beyond what is allowed." in text
    assert "22 mature, 2 overdue" in text, "a newer partition counts"
    assert "0 partitions evaluated, 24 unchanged" not in year.shell("performance", "orders", "--evaluate")
    listed = json.loads(year.shell("performance", "orders", "--last", "3", "--json"))
    assert [each["partition_key"] for each in listed] == DAYS[-3:] and listed[0]["state"] == "mature"
    (one,) = json.loads(year.shell("performance", "orders", "--partition", DAYS[5], "--json"))
    assert {each["segment_value"] for each in one["figures"]} == {None, "true", "false"}
    whole = json.loads(year.shell("performance", "orders", "--json"))
    assert [each["partitions"] for each in whole["windows"] if each["segment"] is None] == [1, 7]
    assert "The interval of bias is by chance" in year.shell("performance", "orders", DAYS[5])
    for words in (("--partition", "1999-01-01"), ("--evaluate", "--from", "x")):
        assert "is not live" in year.shell("performance", "orders", *words, code=1)
    assert "go with --evaluate" in year.shell("performance", "orders", "--from", DAYS[0], code=2)
    with monkeypatch.context() as patch:
        patch.setattr("pip_dagster.cli.output.terminal_width", lambda stream=None: 80)
        for words in ((), ("--last", "5"), ("--partition", DAYS[5])):
            shown = year.shell("performance", "orders", *words)
            assert max(map(len, shown.splitlines())) <= 80, shown


@pytest.mark.slice
def test_a_partition_that_cannot_be_evaluated_fails_alone(year):
    year.source(f"INSERT INTO raw.outcomes FROM raw.outcomes WHERE day = '{DAYS[3]}'")
    result, metadata, _ = execute(year, DAYS[2], DAYS[4])
    assert not result.success and [*metadata] == [DAYS[2], DAYS[4]]


def test_a_metric_that_is_none_of_the_model_is_refused_with_those_that_are(year):
    year.declare(sources=SOURCES, labels=LABELS, monitoring={"performance": {"metric": "rmse2"}})
    assert "is not a figure of its model; expected one of auc," in year.shell(
        "performance", "orders", "--evaluate", "--from", DAYS[0], "--to", DAYS[0], code=1
    )


def with_held_out_rows(year, helpers):
    """Version 1 registered again, with labels that follow its scores."""
    sample = helpers.orders(400, seed=9)
    sample["returned"] = helpers.returned(sample)
    return year.registry.register(
        "returns",
        model=year.registry.get("returns", 1).path / "model.ubj",
        sample=sample,
        categories={"shop": helpers.SHOPS},
        by="ada",
        outcome="returned",
        held_out=True,
    )


@pytest.mark.slice
def test_a_loss_against_the_held_out_rows_of_the_registration_is_in_alarm(year, helpers, tmp_path):
    """The labels that the version was registered with follow its scores; those in production do not."""
    version = with_held_out_rows(year, helpers)
    assert version.manifest.held_out.metrics["auc"] > 0.8
    year.registry.set_alias("returns", "champion", version.version, by="ada", why="with facts")
    year.declare(sources=SOURCES, labels=LABELS, monitoring={}, reruns={"promotion": "all"})
    year.run(*DAYS)
    year.shell("performance", "orders", "--evaluate")
    assert findings(year)["held_out", "auc"].state == "ok"
    year.source(REGRESSION.replace("2024-03-17", "2024-02-01"))
    year.shell("performance", "orders", "--evaluate")
    found = findings(year)
    assert found["held_out", "auc"].state == "alarm" and "at registration" in found["held_out", "auc"].cause
    assert found["trailing", "auc"].state == "ok", "it was never better"


@pytest.mark.slice
def test_a_version_is_judged_by_its_own_registration_while_labels_of_the_next_are_not_complete(year, helpers):
    version = with_held_out_rows(year, helpers)
    year.registry.set_alias("returns", "champion", version.version, by="ada", why="with facts")
    year.declare(
        sources=SOURCES,
        labels=LABELS | {"complete_after": "3 days"},
        monitoring={},
        reruns={"promotion": "none"},
    )
    year.run(*DAYS[20:])
    year.shell("performance", "orders", "--evaluate")

    def rules(day):
        with workspace(threads=1) as con:
            found = performance_findings(con, year.pipeline(), now=datetime(2024, 3, day, tzinfo=UTC))
        return {(each.rule, each.partition_key) for each in found if each.event == "performance"}

    assert rules(24) == {("trailing", DAYS[19])}, "v1 has no held-out rows; v3, which scored since, has"
    assert ("held_out", DAYS[20]) in rules(25), "the labels of its first partition count"
