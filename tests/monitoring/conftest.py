"""A pipeline with a planted shift, which is the newest that its grid has."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from pip_dagster.ledger.promotions import record_promotions
from pip_dagster.warehouse.access import complete_publications

DAYS = [f"2024-03-{day:02}" for day in range(1, 25)]
# Each day its own three quarters of all 200 orders.
MORE = """
CREATE OR REPLACE TABLE raw.orders AS
SELECT (row_number() OVER ())::INTEGER AS order_id, d::DATE AS day, * EXCLUDE (order_id, day)
FROM raw.orders, generate_series(DATE '2024-03-01', DATE '2024-03-24', INTERVAL 1 DAY) g(d)
WHERE hash(order_id, d) % 4 < 3"""
SHIFT = "UPDATE raw.orders SET amount = amount * 4, shop = 'plain' WHERE day >= '2024-03-21'"


ENDED = {"end": "2024-03-25"}
RULES = {"history": 14, "freshness": {"fail_after": "9000 days"}}  # the days of these tests are long past


def backfilled(tiny: Any, *keys: str) -> Any:
    """Score partitions as `pip-dagster backfill` does for a user without Dagster."""
    tiny.shell("backfill", "orders", "--from", keys[0], "--to", keys[-1], "--no-dagster")
    return tiny


@pytest.fixture
def watched_template(template: Path, helpers: Any, backend: Any) -> Path:
    def make(root: Path) -> None:
        tiny = helpers.Tiny(root).declare(monitoring=RULES, partitions=ENDED)
        tiny.source(MORE, SHIFT)
        tiny.run(*DAYS[:20])
        record_promotions(tiny.project)

    return backend.once("watched", template, make)


@pytest.fixture
def watched(watched_template: Path, helpers: Any, backend: Any, tmp_path: Path) -> Any:
    """Monitored, with 20 quiet days; a shift begins on the 21st, three days before the grid's end."""
    return _own(helpers.Tiny(backend.copied(watched_template, tmp_path / "shop")))


@pytest.fixture
def alarmed(watched_template: Path, helpers: Any, backend: Any, tmp_path: Path) -> Any:
    """The same with two days of the shift, judged: something is in alarm since then."""
    template = backend.once(
        "alarmed", watched_template, lambda root: backfilled(_own(helpers.Tiny(root)), *DAYS[20:22])
    )
    return _own(helpers.Tiny(backend.copied(template, tmp_path / "shop")))


def _own(tiny: Any) -> Any:
    """A copy's views name the files of the original until it publishes its own."""
    complete_publications(tiny.project)
    return tiny


class Room:
    """A web server that answers with `status` and keeps what it was sent."""

    def __init__(self) -> None:
        self.got: list[dict[str, Any]] = []
        self.status = 200
        room = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                room.got.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                self.send_response(room.status)
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def read(self) -> list[dict[str, Any]]:
        """What was sent since the last call."""
        found, self.got = self.got, []
        return found


@pytest.fixture
def room(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A chat room, at the address in `ALERT_URL`."""
    found = Room()
    monkeypatch.setenv("ALERT_URL", f"http://127.0.0.1:{found.server.server_address[1]}/S3CRET")
    yield found
    found.server.shutdown()
