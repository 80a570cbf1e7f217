"""Names of models and aliases, which are also names of folders and files."""

import re

from pip_dagster.errors import InvalidName

# No leading dot or dash: hidden work folders and command-line options stay distinct from names.
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_VERSION = re.compile(r"[vV]?([0-9]{1,9})")


def check_model_name(name: str) -> str:
    """Return the name, or raise InvalidName."""
    return _check(name, "model name")


def check_alias(alias: str) -> str:
    """Return the alias, or raise InvalidName; ``v2`` and ``2`` are versions, not aliases."""
    if _VERSION.fullmatch(alias):
        raise InvalidName(f"alias {alias!r} reads like a version number; choose a word such as 'champion'")
    return _check(alias, "alias")


def parse_ref(ref: int | str) -> int | str:
    """A version number for 2, "2" or "v2"; else the alias. Raises InvalidName."""
    if isinstance(ref, int):
        return ref
    number = _VERSION.fullmatch(ref)
    return int(number.group(1)) if number else check_alias(ref)


def parse_models_uri(text: str) -> tuple[str, str | None] | None:
    """Name and alias of MLflow's ``models:/name@alias`` or ``models:/name``; None for any other text.

    Raises InvalidName for ``models:/name/3`` and what is no such URI at all.
    """
    if not text.startswith("models:/"):
        return None
    name, at, alias = text.removeprefix("models:/").partition("@")
    if "/" in name or (at and not alias):
        raise InvalidName(
            f"{text!r} is not usable here: expected models:/NAME@ALIAS; a version is chosen by pointing the alias at it"
        )
    return check_model_name(name), check_alias(alias) if alias else None


def _check(name: str, what: str) -> str:
    if not _NAME.fullmatch(name):
        raise InvalidName(
            f"{what} {name!r} is not usable: expected 1 to 128 letters, digits, '_', '.' or '-', beginning with a "
            "letter, digit or '_'; rename it"
        )
    return name
