"""A partition does not go live empty, or with far fewer rows than before, unless somebody accepts that."""

import json
from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest
from click.testing import CliRunner

from pip_dagster.alerts.blocked import blocked_partitions
from pip_dagster.cli.main import cli
from pip_dagster.declaration.grid import closed_partitions
from pip_dagster.declaration.spec import Partitions
from pip_dagster.flow.plan import make_plan
from pip_dagster.flow.row_drop import too_few
from pip_dagster.orchestration.definitions import build_definitions
from pip_dagster.orchestration.options import FEWER_ROWS_TAG

DAY, NEXT = "2024-03-02", "2024-03-03"
EMPTY = f"DELETE FROM raw.orders WHERE day = '{DAY}'"
HALVED = f"DELETE FROM raw.orders WHERE day = '{DAY}' AND order_id % 5 > 0"


def live(tiny, day=DAY):
    return len(tiny.scores(where=f"partition_key = '{day}'"))


def held(tiny):
    return {each.partition.key: each.reasons[0].text for each in make_plan(tiny.pipeline(), tiny.partitions()).on_hold}


@pytest.mark.parametrize(("change", "rows"), [(EMPTY, 0), (HALVED, 10)])
def test_a_rerun_does_not_take_the_rows_away(scored, change, rows):
    scored.source(change)
    result = scored.run(DAY, NEXT)
    assert f"blocked: {rows} of its rows would be live, now it has 50" in result[DAY].error
    assert "--allow-fewer-rows" in result[DAY].error and not result[NEXT].error
    assert live(scored) == 50
    assert held(scored)[DAY].startswith(f"blocked: {rows} of its rows"), "not stale: a sensor does not try it again"
    assert list(blocked_partitions(scored.project, "orders")) == [DAY]
    scored.run(DAY, allow_fewer_rows=True)
    assert live(scored) == rows and held(scored) == {}
    assert scored.run(DAY)[DAY].error is None, "what was accepted is what later runs compare with"


def test_rows_that_come_back_are_live_again(scored):
    scored.source("CREATE TABLE raw.kept AS FROM raw.orders", EMPTY)
    scored.run(DAY)
    scored.source(f"INSERT INTO raw.orders FROM raw.kept WHERE day = '{DAY}'")
    assert scored.run(DAY)[DAY].error is None
    assert live(scored) == 50 and held(scored) == {}


def test_an_empty_scoring_of_the_past_does_not_return(scored):
    scored.source("CREATE TABLE raw.kept AS FROM raw.orders", EMPTY)
    scored.run(DAY, allow_fewer_rows=True)
    scored.source(f"INSERT INTO raw.orders FROM raw.kept WHERE day = '{DAY}'")
    scored.run(DAY)
    scored.source(EMPTY)
    assert "blocked: 0 of its rows" in scored.run(DAY)[DAY].error
    assert live(scored) == 50


def test_a_smaller_correction_goes_live(scored):
    scored.source(f"DELETE FROM raw.orders WHERE day = '{DAY}' AND order_id % 3 = 0")
    assert scored.run(DAY)[DAY].error is None and live(scored) < 40


def test_a_declaration_accepts_it_and_tries_again_what_it_blocked(scored):
    scored.source(EMPTY)
    scored.run(DAY)
    scored.declare(min_row_share=0)
    assert held(scored) == {}
    assert [each.partition.key for each in make_plan(scored.pipeline(), scored.partitions()).stale] == [DAY]
    scored.run(DAY)
    assert live(scored) == 0 and held(scored) == {}
    scored.declare()
    assert make_plan(scored.pipeline(), scored.partitions()).stale == (), "the share makes nothing stale"


def backfill(tiny, *words, **environment):
    words = ["--project", str(tiny.root), "backfill", "orders", *words, "--json"]
    result = CliRunner().invoke(cli, words, env={"DAGSTER_HOME": None} | environment)
    return result.exit_code, json.loads(result.stdout)


@pytest.mark.slice
@pytest.mark.parametrize("dagster", [False, True])
def test_a_backfill_ends_with_3_and_its_flag_accepts_it(scored, tmp_path, dagster):
    home = {"DAGSTER_HOME": str(tmp_path)} if dagster else {}
    scored.source(EMPTY)
    code, outcome = backfill(scored, "--from", DAY, "--to", NEXT, **home)
    assert code == 3 and list(outcome["failed"]) == [DAY] and live(scored) == 50
    code, outcome = backfill(scored, "--resume", "--allow-fewer-rows", **home)
    assert code == 0 and live(scored) == 0
    assert not outcome["failed"]


@pytest.mark.slice
@pytest.mark.parametrize("only", ["stale", "missing"])
def test_a_backfill_of_what_is_stale_names_what_is_on_hold(scored, only):
    scored.source(EMPTY)
    scored.run(DAY)
    words = ("--from", DAY, "--to", NEXT, "--only", only, "--allow-fewer-rows")
    for dry in ((), ("--dry-run",)):
        text = scored.shell("backfill", "orders", *words, "--no-dagster", *dry)
        assert "1 partition of the range on hold, which --only leaves out; without it they are built." in text
        assert f"{DAY}: blocked: 0 of its rows would be live" in text and "nothing to build" in text
        _, outcome = backfill(scored, *words, *dry)
        assert outcome["on_hold"].keys() == {DAY}
    text = scored.shell("backfill", "orders", *words[:4], "--allow-fewer-rows", "--no-dagster")
    assert "on hold" not in text and live(scored) == 0


@pytest.mark.slice
def test_a_dagster_run_fails_and_its_tag_accepts_it(scored):
    scored.source(EMPTY)
    job = build_definitions(scored.pipeline()).resolve_implicit_global_asset_job_def()
    with dg.instance_for_test() as instance:

        def run(**tags):
            return job.execute_in_process(
                instance=instance,
                partition_key=DAY,
                asset_selection=[dg.AssetKey(["orders", name]) for name in ("features", "predictions")],
                tags=tags,
                raise_on_error=False,
            )

        assert not run().success and live(scored) == 50
        assert run(**{FEWER_ROWS_TAG: "true"}).success and live(scored) == 0


def test_challengers_and_arms_get_no_emptied_partition(tiny):
    split = {"split": {"arms": {"challenger": "50%"}, "salt": "spring"}}
    tiny.registry.set_alias("returns", "challenger", 2, by="ada", why="to compare")
    tiny.declare(scoring=split).run()
    tiny.source(EMPTY)
    result = tiny.run(DAY)[DAY]
    assert "blocked" in result.error and result.challengers == () and live(tiny) == 50


def test_loaded_after_the_close_is_as_known_where_complete_after_says_so(tiny):
    tiny.source(
        "ALTER TABLE raw.orders ADD COLUMN loaded_at TIMESTAMPTZ",
        "UPDATE raw.orders SET loaded_at = timezone('UTC', (day + 1)::TIMESTAMP) + INTERVAL 2 HOUR",
    )
    orders = {"table": "raw.orders", "partition_column": "day", "available_at": "loaded_at"}
    tiny.declare(sources={"orders": orders}).run()
    assert "blocked: 0 of its rows" in tiny.run(DAY, as_known=True)[DAY].error
    assert live(tiny) == 50
    tiny.declare(sources={"orders": orders | {"complete_after": "2 hours"}})
    assert tiny.run(DAY, as_known=True)[DAY].error is None
    assert live(tiny) == 50
    assert "as_known" in str(tiny.warehouse("DESCRIBE ledger.live_changes"))


class TestANewPartition:
    """Judged by the live partitions of the weeks before it."""

    GRID = Partitions(every="day", start="2024-01-01", time_zone="Pacific/Auckland")

    def judge(self, counts, rows, grid=GRID):
        """The verdict on the partition that follows these."""
        days = closed_partitions(grid, datetime(2025, 1, 1, tzinfo=UTC))
        live = {day.key: (day.start, count) for day, count in zip(days, counts, strict=False)}
        return too_few(grid, 0.5, days[len(counts)], rows, live)

    def test_one_far_below_all_others_is_blocked(self):
        found = self.judge([3000] * 10, 0)
        assert "0 of its rows would be live; the 10 live partitions before it have 3,000 in the median" in found
        assert self.judge([3000] * 10, 1400) and not self.judge([3000] * 10, 1600)

    def test_a_pipeline_of_less_than_a_week_is_not_judged(self):
        assert not self.judge([3000] * 6, 0) and self.judge([3000] * 7, 0)

    def test_a_quiet_weekday_is_no_alarm(self):
        weeks = [3000, 3000, 3000, 3000, 3000, 900, 100] * 4  # from a Monday
        for day, count in enumerate(weeks[:7]):
            assert not self.judge(weeks + weeks[:day], count * 8 // 10), day
        assert self.judge(weeks + weeks[:5], 300), "far below the Saturdays before it"
        closed = [3000, 3000, 3000, 3000, 3000, 900, 0] * 4
        assert not self.judge(closed + closed[:6], 0)

    def test_small_numbers_are_no_alarm(self):
        assert not self.judge([5, 0, 8, 12, 3, 9, 14, 6, 7, 19], 0)
        assert not self.judge([19] * 20, 2)

    def test_growth_and_decline_are_no_alarm(self):
        assert not self.judge([int(3000 * 0.97**day) for day in range(60)], int(3000 * 0.97**60))
        assert not self.judge([100 * 2**week for week in range(4) for _ in range(7)], 1000)

    @pytest.mark.slice
    @pytest.mark.parametrize(("every", "needed"), [("15 minutes", 672), ("hour", 168), ("week", 4), ("month", 4)])
    def test_other_grids(self, every, needed):
        grid = Partitions(every=every, start="2023-01-01")
        assert not self.judge([500] * (needed - 1), 0, grid) and self.judge([500] * needed, 0, grid)

    def test_as_a_run_sees_it(self, tiny):
        moved = "SELECT * EXCLUDE i REPLACE (order_id + 1000 * i AS order_id, day + i::INT AS day)"
        tiny.source(f"INSERT INTO raw.orders {moved} FROM raw.orders, range(1, 5) r(i) WHERE day = '2024-03-04'")
        keys = [str((datetime(2024, 3, 1) + timedelta(days=i)).date()) for i in range(9)]
        tiny.run(*keys[:8])
        assert "blocked: 0 of its rows would be live; the 8 live partitions" in tiny.run(keys[8])[keys[8]].error
        assert tiny.run(keys[8], allow_fewer_rows=True)[keys[8]].error is None
