"""Alerts to a real web server and real commands: what they say, and that their failures hurt nobody."""

import json
import os
import resource
import socket
import sys
import threading
import time
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from pydantic import ValidationError

from pip_dagster.alerts import deliver as module
from pip_dagster.alerts.alert import Alert, news
from pip_dagster.alerts.deliver import deliver
from pip_dagster.declaration.automation import Alerts
from pip_dagster.errors import ProjectError

ALERT = Alert("run_failed", "orders", "Run 1 failed", {"2024-03-01": "bad", "2024-03-02": "worse"}, "run-1")


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch):
    monkeypatch.setattr(module, "BACKOFF_SECONDS", 0.001)


@contextmanager
def server(*statuses, wait=0.0):
    """A web server that answers with these statuses one after the other, the last for ever; what it was sent."""
    got = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            got.append((dict(self.headers), json.loads(body)))
            time.sleep(wait)
            status = statuses[min(len(got), len(statuses)) - 1]
            self.send_response(status)
            if status == 302:
                self.send_header("Location", "/elsewhere")
            self.end_headers()

        def log_message(self, *_):
            pass

    found = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=found.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{found.server_address[1]}/services/S3CRET", got
    finally:
        found.shutdown()


def webhook(monkeypatch, url, **more):
    monkeypatch.setenv("ALERT_URL", url)
    return Alerts.model_validate({"webhook": {"env": "ALERT_URL"}, "timeout": 1} | more)


def test_a_webhook_is_sent_the_whole_as_json(monkeypatch):
    monkeypatch.setenv("TOKEN", "abc")
    with server(200) as (url, got):
        alerts = webhook(monkeypatch, url, webhook={"env": "ALERT_URL", "bearer_env": "TOKEN"})
        assert deliver(alerts, ALERT)
    [(headers, said)] = got
    assert headers["Authorization"] == "Bearer abc" and headers["Content-Type"].startswith("application/json")
    assert (said["kind"], said["pipeline"], said["run_id"], said["partition_count"]) == (
        "run_failed",
        "orders",
        "run-1",
        2,
    )
    assert said["partitions"][1] == {"partition": "2024-03-02", "reason": "worse"}
    assert said["text"] == "Run 1 failed\n- 2024-03-01: bad\n- 2024-03-02: worse"


def test_a_failing_webhook_is_tried_again_so_many_times_and_no_more(monkeypatch):
    said = []
    with server(500, 503, 200) as (url, got):
        assert deliver(webhook(monkeypatch, url), ALERT, said.append)
        assert len(got) == 3 and not said
    with server(500) as (url, got):
        assert not deliver(webhook(monkeypatch, url), ALERT, said.append)
        assert len(got) == 3
    assert "HTTP status 500" in said[0] and "in 3 attempts" in said[0] and "orders" in said[0]


def test_a_redirect_is_not_followed(monkeypatch):
    with server(302) as (url, got):
        assert not deliver(webhook(monkeypatch, url, attempts=1), ALERT)
        assert len(got) == 1


def test_a_webhook_that_hangs_is_given_up(monkeypatch):
    began = time.monotonic()
    with server(200, wait=3) as (url, _):
        assert not deliver(webhook(monkeypatch, url, attempts=2, timeout=0.2), ALERT)
    assert time.monotonic() - began < 3


def test_all_tries_together_end_before_a_look_of_a_sensor_must(monkeypatch):
    assert 2 * module.MOST_SECONDS < 60, "webhook and command, against Dagster's limit for a look"
    monkeypatch.setattr(module, "MOST_SECONDS", 0.5)
    began, said = time.monotonic(), []
    with server(200, wait=3) as (url, _):
        assert not deliver(webhook(monkeypatch, url, attempts=5, timeout=0.3), ALERT, said.append)
    assert time.monotonic() - began < 3 and "in 2 attempts" in said[0]


@pytest.mark.parametrize(
    "url", ["", "http://127.0.0.1:1/S3CRET", "no url S3CRET", "ftp://host/S3CRET", "http://[S3CRET"]
)
def test_no_secret_is_told(monkeypatch, url, caplog):
    said = []
    assert not deliver(webhook(monkeypatch, url), ALERT, said.append)
    assert "S3CRET" not in said[0] + caplog.text and "$ALERT_URL" in said[0]


def test_a_variable_that_is_not_set_is_named(monkeypatch):
    said = []
    assert not deliver(Alerts.model_validate({"webhook": {"env": "NOT_THERE"}}), ALERT, said.append)
    assert "has no NOT_THERE" in said[0]


def test_a_command_reads_the_alert_from_its_standard_input(tmp_path):
    code = f"import sys; open({str(tmp_path / 'got')!r}, 'w').write(sys.stdin.read())"
    assert deliver(Alerts(command=(sys.executable, "-c", code)), ALERT)
    assert json.loads((tmp_path / "got").read_text())["title"] == "Run 1 failed"


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (("/nowhere/at-all",), "cannot be started"),
        ((sys.executable, "-c", "import sys; sys.exit('no room')"), "exit code 1: no room"),
        ((sys.executable, "-c", "import time; time.sleep(60)"), "was killed"),
    ],
)
def test_a_command_that_fails_is_said_and_nothing_more(command, words):
    said = []
    assert not deliver(Alerts(command=command, timeout=0.5, attempts=2), ALERT, said.append)
    assert words in said[0] and "in 2 attempts" in said[0]


def test_what_a_killed_command_started_ends_with_it(tmp_path):
    marker = tmp_path / "pid"
    alerts = Alerts(command=("sh", "-c", f"sleep 60 & echo $! > {marker}; wait"), timeout=0.5, attempts=1)
    assert not deliver(alerts, ALERT)
    until = time.monotonic() + 5
    while _runs(int(marker.read_text())) and time.monotonic() < until:
        time.sleep(0.05)
    assert not _runs(int(marker.read_text()))


def _runs(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except FileNotFoundError:
        return False


def test_the_command_is_run_although_the_webhook_fails(monkeypatch, tmp_path):
    command = [sys.executable, "-c", f"open({str(tmp_path / 'ran')!r}, 'w')"]
    assert not deliver(webhook(monkeypatch, "http://127.0.0.1:1", command=command), ALERT)
    assert (tmp_path / "ran").exists()


def test_a_year_of_partitions_is_a_short_message():
    alert = Alert("partition_blocked", "orders", "many", {f"{i:04}": "x" * 9000 for i in range(400)})
    said = json.loads(alert.payload())
    assert len(said["partitions"]) == 20 and said["partition_count"] == 400 and len(alert.payload()) < 25_000
    assert said["partitions"][-1]["partition"] == "0399" and said["text"].endswith("and 380 older ones")


def test_what_stands_is_told_once_and_again_when_it_comes_back():
    fresh, told = news({"a": "1", "b": "1"}, {})
    assert fresh == ["a", "b"]
    assert news({"a": "1", "b": "1"}, told)[0] == []
    fresh, told = news({"a": "2"}, told)
    assert fresh == ["a"], "another attempt of the same partition that is blocked too"
    assert news({"b": "1"}, told)[0] == ["b"]


def test_what_may_be_declared():
    with pytest.raises(ValidationError, match="no destination configured"):
        Alerts()
    with pytest.raises(ValidationError, match="env"):
        Alerts.model_validate({"webhook": {"env": "https://hooks.example/S3CRET"}})
    with pytest.raises(ValidationError, match="url"):
        Alerts.model_validate({"webhook": {"url": "https://hooks.example/S3CRET"}})


def test_a_project_declares_for_all_its_pipelines(tiny):
    assert tiny.pipeline().alerts is None
    file = tiny.root / "pyproject.toml"
    text = file.read_text()
    file.write_text(text + '\n[tool.pip_dagster.alerts]\ncommand = ["true"]\n')
    assert tiny.pipeline().alerts == Alerts(command=("true",))
    assert tiny.declare(alerts={"command": ["false"]}).pipeline().alerts == Alerts(command=("false",))
    file.write_text(text + '\n[tool.pip_dagster.alerts]\ncomand = ["true"]\n')
    with pytest.raises(ProjectError, match=r"alerts\](.|\n)*comand"):
        tiny.declare().pipeline().alerts  # noqa: B018


@pytest.mark.parametrize(
    "wrong",
    [
        'webhook = "https://hooks.example/S3CRET"',
        'webhook = {env = "https://hooks.example/S3CRET"}',
        'webhook = {url = "https://hooks.example/S3CRET"}',
        'command = "curl https://hooks.example/S3CRET"',
        'comand = "https://hooks.example/S3CRET"',
    ],
)
def test_an_error_in_the_projects_alerts_does_not_print_the_secret(tiny, wrong):
    file = tiny.root / "pyproject.toml"
    file.write_text(file.read_text() + f"\n[tool.pip_dagster.alerts]\n{wrong}\n")
    with pytest.raises(ProjectError, match=r"alerts\]") as refused:
        tiny.declare().pipeline().alerts  # noqa: B018
    assert "S3CRET" not in str(refused.value)


def test_the_environment_reaches_the_command(monkeypatch, tmp_path):
    monkeypatch.setenv("WHO", "ada")
    assert deliver(Alerts(command=("sh", "-c", f'echo "$WHO" > {tmp_path}/who')), ALERT)
    assert (tmp_path / "who").read_text() == "ada\n" and os.environ["WHO"] == "ada"


@contextmanager
def dripping(answer: bytes, every: float = 0.05):
    """A server that sends its answer a byte at a time; the requests that it got."""
    got, stop = [], threading.Event()

    def drip(connection):
        with connection, suppress(OSError):
            got.append(connection.recv(65536))
            for byte in answer:
                connection.send(bytes([byte]))
                if stop.wait(every):
                    return

    def serve():
        with suppress(OSError):
            while True:
                threading.Thread(target=drip, args=(listening.accept()[0],), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=serve, daemon=True).start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/", got
        stop.set()


@pytest.mark.parametrize("answer", [b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 90, b"H" * 1000], ids=["headers", "status"])
def test_a_server_that_drips_is_given_up_at_the_deadline(monkeypatch, answer):
    said, began = [], time.monotonic()
    with dripping(answer) as (url, got):
        assert not deliver(webhook(monkeypatch, url, attempts=2, timeout=0.5), ALERT, said.append)
    assert len(got) == 2 and time.monotonic() - began < 4
    assert "no answer, within 0.5 s" in said[0]


def test_netrc_does_not_replace_the_declared_token(monkeypatch, tmp_path):
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login eve password secret\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setenv("TOKEN", "abc")
    with server(200) as (url, got):
        assert deliver(webhook(monkeypatch, url, webhook={"env": "ALERT_URL", "bearer_env": "TOKEN"}), ALERT)
        assert deliver(webhook(monkeypatch, url), ALERT)
        assert deliver(webhook(monkeypatch, url.replace("http://", "http://ada:pw@")), ALERT)
    assert [headers.get("Authorization") for headers, _ in got] == ["Bearer abc", None, "Basic YWRhOnB3"]


def test_a_proxy_of_the_environment_is_used(monkeypatch):
    with server(200) as (proxy, got):
        monkeypatch.setenv("http_proxy", proxy)
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.delenv("NO_PROXY", raising=False)
        assert deliver(webhook(monkeypatch, "http://alerts.invalid/x"), ALERT)
    assert got[0][0]["Host"] == "alerts.invalid"


@pytest.mark.parametrize("code", ["exit 0", "exit 1"])
def test_what_a_command_leaves_running_does_not_count(code):
    said, began = [], time.monotonic()
    command = ("sh", "-c", f"sleep 5 & echo no room >&2; {code}")
    delivered = deliver(Alerts(command=command, timeout=2, attempts=1), ALERT, said.append)
    assert delivered == (code == "exit 0") and time.monotonic() - began < 2
    assert delivered or "exit code 1: no room" in said[0]


def test_a_command_that_writes_without_end_costs_no_memory():
    said = []
    command = (sys.executable, "-c", "import os\nwhile True: os.write(2, b'x' * 65536)")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert not deliver(Alerts(command=command, timeout=1, attempts=1), ALERT, said.append)
    assert "was killed" in said[0]
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000, "kB"


def test_a_command_that_reads_nothing_does_not_hang():
    many = {f"2024-03-{day:02}": "é" * 500 for day in range(1, 29)}
    assert deliver(Alerts(command=("true",), timeout=5, attempts=1), Alert("drift", "orders", "é" * 500, many))
