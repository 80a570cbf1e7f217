"""`pip-dagster models compose`: a version that consists of other versions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from pip_dagster.api.registering import check_may_store
from pip_dagster.cli.output import progress
from pip_dagster.cli.registering import described, finish, registering_options
from pip_dagster.registry.store import Registry
from pip_dagster.registry.version import ModelVersion


@click.command()
@click.argument("name")
@click.argument("composition", type=click.Path(path_type=Path))
@click.option(
    "--sample",
    required=True,
    type=click.Path(path_type=Path),
    help="Parquet with feature rows: the members' features and every column that a condition reads.",
)
@click.option(
    "--calibration", "calibration_file", type=click.Path(path_type=Path), help="JSON, as for `models register`."
)
@registering_options
@click.pass_context
def compose(
    context: click.Context,
    name: str,
    composition: Path,
    sample: Path,
    alias: str | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Compose the next version of NAME from registered versions, as declared in COMPOSITION (YAML).

    `ensemble:` lists versions whose scores are averaged; `segments:` names a version for each segment of the rows.
    Aliases are resolved now, and the members' files are copied: later changes to the members have no effect.
    """
    from pip_dagster.ledger.versions import check_recorded
    from pip_dagster.registry.composition import read
    from pip_dagster.registry.members import resolve

    check_may_store(context.obj, name, alias)
    registry = Registry(context.obj.registry)
    origins = resolve(read(composition), registry.get).origins
    check_recorded(context.obj, *origins, purpose="reading the ledger for a composition")
    version = registry.compose(name, composition, sample=sample, **described(**options))
    calibrated = _calibrated_members(registry, version)
    if calibrated and version.manifest.calibration is None:
        progress(
            f"note: the calibration of {', '.join(calibrated)} is not used: raw scores are combined. Fit a calibration "
            "to the composite and pass it with --calibration"
        )
    finish(context, version, alias, as_json, "composed as")


def _calibrated_members(registry: Registry, version: ModelVersion) -> list[str]:
    members = version.manifest.composite.members if version.manifest.composite else ()
    origins = [registry.get(member.model_name, member.version) for member in members]
    return [str(origin) for origin in origins if origin.manifest.calibration]
