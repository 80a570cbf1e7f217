"""Errors of targets without the secrets that the environment holds for them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

if TYPE_CHECKING:
    from pip_dagster.declaration.deliver import DeclaredTarget

_OF_S3 = ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
_SHORTEST = 4  # characters; a shorter word would be found in any text


def redacted(text: str, declared: DeclaredTarget, root: Path) -> str:
    """The text, with stars for what the target's variables and file hold, and for a password in its URL."""
    place = declared.postgres or declared.webhook
    names = [*_OF_S3]
    if declared.webhook and declared.webhook.secret_env:
        names.append(declared.webhook.secret_env)
    values = [*map(os.environ.get, names), place.now(root) if place else None]
    for value in sorted(filter(None, values), key=len, reverse=True):
        password = _password(value)
        for secret in (value, password, unquote(password)):
            if len(secret) >= _SHORTEST or secret == password != "":
                text = text.replace(secret, "***")
    return text


def _password(url: str) -> str:
    try:
        return urlsplit(url).netloc.rpartition("@")[0].partition(":")[2]
    except ValueError:
        return ""
