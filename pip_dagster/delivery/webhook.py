"""A webhook as a target: one signed CloudEvent a partition, with a manifest instead of rows.

It may arrive more than once, always with the same id. The signature is that of Standard Webhooks.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING
from urllib.parse import quote as quote_url
from urllib.parse import urlsplit

from pip_dagster import clock
from pip_dagster.alerts.post import post
from pip_dagster.delivery.address import address_of
from pip_dagster.delivery.target import ChangeRows, DeliveryChange, DeliveryError, Receipt, ShownChange

if TYPE_CHECKING:
    from pip_dagster.declaration.deliver import DeclaredTarget
    from pip_dagster.declaration.pipeline import Pipeline

TYPE = "pip_dagster.partition.live"
_SECRET_PREFIX = "whsec_"  # noqa: S105 # pragma: allowlist secret
_SECRET_BYTES = 16
_HOW = (
    'create one by `python -c "import base64, secrets; '
    "print('whsec_' + base64.b64encode(secrets.token_bytes(32)).decode())\"`"
)


def open_webhook(pipeline: Pipeline, name: str, declared: DeclaredTarget) -> WebhookTarget:
    """The receiver that is declared.

    Raises:
        DeliveryError: its address or secret is not set, or is not one.
    """
    assert declared.webhook
    where = f"Pipeline {pipeline.spec.name}: target {name}"
    url = address_of(declared.webhook, pipeline.project.root, where)
    try:
        is_address = urlsplit(url).scheme in {"http", "https"} and bool(urlsplit(url).hostname)
    except ValueError:  # such as http://[
        is_address = False
    if not is_address:
        raise DeliveryError(f"{where}: {declared.webhook.shown} is not an address, https://…")
    secret = declared.webhook.secret_env
    key = _key(where, secret, os.environ.get(secret, "").strip()) if secret else None
    published = str(pipeline.project.published) if pipeline.project.publishes else None
    return WebhookTarget(url, key, published, declared.timeout.total_seconds())


class WebhookTarget:
    """A service that is notified of each partition."""

    kind = "webhook"
    can_read_back = False

    def __init__(self, url: str, key: bytes | None, published: str | None, timeout: float) -> None:
        self._url, self._key, self._published, self._timeout = url, key, published, timeout

    def deliver(self, change: DeliveryChange, rows: ChangeRows) -> Receipt:
        """Post the manifest of the change; see `Target.deliver`."""
        where = f"Pipeline {change.pipeline}, partition {change.partition_key}: target {change.target}"
        body = json.dumps(event(change, self._published), ensure_ascii=False).encode()
        headers = {"Content-Type": "application/cloudevents+json; charset=utf-8", "User-Agent": "pip_dagster"}
        headers |= signature(event_id(change), body, self._key)
        status = post(self._url, body, headers, self._timeout)
        if isinstance(status, str):
            raise DeliveryError(f"{where}: the receiver does not answer: {status}", again=True)
        if status == 410:
            raise DeliveryError(
                f"{where}: the receiver wants no more events (HTTP status 410). Remove the target from the "
                "declaration, or correct the address in its environment variable"
            )
        if 300 <= status < 400:
            raise DeliveryError(
                f"{where}: the receiver answered with HTTP status {status}. Redirects are not followed; set the "
                "address that it leads to",
                again=True,
            )
        if not 200 <= status < 300:
            raise DeliveryError(f"{where}: the receiver answered with HTTP status {status}", again=True)
        return Receipt(
            ShownChange(change.change_id, change.declaration),
            change.rows,
            change.digest,
            "webhook",
            {"event": event_id(change), "status": status},
        )

    def read_back(self, partition_key: str, columns: Mapping[str, str]) -> Receipt | None:
        """None: what a receiver did with an event cannot be read."""
        return None

    def close(self) -> None:
        """Nothing is open."""


def event_id(change: DeliveryChange) -> str:
    """The same for each retry of an event. The change declared otherwise, or delivered by name, is another event."""
    again = f"-{change.earlier}" if change.earlier else ""
    return f"{change.change_id}-{change.target}-{change.declaration[:8]}{again}"


def event(change: DeliveryChange, published: str | None) -> dict[str, object]:
    """The CloudEvent of a change, in the structured JSON format."""
    return {
        "specversion": "1.0",
        "id": event_id(change),
        "source": f"/pip_dagster/{quote_url(change.pipeline)}",
        "type": TYPE,
        "subject": change.partition_key,
        "time": change.made_at.isoformat(),
        "datacontenttype": "application/json",
        "data": {
            "pipeline": change.pipeline,
            "partition_key": change.partition_key,
            "start": change.start.isoformat(),
            "end": change.end.isoformat(),
            "change_id": change.change_id,
            "kind": change.kind,
            "scoring_ids": list(change.scoring_ids),
            "rows": change.rows,
            "digest": change.digest,
            "columns": dict(change.columns),
            "read": {
                "published": published,
                "table": f"{change.pipeline}.predictions",
                "where": {"partition_key": change.partition_key},
            },
        },
    }


def signature(message_id: str, body: bytes, key: bytes | None) -> dict[str, str]:
    """The headers of Standard Webhooks; without a key, the id and the time alone."""
    at = str(int(clock.now().timestamp()))
    headers = {"webhook-id": message_id, "webhook-timestamp": at}
    if key:
        signed = hmac.new(key, b".".join((message_id.encode(), at.encode(), body)), hashlib.sha256).digest()
        headers["webhook-signature"] = f"v1,{base64.b64encode(signed).decode()}"
    return headers


def _key(where: str, variable: str, secret: str) -> bytes:
    try:
        key = base64.b64decode(secret.removeprefix(_SECRET_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) < _SECRET_BYTES:
        raise DeliveryError(
            f"{where}: ${variable} is no secret; expected {_SECRET_PREFIX} and at least {_SECRET_BYTES} bytes in "
            f"base64; {_HOW}"
        )
    return key
