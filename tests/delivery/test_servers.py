"""A whole pipeline with a target of each kind: what is live arrives, and secrets are nowhere."""

import base64
import json

import duckdb
import pytest

from pip_dagster.delivery import outbox

pytest.importorskip("deltalake", reason="needs the package deltalake, of the extra `delta`")
pytest.importorskip("boto3", reason="needs the package boto3, of the extra `s3`")

pytestmark = [pytest.mark.slice, pytest.mark.lake("never")]

DAYS = ("2024-03-01", "2024-03-02")
SECRET = base64.b64encode(b"of-the-webhook-0123456789").decode()
COLUMNS = ["order_id", "score", "model_version"]
TARGETS = {
    "answers": {"postgres": {"url_env": "PREDICTIONS_URL", "table": "scores.orders"}, "columns": COLUMNS},
    "lake": {"parquet": "s3://data/whole/orders", "columns": COLUMNS},
    "table": {"delta": "s3://data/whole/table", "columns": COLUMNS},
    "hook": {"webhook": {"url_env": "ANSWERS_URL", "secret_env": "ANSWERS_SECRET"}},
}


@pytest.fixture
def project(tiny, postgres, s3, receiver, monkeypatch, password):
    monkeypatch.setattr(outbox, "BACKOFF_SECONDS", 0.01)
    monkeypatch.setenv("ANSWERS_URL", f"{receiver.url}/{password}")
    monkeypatch.setenv("ANSWERS_SECRET", SECRET)
    separator = "&" if "?" in postgres.owner_url else "?"
    monkeypatch.setenv("PREDICTIONS_URL", f"{postgres.owner_url}{separator}password={password}")
    tiny.declare(
        deliver={name: declared | {"retries": 1, "timeout": "3 seconds"} for name, declared in TARGETS.items()}
    )
    tiny.run(*DAYS)
    return tiny


def live(tiny):
    return tiny.published(f"SELECT partition_key, {', '.join(COLUMNS)} FROM orders.predictions ORDER BY ALL")


def in_postgres(postgres):
    listed = "partition_key, order_id, score::float8, model_version"
    return postgres.sql(f"SELECT {listed} FROM scores.orders ORDER BY partition_key, order_id")


def in_delta():
    from deltalake import DeltaTable

    from pip_dagster.delivery.delta import _of_s3

    with duckdb.connect() as con:
        con.register("delivered", DeltaTable("s3://data/whole/table", storage_options=_of_s3(5.0)).scan())
        return con.execute(f"SELECT partition_key, {', '.join(COLUMNS)} FROM delivered ORDER BY ALL").fetchall()


def test_every_target_shows_what_is_live_also_after_a_rollback(project, postgres, receiver):
    project.shell("deliver", "orders")
    assert in_postgres(postgres) == in_delta() == live(project)
    project.registry.set_alias("returns", "champion", 2, by="ada", why="better")
    project.run(*DAYS)
    project.shell("deliver", "orders")
    assert in_postgres(postgres) == in_delta() == live(project)
    assert {version for *_, version in in_postgres(postgres)} == {2}
    events = [json.loads(body) for *_, body in receiver.requests]
    assert [event["subject"] for event in events] == [*DAYS, *DAYS] and len({event["id"] for event in events}) == 4
    assert "6 partitions read back, as live; 0 not" in project.shell("deliver", "orders", "--verify")


def test_secrets_are_in_no_store_log_or_error(project, postgres, s3, password, monkeypatch, caplog):
    secrets = (password, SECRET)
    for name, value in (
        ("PREDICTIONS_URL", f"postgresql://me:{password}@127.0.0.1:1/x"),
        ("ANSWERS_URL", f"http://me:{password}@127.0.0.1:1/{password}"),
        ("AWS_ENDPOINT_URL", "http://127.0.0.1:1"),
    ):
        monkeypatch.setenv(name, value)
    output = project.shell("deliver", "orders", code=3)
    errors = project.warehouse("SELECT target, error FROM ledger.deliveries")
    texts = [output, caplog.text, str(errors), project.shell("status", "orders")]
    assert {target for target, error in errors if error} == set(TARGETS)
    assert not [secret for secret in secrets for text in texts if secret in text]
    for file in project.root.rglob("*"):
        if file.is_file():
            content = file.read_bytes()
            assert not [secret for secret in secrets if secret.encode() in content], file
