"""The asset `<name>/report`: the page that the command writes, by a run of its own job, on a schedule."""

import dagster as dg
import pytest

from pip_dagster.errors import DeclarationError
from pip_dagster.orchestration.definitions import build_definitions
from pip_dagster.orchestration.report import default_cron


@pytest.fixture
def monitored(tiny):
    tiny.declare(monitoring={})
    tiny.run()
    return tiny


def build(tiny):
    job = build_definitions(tiny.pipeline()).resolve_job_def("orders_report_job")
    return job.execute_in_process(instance=dg.DagsterInstance.ephemeral(), raise_on_error=False)


def test_a_run_writes_what_the_command_writes_and_links_it(monitored):
    result = build(monitored)
    (event,) = result.asset_materializations_for_node("orders__report")
    file = monitored.root / "data" / "reports" / "orders" / "report.html"
    assert event.asset_key == dg.AssetKey(["orders", "report"]) and event.partition is None
    assert event.metadata["open this file"].value == str(file)
    assert event.metadata["verdict"].value.startswith("ok: No rule is in alarm")
    assert event.metadata["size (kB)"].value == round(file.stat().st_size / 1000)
    monitored.shell("report", "orders", "-o", str(monitored.root / "again.html"))
    assert (monitored.root / "again.html").read_bytes() == file.read_bytes()
    assert sorted(path.name for path in file.parent.iterdir()) == ["report.html", "report.json"]


def test_before_the_first_partition_it_says_so(tiny):
    tiny.declare(monitoring={})
    result = build(tiny)
    (event,) = result.asset_materializations_for_node("orders__report")
    assert event.metadata["verdict"].value == "unknown: Nothing is judged yet."


def test_what_cannot_be_written_fails_with_one_sentence(monitored):
    (monitored.root / "data").write_text("in the way")
    result = build(monitored)
    (failure,) = (event for event in result.all_events if event.is_step_failure)
    assert "The report cannot be written to" in failure.step_failure_data.user_failure_data.description


def test_only_a_monitored_pipeline_has_one(tiny):
    names = {schedule.name for schedule in build_definitions(tiny.pipeline()).schedules or ()}
    assert names == {"orders_schedule"}


def schedule(tiny, **monitoring):
    tiny.declare(monitoring=monitoring)
    defined = build_definitions(tiny.pipeline()).get_repository_def()
    return defined.get_schedule_def("orders_report_schedule")


def test_it_is_rebuilt_an_hour_after_the_pipeline_s_schedule_or_as_declared(tiny):
    found = schedule(tiny)
    assert (found.cron_schedule, found.execution_timezone) == ("0 7 * * *", "UTC")
    assert found.default_status == dg.DefaultScheduleStatus.STOPPED and found.job_name == "orders_report_job"
    found = schedule(tiny, report={"schedule": "30 9 * * 1", "status": "running"})
    assert found.cron_schedule == "30 9 * * 1" and found.default_status == dg.DefaultScheduleStatus.RUNNING
    with pytest.raises(DeclarationError, match=r"monitoring\.report\.schedule '0 99 \* \* \*' never ticks"):
        schedule(tiny, report={"schedule": "0 99 * * *"})
    with pytest.raises(ValueError, match="'daily' is not cron"):
        schedule(tiny, report={"schedule": "daily"})


@pytest.mark.parametrize(
    ("cron", "expected"),
    [
        ("0 4 * * *", "0 5 * * *"),
        ("30 22 * * 1-5", "30 23 * * 1-5"),
        ("15 23 * * *", "0 6 * * *"),
        ("*/5 * * * *", "0 6 * * *"),
        ("@daily", "0 6 * * *"),
        (None, "0 6 * * *"),
    ],
)
def test_an_hour_later_where_that_is_on_the_same_day(cron, expected):
    assert default_cron(cron) == expected
