"""`alarms --deliver` killed at lines of its own code, again and again: nothing is lost, nothing is started twice."""

import json
import random
import signal
import sys

import pytest

from .conftest import ENDED

# Killed at the line with this number, of the code that judges, stores, sends and starts.
COMMAND = """
import os, signal, sys
from pip_dagster.cli.main import main
line, seen = int(sys.argv.pop(1)), 0
TRACED = ("pip_dagster/alerts", "pip_dagster/monitoring", "ledger/alarm", "ledger/retrains", "cli/alarms")
def count(_frame, event, _argument):
    global seen
    seen += event == "line"
    if seen == line:
        os.kill(os.getpid(), signal.SIGKILL)
    return count
sys.settrace(lambda frame, *_: count if any(part in frame.f_code.co_filename for part in TRACED) else None)
sys.argv = ["pip-dagster", "alarms", "--deliver"]
try:
    main()
finally:
    sys.settrace(None)
    print("LINES", seen)
"""


WHEN = {"drift", "performance", "estimate"}  # what `retrain` starts for by default


def deliver(tiny, line):
    process = tiny.python(COMMAND, str(line))
    said, _ = process.communicate()
    return process.returncode, said


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(3))
def test_killed_anywhere_nothing_is_lost_and_the_retraining_starts_once(watched, room, seed):
    chosen = random.Random(seed)
    marker = watched.root / "ran"
    code = f"import sys; open({str(marker)!r}, 'a').write(sys.stdin.read() + '\\n')"
    alerts = {"webhook": {"env": "ALERT_URL"}, "timeout": 2, "attempts": 1}
    retrain = {"command": [sys.executable, "-c", code]}
    watched.declare(monitoring={"history": 14, "retrain": retrain}, partitions=ENDED, alerts=alerts)
    watched.run("2024-03-21", "2024-03-22")
    killed, line = 0, 1
    for _ in range(40):
        line += chosen.randrange(1, 400)
        code_of, said = deliver(watched, line)
        if code_of != -signal.SIGKILL:
            break
        killed += 1
    assert killed > 3, said
    assert deliver(watched, -1)[0] == 0
    said = json.loads(watched.shell("alarms", "--json"))["alarms"]
    in_alarm = {each["alarm_id"] for each in said if each["state"] == "alarm"}
    paged = {each["alarm_id"] for message in room.read() for each in message["alarms"]}
    assert in_alarm and in_alarm == paged, "at least once, and no other"
    starts = [json.loads(each) for each in marker.read_text().splitlines()]
    retrains = {each["alarm_id"] for each in said if each["state"] == "alarm" and each["event"] in WHEN}
    assert len(starts) == 1 and {each["alarm_id"] for each in starts[0]["alarms"]} == retrains, said
    assert watched.warehouse("SELECT count(DISTINCT retrain_id) FROM ledger.retrains") == [(1,)]
    history = watched.warehouse("SELECT alarm_id, sequence FROM ledger.alarms")
    assert len(history) == len(set(history))
    watched.shell("audit", "verify")
