"""What `models register` and `models compose` share: options, how their values are read, and what they print."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import reduce
from pathlib import Path
from typing import Any

import click

from pip_dagster.api.registering import first_alias, record_in_audit
from pip_dagster.cli.options import json_option
from pip_dagster.cli.output import echo, progress, show_json
from pip_dagster.errors import RegistryError
from pip_dagster.registry.listing import aliases_of, composed, summarize
from pip_dagster.registry.store import Registry
from pip_dagster.registry.version import ModelVersion

_OPTIONS = (
    click.option("--metric", "metrics", multiple=True, metavar="NAME=VALUE", help="Repeatable."),
    click.option("--tag", "tags", multiple=True, metavar="NAME=VALUE", help="Repeatable."),
    click.option("--description", default="", help="What a reader of `models show` should know."),
    click.option("--training-window", metavar="FROM..TO", help="For example 2013-01-01..2013-07-01."),
    click.option("--alias", help="Point this alias at the version, if it is not set yet."),
    click.option("--outcome", metavar="COLUMN", help="The column with the outcomes of the held-out rows."),
    click.option("--held-out", is_flag=True, help="The sample's rows are held out: never trained on."),
    click.option(
        "--held-out-sample",
        type=click.Path(path_type=Path),
        help="Parquet with other rows, with --outcome: training, tuning and calibration never saw them.",
    ),
    click.option(
        "--time-limit", type=float, default=120.0, show_default=True, help="Seconds to load and score the sample."
    ),
    json_option,
)


def registering_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of both commands."""
    return reduce(lambda decorated, option: option(decorated), reversed(_OPTIONS), command)


def described(
    calibration_file: Path | None,
    metrics: tuple[str, ...],
    tags: tuple[str, ...],
    description: str,
    training_window: str | None,
    time_limit: float,
    **stated: Any,
) -> dict[str, Any]:
    """The arguments of `Registry.register` and `Registry.compose` that these options stand for."""
    return {
        "calibration": json_object(calibration_file, "--calibration"),
        "metrics": {key: _number(key, value) for key, value in _pairs("--metric", metrics)},
        "tags": dict(_pairs("--tag", tags)),
        "description": description,
        "training_window": _window(training_window),
        "time_limit": time_limit,
        **_held_out(**stated),
    }


def _held_out(outcome: str | None, held_out: bool, held_out_sample: Path | None) -> dict[str, Any]:
    """Which rows are held out: those of the sample, or others."""
    if held_out and held_out_sample is not None:
        raise click.BadParameter("give it or --held-out, not both", param_hint="--held-out-sample")
    return {"outcome": outcome, "held_out": held_out if held_out_sample is None else held_out_sample}


def finish(context: click.Context, version: ModelVersion, alias: str | None, as_json: bool, done: str) -> None:
    """Point the alias at a stored version and print the version; `done` describes what happened to a new one.

    Raises:
        RegistryError: the version is stored, but the alias was not moved; the JSON is printed before.
    """
    registry, failure = Registry(context.obj.registry), None
    try:
        if alias:
            first_alias(registry, version, alias)
            record_in_audit(context.obj, version.name, registry.alias_history(version.name, alias)[-1], progress)
    except RegistryError as error:
        failure = error
    if as_json:
        summary = summarize(version, aliases_of(registry, version)).model_dump(mode="json")
        show_json(summary | {"created": version.created, "error": str(failure) if failure else None})
    if failure:
        failure.answered = as_json
        raise failure
    if as_json:
        return
    state = done if version.created else "is already registered as"
    echo(f"{version.name} {state} v{version.version} (sha256 {version.digest})")
    for line in composed(version):
        echo(f"  {line}")
    next_step = f"next: pip-dagster models promote {version.name} v{version.version}"
    echo(f"{alias} is now v{version.version}" if alias else next_step)


def json_object(path: Path | None, option: str) -> dict[str, Any] | None:
    """The JSON object in a file, None without one."""
    if path is None:
        return None
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise click.ClickException(f"cannot read {option} {path}: {error}") from error
    if not isinstance(found, dict):
        raise click.ClickException(f"{option} {path} must hold a JSON object, not {type(found).__name__}")
    return found


def _pairs(option: str, texts: tuple[str, ...]) -> list[tuple[str, str]]:
    """NAME=VALUE options as pairs."""
    split = [text.partition("=") for text in texts]
    if wrong := [text for text, (key, equals, _) in zip(texts, split, strict=True) if not (key and equals)]:
        raise click.BadParameter(f"{wrong[0]!r} is not NAME=VALUE", param_hint=option)
    return [(key, value) for key, _, value in split]


def _number(key: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise click.BadParameter(f"{key}={text}: {text!r} is not a number", param_hint="--metric") from None


def _window(text: str | None) -> tuple[str, str] | None:
    """FROM..TO as a pair."""
    if text is None:
        return None
    start, dots, end = text.partition("..")
    if not (start and dots and end):
        raise click.BadParameter(f"{text!r} is not FROM..TO", param_hint="--training-window")
    return start, end
