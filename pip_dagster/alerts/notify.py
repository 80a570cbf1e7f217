"""Send what is due of a pipeline's alarms, and record what reached which destination.

At least once: a delivery is recorded in `ledger.alarm_deliveries` after it succeeded. A kill between the two sends a
message again; what was not delivered is sent by the next call.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from pip_dagster import clock
from pip_dagster.alerts.alarm_text import alert_of
from pip_dagster.alerts.deliver import Destination, deliver_to, destinations
from pip_dagster.alerts.paging import Message, Standing, digest_time, due, incidents
from pip_dagster.errors import NoWarehouseError
from pip_dagster.ledger.alarm_deliveries import Delivery, deliveries_of, insert_deliveries
from pip_dagster.ledger.alarms import alarm_history
from pip_dagster.ledger.silences import silences_of
from pip_dagster.warehouse.access import reading, writing
from pip_dagster.warehouse.connect import workspace
from pip_dagster.warehouse.lock import exclusive
from pip_dagster.warehouse.transaction import transaction

if TYPE_CHECKING:
    from pip_dagster.declaration.pipeline import Pipeline

LOG = logging.getLogger("pip_dagster")

# A tick of a sensor has a minute, and one message takes up to 25 seconds: each of two destinations gets at least one,
# and more as long as they are quick.
_BEGIN_WITHIN = 3.0
_LATER = "It is sent again by the next tick, or by `pip-dagster alarms --deliver`."


@dataclass
class Notified:
    """The titles of the messages that reached a destination, and of those that did not."""

    sent: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    left: int = 0  # messages for which there was no time


def notify(pipeline: Pipeline, *, now: datetime | None = None, log: Callable[[str], object] = LOG.warning) -> Notified:
    """Send what is due to each destination. Where another process does so, nothing is sent.

    Raises:
        WarehouseError: the warehouse cannot be read or written now.
        WarehouseLockedError: another process sends the alarms of this pipeline.
    """
    done, alerts = Notified(), pipeline.alerts
    if alerts is None:
        return done
    with alone(pipeline, "alarms"):
        for destination, messages in _due(pipeline, now or datetime.now(UTC)).items():
            began = time.monotonic()
            for i, message in enumerate(messages):
                if i and time.monotonic() - began > _BEGIN_WITHIN:
                    done.left += len(messages) - i
                    break
                alert = alert_of(pipeline.spec.name, message)
                if not deliver_to(destination, alerts, alert, log, then=_LATER):
                    done.failed.append(alert.title)
                    done.left += len(messages) - i - 1
                    break  # it would refuse the others too, and they would cost as much time
                _record(pipeline, destination, message)
                done.sent.append(alert.title)
    return done


@contextmanager
def alone(pipeline: Pipeline, what: str) -> Iterator[None]:
    """Be the only process of this machine that does this for the pipeline.

    Raises:
        WarehouseLockedError: another process does.
    """
    path = beside(pipeline, f"{pipeline.spec.name}.{what}.lock")
    with exclusive(path, purpose=f"{pipeline.spec.name}: {what}", deadline=0):
        yield


def beside(pipeline: Pipeline, name: str) -> Path:
    """A path beside the warehouse, or beside the registry if the warehouse is not a file."""
    project = pipeline.project
    near = project.warehouse if isinstance(project.warehouse, Path) else project.registry
    return near.with_name(f"{near.name}.{name}")


def _due(pipeline: Pipeline, now: datetime) -> dict[Destination, list[Message]]:
    alerts, name = pipeline.alerts, pipeline.spec.name
    assert alerts
    try:
        with workspace(threads=1) as con, reading(con, pipeline.project, purpose=f"{name}: reading alarms"):
            listed, silences = incidents(alarm_history(con, name)), silences_of(con, name)
            delivered = deliveries_of(con, name)
    except NoWarehouseError:
        return {}
    at = digest_time(alerts.digest, pipeline.spec.partitions.zone, now)
    found = {}
    for destination in destinations(alerts):
        mine = [each for each in delivered if each.destination == destination]
        found[destination] = due(Standing(listed, silences, mine), alerts.events, now, at)
    return found


def _record(pipeline: Pipeline, destination: Destination, message: Message) -> None:
    name, now = pipeline.spec.name, clock.wall()
    rows = [Delivery(name, each.alarm_id, each.sequence, message.kind, destination, now) for each in message.alarms]
    with (
        workspace(threads=1) as con,
        writing(con, pipeline.project, purpose=f"{name}: recording what was sent", publish=False),
        transaction(con),
    ):
        insert_deliveries(con, rows)
