"""The retrain hook: a real command or job, started once for an alarm, whoever is killed when."""

import json
import sys
import time
from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest
from pydantic import ValidationError

from pip_dagster.alerts.retrain import due_for, may_start, retrain
from pip_dagster.declaration.reruns import Reruns
from pip_dagster.declaration.retrain import Retrain
from pip_dagster.ledger.retrains import RetrainEntry, Retraining

from .conftest import ENDED, RULES
from .test_alarm_states import Ledger, finding

NOW = datetime.now(UTC)


def hooked(tiny, code, **more):
    """The project with a hook that runs this Python code; it may write to `out`."""
    command = [sys.executable, "-c", f"out = {str(tiny.root / 'ran')!r}\n{code}"]
    retrain = {"command": command, "attempts": 2} | more
    return tiny.declare(monitoring={**RULES, "retrain": retrain}, partitions=ENDED, reruns={"back_off": "1 second"})


WRITES = "import sys; open(out, 'a').write(sys.stdin.read() + '\\n')"


def started(tiny):
    """The inputs of the commands that ran."""
    found = tiny.root / "ran"
    return [json.loads(line) for line in found.read_text().splitlines()] if found.exists() else []


def settled(tiny, *wanted):
    """Call it again until the newest retraining is in one of these states."""
    until = time.monotonic() + 20
    while time.monotonic() < until:
        retrain(tiny.pipeline())
        states = tiny.warehouse("SELECT state FROM ledger.retrains ORDER BY made_at")
        if states and states[-1][0] in wanted:
            return [state for (state,) in states]
        time.sleep(0.05)
    raise AssertionError(states)


@pytest.mark.slice
def test_an_alarm_starts_the_command_once_and_its_outcome_is_recorded(alarmed):
    hooked(alarmed, WRITES)
    assert "has started" in alarmed.shell("alarms", "--deliver")
    assert settled(alarmed, "succeeded") == ["requested", "started", "succeeded"]
    (said,) = started(alarmed)
    assert (
        said["kind"] == "retrain" and said["attempt"] == 1 and {each["event"] for each in said["alarms"]} == {"drift"}
    )
    assert said["retrain_id"] == alarmed.warehouse("SELECT any_value(retrain_id) FROM ledger.retrains")[0][0]
    alarmed.shell("alarms", "--deliver")
    assert retrain(alarmed.pipeline()).held.startswith("cooling down until") and len(started(alarmed)) == 1
    assert alarmed.registry.alias("returns", "champion") == 1, "it promotes nothing"


def test_without_an_alarm_nothing_starts(watched):
    assert retrain(hooked(watched, WRITES).pipeline()).said == [] == started(watched)


def test_of_another_event_or_silenced_nothing_starts(alarmed):
    hooked(alarmed, WRITES, when=["performance"])
    assert retrain(alarmed.pipeline()).said == []
    alarmed.shell(
        "alarms", "silence", "--pipeline", "orders", "--event", "drift", "--until", "2999-01-01", "--why", "x"
    )
    assert retrain(hooked(alarmed, WRITES).pipeline()).said == []
    assert started(alarmed) == [] and alarmed.warehouse("FROM ledger.retrains") == []


@pytest.mark.slice
def test_a_command_that_fails_is_tried_again_and_not_for_ever(alarmed):
    hooked(alarmed, WRITES + "; sys.exit(3)")
    settled(alarmed, "failed")
    time.sleep(1.1)
    settled(alarmed, "failed")
    until = time.monotonic() + 30
    while len(started(alarmed)) < 2 or alarmed.warehouse("SELECT count(*) FROM ledger.retrains")[0][0] < 6:
        retrain(alarmed.pipeline())
        assert time.monotonic() < until
    time.sleep(1.1)
    assert "2 attempts of 2" in retrain(alarmed.pipeline()).held
    assert len(started(alarmed)) == 2
    codes = alarmed.warehouse("SELECT DISTINCT exit_code FROM ledger.retrains WHERE state = 'failed'")
    assert codes == [(3,)]


def test_a_command_that_cannot_be_started_is_a_failed_attempt(alarmed):
    retraining = {"command": ["/nowhere/at-all"]}
    alarmed.declare(monitoring={**RULES, "retrain": retraining}, partitions=ENDED)
    assert settled(alarmed, "failed")[-1] == "failed"
    assert alarmed.warehouse("SELECT exit_code FROM ledger.retrains WHERE state = 'failed'") == [(127,)]


# Before the command is started, between its start and the record of that, and after.
KILLED = """
import os, signal, sys
from pip_dagster.alerts import background, retrain
from pip_dagster.cli.main import main
def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)
where, start = sys.argv[1], background.start
if where == "before":
    background.start = die
elif where == "after":
    background.start = lambda *args, **named: (start(*args, **named), die())
sys.argv = ["pip-dagster", "alarms", "--deliver"]
main()
"""


@pytest.mark.slice
@pytest.mark.slow
@pytest.mark.parametrize("where", ["before", "after"])
def test_killed_in_the_middle_it_is_not_lost_and_not_started_twice(alarmed, where):
    hooked(alarmed, WRITES)
    process = alarmed.python(KILLED, where)
    process.communicate()
    assert process.returncode < 0
    assert settled(alarmed, "succeeded")[0] == "requested"
    for _ in range(3):
        retrain(alarmed.pipeline())
    assert len(started(alarmed)) == 1
    assert alarmed.warehouse("SELECT count(DISTINCT retrain_id) FROM ledger.retrains") == [(1,)]


def test_a_command_that_was_killed_is_a_failed_attempt(alarmed):
    hooked(alarmed, "import os, signal; os.killpg(0, signal.SIGKILL)")
    settled(alarmed, "failed")
    assert alarmed.warehouse("SELECT exit_code FROM ledger.retrains WHERE state = 'failed'") == [(None,)]


def tick(tiny, instance, *jobs):
    from pip_dagster.orchestration.definitions import build_definitions

    defs = dg.Definitions.merge(build_definitions(tiny.pipeline()), dg.Definitions(jobs=jobs))
    repository = defs.get_repository_def()
    sensor = repository.get_sensor_def("orders_alarms")
    context = dg.build_sensor_context(instance=instance, repository_def=repository)
    return repository, sensor.evaluate_tick(context)


@pytest.mark.slice
def test_a_job_is_requested_with_a_run_key_until_its_run_is_there(alarmed):
    @dg.op
    def train():
        pass

    @dg.job
    def retrain_orders():
        train()

    retraining = {"job": "retrain_orders"}
    alarmed.declare(monitoring={**RULES, "retrain": retraining}, partitions=ENDED)
    assert "Dagster's daemon" in retrain(alarmed.pipeline()).held, "a shell cannot start it"
    with dg.DagsterInstance.ephemeral() as instance:
        repository, first = tick(alarmed, instance, retrain_orders)
        (request,) = first.run_requests
        _, again = tick(alarmed, instance, retrain_orders)
        assert [each.run_key for each in again.run_requests] == [request.run_key], "the daemon was killed: not lost"
        job = repository.get_job("retrain_orders")
        assert job.execute_in_process(instance=instance, tags=request.tags).success
        _, after = tick(alarmed, instance, retrain_orders)
        assert not after.run_requests and "cooling down" in after.skip_message
    states = alarmed.warehouse("SELECT state, run_id IS NOT NULL FROM ledger.retrains ORDER BY made_at")
    assert states == [("requested", False), ("succeeded", True)]


@pytest.mark.slice
def test_a_backfill_in_dagster_does_not_need_the_job(watched, monkeypatch, tmp_path):
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    watched.declare(monitoring={**RULES, "retrain": {"job": "elsewhere"}}, partitions=ENDED)
    watched.shell("backfill", "orders", "--from", "2024-03-21", "--to", "2024-03-21")
    assert watched.warehouse("SELECT DISTINCT state FROM ledger.alarm_states") == [("alarm",)]


# The rules alone.


def entry(state, hours_ago, alarm_ids, number=0):
    at = NOW - timedelta(hours=hours_ago)
    row = RetrainEntry(
        retrain_id=f"r{number}",
        pipeline="orders",
        state=state,
        alarm_ids=alarm_ids,
        attempt=1,
        target="command x",
        host="here",
        made_at=at,
        made_by="ada",
    )
    return Retraining(at, row)


def test_cool_down_and_attempts():
    declared, reruns = Retrain(command=("x",), cool_down="2 days", attempts=2), Reruns()
    ledger = Ledger()
    ledger.judge(finding("alarm", 1))
    alarms = ledger.rows
    mine = [alarms[0].alarm_id]
    assert may_start(declared, reruns, alarms, [], NOW) == 1
    for state in ("requested", "started", "succeeded"):
        assert "cooling down" in may_start(declared, reruns, alarms, [entry(state, 47, mine)], NOW)
        assert "cooling down" in may_start(declared, reruns, alarms, [entry(state, 47, ["another"])], NOW)
    assert may_start(declared, reruns, alarms, [entry("succeeded", 49, mine)], NOW) == 2, "it still holds"
    assert may_start(declared, reruns, alarms, [entry("failed", 47, mine)], NOW) == 2, "a failure does not cool down"
    assert "a moment ago" in may_start(declared, reruns, alarms, [entry("failed", 0, mine)], NOW)
    twice = [entry("succeeded", 200, mine), entry("succeeded", 100, mine, 1)]
    assert "2 attempts of 2" in may_start(declared, reruns, alarms, twice, NOW)
    others = [entry("succeeded", 200, ["a"]), entry("succeeded", 100, ["b"], 1)]
    assert may_start(declared, reruns, alarms, others, NOW) == 1, "attempts of earlier alarms do not count"


def test_which_alarms_start_it():
    ledger = Ledger()
    ledger.judge(
        finding("alarm", 1), finding("warning", 1, "gift"), finding("alarm", 1, "auc", "performance", rule="fall")
    )

    def subjects(*when):
        return [each.subject for each in due_for(Retrain(command=("x",), when=when), ledger.rows, [], NOW)]

    assert (
        subjects("drift") == ["amount"]
        and subjects("performance") == ["auc"] == subjects("fall")
        and subjects("estimate") == []
    )
    ledger = Ledger()
    ledger.judge(finding("alarm", 1, rule="held_out"), quiet=True)
    assert due_for(Retrain(command=("x",)), ledger.rows, [], NOW) == [], "found while catching up"
    ledger.judge(finding("alarm", 2, rule="held_out"))
    newest = [row for row in ledger.rows if row.sequence == 2]
    assert due_for(Retrain(command=("x",), when=("held_out",)), newest, [], NOW) == newest


@pytest.mark.parametrize(
    "wrong",
    [{}, {"command": ["x"], "job": "y"}, {"command": "x"}, {"command": ["x"], "when": []}, {"job": "y", "attempts": 0}],
)
def test_what_is_no_hook(wrong):
    with pytest.raises(ValidationError):
        Retrain.model_validate(wrong)
