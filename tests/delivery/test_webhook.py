"""A webhook as a target: one signed event a partition, the same id for each repeat."""

import base64
import hashlib
import hmac
import json
import sys
import time

import pytest

from pip_dagster.declaration.deliver import DeclaredTarget
from pip_dagster.delivery import outbox
from pip_dagster.delivery.outbox import DeliveryRequest, deliver, pending_now
from pip_dagster.delivery.target import DeliveryError
from pip_dagster.delivery.targets import open_target
from pip_dagster.delivery.webhook import open_webhook
from pip_dagster.ledger.record import RunInfo

pytestmark = pytest.mark.lake("never")

SCORES = "SELECT range AS order_id, range / 7.0::FLOAT AS score FROM range(50)"
KEY = b"0123456789abcdef01234567"
SECRET = f"whsec_{base64.b64encode(KEY).decode()}"


@pytest.fixture(autouse=True)
def _environment(receiver, monkeypatch):
    monkeypatch.setenv("ANSWERS_URL", receiver.url)
    monkeypatch.setenv("ANSWERS_SECRET", SECRET)


@pytest.fixture
def target(tiny):
    def opened(**others):
        declared = {"webhook": {"url_env": "ANSWERS_URL", "secret_env": "ANSWERS_SECRET"}, "timeout": "2 seconds"}
        return open_webhook(tiny.pipeline(), "there", DeclaredTarget.model_validate(declared | others))

    return opened


def test_an_event_is_signed_and_says_where_to_read(receiver, target, staged, tiny):
    change, rows = staged(SCORES)
    receipt = target().deliver(change, rows)
    assert receipt.details["status"] == 200 and receiver.path not in str(receipt)
    [(_, headers, body)] = receiver.requests
    event = json.loads(body)
    assert headers["Content-Type"] == "application/cloudevents+json; charset=utf-8"
    required = ("specversion", "id", "source", "type", "subject", "time", "datacontenttype")
    assert [event[name] for name in required] == [
        "1.0",
        "20240302T060001000000-1a2b3c4d-there-01234567",
        "/pip_dagster/orders",
        "pip_dagster.partition.live",
        "2024-03-01",
        "2024-03-02T06:00:00+00:00",
        "application/json",
    ]
    data = event["data"]
    assert (data["rows"], data["digest"], data["columns"]) == (50, change.digest, dict(change.columns))
    assert data["read"]["table"] == "orders.predictions" and data["read"]["published"] == str(tiny.project.published)
    assert headers["webhook-id"] == event["id"] and abs(int(headers["webhook-timestamp"]) - time.time()) < 60
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    expected = base64.b64encode(hmac.new(KEY, signed, hashlib.sha256).digest()).decode()
    assert headers["webhook-signature"] == f"v1,{expected}"


def test_a_repeat_has_the_same_id_and_other_columns_another(receiver, target, staged):
    for others in ({}, {}, {"declaration": "f" * 32, "earlier": 1}, {"earlier": 2}):
        target().deliver(*staged(SCORES, **others))
    first, second, *others = (json.loads(body)["id"] for _, _, body in receiver.requests)
    assert first == second and len({first, *others}) == 3


@pytest.mark.parametrize(
    ("status", "said", "again"),
    [
        (202, None, False),
        (410, "the receiver wants no more events .HTTP status 410.", False),
        (307, "the receiver answered with HTTP status 307. Redirects are not followed", True),
        (404, "the receiver answered with HTTP status 404", True),
        (503, "the receiver answered with HTTP status 503", True),
    ],
)
def test_only_2xx_is_delivered(receiver, target, staged, status, said, again):
    receiver.status, receiver.location = status, receiver.url + "/elsewhere" if status == 307 else None
    if said is None:
        assert target().deliver(*staged(SCORES)).is_new
    else:
        with pytest.raises(
            DeliveryError, match=f"Pipeline orders, partition 2024-03-01: target there: {said}"
        ) as caught:
            target().deliver(*staged(SCORES))
        assert caught.value.again == again and receiver.path not in str(caught.value)
    assert len(receiver.requests) == 1


def test_the_time_out_is_that_of_the_whole_request(receiver, target, staged, monkeypatch):
    monkeypatch.setenv("ANSWERS_URL", "http://127.0.0.1:1/in")
    with pytest.raises(DeliveryError, match="the receiver does not answer: ConnectionError, within 2 s") as caught:
        target().deliver(*staged(SCORES))
    assert caught.value.again


def test_the_machine_s_passwords_are_not_sent(receiver, target, staged, monkeypatch, tmp_path):
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login me password hunter2\n")
    (tmp_path / ".netrc").chmod(0o600)
    monkeypatch.setenv("HOME", str(tmp_path))
    target().deliver(*staged(SCORES))
    [(_, headers, _)] = receiver.requests
    assert "Authorization" not in headers


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("ANSWERS_URL", None, "the environment variable ANSWERS_URL is not set"),
        ("ANSWERS_URL", "ftp://x.example", "\\$ANSWERS_URL is not an address"),
        ("ANSWERS_URL", "http://[hunter2", "\\$ANSWERS_URL is not an address"),
        ("ANSWERS_URL", "http://", "\\$ANSWERS_URL is not an address"),
        ("ANSWERS_SECRET", None, "\\$ANSWERS_SECRET is no secret; expected whsec_ and at least 16 bytes in base64"),
        ("ANSWERS_SECRET", "hunter2hunter2hunter2x", "\\$ANSWERS_SECRET is no secret"),
    ],
    ids=["no address", "another scheme", "half an address", "no host", "no secret", "not base64"],
)
def test_what_is_not_set_is_named_and_not_shown(receiver, target, monkeypatch, variable, value, said):
    monkeypatch.setenv(variable, value) if value else monkeypatch.delenv(variable)
    with pytest.raises(DeliveryError, match=f"Pipeline orders: target there: {said}") as caught:
        target()
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("declared", "package", "extra"),
    [
        ({"delta": "out/table"}, "deltalake", "delta"),
        ({"parquet": "s3://data/x"}, "boto3", "s3"),
        ({"postgres": {"url_env": "ANSWERS_URL", "table": "scores.orders"}}, "psycopg2", "postgres"),
    ],
    ids=["delta", "s3", "postgres"],
)
def test_a_package_that_is_not_installed_is_named_with_its_extra(tiny, monkeypatch, declared, package, extra):
    tiny.declare(deliver={"there": declared})
    monkeypatch.setitem(sys.modules, package, None)
    said = rf"Pipeline orders: target there needs the package {package}.*pip install 'pip-dagster\[{extra}\]'"
    with pytest.raises(DeliveryError, match=said):
        open_target(tiny.pipeline(), "there")


def test_what_is_delivered_anew_is_another_event_and_a_retry_is_not(receiver, scored, monkeypatch):
    """A receiver that discards ids it has seen must end with what is declared, whatever was tried before."""
    monkeypatch.setattr(outbox, "BACKOFF_SECONDS", 0.01)

    def ids(*partitions, status=200, **others):
        """The event that a run sends of the first day, once an attempt."""
        receiver.status, before = status, len(receiver.requests)
        hook = {"webhook": {"url_env": "ANSWERS_URL"}, "retries": 1} | others
        scored.declare(deliver={"there": hook})
        request = DeliveryRequest(RunInfo("run-1", "a test"), ("there",), partitions or None)
        deliver(scored.pipeline(), request, progress=lambda _: None)
        events = [json.loads(body) for _, _, body in receiver.requests[before:]]
        return [event["id"] for event in events if event["subject"] == "2024-03-01"]

    other = {"where": "score > 0.5"}
    [refused, again], [first] = ids(status=503), ids()
    assert refused == again == first, "a retry, in the same run and in the next"
    assert ids() == [], "nothing is pending"
    # Whether the receiver took what it did not answer is not known.
    lost = ids(status=503, **other)
    [back], [named], [named_again] = ids(), ids("2024-03-01"), ids("2024-03-01")
    assert len({first, *lost, back, named, named_again}) == 5
    failed = ids("2024-03-01", status=503)
    assert {*failed} == {*ids()}, "what was named and failed is pending, and retried"
    [changed] = ids(**other)
    assert changed not in lost
    seen = [json.loads(body)["id"] for _, _, body in receiver.requests]
    assert seen.index(changed) == len(seen) - 4 and pending_now(scored.pipeline())["there"] == []
