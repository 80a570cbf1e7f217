"""New entries reach a receiver once, in their order; one that is away delays nothing and gets the rest later."""

from __future__ import annotations

import json
import os
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from pip_dagster.errors import ProjectError
from pip_dagster.openlineage.emit import emit_new

FIRST, SECOND, THIRD = "2024-03-01", "2024-03-02", "2024-03-03"


class Receiver:
    """An HTTP server that keeps the events it is sent, and can refuse them."""

    def __init__(self):
        self.events, self.headers, self.refuse_after, self.answer = [], [], None, 201
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                refused = outer.refuse_after is not None and len(outer.events) >= outer.refuse_after
                self.send_response(503 if refused else outer.answer)
                self.send_header("Location", f"{self.path}/login")
                self.send_header("Content-Length", "0")
                self.end_headers()
                if not refused and outer.answer == 201:
                    outer.events.append((self.path, json.loads(body)))
                    outer.headers.append(dict(self.headers))

            def do_GET(self):
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *arguments):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server.server_port}"

    @property
    def runs(self):
        return [event["run"]["runId"] for _, event in self.events if event["eventType"] != "START"]


@pytest.fixture
def package():
    pytest.importorskip("openlineage.client", reason="needs the extra `openlineage`")


@pytest.fixture
def receiver(package):
    found = Receiver()
    yield found
    found.server.shutdown()
    found.server.server_close()


def to(tiny, destination):
    file = tiny.root / "pyproject.toml"
    file.write_text(file.read_text() + f'openlineage = "{destination}"\n')
    return tiny


@pytest.mark.slice
@pytest.mark.lake
def test_only_new_entries_are_sent_and_each_once(scored, receiver, schemas, monkeypatch):
    monkeypatch.setenv("OPENLINEAGE_API_KEY", "pa55word")
    to(scored, receiver.url)
    assert (emit_new(scored.pipeline()).sent, emit_new(scored.pipeline()).sent) == (8, 0)
    scored.source(f"UPDATE raw.orders SET quantity = 3 WHERE day = '{FIRST}'")
    scored.run(FIRST)
    assert (emit_new(scored.pipeline()).sent, emit_new(scored.pipeline()).sent) == (2, 0)
    assert len(receiver.runs) == len(set(receiver.runs)) == 10
    for path, event in receiver.events:
        assert path == "/api/v1/lineage"
        schemas.check(event)
    assert receiver.headers[0]["Authorization"] == "Bearer pa55word"
    stored = scored.warehouse("FROM ledger.lineage_emissions")
    assert len(stored) == 10 and "pa55word" not in str(stored)


def test_a_receiver_that_is_away_is_caught_up_in_order(scored, receiver, exported):
    to(scored, receiver.url)
    receiver.refuse_after = 3  # it goes away within the second run
    done = emit_new(scored.pipeline())
    assert (done.sent, done.left) == (1, 7) and "answers 503" in (done.fault or "")
    receiver.refuse_after = None
    assert emit_new(scored.pipeline(), batch=3).sent == 7
    assert receiver.runs == [event["run"]["runId"] for event in exported(scored)]


@pytest.mark.parametrize("configured", [False, True])
def test_a_receiver_that_redirects_has_not_got_it(scored, receiver, monkeypatch, configured):
    receiver.answer = 302
    monkeypatch.setenv("OPENLINEAGE_URL", receiver.url)
    to(scored, "client" if configured else receiver.url)
    done = emit_new(scored.pipeline())
    assert (done.sent, done.left) == (0, 8) and "answers 302: it redirects" in (done.fault or "")


def test_a_part_of_a_line_does_not_join_the_next(tiny):
    to(tiny, "state/lineage.ndjson")
    tiny.run(FIRST)
    file = tiny.root / "state" / "lineage.ndjson"
    file.write_text('{"half":')
    assert emit_new(tiny.pipeline()).sent == 2
    half, *lines = file.read_text().splitlines()
    assert half == '{"half":' and len([json.loads(line) for line in lines]) == 4


@pytest.mark.parametrize("url", ["http://[::1/x", "http://host:99999/", "https://:80/"])
def test_an_address_that_there_cannot_be_is_refused(tiny, url):
    with pytest.raises(ProjectError, match="not the URL of a receiver"):
        emit_new(to(tiny, url).pipeline())
    assert "not the URL" in tiny.shell("lineage", "export", "--url", url, code=1)


def test_a_pipe_or_device_is_written_and_not_replaced(scored):
    pipe = scored.root / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        scored.shell("lineage", "export", "orders", FIRST, "-o", str(pipe))
        assert pipe.is_fifo() and os.read(reader, 1 << 20).startswith(b"{")
    finally:
        os.close(reader)


@pytest.mark.parametrize("output", ["", "state"])
def test_a_folder_is_no_file_to_export_to(scored, output):
    where = str(scored.root / output) if output else ""
    assert "is a folder" in scored.shell("lineage", "export", "orders", "-o", where, code=2)


def test_without_a_receiver_or_a_warehouse_nothing_is_sent(scored, package):
    to(scored, "http://127.0.0.1:9")
    done = emit_new(scored.pipeline())
    assert (done.sent, done.left) == (0, 8) and "no answer" in (done.fault or "")
    scored.begin_again()
    assert emit_new(scored.pipeline()).sent == 0


@pytest.mark.slice
def test_a_file_gets_lines_and_a_late_commit_is_sent_too(tiny, exported):
    to(tiny, "state/lineage.ndjson")
    tiny.run(FIRST)
    tiny.tamper("CREATE TABLE ledger.later AS FROM ledger.scorings; DELETE FROM ledger.scorings")
    assert emit_new(tiny.pipeline()).sent == 1
    tiny.run(SECOND)
    assert emit_new(tiny.pipeline()).sent == 2
    tiny.tamper("INSERT INTO ledger.scorings FROM ledger.later; DROP TABLE ledger.later")
    assert emit_new(tiny.pipeline()).sent == 1
    lines = (tiny.root / "state" / "lineage.ndjson").read_text().splitlines()
    sent = sorted(json.loads(line)["run"]["runId"] for line in lines if '"START"' not in line)
    assert sent == sorted(event["run"]["runId"] for event in exported(tiny))


def test_a_killed_sender_sends_the_same_run_again(scored, receiver, monkeypatch):
    from pip_dagster.openlineage import emit

    def killed(*arguments):
        raise KeyboardInterrupt

    to(scored, receiver.url)
    with monkeypatch.context() as patch:
        patch.setattr(emit, "_record", killed)
        with pytest.raises(KeyboardInterrupt):
            emit_new(scored.pipeline())
    assert emit_new(scored.pipeline()).sent == 8
    assert len(receiver.runs) == 16 and len(set(receiver.runs)) == 8


def test_openlineage_pythons_own_configuration(scored, receiver, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    to(scored, "client")
    assert "OPENLINEAGE_URL" in (emit_new(scored.pipeline()).fault or "")
    with monkeypatch.context() as patch:
        patch.setenv("OPENLINEAGE_DISABLED", "true")
        assert "OPENLINEAGE_DISABLED" in (emit_new(scored.pipeline()).fault or "")
    (tmp_path / "openlineage.yml").write_text(f"transport: {{type: http, url: '{receiver.url}'}}")
    assert emit_new(scored.pipeline()).sent == 8 and len(receiver.runs) == 8


@pytest.mark.parametrize(
    "destination", ["https://ada:pa55word@host/", "https://host/?token=pa55word", "ftp://host/pa55word"]
)
def test_a_destination_with_a_secret_is_refused_without_showing_it(tiny, destination):
    to(tiny, destination)
    with pytest.raises(ProjectError) as error:
        _ = tiny.project
    assert "pa55word" not in str(error.value) and "openlineage" in str(error.value)


class TestTheCommand:
    def test_a_file_of_the_past(self, scored, exported):
        text = scored.shell("lineage", "export", "orders", f"{FIRST}..{SECOND}", "-o", str(scored.root / "l.ndjson"))
        assert "8 events, 4 runs" in text
        lines = (scored.root / "l.ndjson").read_text(encoding="utf-8").splitlines()
        assert [json.loads(line) for line in lines[1::2]] == exported(scored, ranges=((FIRST, SECOND),))
        answer = json.loads(scored.shell("lineage", "export", "-o", str(scored.root / "l.ndjson"), "--json"))
        assert (answer["events"], answer["pipelines"]) == (16, ["orders"])
        assert len(scored.shell("lineage", "export", "-o", "-").splitlines()) == 17

    def test_a_receiver_and_what_is_wrong_with_others(self, scored, receiver):
        assert "16 events" in scored.shell("lineage", "export", "--format", "openlineage", "--url", receiver.url)
        receiver.refuse_after = 0
        text = scored.shell("lineage", "export", "--url", receiver.url + "/base", code=1)
        assert "answers 503" in text
        for words in (["--url", "https://ada:pa55word@host"], ["--url", "x"], [], ["-o", "a", "--url", receiver.url]):
            text = scored.shell("lineage", "export", "orders", *words, code=2)
            assert "pa55word" not in text
        assert "no pipeline 'order'" in scored.shell("lineage", "export", "order", "-o", "-", code=1)
        assert "nothing to export" in scored.shell("lineage", "export", "orders", "2030-01-01", "-o", "-", code=1)

    def test_what_is_new(self, scored, receiver):
        assert "openlineage" in scored.shell("lineage", "export", "--new", code=2)
        to(scored, receiver.url)
        assert "orders: 8 sent, 0 left" in scored.shell("lineage", "export", "--new")
        scored.source(f"UPDATE raw.orders SET quantity = 3 WHERE day = '{FIRST}'")
        scored.run(FIRST)
        [answer] = json.loads(scored.shell("lineage", "export", "orders", "--new", "--json"))
        assert (answer["sent"], answer["left"]) == (2, 0) and len(receiver.runs) == 10

    def test_the_short_form_shows_a_partition_as_before(self, scored):
        assert scored.shell("lineage", "orders", FIRST) == scored.shell("lineage", "show", "orders", FIRST)
        assert json.loads(scored.shell("lineage", "--json", "orders", FIRST))[0]["partition_key"] == FIRST


def test_the_sensor_sends_and_skips_while_the_warehouse_is_locked(scored, receiver, monkeypatch):
    import dagster as dg

    from pip_dagster.orchestration.sensors import openlineage

    assert openlineage.openlineage_sensor(scored.pipeline()) == []
    [sensor] = openlineage.openlineage_sensor(to(scored, receiver.url).pipeline())
    assert sensor.name == "orders_openlineage"
    monkeypatch.setattr(openlineage, "_LOCK_DEADLINE", 0.2)

    def tick():
        return sensor(dg.build_sensor_context()).skip_message

    with scored.locked():
        assert "Will retry" in tick()
    assert "8 ledger rows sent" in tick() and "Nothing new" in tick()


def test_without_the_package_the_error_says_what_to_install(scored, monkeypatch):
    from pip_dagster.openlineage import send

    monkeypatch.setattr(send.importlib.util, "find_spec", lambda name: None)
    text = scored.shell("lineage", "export", "--url", "https://marquez.example", code=1)
    assert "pip install 'pip-dagster[openlineage]'" in text
