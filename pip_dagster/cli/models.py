"""`pip-dagster models`: register, list, show and promote the models of the project's registry."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from pip_dagster.api.registering import check_may_store, stated
from pip_dagster.cli.canary import canary
from pip_dagster.cli.card import card
from pip_dagster.cli.cells import Share, moment
from pip_dagster.cli.compare import compare
from pip_dagster.cli.compose import compose
from pip_dagster.cli.gates import GATE_COLUMNS, gate, gate_rows, keygen, promote, sign
from pip_dagster.cli.group import Commands
from pip_dagster.cli.options import json_option
from pip_dagster.cli.output import echo, progress, show_json, show_pairs, show_table, terminal_width
from pip_dagster.cli.registering import described, finish, json_object, registering_options
from pip_dagster.cli.rollback import rollback
from pip_dagster.cli.table import Heading
from pip_dagster.declaration.project import Project
from pip_dagster.promotion.reports import newest_report, to_json
from pip_dagster.registry.listing import aliases_of, details, say_metrics, summarize
from pip_dagster.registry.manifest import Manifest
from pip_dagster.registry.store import Registry

_CATEGORIES = 8  # of a feature, as a terminal shows them


@click.group(cls=Commands)
def models() -> None:
    """Models: which versions exist, and which one an alias such as 'champion' names."""


for _command in (canary, card, compare, compose, gate, promote, rollback, sign, keygen):
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
@click.option("--missing", type=float, help="A number that training counted as missing, such as -999.")
@click.option("--offset", help="The column of the base margin, in units of the margin, such as log(exposure).")
@click.option(
    "--training-scores",
    multiple=True,
    metavar="COLUMN|FILE.parquet",
    help="What training itself predicted for the sample: a column of it (repeat for each class), or a file.",
)
@click.option(
    "--training-set",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="What the model was trained on, as `features export` wrote it: its digest, range and proof are recorded.",
)
@registering_options
@click.pass_context
def register(
    context: click.Context,
    name: str,
    model_file: Path,
    sample: Path,
    categories_file: Path | None,
    classes: str | None,
    feature_names: str | None,
    missing: float | None,
    offset: str | None,
    training_scores: tuple[str, ...],
    training_set: Path | None,
    alias: str | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Check a model file and store it as the next version of NAME."""
    from pip_dagster.api.rows import read_manifest

    check_may_store(context.obj, name, alias)
    trained_on = read_manifest(training_set) if training_set else None
    version = Registry(context.obj.registry).register(
        name,
        model=model_file,
        sample=sample,
        categories=_categories(categories_file),
        classes=classes.split(",") if classes else None,
        feature_names=feature_names.split(",") if feature_names else None,
        missing=missing,
        offset=offset,
        training_scores=training_scores[0] if len(training_scores) == 1 else list(training_scores) or None,
        **stated(described(**options), trained_on),
    )
    if not (as_json or version.manifest.training_check):
        progress(
            "note: not verified against training; give --training-scores, the predictions of training for the sample"
        )
    finish(context, version, alias, as_json, "registered as")


@models.command(name="list")
@click.argument("name", required=False)
@json_option
@click.pass_obj
def list_models(project: Project, name: str | None, as_json: bool) -> None:
    """List the versions of NAME, or of all models."""
    registry = Registry(project.registry)
    names = [name] if name else registry.models()
    rows = [summarize(each, aliases_of(registry, each)) for model in names for each in registry.versions(model)]
    if as_json:
        show_json([row.model_dump(mode="json") for row in rows])
        return
    if not rows:
        echo("no models yet; add one with: pip-dagster models register NAME --model FILE --sample FILE.parquet")
        return
    show_table(
        None,
        [
            *("model", "version", "aliases", Heading("objective", optional=True), Heading("features", optional=True)),
            *("metrics", Heading("registered", optional=True), Heading("by", optional=True)),
            Heading("description", below=True),
        ],
        (
            [
                row.model,
                f"v{row.version}",
                ", ".join(row.aliases),
                row.objective,
                row.features,
                say_metrics(row.metrics),
                row.registered_at,
                row.registered_by,
                row.description,
            ]
            for row in rows
        ),
    )


@models.command()
@click.argument("name")
@click.argument("ref", default="champion")
@json_option
@click.pass_obj
def show(project: Project, name: str, ref: str, as_json: bool) -> None:
    """Verify the files of one version and show it (REF: 2, v2 or an alias; the champion by default)."""
    registry = Registry(project.registry)
    version = registry.get(name, ref)
    version.verify()
    aliases = aliases_of(registry, version)
    report = newest_report(registry.root, name, version.version)
    manifest = version.manifest
    if as_json:
        extra = {"aliases": aliases, "path": str(version.path), "manifest_digest": version.manifest_digest}
        show_json(manifest.model_dump(mode="json") | extra | {"gates": to_json(report) if report else None})
        return
    show_pairs(None, details(version, aliases).items())
    if report:
        show_table(f"\ngates of {report.pipeline}, {moment(report.made_at)}", GATE_COLUMNS, gate_rows(report))
    if manifest.held_out and len(manifest.outputs) == 1:
        show_table("\nheld-out rows by score", ["score", "rows", "mean score", "mean outcome"], _bins(manifest))
    rows = []
    for feature in manifest.features:
        reference = manifest.feature_reference[feature.name]
        missing = reference.missing / (sum(reference.counts) + reference.missing)
        categories = _shown(feature.categories or ())
        rows.append([feature.name, feature.type, Share(missing), reference.mean, categories])
    show_table(
        "\nfeatures",
        [
            "feature",
            "type",
            Heading("missing in training", optional=True),
            Heading("mean", optional=True),
            Heading("categories", below=True),
        ],
        rows,
    )


@models.command()
@click.argument("name")
@click.option("--alias", help="This alias only.")
@json_option
@click.pass_obj
def history(project: Project, name: str, alias: str | None, as_json: bool) -> None:
    """List every move of NAME's aliases, oldest first."""
    registry = Registry(project.registry)
    registry.versions(name)  # an unknown model is an error, not an empty history
    changes = registry.alias_history(name, alias)
    if as_json:
        show_json([change.model_dump(mode="json") for change in changes])
        return
    if not changes:
        echo(f"{name}: no alias has been set yet; set one with: pip-dagster models promote {name} VERSION")
        return
    rows = (
        [
            change.at,
            change.alias,
            f"v{change.previous}" if change.previous else "",
            f"v{change.version}",
            change.by,
            change.why,
        ]
        for change in changes
    )
    show_table(None, ["at", "alias", "from", "to", Heading("by", optional=True), Heading("why", below=True)], rows)


def _bins(manifest: Manifest) -> list[list[Any]]:
    """The held-out rows in each bin of the score; a calibrated version's bins are of the raw score."""
    assert manifest.held_out
    (output,) = manifest.outputs
    edges = [f"{edge:.4g}" for edge in manifest.score_reference[output].edges]
    names = [f"up to {edges[0]}", *(f"to {edge}" for edge in edges[1:]), f"above {edges[-1]}"] if edges else ["all"]
    return [
        [name, each.rows, each.score / each.rows, each.outcome / each.rows]
        for name, each in zip(names, manifest.held_out.bins[output], strict=True)
        if each.rows
    ]


def _shown(categories: Sequence[str]) -> str:
    """The categories; on a terminal the first of many, since a hundred would hide the other features."""
    more = len(categories) - _CATEGORIES if terminal_width() else 0
    if more <= 0:
        return ", ".join(categories)
    return f"{', '.join(categories[:_CATEGORIES])} and {more} more, see --json"


def _categories(path: Path | None) -> dict[str, list[str]] | None:
    lists = json_object(path, "--categories")
    if lists is not None and not all(isinstance(values, list) for values in lists.values()):
        raise click.ClickException(f'--categories {path} must hold {{"feature": ["category of code 0", ...], ...}}')
    return lists
