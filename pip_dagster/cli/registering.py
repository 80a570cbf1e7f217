"""What the commands that register something take from their options."""

import json
from pathlib import Path
from typing import Any

import click


def json_object(path: Path | None, option: str) -> dict[str, Any] | None:
    """The JSON object in a file, None without one."""
    if path is None:
        return None
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise click.ClickException(f"cannot read {option} {path}: {error}") from error
    if not isinstance(found, dict):
        raise click.ClickException(f"{option} {path} must hold a JSON object, not {type(found).__name__}")
    return found


def pairs(option: str, texts: tuple[str, ...]) -> list[tuple[str, str]]:
    """NAME=VALUE options as pairs."""
    parted = [text.partition("=") for text in texts]
    wrong = [text for text, (key, equals, _) in zip(texts, parted, strict=True) if not (key and equals)]
    if wrong:
        raise click.BadParameter(f"{wrong[0]!r} is not NAME=VALUE", param_hint=option)
    return [(key, value) for key, _, value in parted]


def number(key: str, text: str) -> float:
    """A metric's value."""
    try:
        return float(text)
    except ValueError:
        raise click.BadParameter(f"{key}={text}: {text!r} is not a number", param_hint="--metric") from None


def window(text: str | None) -> tuple[str, str] | None:
    """FROM..TO as a pair."""
    if text is None:
        return None
    start, dots, end = text.partition("..")
    if not (start and dots and end):
        raise click.BadParameter(f"{text!r} is not FROM..TO", param_hint="--training-window")
    return start, end
