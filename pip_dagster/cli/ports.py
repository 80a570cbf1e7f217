"""Which ports of this machine are in use."""

from __future__ import annotations

import socket

HOST, PORT = "127.0.0.1", 3000


def port_in_use(port: int) -> bool:
    """Whether somebody listens there on this machine."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        return probe.connect_ex((HOST, port)) == 0


def free_port(after: int) -> int | None:
    """The next port that nobody listens at."""
    return next((port for port in range(after + 1, min(after + 100, 65536)) if not port_in_use(port)), None)
