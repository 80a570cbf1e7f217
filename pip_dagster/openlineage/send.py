"""Where events go: a file of lines of JSON, a receiver's URL, or what openlineage-python is configured for."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

from pip_dagster.errors import LineageError
from pip_dagster.openlineage.events import line
from pip_dagster.warehouse import faults
from pip_dagster.whole_file import is_unfinished

CLIENT = "client"
_ENDPOINT = "api/v1/lineage"
_TIMEOUT = 5.0
_KEY = "OPENLINEAGE_API_KEY"

Send = Callable[[Mapping[str, Any]], None]


@contextmanager
def sender(destination: str, root: Path) -> Iterator[Send]:
    """A function that sends one event to a destination as the setting `openlineage` names it.

    Raises:
        LineageError: the receiver or file cannot be reached, or the package is not installed. An event may arrive
            twice, with one run id.
    """
    if destination == CLIENT or "://" in destination:
        with _transport(destination) as send:
            yield send
        return
    path = root / destination
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = is_unfinished(path)
        with path.open("a", encoding="utf-8") as file:
            file.write("\n" * unfinished)
            yield lambda event: _write(file.write, event)
    except OSError as error:
        raise LineageError(f"Lineage cannot be written to {path}: {error}. {faults.remedy(str(error))}") from error


def _write(write: Callable[[str], object], event: Mapping[str, Any]) -> None:
    write(line(event) + "\n")


@contextmanager
def _transport(destination: str) -> Iterator[Send]:
    if importlib.util.find_spec("openlineage") is None:
        raise LineageError(
            "Lineage is sent by openlineage-python, which is not installed. Install the extra: "
            "pip install 'pip-dagster[openlineage]'."
        )
    transport = _configured() if destination == CLIENT else _http(destination)
    if transport.kind == "http":  # a redirected POST becomes a GET, whose answer would count as having got the event
        transport.session.max_redirects = 0
    place = "the receiver that openlineage-python is configured for" if destination == CLIENT else shown(destination)

    def send(event: Mapping[str, Any]) -> None:
        try:
            transport.emit(event)
        except Exception as error:  # of requests, of a broker, of a file
            raise LineageError(f"Lineage cannot be sent to {place}: {_trouble(error)}") from None

    try:
        yield send
    finally:
        is_done = transport.close(_TIMEOUT)
    if is_done is False:  # one that sends in the background
        raise LineageError(f"Lineage was not sent to {place} within {_TIMEOUT:g} s.")


def _configured() -> Any:
    """The transport of OPENLINEAGE_URL, OPENLINEAGE_CONFIG, openlineage.yml and OPENLINEAGE__… variables."""
    from openlineage.client import OpenLineageClient

    try:
        transport = OpenLineageClient().transport
    except Exception as error:  # its configuration may hold a key, so its text is not shown
        raise LineageError(
            f"openlineage-python cannot read its configuration ({type(error).__name__}). Check openlineage.yml and the "
            "variables that begin with OPENLINEAGE."
        ) from None
    if transport.kind == "noop":
        raise LineageError("OPENLINEAGE_DISABLED is set, so that openlineage-python sends nothing. Unset it.")
    if transport.kind == "console":
        raise LineageError(
            "openlineage-python has no configuration and would print events. Set OPENLINEAGE_URL, or write "
            "openlineage.yml, or name a URL in the setting `openlineage`."
        )
    return transport


def _http(url: str) -> Any:
    """HTTP without retries: what does not arrive is sent later."""
    from openlineage.client.transport.http import HttpConfig, HttpTransport

    parts = urlsplit(url)
    given: dict[str, Any] = {"url": url, "timeout": _TIMEOUT, "retry": {"total": 0, "status_forcelist": []}}
    given["endpoint"] = urljoin(parts.path.rstrip("/") + "/", os.environ.get("OPENLINEAGE_ENDPOINT", _ENDPOINT))
    if key := os.environ.get(_KEY):
        given["auth"] = {"type": "api_key", "apiKey": key}
    return HttpTransport(HttpConfig.from_dict(given))


def shown(url: str) -> str:
    """A URL without what may be a secret."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _trouble(error: Exception) -> str:
    """An error without what it quotes: a URL with a key, or the event."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status in (401, 403):
        return f"it answers {status}. Set {_KEY} to a key that it accepts."
    if status is not None and 300 <= status < 400:
        return f"it answers {status}: it redirects to another address. Name that one; events do not follow."
    if status is not None:
        return f"it answers {status}. Its log says why."
    return f"no answer ({type(error).__name__}). Check that it is running, and the address."
