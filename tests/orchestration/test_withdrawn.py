"""A rollback is a newer word than a run that was asked for before it, whoever launches that once more."""

import time
from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest
from dagster._core.definitions.job_base import InMemoryJob
from dagster._core.execution.api import execute_run

from pip_dagster import clock
from pip_dagster.ledger.rollback import rollback
from pip_dagster.orchestration import options
from pip_dagster.orchestration.definitions import build_definitions

FIRST, SECOND, THIRD, FOURTH = "2024-03-01", "2024-03-02", "2024-03-03", "2024-03-04"
BOUNDS = {"dagster/asset_partition_range_start": FIRST, "dagster/asset_partition_range_end": FOURTH}
PINNED = BOUNDS | {"pip_dagster/model_version": "2"}
RETRY = {"dagster/retry_number": "1"}
S = dg.DagsterRunStatus


class Shop:
    def __init__(self, tiny, instance):
        self.tiny, self.instance = tiny, instance
        self.job = build_definitions(tiny.pipeline()).resolve_job_def("orders_job")

    def ask(self, tags, status=S.NOT_STARTED, of=None):
        again = {"parent_run_id": of.run_id, "root_run_id": of.root_run_id or of.run_id} if of else {}
        return self.instance.create_run_for_job(self.job, tags=tags, status=status, **again)

    def execute(self, run):
        execute_run(InMemoryJob(self.job), run, self.instance, raise_on_error=False)
        return self.instance.get_run_by_id(run.run_id).status

    def why(self, run):
        events = [each.event_log_entry.dagster_event for each in self.instance.get_records_for_run(run.run_id).records]
        [failure] = [event.step_failure_data for event in events if event and event.is_step_failure]
        return failure.user_failure_data.description

    def live(self):
        rows = "SELECT partition_key, model_version FROM ledger.partitions WHERE is_live ORDER BY 1"
        return dict(self.tiny.warehouse(rows))


@pytest.fixture
def shop(scored):
    """All days by v1; one was v2 for a while, when the run that is to be had was asked for already."""
    scored.declare(partitions={"end": "2024-03-05"})
    with dg.DagsterInstance.ephemeral() as instance:
        yield Shop(scored, instance)


def roll_back(shop, *asked, **options):
    """The second day is made by v2 and rolled back, so many seconds after what was asked for."""
    time.sleep(2.1)  # Dagster's storage keeps whole seconds
    shop.tiny.run(SECOND, version=2)
    assert shop.live()[SECOND] == 2
    rollback(shop.tiny.project, "orders", why="wrong", by="eve", **(options or {"partitions": (SECOND, SECOND)}))
    assert shop.live()[SECOND] == 1


@pytest.mark.slice
def test_dagsters_retry_of_a_pinned_run_leaves_what_was_rolled_back_since(shop):
    first = shop.ask(PINNED, S.FAILURE)
    queued = shop.ask(PINNED)
    roll_back(shop)
    retry = shop.ask(PINNED | RETRY, of=first)
    assert shop.execute(retry) == S.FAILURE
    assert f"{SECOND} was rolled back from v2: wrong (by eve), after this run was requested" in shop.why(retry)
    assert shop.live() == {FIRST: 2, SECOND: 1, THIRD: 2, FOURTH: 2}, "the others are made"
    assert shop.execute(queued) == S.FAILURE, "nor does one that had waited for its turn"
    by_a_person = shop.ask(PINNED, of=first)
    assert shop.execute(by_a_person) == S.SUCCESS, "a new word"
    assert set(shop.live().values()) == {2}


@pytest.mark.soak
def test_so_does_a_run_by_the_alias(shop):
    shop.tiny.registry.set_alias("returns", "champion", 2, by="ada", why="better")
    first = shop.ask({"dagster/partition": SECOND}, S.FAILURE)
    roll_back(shop, to_version=1, partitions=(SECOND, SECOND))
    assert shop.execute(shop.ask({"dagster/partition": SECOND} | RETRY, of=first)) == S.FAILURE
    assert shop.live()[SECOND] == 1
    assert shop.execute(shop.ask({"dagster/partition": SECOND})) == S.SUCCESS
    assert shop.live()[SECOND] == 2


@pytest.mark.slice
def test_of_a_version_that_was_rolled_back_nothing_is_made(tiny):
    """Nothing came before it that the partitions could go back to: only the alias moved."""
    tiny.declare(partitions={"end": "2024-03-05"})
    tiny.registry.set_alias("returns", "champion", 2, by="ada", why="better")
    tiny.run(FIRST)
    with dg.DagsterInstance.ephemeral() as instance:
        shop = Shop(tiny, instance)
        first = shop.ask(PINNED, S.FAILURE)
        time.sleep(2.1)
        rollback(tiny.project, "orders", to_version=1, why="wrong", by="eve")
        retry = shop.ask(PINNED | RETRY, of=first)
        assert shop.execute(retry) == S.FAILURE
        assert "v2 was rolled back to v1 (by eve): wrong" in shop.why(retry)
        assert shop.live() == {FIRST: 2}


def test_a_rollback_while_a_run_is_at_work_stays(scored):
    """What it scores anew and what it only makes live again: neither goes over the rollback."""
    scored.run(FIRST, SECOND, THIRD, version=2)
    scored.source(f"UPDATE raw.orders SET quantity = 9 WHERE day = '{SECOND}'")

    def says(text):
        if "scoring" in text:
            rollback(scored.project, "orders", why="wrong", by="eve", partitions=(FIRST, SECOND))

    results = scored.run(FIRST, SECOND, THIRD, version=2, progress=says)
    for key in (FIRST, SECOND):
        assert f"{key} was rolled back from v2: wrong (by eve), after this run was requested" in results[key].error
    assert not results[THIRD].error
    live = "SELECT partition_key, model_version FROM ledger.partitions WHERE is_live ORDER BY 1"
    assert scored.warehouse(live) == [(FIRST, 1), (SECOND, 1), (THIRD, 2), (FOURTH, 1)]
    assert scored.warehouse("SELECT count(*) FROM ledger.scorings WHERE status = 'failed'") == [(0,)]
    assert not any(result.error for result in scored.run(FIRST, SECOND, version=2).values()), "asked for anew"
    assert [version for _, version in scored.warehouse(live)] == [2, 2, 2, 1]


@pytest.fixture
def shift(monkeypatch):
    """Set the clock of records, as a process that starts then finds it."""

    def set_to(hours):
        monkeypatch.setattr(clock, "wall", lambda: datetime.now(UTC) + timedelta(hours=hours))
        monkeypatch.setattr(clock, "_latest", datetime.min.replace(tzinfo=UTC))

    return set_to


@pytest.mark.slice
def test_a_run_after_a_rollback_by_a_clock_that_was_ahead(shop, shift):
    """The rollback is dated an hour from now. What a person launches now comes after it."""
    first = shop.ask(PINNED, S.FAILURE)
    shift(1)
    roll_back(shop)
    shift(0)
    assert shop.execute(shop.ask(PINNED)) == S.SUCCESS
    assert set(shop.live().values()) == {2}
    changes = shop.tiny.warehouse("SELECT partition_key, made_at FROM ledger.live_changes ORDER BY 1, change_id")
    assert changes == sorted(changes), "of each partition"
    assert first.status == S.FAILURE


@pytest.mark.soak
def test_a_run_that_had_waited_undoes_no_rollback_by_a_clock_that_was_ahead(shop, shift, monkeypatch):
    monkeypatch.setattr(options, "_SOON", timedelta(0))
    waiting = shop.ask(PINNED)
    first = shop.ask(PINNED, S.FAILURE)
    shift(1)
    roll_back(shop)
    shift(0)
    for run in (waiting, shop.ask(PINNED | RETRY, of=first)):
        assert shop.execute(run) == S.FAILURE
        assert f"{SECOND} was rolled back from v2: wrong (by eve, at " in shop.why(run)
        assert "a machine's clock was ahead" in shop.why(run) and "Launch it again" in shop.why(run)
    assert shop.live()[SECOND] == 1
