"""``pip-dagster models``: register, list, show and promote the models of the project's registry."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pip_dagster.cli.canary import canary
from pip_dagster.cli.compare import compare
from pip_dagster.cli.compose import compose
from pip_dagster.cli.gates import first_alias, gate, gate_rows, keygen, promote, sign, tell_audit
from pip_dagster.cli.registering import json_object, number, pairs, window
from pip_dagster.cli.rollback import rollback
from pip_dagster.promotion.reports import newest_report, to_json
from pip_dagster.registry import Registry, RegistryError
from pip_dagster.registry.listing import aliases_of, details, say_metrics, summarize

if TYPE_CHECKING:
    from rich.table import Table

# Wider than any table: a pipe or a log has no width to fit, and a cut or folded digest is useless.
WIDE = 10_000


@contextmanager
def _registry(context: click.Context) -> Iterator[Registry]:
    try:
        yield Registry(context.obj.registry)
    except RegistryError as error:
        raise click.ClickException(str(error)) from error


def _json_option(command: Callable[..., Any]) -> Callable[..., Any]:
    return click.option("--json", "as_json", is_flag=True, help="Print JSON for machines.")(command)


@click.group()
def models() -> None:
    """Models: which versions exist, and which one an alias such as 'champion' names."""


for _command in (canary, compare, compose, gate, promote, rollback, sign, keygen):
    models.add_command(_command)


@models.command()
@click.argument("name")
@click.option(
    "--model",
    "model_file",
    required=True,
    type=click.Path(path_type=Path),
    help='A Booster saved with save_model("model.ubj") or ".json"; never a pickle.',
)
@click.option(
    "--sample",
    required=True,
    type=click.Path(path_type=Path),
    help="Parquet with training rows: the reference for drift, and the source of golden rows.",
)
@click.option(
    "--categories",
    "categories_file",
    type=click.Path(path_type=Path),
    help='JSON {"feature": ["category of code 0", ...]}.',
)
@click.option(
    "--calibration",
    "calibration_file",
    type=click.Path(path_type=Path),
    help='JSON {"method": "platt", "slope": 1.1, "intercept": 0.2} or {"method": "isotonic", "x": [...], "y": [...]}.',
)
@click.option("--classes", help="A classifier's labels in training order: a,b,c.")
@click.option("--feature-names", help="For a Booster trained without names: a,b,c in training order.")
@click.option("--metric", "metrics", multiple=True, metavar="NAME=VALUE", help="Repeatable.")
@click.option("--tag", "tags", multiple=True, metavar="NAME=VALUE", help="Repeatable.")
@click.option("--description", default="")
@click.option("--training-window", metavar="FROM..TO", help="For example 2013-01-01..2013-07-01.")
@click.option("--alias", help="Point this alias, if it is not set yet, at the version.")
@click.option(
    "--time-limit", type=float, default=120.0, show_default=True, help="Seconds to load and score the sample."
)
@_json_option
@click.pass_context
def register(
    context: click.Context,
    name: str,
    model_file: Path,
    sample: Path,
    categories_file: Path | None,
    calibration_file: Path | None,
    classes: str | None,
    feature_names: str | None,
    metrics: tuple[str, ...],
    tags: tuple[str, ...],
    description: str,
    training_window: str | None,
    alias: str | None,
    time_limit: float,
    as_json: bool,
) -> None:
    """Check a model file and store it as the next version of NAME."""
    with _registry(context) as registry:
        version = registry.register(
            name,
            model=model_file,
            sample=sample,
            categories=_categories(categories_file),
            calibration=json_object(calibration_file, "--calibration"),
            classes=classes.split(",") if classes else None,
            feature_names=feature_names.split(",") if feature_names else None,
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
    if as_json:
        click.echo(json.dumps(summary.model_dump(mode="json") | {"created": version.created}))
        return
    state = "registered as" if version.created else "is registered already as"
    click.echo(f"{name} {state} v{version.version} (sha256 {version.digest})")
    click.echo(
        f"{alias} is now v{version.version}" if alias else f"next: pip-dagster models promote {name} v{version.version}"
    )


@models.command(name="list")
@click.argument("name", required=False)
@_json_option
@click.pass_context
def list_models(context: click.Context, name: str | None, as_json: bool) -> None:
    """List the versions of NAME, or of all models."""
    with _registry(context) as registry:
        names = [name] if name else registry.models()
        rows = [summarize(each, aliases_of(registry, each)) for model in names for each in registry.versions(model)]
    if as_json:
        click.echo(json.dumps([row.model_dump(mode="json") for row in rows]))
    elif not rows:
        click.echo("no models yet; add one with: pip-dagster models register NAME --model FILE --sample FILE.parquet")
    else:
        table = _table(
            "model", "version", "aliases", "objective", "features", "metrics", "registered", "by", "description"
        )
        for row in rows:
            table.add_row(
                row.model,
                f"v{row.version}",
                ", ".join(row.aliases),
                row.objective,
                str(row.features),
                say_metrics(row.metrics),
                f"{row.registered_at:%Y-%m-%d %H:%M}",
                row.registered_by,
                row.description,
            )
        _print(table)


@models.command()
@click.argument("name")
@click.argument("ref", default="champion")
@_json_option
@click.pass_context
def show(context: click.Context, name: str, ref: str, as_json: bool) -> None:
    """Show one version (REF: 2, v2 or an alias; the champion by default), after verifying its files."""
    with _registry(context) as registry:
        version = registry.get(name, ref)
        version.verify()
        aliases = aliases_of(registry, version)
        report = newest_report(registry.root, name, version.version)
    manifest = version.manifest
    if as_json:
        content = manifest.model_dump(mode="json")
        extra: dict[str, Any] = {
            "aliases": aliases,
            "path": str(version.path),
            "manifest_digest": version.manifest_digest,
        }
        extra["gates"] = to_json(report) if report else None
        click.echo(json.dumps(content | extra))
        return
    facts = _table("", "")
    for key, value in details(version, aliases).items():
        facts.add_row(key, value)
    features = _table("feature", "type", "missing in training", "mean", "categories")
    for feature in manifest.features:
        reference = manifest.feature_reference[feature.name]
        mean = "" if reference.mean is None else f"{reference.mean:.6g}"
        total = sum(reference.counts) + reference.missing
        features.add_row(
            feature.name, feature.type, f"{reference.missing / total:.1%}", mean, ", ".join(feature.categories or ())
        )
    if report:
        gates = _table(f"gates of {report.pipeline}, {report.made_at:%Y-%m-%d %H:%M} UTC", "figure", "threshold", "")
        for row in gate_rows(report):
            gates.add_row(*row)
        _print(facts, gates, features)
        return
    _print(facts, features)


@models.command()
@click.argument("name")
@click.option("--alias", help="This alias only.")
@_json_option
@click.pass_context
def history(context: click.Context, name: str, alias: str | None, as_json: bool) -> None:
    """Every move of NAME's aliases, oldest first."""
    with _registry(context) as registry:
        registry.versions(name)  # an unknown model is an error, not an empty history
        changes = registry.alias_history(name, alias)
    if as_json:
        click.echo(json.dumps([change.model_dump(mode="json") for change in changes]))
    elif not changes:
        click.echo(f"{name}: no alias has been set yet; set one with: pip-dagster models promote {name} VERSION")
    else:
        table = _table("at", "alias", "from", "to", "by", "why")
        for change in changes:
            previous = f"v{change.previous}" if change.previous else ""
            at = f"{change.at:%Y-%m-%d %H:%M:%S}"
            table.add_row(at, change.alias, previous, f"v{change.version}", change.by, change.why)
        _print(table)


def _categories(path: Path | None) -> dict[str, list[str]] | None:
    lists = json_object(path, "--categories")
    if lists is not None and not all(isinstance(values, list) for values in lists.values()):
        raise click.ClickException(f'--categories {path} must hold {{"feature": ["category of code 0", ...], ...}}')
    return lists


def _table(*columns: str) -> "Table":
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False, show_header=any(columns))
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _print(*tables: "Table") -> None:
    import sys

    from rich.console import Console

    console = Console(width=None if sys.stdout.isatty() else WIDE, markup=False, emoji=False, highlight=False)
    for table in tables:
        console.print(table)
