"""Deliver an alert to a webhook and a command. Delivery may fail; it never makes its caller fail."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Literal

from pip_dagster.alerts.alert import Alert
from pip_dagster.alerts.post import post
from pip_dagster.declaration.automation import Alerts, Webhook

LOG = logging.getLogger("pip_dagster")

Destination = Literal["webhook", "command"]

BACKOFF_SECONDS = 0.5
# For the webhook, and the same again for the command. Dagster stops a tick after a minute: its cursor would not be
# stored, and the next tick would send the same alerts.
MOST_SECONDS = 25.0

_PIPE_BYTES, _TAIL_BYTES = 2**16, 2**12
_LOOK_SECONDS = 0.02


class _UndeliveredError(Exception):
    """One attempt failed; the text holds no address and no token, which may be secrets."""


def deliver(alerts: Alerts, alert: Alert, log: Callable[[str], object] = LOG.warning) -> bool:
    """Whether the alert reached all declared destinations; each failure is logged with its cause.

    Makes at most `attempts` attempts of `timeout` seconds each for the webhook, and as many for the command, with
    pauses of half a second, one second, ... between them. Neither takes more than 25 seconds.
    """
    reached = [deliver_to(each, alerts, alert, log) for each in destinations(alerts)]
    return all(reached)  # the second was tried even if the first failed


def destinations(alerts: Alerts) -> list[Destination]:
    """The declared destinations."""
    return [*(["webhook"] if alerts.webhook else []), *(["command"] if alerts.command else [])]  # type: ignore[list-item]


def deliver_to(
    destination: Destination,
    alerts: Alerts,
    alert: Alert,
    log: Callable[[str], object] = LOG.warning,
    *,
    then: str = "It is not sent again; nothing else depends on it.",
) -> bool:
    """Whether the alert reached this destination. A failure is logged, with what happens `then`."""
    payload = alert.payload().encode()
    if destination == "webhook":
        webhook = alerts.webhook
        assert webhook
        where = f"the webhook in ${webhook.env}"
        problem, tried = _attempt(alerts, lambda timeout: _post(webhook, payload, timeout))
    else:
        where = f"the command {alerts.command[0]}"
        problem, tried = _attempt(alerts, lambda timeout: _run(alerts.command, payload, timeout))
    if problem:
        log(
            f"Pipeline {alert.pipeline}: the alert {alert.title!r} did not reach {where} in {tried} attempts: "
            f"{problem}. {then}"
        )
    return not problem


def _attempt(alerts: Alerts, send: Callable[[float], None]) -> tuple[str, int]:
    """What went wrong last, empty once it was sent, and how often it was tried."""
    problem, tried, until = "", 0, time.monotonic() + MOST_SECONDS
    while tried < alerts.attempts:
        if tried:
            time.sleep(min(BACKOFF_SECONDS * 2 ** (tried - 1), max(0.0, until - time.monotonic())))
        left = until - time.monotonic()
        if left <= 0:
            break
        tried += 1
        try:
            send(min(alerts.timeout, left))
            return "", tried
        except _UndeliveredError as error:
            problem = str(error)
        except Exception as error:  # an alert must never fail its caller
            problem = type(error).__name__
    return problem or "no time was left", tried


def _post(webhook: Webhook, payload: bytes, timeout: float) -> None:
    url = os.environ.get(webhook.env)
    if not url:
        raise _UndeliveredError(f"the environment of the code location has no {webhook.env}; set it to the URL")
    headers = {"Content-Type": "application/json; charset=utf-8", "User-Agent": "pip_dagster"}
    if webhook.bearer_env:
        token = os.environ.get(webhook.bearer_env)
        if not token:
            raise _UndeliveredError(
                f"the environment of the code location has no {webhook.bearer_env}; set it to the token"
            )
        headers["Authorization"] = f"Bearer {token}"
    status = post(url, payload, headers, timeout)
    if isinstance(status, str):
        raise _UndeliveredError(status)
    if not 200 <= status < 300:
        raise _UndeliveredError(f"it answered with HTTP status {status}")


def _run(command: tuple[str, ...], payload: bytes, timeout: float) -> None:
    with tempfile.TemporaryFile() as alert:  # a command that does not read a pipe would block whoever writes to it
        try:
            alert.write(payload)
            alert.seek(0)
            process = subprocess.Popen(
                command,
                stdin=alert,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                start_new_session=True,  # so that its child processes can be killed with it
            )
        except OSError as error:
            raise _UndeliveredError(f"it cannot be started: {error.strerror or type(error).__name__}") from None
    assert process.stderr
    with process.stderr:
        last = _end_of(process.stderr.fileno(), process, time.monotonic() + timeout)
        if process.poll() is None:  # before its pipe is closed, which could end it with a code of its own
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise _UndeliveredError(f"it was still running after {timeout:g} s and was killed")
    if process.returncode:
        message = last.decode(errors="replace").strip()[-300:]
        raise _UndeliveredError(f"it ended with exit code {process.returncode}: {message or 'no message on stderr'}")


def _end_of(stderr: int, process: subprocess.Popen[bytes], until: float) -> bytes:
    """The end of what the command writes, until it ends: what it started and left running may keep the pipe open."""
    os.set_blocking(stderr, False)
    last = b""
    while True:
        ended = process.poll() is not None or time.monotonic() >= until
        written = b""
        with suppress(BlockingIOError):
            written = os.read(stderr, _PIPE_BYTES)
        last = (last + written)[-_TAIL_BYTES:]
        if ended:
            return last
        if not written:
            time.sleep(_LOOK_SECONDS)
