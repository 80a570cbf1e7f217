"""What is declared wrongly about schedules, sensors, reruns and alerts is answered with what was expected."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pip_dagster.declaration.durations import doubled
from pip_dagster.declaration.find import find_pipeline
from pip_dagster.errors import DeclarationError
from pip_dagster.orchestration.definitions import build_definitions

TOO_LONG = "is too long; expected at most '36500 days'"


@pytest.mark.parametrize(
    ("section", "declared", "says"),
    [
        ("reruns", {"back_off": 600}, "reruns.back_off: .*600 has no unit; expected for example '600 days'"),
        ("reruns", {"back_off": -1.5}, "has no unit"),
        ("reruns", {"back_off": "99999999999 weeks"}, "too long; expected at most '36500 days'"),
        ("reruns", {"back_off": "5300 weeks"}, TOO_LONG),
        ("reruns", {"promotion": "last 7"}, r"reruns.promotion: .*Input should be none, all, \{last: 7\} or \{since"),
        ("reruns", {"promotion": 7}, "Input should be none, all"),
        ("reruns", {"promotion": {"last": 0}}, "reruns.promotion.some.last: Input should be greater"),
        ("sensors", {"source_changes": {"interval": 30}}, "30 has no unit"),
        (
            "alerts",
            {"command": "mail -s x"},
            r"alerts.command: .*expected a list such as \[program, argument\]",
        ),
        ("alerts", {"command": [""]}, "at least 1 character"),
        ("alerts", {"command": ["mail"], "on": []}, "alerts.events: .*at least 1 item"),
        ("alerts", {"command": ["mail"], "on": "drift"}, r"alerts.events: .*expected a list such as .* or \[drift\]"),
        ("schedule", {"cron": "0 6 * *"}, "attributes.schedule.cron: .*is not cron"),
    ],
)
def test_a_mistake_is_named(tiny, section, declared, says):
    with pytest.raises(DeclarationError, match=says) as raised:
        find_pipeline(tiny.declare(**{section: declared}).project, "orders")
    assert str(tiny.folder / "defs.yaml") in str(raised.value)
    assert len(str(raised.value).splitlines()) == 1, "one mistake, one line"


def test_an_address_in_the_place_of_its_variable_is_not_repeated(tiny):
    tiny.declare(alerts={"webhook": "https://chat.example.com/S3CRET"})
    with pytest.raises(DeclarationError, match="NAME") as raised:
        find_pipeline(tiny.project, "orders")
    assert "S3CRET" not in str(raised.value)


@pytest.mark.parametrize("cron", ["0 25 * * *", "61 6 * * *", "0 6 31 2 *", "0 6 * * 8", "H 6 * * *", "@dialy"])
def test_cron_that_names_no_time_is_refused_with_the_pipeline(tiny, cron):
    with pytest.raises(DeclarationError, match="Pipeline orders: schedule .* never ticks; expected minute"):
        build_definitions(tiny.declare(schedule=cron).pipeline())


def test_a_wait_of_nothing_needs_no_unit(tiny):
    assert tiny.declare(reruns={"back_off": 0}).pipeline().spec.reruns.back_off == timedelta(0)


def test_the_sensors_say_what_is_declared_of_them(tiny):
    tiny.declare(reruns={"promotion": {"last": 7}}, sensors={"source_changes": {"missing": {"since": "2024-03-02"}}})
    said = {sensor.name: sensor.description for sensor in build_definitions(tiny.pipeline()).sensors}
    assert "Partitions that were never built: those since 2024-03-02," in said["orders_source_changes"]
    assert said["orders_model_promoted"].endswith("By reruns.promotion: the last 7.")


@given(st.timedeltas(min_value=timedelta(0), max_value=timedelta(days=36_500)), st.integers(0, 10_000))
def test_a_wait_doubles_as_far_as_dates_go(wait, times):
    found = doubled(wait, times)
    assert found >= min(wait, timedelta(days=36_500)) and found <= timedelta(days=36_500)
    if times < 10 and wait < timedelta(days=30):
        assert found == wait * 2**times
