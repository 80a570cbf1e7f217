"""Names of models and aliases, which are also names of folders and files."""

from __future__ import annotations

import re

from pip_dagster.errors import InvalidName

# No leading dot or dash: hidden work folders and command-line options stay distinct from names.
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_VERSION = re.compile(r"[vV]?([0-9]{1,9})")


def check_model_name(name: str) -> str:
    """Return the name.

    Raises:
        InvalidName: it cannot be the name of a folder.
    """
    return _check(name, "model name")


def check_alias(alias: str) -> str:
    """Return the alias.

    Raises:
        InvalidName: it cannot be the name of a file, or reads like a version, as `v2` and `2` do.
    """
    if _VERSION.fullmatch(alias):
        raise InvalidName(f"alias {alias!r} reads like a version number; choose a word such as 'champion'")
    return _check(alias, "alias")


def parse_ref(ref: int | str) -> int | str:
    """The version number of `2`, `"2"` or `"v2"`; any other text is an alias.

    Raises:
        InvalidName: the text is neither.
    """
    if isinstance(ref, int):
        return ref
    number = _VERSION.fullmatch(ref)
    return int(number.group(1)) if number else check_alias(ref)


def parse_models_uri(text: str) -> tuple[str, str | None] | None:
    """The name and alias of MLflow's `models:/name@alias` or `models:/name`; None for text that is not such a URI.

    Raises:
        InvalidName: the URI names a version, as `models:/name/3` does, or is malformed.
    """
    if not text.startswith("models:/"):
        return None
    name, at, alias = text.removeprefix("models:/").partition("@")
    if "/" in name or (at and not alias):
        raise InvalidName(
            f"{text!r} is not usable here: expected models:/NAME@ALIAS; to choose a version, point the alias at it"
        )
    return check_model_name(name), check_alias(alias) if alias else None


def _check(name: str, what: str) -> str:
    if not _NAME.fullmatch(name):
        raise InvalidName(
            f"{what} {name!r} is not usable: expected 1 to 128 letters, digits, '_', '.' or '-', beginning with a "
            "letter, digit or '_'; rename it"
        )
    return name
