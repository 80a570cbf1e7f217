"""A clock that was set back, or is behind another machine's, changes no order: of ids, changes, moves or reports."""

import json
import os
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pip_dagster import clock
from pip_dagster.errors import BackfillError, WarehouseError
from pip_dagster.flow import backfill as backfills
from pip_dagster.flow.materialize import materialize
from pip_dagster.flow.plan import make_plan
from pip_dagster.ledger.record import RunInfo, new_id
from pip_dagster.ledger.rollback import rollback
from pip_dagster.ledger.verify import verify
from pip_dagster.promotion.reports import newest_report, store_report
from pip_dagster.statistics.gate_result import GateReport
from pip_dagster.warehouse.connect import open_warehouse, workspace

DAYS = ("2024-03-01", "2024-03-02", "2024-03-03", "2024-03-04")


@pytest.fixture
def shift(monkeypatch):
    """Set the clock, as a process that starts then finds it: it has read nothing yet."""

    def set_to(hours):
        monkeypatch.setattr(clock, "wall", lambda: datetime.now(UTC) + timedelta(hours=hours))
        monkeypatch.setattr(clock, "_latest", datetime.min.replace(tzinfo=UTC))

    return set_to


def live(tiny):
    rows = tiny.warehouse("SELECT partition_key, model_version FROM ledger.partitions WHERE is_live ORDER BY 1")
    return [version for _, version in rows]


def planned(tiny):
    """The plan of the four days; each process reads the clock anew."""
    plan = make_plan(tiny.pipeline(), tiny.partitions())
    return [reason.kind for each in plan.stale for reason in each.reasons], plan.current


@pytest.mark.lake
def test_a_rollback_with_the_clock_set_back(promoted, ledger, shift):
    shift(-1)
    result = rollback(promoted.project, "orders", why="worse", by="eve")
    assert (result.alias.before, result.alias.after, len(result.flips)) == (2, 1, 4)
    assert live(promoted) == [1] * 4 and promoted.registry.alias("returns", "champion") == 1
    assert ledger.verified(promoted) is None
    shift(0)
    history = promoted.registry.alias_history("returns")
    assert [move.version for move in history] == [1, 2, 1]
    assert [move.at for move in history] == sorted(move.at for move in history)
    assert planned(promoted) == ([], 4)
    assert "the alias names returns v1" not in promoted.shell("models", "rollback", "orders", "--dry-run")
    assert promoted.scores() == promoted.expected(version=1)


def test_a_run_with_the_clock_set_back(scored, shift):
    shift(-2)
    scored.source("UPDATE raw.orders SET quantity = 1 + quantity % 8")
    assert planned(scored) == (["source_changed"] * 4, 0)
    assert not any(result.error for result in scored.run().values())
    assert planned(scored) == ([], 4) and scored.scores() == scored.expected()
    shift(0)
    assert planned(scored) == ([], 4)


def test_a_source_that_changes_twice_with_the_clock_set_back(scored, shift):
    for _ in range(2):
        shift(-3)
        scored.source("UPDATE raw.orders SET quantity = 1 + quantity % 8 WHERE day = '2024-03-02'")
        scored.run()
        assert planned(scored) == ([], 4)
    assert scored.scores() == scored.expected()


def test_a_promotion_after_a_rollback_with_the_clock_set_back(promoted, ledger, shift):
    rollback(promoted.project, "orders", why="worse", by="eve")
    shift(-1)
    assert planned(promoted) == ([], 4)
    promoted.shell("models", "promote", "returns", "v2", "--override", "better after all")
    promoted.declare(reruns={"promotion": "all"})
    assert planned(promoted)[0] == ["model_promoted"] * 4
    assert not any(result.error for result in promoted.run(version=None).values())
    assert live(promoted) == [2] * 4


def test_a_rollback_of_some_partitions_with_the_clock_set_back_takes_precedence(promoted, shift):
    shift(-1)
    rollback(promoted.project, "orders", partitions=(DAYS[0], DAYS[1]), why="worse", by="eve")
    promoted.declare(reruns={"promotion": "all"})
    assert live(promoted) == [1, 1, 2, 2] and planned(promoted) == ([], 2)


def test_a_run_under_way_leaves_what_was_rolled_back_with_the_clock_set_back(promoted, shift):
    run = RunInfo("run-9", "a run")
    promoted.warehouse("SELECT 1")  # what the run did before: the lock's file has the time
    shift(-1)
    rollback(promoted.project, "orders", partitions=(DAYS[0], DAYS[0]), why="worse", by="eve")
    [result] = materialize(promoted.pipeline(), promoted.partitions(DAYS[0]), run)
    assert "was rolled back from v2" in result.error and live(promoted) == [1, 2, 2, 2]


def test_a_backfill_that_began_before_a_rollback_with_the_clock_set_back(scored, shift):
    work = backfills.begin(scored.pipeline(), backfills.BackfillRequest(DAYS[0], DAYS[-1], "ada", version=2))
    list(backfills.run_in_process(scored.pipeline(), print)(work.backfill, scored.partitions(DAYS[0])))
    shift(-1)
    rollback(scored.project, "orders", partitions=(DAYS[0], DAYS[0]), to_version=1, why="worse", by="eve")
    with pytest.raises(BackfillError, match="Resuming it would undo that"):
        backfills.resume(scored.pipeline(), None)


def test_a_canary_stopped_and_resumed_with_the_clock_set_back(scored, shift):
    scored.registry.set_alias("returns", "challenger", 2, by="ada", why="to try")
    scored.declare(scoring={"canary": {"arms": {"challenger": "40%"}, "salt": "a"}})
    scored.shell("models", "canary", "orders", "--stop", "worse")
    shift(-1)
    text = scored.shell("models", "canary", "orders", "--resume", "better")
    assert "scores 40% of the units" in text


def test_moves_that_an_earlier_release_recorded_out_of_order(scored):
    """It wrote the wall clock. The order of the file counts."""
    path = scored.project.registry / "returns" / "aliases" / "champion.json"
    [first] = json.loads(path.read_text())
    moves = [
        first,
        first | {"version": 2, "previous": 1, "at": "2026-01-02T12:00:00Z"},
        first | {"version": 1, "previous": 2, "at": "2026-01-02T11:00:00Z"},
    ]
    path.write_text(json.dumps([moves[0] | {"at": "2026-01-01T00:00:00Z"}, *moves[1:]]))
    assert [move.version for move in scored.registry.alias_history("returns")] == [1, 2, 1]
    assert [row["version"] for row in json.loads(scored.shell("models", "history", "returns", "--json"))] == [1, 2, 1]
    assert scored.registry.set_alias("returns", "champion", 2, by="eve", why="").at > datetime(
        2026, 1, 2, 12, tzinfo=UTC
    )
    with workspace(threads=1) as con, open_warehouse(con, scored.project.warehouse, purpose="test", read_only=True):
        assert verify(con, moves={"returns": scored.registry.alias_history("returns")}) is None


def test_a_clock_that_was_ahead_makes_no_partition_final(scored, shift):
    """Records of the future exist; whether a source is complete is a question of this machine's clock."""
    wait = datetime.now(UTC) - datetime(2024, 3, 2, tzinfo=UTC) + timedelta(days=10)
    orders = {"table": "raw.orders", "partition_column": "day", "complete_after": f"{wait.days} days"}
    shift(24 * 30)
    scored.source("UPDATE raw.orders SET quantity = 1 + quantity % 8 WHERE day = '2024-03-04'")
    scored.run("2024-03-04")
    shift(0)
    scored.run("2024-03-04")  # the process has seen them
    scored.declare(sources={"orders": orders})
    scored.source("UPDATE raw.orders SET quantity = 1 + quantity % 8 WHERE day = '2024-03-01'")
    assert scored.run("2024-03-01")["2024-03-01"].scoring.provisional


def test_a_failure_of_a_clock_that_was_ahead_is_tried_again(scored, shift):
    shift(24 * 365)
    scored.source("UPDATE raw.orders SET amount = 'inf' WHERE day = '2024-03-01'")
    assert scored.run("2024-03-01")["2024-03-01"].error
    shift(0)
    (stale,) = make_plan(scored.pipeline(), scored.partitions()).stale
    assert [reason.text for reason in stale.reasons] == ["failed, attempt 2 of 3"]


def test_the_newest_report_of_a_gate(tmp_path, shift):
    at = datetime.now(UTC)
    fields = SimpleNamespace(model_name="returns", candidate=2)
    report = GateReport("orders", fields.model_name, "champion", 2, 1, (), (), (), (), "ada", at, 1.0)
    store_report(tmp_path, report)
    shift(-1)
    store_report(tmp_path, replace(report, made_by="eve", made_at=at - timedelta(hours=1)))
    assert newest_report(tmp_path, "returns", 2).made_by == "eve"


@pytest.mark.lake
def test_a_machine_that_is_behind_another_one(scored, shift):
    shift(1)
    scored.source("UPDATE raw.orders SET quantity = 1 + quantity % 8")
    scored.run()
    shift(0)
    scored.source("UPDATE raw.orders SET quantity = 1 + quantity % 8")
    scored.run()
    assert planned(scored) == ([], 4) and scored.scores() == scored.expected()


@given(st.lists(st.integers(-10_000, 10_000), min_size=1, max_size=20))
def test_ids_and_instants_only_rise(hours):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clock, "_latest", datetime.min.replace(tzinfo=UTC))
        ids, instants = [], []
        for each in hours:
            patch.setattr(clock, "wall", lambda each=each: datetime(2026, 1, 1, tzinfo=UTC) + timedelta(hours=each))
            ids.append(new_id())
            instants.append(clock.now())
    assert ids == sorted(set(ids)) and instants == sorted(set(instants))


FAR = "9999-12-31T23:59:59.999999Z"


def test_a_move_of_a_time_that_no_clock_shows_is_damage(scored, shift):
    shift(0)
    path = scored.project.registry / "returns" / "aliases" / "champion.json"
    whole = path.read_text()
    [first] = json.loads(whole)
    path.write_text(json.dumps([first | {"at": FAR}]))
    for command in (["status"], ["models", "list"], ["models", "history", "returns"], ["plan", "orders"]):
        text = scored.shell(*command, code=0 if command == ["status"] else 1)
        assert command == ["status"] or ("champion.json is not an alias history" in text and "9999-12-31" in text)
    assert "which no clock shows" in scored.shell("models", "promote", "returns", "v2", "--override", "x", code=1)
    path.write_text(whole)
    assert planned(scored) == ([], 4), "nothing else was taken from it"
    assert clock.now() < clock.LAST


def test_records_of_a_time_that_no_clock_shows_do_not_move_those_that_follow(scored, shift):
    shift(0)
    scored.tamper(
        "UPDATE ledger.scorings SET made_at = 'infinity' WHERE partition_key = '2024-03-01'",
        f"UPDATE ledger.extractions SET made_at = '{FAR}' WHERE partition_key = '2024-03-01'",
    )
    lock_file = scored.project.warehouse.with_name(scored.project.warehouse.name + ".lock")
    os.utime(lock_file, (4e11, 4e11))
    scored.source("UPDATE raw.orders SET quantity = 1 + quantity % 8 WHERE day = '2024-03-02'")
    assert scored.run("2024-03-02")["2024-03-02"].scoring.made_at < clock.LAST


def test_a_live_change_of_a_time_that_no_clock_shows_is_refused_in_a_sentence(scored, shift):
    shift(0)
    scored.tamper(
        "UPDATE ledger.live_changes SET change_id = '99991231T235959999999-00000000' WHERE partition_key = '2024-03-02'"
    )
    scored.source("UPDATE raw.orders SET quantity = 1 + quantity % 8 WHERE day >= '2024-03-02'")
    with pytest.raises(WarehouseError, match="a time that no clock shows"):
        scored.run("2024-03-02")
