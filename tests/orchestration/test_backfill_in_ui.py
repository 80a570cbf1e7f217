"""What the UI shows of `pip-dagster backfill`: its runs by their job, grouped under the backfill."""

import dagster as dg
import pytest

from pip_dagster.flow import backfill as backfills
from pip_dagster.orchestration import backfill
from pip_dagster.orchestration.backfill import run_in_dagster
from pip_dagster.orchestration.keys import own_keys

pytestmark = pytest.mark.slow
FIRST, SECOND, THIRD = "2024-03-01", "2024-03-02", "2024-03-03"


def begin(tiny, why=""):
    request = backfills.BackfillRequest(FIRST, THIRD, "ada", why=why)
    return backfills.begin(tiny.pipeline(), request, chunk=2)


@pytest.mark.slice
def test_runs_are_grouped_and_name_their_partitions(tiny):
    with dg.instance_for_test() as instance:
        work, seen = begin(tiny), []
        run = run_in_dagster(tiny.pipeline(), instance, seen.append)
        for chunk in work.chunks:
            assert not [*run(work.backfill, chunk)][0].error
            record = instance.get_backfill(work.backfill.backfill_id[-8:])
            is_last = chunk[-1].key == THIRD
            assert record.status.value == ("COMPLETED_SUCCESS" if is_last else "COMPLETED_FAILED")
        runs = instance.get_runs()
        assert {each.job_name for each in runs} == {"orders_job"}
        assert {each.tags["dagster/backfill"] for each in runs} == {work.backfill.backfill_id[-8:]}
        assert {each.tags.get("partitions") for each in runs} == {f"{FIRST}…{SECOND}", None}
        assert not [each for each in runs if "" in each.tags.values()], "the UI shows an empty tag"
        assert record.tags["user"] == "ada" and record.backfill_end_timestamp
        assert {*record.asset_selection} == {*own_keys(tiny.pipeline().spec)}


@pytest.mark.slice
def test_all_keys_are_recorded_a_few_times_not_once_a_chunk(tiny, monkeypatch):
    """Dagster stores all keys of the backfill each time: of a year of hours by one, 8,736 times 8,736."""
    recorded = []
    record = backfill.record_backfill
    monkeypatch.setattr(backfill, "_SHARE", 1e9)
    monkeypatch.setattr(backfill, "record_backfill", lambda *of: recorded.append({*of[2].done}) or record(*of))
    with dg.instance_for_test() as instance:
        request = backfills.BackfillRequest(FIRST, "2024-03-04", "ada")
        work = backfills.begin(tiny.pipeline(), request, chunk=1)
        run = run_in_dagster(tiny.pipeline(), instance, lambda _: None)
        for chunk in work.chunks:
            assert not [*run(work.backfill, chunk)][0].error
        assert recorded == [{FIRST}, {FIRST, SECOND, THIRD, "2024-03-04"}]
        group = work.backfill.backfill_id[-8:]
        assert [each.tags["dagster/backfill"] for each in instance.get_runs()] == [group] * 4
        assert instance.get_backfill(group).status.value == "COMPLETED_SUCCESS"


@pytest.mark.slice
def test_a_failed_partition_leaves_the_backfill_failed_with_what_is_built(tiny):
    tiny.source(f"UPDATE raw.orders SET quantity = NULL, amount = 'inf' WHERE day = '{SECOND}'")
    with dg.instance_for_test() as instance:
        work = begin(tiny, why="a test")
        run = run_in_dagster(tiny.pipeline(), instance, lambda _: None)
        failed = [each.partition.key for chunk in work.chunks for each in run(work.backfill, chunk) if each.error]
        record = instance.get_backfill(work.backfill.backfill_id[-8:])
        assert failed == [SECOND] and record.status.value == "COMPLETED_FAILED"
        assert record.tags["pip_dagster/why"] == "a test"
