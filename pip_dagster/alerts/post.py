"""One HTTP POST with a deadline for the whole request. What went wrong names no address and no token."""

from __future__ import annotations

import queue
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import requests


def post(url: str, payload: bytes, headers: Mapping[str, str], timeout: float) -> int | str:
    """The HTTP status, or why there is none, within `timeout` seconds."""
    import requests  # noqa: F401 - the time that this takes is not the server's

    answer: queue.SimpleQueue[int | str] = queue.SimpleQueue()
    # A thread, because requests' timeout is that of one packet: a server that sends a byte a second keeps it for hours.
    # A thread that is given up ends with its connection, at the latest with the process.
    sending = threading.Thread(target=lambda: answer.put(_answer_of(url, payload, headers, timeout)), daemon=True)
    sending.start()
    try:
        status = answer.get(timeout=timeout)
    except queue.Empty:
        status = "no answer"
    return f"{status}, within {timeout:g} s" if isinstance(status, str) else status


def _answer_of(url: str, payload: bytes, headers: Mapping[str, str], timeout: float) -> int | str:
    """The HTTP status, or the name of the error: the library's own text holds the URL."""
    import requests

    def only_declared(request: requests.PreparedRequest) -> requests.PreparedRequest:
        """Without an `auth`, requests would send what ~/.netrc holds for the host, in place of the declared token."""
        user, password = requests.utils.get_auth_from_url(url)
        is_declared = "Authorization" in request.headers
        return request if is_declared or not user else requests.auth.HTTPBasicAuth(user, password)(request)

    try:
        # The body is not read: it may be endless. A redirect is not followed: it would forward the token.
        with requests.post(
            *(url, payload),
            headers=headers,
            auth=only_declared,
            timeout=timeout,
            allow_redirects=False,
            stream=True,
        ) as response:
            return int(response.status_code)
    except Exception as error:  # requests, urllib3 and the codecs of host names raise any
        return type(error).__name__
