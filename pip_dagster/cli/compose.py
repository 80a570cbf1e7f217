"""``pip-dagster models compose``: a version made of versions."""

import json
from pathlib import Path

import click

from pip_dagster.cli.gates import first_alias, tell_audit
from pip_dagster.cli.registering import json_object, number, pairs, window
from pip_dagster.registry import Registry, RegistryError
from pip_dagster.registry.listing import aliases_of, composed, summarize


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
@click.option("--metric", "metrics", multiple=True, metavar="NAME=VALUE", help="Repeatable.")
@click.option("--tag", "tags", multiple=True, metavar="NAME=VALUE", help="Repeatable.")
@click.option("--description", default="")
@click.option("--training-window", metavar="FROM..TO", help="For example 2013-01-01..2013-07-01.")
@click.option("--alias", help="Point this alias, if it is not set yet, at the version.")
@click.option(
    "--time-limit", type=float, default=120.0, show_default=True, help="Seconds to load and score the sample."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON for machines.")
@click.pass_context
def compose(
    context: click.Context,
    name: str,
    composition: Path,
    sample: Path,
    calibration_file: Path | None,
    metrics: tuple[str, ...],
    tags: tuple[str, ...],
    description: str,
    training_window: str | None,
    alias: str | None,
    time_limit: float,
    as_json: bool,
) -> None:
    """Make the next version of NAME out of registered ones, as COMPOSITION (YAML) says.

    `ensemble:` lists versions whose scores are averaged, `segments:` names a version for each segment of the rows.
    Aliases are resolved now, and the members' files are copied: what becomes of them later changes nothing.
    """
    try:
        registry = Registry(context.obj.registry)
        version = registry.compose(
            name,
            composition,
            sample=sample,
            calibration=json_object(calibration_file, "--calibration"),
            metrics={key: number(key, value) for key, value in pairs("--metric", metrics)},
            tags=dict(pairs("--tag", tags)),
            description=description,
            training_window=window(training_window),
            time_limit=time_limit,
        )
        if alias:
            first_alias(registry, version, alias)
            tell_audit(context)
        summary = summarize(version, aliases_of(registry, version))
        calibrated = _calibrated_members(registry, version.manifest.composite)
    except RegistryError as error:
        raise click.ClickException(str(error)) from error
    if calibrated and version.manifest.calibration is None:
        click.echo(
            f"note: the calibration of {', '.join(calibrated)} is not taken along: raw scores are combined. Fit one "
            "to the composite, and give it with --calibration",
            err=True,
        )
    if as_json:
        click.echo(json.dumps(summary.model_dump(mode="json") | {"created": version.created}))
        return
    state = "composed as" if version.created else "is there already as"
    click.echo(f"{name} {state} v{version.version} (sha256 {version.digest})")
    for line in composed(version):
        click.echo(f"  {line}")
    click.echo(
        f"{alias} is now v{version.version}" if alias else f"next: pip-dagster models promote {name} v{version.version}"
    )


def _calibrated_members(registry: Registry, composite: object) -> list[str]:
    from pip_dagster.registry.composite import Composite

    assert isinstance(composite, Composite)
    origins = [registry.get(member.model_name, member.version) for member in composite.members]
    return [str(origin) for origin in origins if origin.manifest.calibration]
