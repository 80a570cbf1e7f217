"""The address of a target, from the environment or a file."""

from __future__ import annotations

from pathlib import Path

from pip_dagster.declaration.server import Server
from pip_dagster.delivery.target import DeliveryError
from pip_dagster.errors import SourceError


def address_of(server: Server, root: Path, where: str) -> str:
    """The address, which must not be shown; `where` begins the error.

    Raises:
        DeliveryError: there is none.
    """
    try:
        return server.url(root, where)
    except SourceError as error:
        raise DeliveryError(str(error)) from None
